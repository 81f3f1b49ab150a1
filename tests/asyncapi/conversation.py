"""Sagas of the order platform that together make its services say all that they ever say to each other.

Most are launches of the homepage. For the rest something is changed in a service's database in mid-saga: no
order makes the ticket vanish that is to be approved, or the authorization that is to be reversed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from app_common.magic import DECLINED_CUSTOMER, Dish
from order_service.launches import CREATE, LAUNCHES
from sagas_framework.core.ids import operation_id
from tests.acceptance.application import Application
from tests.servers import wait_until

APPROVER: Final = "Chris"
OPERATOR: Final = "ann"
TOKEN: Final = "token-0123456789abcdef"
"""Of who approves orders, and of who switches the shipping."""

APPROVAL: Final = "approve_restaurant_ticket"
TABLES: Final[dict[str, LiteralString]] = {
    "consumer_service": "consumers",
    "restaurant_service": "tickets",
    "accounting_service": "authorizations",
}
"""Where each participant keeps what its step of create_order does."""
PROCESSING_TABLES: Final[dict[str, LiteralString]] = {
    "inventory_service": "reservations",
    "accounting_service": "charges",
    "delivery_service": "shipments",
}
"""The same of process_order."""

INBOXES: Final = {
    "create_restaurant_ticket": "restaurant_service",
    "authorize_card": "accounting_service",
    "reserve_items": "inventory_service",
    "charge": "accounting_service",
}
"""Steps that are undone, and whose inbox remembers that they were done."""

FORGET_RESERVATION: Final = """
WITH gone AS (
    DELETE FROM reservation_lines
    WHERE reservation_id = (SELECT id FROM reservations WHERE operation_key = %(key)s)
)
DELETE FROM reservations WHERE operation_key = %(key)s
"""
PROVEN: Final = {"Authorization": f"Bearer {TOKEN}"}

WITHIN: Final = 90.0  # seconds for a saga to get anywhere: the workers share two cores with other tests


@dataclass(frozen=True)
class Conversation:
    """Drives the application through its front door, its command line and its databases."""

    application: Application

    def run(self) -> None:
        """Every launch and every refusal; returns when all sagas have ended."""
        self._ended(self._launch("/run-success-saga"))  # every worker is up
        # Those with pauses of seconds first; while one waits the others run.
        silent = [self._launch(launch.path) for launch in LAUNCHES if launch.saga == CREATE]
        closed = self._order(Dish.OFF_HOURS)
        unapproved, unreversed, forgotten = (self._order(Dish.NEVER_APPROVED) for _ in range(3))
        self._reject_the_ticket_that_is_being_approved(unapproved)
        self._lose_the_rows_of_the_inboxes(forgotten)
        self._lose_the_authorization(unreversed)
        self._take_over("create_restaurant_ticket", self._parked(silent))
        self._take_over("authorize_card", unreversed)
        for step in ("create_restaurant_ticket", "authorize_card"):
            self._take_over_unanswered(step, forgotten)
        for saga_id in (*silent, closed, unapproved, unreversed, forgotten):
            self._ended(saga_id)
        for service, table in TABLES.items():
            with self._lost(service, table):
                saga = self._ended(self._order(Dish.PLAIN))
            assert saga["outcome"]["name"] == "ProgrammingError", saga["outcome"]
        self._process_orders()

    def _process_orders(self) -> None:
        """The same with orders of items from the stock."""
        _, sold = self._process("milk", 8)  # the milk gets low
        _, missing = self._process("milk", 11)
        _, poor = self._process("bread", 1, customer=DECLINED_CUSTOMER)
        unreleased, forgotten = (self._process("bread", 1, total="1000.00") for _ in range(2))
        for _, waiting in (unreleased, forgotten):
            self._wait_for(waiting, "approval.waiting")
        self._change("inventory_service", FORGET_RESERVATION, operation_id(unreleased[1], "reserve_items"))
        self._lose_the_row_of_the_inbox("reserve_items", forgotten[1])
        for order_id, _ in (unreleased, forgotten):
            self._decide(order_id, approved=False)
        self._wait_for_failures_to_undo("reserve_items", unreleased[1])
        self._take_over("reserve_items", unreleased[1])
        self._take_over_unanswered("reserve_items", forgotten[1])
        for saga_id in (sold, missing, poor, unreleased[1], forgotten[1]):
            self._ended(saga_id)
        self._switch_shipping("deactivate")
        with self._lost("accounting_service", "refunds"):
            unrefunded, unknown = (self._process("oranges", 1)[1] for _ in range(2))
            self._wait_for(unknown, "charge.compensation_failed")
            self._lose_the_row_of_the_inbox("charge", unknown)
            self._wait_for_failures_to_undo("charge", unrefunded)
            self._take_over("charge", unrefunded)
            self._take_over_unanswered("charge", unknown)
        _, refunded = self._process("oranges", 1)
        for saga_id in (unrefunded, unknown, refunded):
            self._ended(saga_id)
        self._switch_shipping("activate")
        for service, table in PROCESSING_TABLES.items():
            with self._lost(service, table):
                saga = self._ended(self._process("apples", 1)[1])
            assert saga["status"] == "compensated", saga

    # ---- starting sagas -----------------------------------------------------------------------------

    def _launch(self, path: str) -> str:
        answer = self.application.ask("POST", path)
        assert answer.status == 202, answer.body
        return str(answer.json["saga_id"])

    def _order(self, dish: str) -> str:
        order = {
            "consumer_id": 70,
            "card_id": 1,
            "price": "19.99",
            "items": [{"name": dish, "quantity": 1}],
        }
        answer = self.application.ask("POST", "/orders", json.dumps(order))
        assert answer.status == 202, answer.body
        return str(answer.json["saga_id"])

    def _process(
        self, item: str, number: int, *, customer: str = "Riley", total: str = "9.99"
    ) -> tuple[str, str]:
        """Order so many of an item; the ids of order and saga."""
        order = {"customer": customer, "items": [item] * number, "total": total}
        answer = self.application.ask("POST", "/processing/orders", json.dumps(order))
        assert answer.status == 202, answer.body
        return str(answer.json["order_id"]), str(answer.json["saga_id"])

    def _decide(self, order_id: str, *, approved: bool) -> None:
        decision = json.dumps({"approver": APPROVER, "approved": approved})
        path = f"/processing/orders/{order_id}/approve"
        answer = self.application.ask("POST", path, decision, more=PROVEN)
        assert answer.status in (200, 202), answer.body

    def _switch_shipping(self, verb: str) -> None:
        port = self.application.pages["delivery_service"]
        answer = self.application.ask("POST", f"/shipping/{verb}", more=PROVEN, port=port)
        assert answer.status == 200, answer.body

    # ---- changing what services believe -------------------------------------------------------------

    def _reject_the_ticket_that_is_being_approved(self, saga_id: str) -> None:
        """Approving it is tried again after a pause; then it is refused."""
        self._wait_for(saga_id, f"{APPROVAL}.attempt_failed")
        self._change(
            "restaurant_service",
            "UPDATE tickets SET status = 'REJECTED' WHERE operation_key = %(key)s",
            operation_id(saga_id, "create_restaurant_ticket"),
        )

    def _lose_the_authorization(self, saga_id: str) -> None:
        """Reversing it fails, as often as it is tried."""
        self._wait_for(saga_id, f"{APPROVAL}.attempt_failed")
        self._change(
            "accounting_service",
            "DELETE FROM authorizations WHERE operation_key = %(key)s",
            operation_id(saga_id, "authorize_card"),
        )
        self._wait_for_failures_to_undo("authorize_card", saga_id)

    def _wait_for_failures_to_undo(self, step: str, saga_id: str) -> None:
        """From the third failure on the pauses are long enough for a person to step in."""
        failed = f"{step}.compensation_failed"
        wait_until(
            lambda: self.application.entries(saga_id).count(failed) >= 3, f"{failed} in {saga_id}", WITHIN
        )

    def _lose_the_rows_of_the_inboxes(self, saga_id: str) -> None:
        """Participants no longer know of what they did; neither undoing nor settling will guess."""
        self._wait_for(saga_id, f"{APPROVAL}.attempt_failed")
        for step in ("create_restaurant_ticket", "authorize_card"):
            self._lose_the_row_of_the_inbox(step, saga_id)

    def _lose_the_row_of_the_inbox(self, step: str, saga_id: str) -> None:
        forget: Final = "DELETE FROM saga_inbox WHERE key = %(key)s"
        self._change(INBOXES[step], forget, operation_id(saga_id, step))

    @contextmanager
    def _lost(self, service: str, table: LiteralString) -> Iterator[None]:
        """The participant has trouble of its own meanwhile: a table is not there."""
        self._tell(service, f"ALTER TABLE {table} RENAME TO lost")
        try:
            yield
        finally:
            self._tell(service, f"ALTER TABLE lost RENAME TO {table}")

    def _change(self, service: str, statement: LiteralString, key: str) -> None:
        changed = self._tell(service, statement, key=key)
        assert changed == 1, f"{statement} changed {changed} rows"

    def _tell(self, service: str, statement: LiteralString, **values: str) -> int:
        """Run a statement in a service's database; how many rows it changed."""
        with psycopg.connect(self.application.databases.replace("{service}", service)) as connection:
            return connection.execute(statement, values).rowcount

    # ---- acting as a person -------------------------------------------------------------------------

    def _parked(self, saga_ids: list[str]) -> str:
        """The one that needs a person."""

        def parked() -> list[str]:
            return [one for one in saga_ids if self.application.saga(one)["status"] == "parked"]

        wait_until(lambda: bool(parked()), "a parked saga", WITHIN)
        (saga_id,) = parked()
        return saga_id

    def _take_over(self, step: str, saga_id: str) -> None:
        """Undo a step by hand: its participant is asked to leave it to us, then it counts as undone."""
        for entry in (f"{step}.handed_over", f"{step}.compensated"):
            self._insist(_complete(step, saga_id))
            self._wait_for(saga_id, entry)

    def _take_over_unanswered(self, step: str, saga_id: str) -> None:
        """Undo a step by hand whose participant cannot say how it stands."""
        self._wait_for(saga_id, f"{step}.parked")
        self._insist(_complete(step, saga_id))
        wait_until(
            lambda: self.application.entries(saga_id).count(f"{step}.parked") == 2,
            f"a settling of {step} that fails in {saga_id}",
            WITHIN,
        )
        self._insist(f"{_complete(step, saga_id)} --force")
        self._wait_for(saga_id, f"{step}.compensated")

    def _insist(self, line: str) -> None:
        """Run the line until it is obeyed: a step that is just being tried again cannot be taken over."""
        until = time.monotonic() + WITHIN
        while True:
            try:
                self.application.say(line)
                return
            except AssertionError as refused:
                if "which needs no person" not in str(refused) or time.monotonic() > until:
                    raise

    # ---- waiting ------------------------------------------------------------------------------------

    def _ended(self, saga_id: str) -> Any:
        return self.application.ended(saga_id, WITHIN)

    def _wait_for(self, saga_id: str, entry: str) -> None:
        wait_until(lambda: entry in self.application.entries(saga_id), f"{entry} in {saga_id}", WITHIN)


def _complete(step: str, saga_id: str) -> str:
    program = Path(sys.executable).with_name("saga")
    return f"{program} -A order_service.worker --json complete {saga_id} --step {step} --reason 'by hand'"
