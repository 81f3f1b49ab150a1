"""The order service's orchestrator, with the other services answered for it, beside a web test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text

from order_service.orchestrator import sagas
from sagas_framework import Failure
from sagas_framework.core.events import ReplyReceived, Result
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.sql import SqlStore
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage, from_wire
from sagas_framework.transport.publisher import Load, Receipt

REPLIES: Final[Mapping[str, Any]] = {
    "restaurant_service.create_ticket": {"ticket_id": 7},
    "accounting_service.authorize_card": {"transaction_id": 12},
    "inventory_service.reserve_items": {"reservation_id": 5},
    "accounting_service.charge": {"charge_id": 31},
    "delivery_service.ship_order": {"shipment_id": 8817},
}


@dataclass
class BackOffice:
    """It is moved by hand (`turn`), or while somebody waits (`at_work`).

    Args:
        refusals: by task; anything else succeeds.
        silent: tasks that nobody answers.
    """

    refusals: dict[str, Failure] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    sent: list[WireMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        store = SqlStore(sagas.engine)
        self._orchestrator = Orchestrator(
            store, sagas.definitions, self, reply_to="r", clock=lambda: sagas.clock()
        )
        self._timekeeper = Timekeeper(self._orchestrator, [])

    # ---- the publisher ----------------------------------------------------------------------------

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.sent += messages
        return [Receipt.CONFIRMED] * len(messages)

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...

    # ---- work -------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do all that is due, answers included, until nothing moves any more."""
        self._timekeeper.turn()
        while self.sent:
            command = from_wire(self.sent.pop(0))
            if command.task in self.silent:
                continue
            refusal = self.refusals.get(command.task)
            result = Result.SUCCESS if refusal is None else Result.REFUSED
            error = (
                {} if refusal is None else {"type": refusal.wire_name, "message": str(refusal), "module": ""}
            )
            reply = ReplyReceived(
                command.saga_id,
                sagas.clock(),
                (command.message_id,),
                command.task,
                result,
                REPLIES.get(command.task),
                error,
            )
            assert self._orchestrator.process([reply]) == []
            self._timekeeper.turn()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Turn again and again in another thread."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                self.turn()
                sagas.woken.wait(0.01)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join()


def told(order_id: str) -> list[str]:
    """What the customer of the order was told, in order."""
    query = text("SELECT body FROM saga_outbox ORDER BY number")
    with sagas.engine.connect() as connection:
        bodies = [json.loads(body) for body in connection.scalars(query)]
    return [body["message"] for body in bodies if body["order_id"] == order_id]
