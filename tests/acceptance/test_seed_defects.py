"""The 24 defects of the demo that this project descends from do not come back.

Some are tested here, each on the fastest level that is honest; others are shown elsewhere:

| defect | what holds now | shown by |
|---|---|---|
| 1 no timeouts | silence ends a step | `tests/acceptance/test_demo.py::test_a_restaurant_that_never_answers_is_given_up_within_ten_seconds` |
| 1 stuck after a restart | rows go on | `tests/acceptance/test_demo.py::test_after_kill_9_the_next_start_brings_every_saga_to_its_end` |
| 1 a step may have no timeout | each has | `tests/unit/test_saga.py::test_a_step_is_waited_for_five_minutes_unless_it_says_otherwise` |
| 2 `.succeeded` never written | it is | `tests/unit/core/test_decide_forward.py::test_a_success_writes_the_demos_words_and_the_succeeded_that_it_never_wrote` |
| 2 `.failed` never written | it is | `tests/unit/core/test_decide_forward.py::test_a_bad_consumer_writes_the_demos_words` |
| 8 a hook's error hangs the saga | undone | `tests/unit/core/test_decide_forward.py::test_a_hook_that_raises_before_the_pivot_compensates_its_own_step_which_is_known_to_have_succeeded` |
| 8 a reply for an unknown saga | set aside | `tests/integration/test_bad_input.py::test_a_reply_for_an_unknown_saga_is_set_aside_at_the_orchestrator` |
| 9 fire and forget | each undo is awaited | `tests/unit/core/test_decide_undo.py::test_steps_are_undone_in_reverse_one_after_the_other` |
| 10 a failed undo is swallowed | it is tried again | `tests/integration/test_participant.py::test_an_undo_that_failed_is_tried_again_and_undoes_once` |
| 11 a failed undo stops the others | it does not | `tests/unit/core/test_decide_undo.py::test_a_compensation_that_fails_too_often_parks_and_those_before_it_go_on` |
| 12 money stays authorized | it is let go | `tests/acceptance/test_demo.py::test_a_launch_ends_as_its_name_says_and_everybody_tells_the_same_story` |
| 13 the failed step is not undone | it is | `tests/unit/core/test_decide_undo.py::test_a_step_without_an_answer_is_compensated_with_what_is_known_of_it` |
| 14 no step log | attempts, replies, errors | `tests/unit/core/test_decide_forward.py::test_the_reply_is_remembered_in_the_state_and_in_the_step` |
| 14 a later failure hides the first | it does not | `tests/unit/core/test_decide_undo.py::test_the_outcome_is_that_of_what_turned_the_saga_back_not_of_what_came_later` |
| 15 order and saga not atomic | one commit | `tests/integration/test_front_door.py::test_a_rolled_back_caller_has_started_nothing` |
| 16 replies matched by task | by id | `tests/unit/core/test_decide_replies.py::test_two_steps_with_the_same_command_are_told_apart_by_the_ids` |
| 19 orders share their items | own rows | `tests/acceptance/test_demo.py::test_every_order_keeps_the_items_that_it_was_placed_with` |
| 20 payloads not validated | refused | `tests/integration/test_participant.py::test_an_invalid_payload_is_refused_with_its_path_and_the_refusal_is_kept` |
| 21 a GET starts a saga | POST only | `tests/acceptance/test_demo.py::test_looking_at_a_launch_starts_nothing_and_says_how_to` |
| 21 no way to see a saga | its own page | `tests/acceptance/test_demo.py::test_a_launch_is_accepted_with_both_ids_and_the_place_to_look` |
| 23 no migrations | `saga db upgrade` | `tests/integration/test_cli.py::test_the_way_of_an_operator_from_an_empty_database_to_a_cancelled_saga` |
| 24 no test with a broker | all of it | `tests/acceptance/test_local.py::test_a_launch_ends_as_its_name_says_and_the_rows_agree` |

Not yet: 22 (AsyncAPI documents are not generated yet) and of 23 the containers' health checks (there
is no compose file yet).
"""  # noqa: E501

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from celery.exceptions import Ignore, Reject
from sqlalchemy import event
from sqlalchemy.orm import Session
from typing_extensions import override

from app_common.messaging.restaurant_service_messaging import CreateTicket, OrderItem
from sagas_framework import Outcome, OutcomeKind, Queue, Saga, Status
from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.sql import SqlStore, SqlTransaction
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage, from_wire, reply_received
from sagas_framework.transport.publisher import Load, Receipt
from sagas_framework.worker.settings import hardened
from tests.integration.kitchen import (
    Handlers,
    KitchenClosed,
    Meal,
    MealSaga,
    answer,
    make_kitchen,
    open_tickets,
    sent,
)
from tests.integration.test_pivot import Desk
from tests.unit.core import stories

ROOT: Final = Path(__file__).parents[2]
APPROVAL: Final = "approve_restaurant_ticket"


class Killed(BaseException):
    """Ends a process, as far as a test can."""


class Network(Desk):
    """Orchestrator, participant and what is between them, where processes die and messages get lost."""

    dies = False

    def __init__(self, orders: str, meals: str) -> None:
        super().__init__(orders, meals)
        self.timekeeper = Timekeeper(self.orchestrator, ["kitchen.commands"])

    @override
    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        if self.dies:
            raise Killed
        return super().publish(messages)

    @override
    def load(self, queue: str) -> Load:
        return Load(sum(message.queue == queue for message in (*self.commands, *self.replies)))

    def until_sent_again(self) -> None:
        """Time passes until something is on its way."""
        for _ in range(20):
            if self.commands:
                return
            self.later(timedelta(seconds=5))
        raise AssertionError("nothing was sent again")


@pytest.fixture(params=["sqlite_urls", "postgres_urls"])
def desk(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A saga whose first command waits at the participant."""
    urls: Callable[[], str] = request.getfixturevalue(request.param)
    desk = Network(urls(), urls())
    yield desk
    desk.close()


# ---- replies that come twice, or too late -----------------------------------------------------------


def test_a_duplicate_success_reply_does_not_authorize_the_card_twice() -> None:
    """Defect 3."""
    run = stories.Run().until("create_restaurant_ticket")
    reply = run.reply_of("create_restaurant_ticket", Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7})

    for _ in range(3):
        run.happens(reply)

    assert [out.task for out in run.sent].count("accounting_service.authorize_card") == 1


@pytest.mark.parametrize("result", [Result.REFUSED, Result.FAILED])
def test_a_late_failure_does_not_reject_an_approved_order(result: Result) -> None:
    """Defect 4."""
    run = stories.Run().start().until_end()
    already_sent = len(run.sent)

    run.happens(run.reply_of(APPROVAL, Kind.DO, 1, result, error=stories.error_of("TicketGone")))

    assert run.status is Status.COMPLETED
    assert run.order.order == "approved"
    assert len(run.sent) == already_sent


def test_a_late_success_does_not_approve_a_rejected_order() -> None:
    """Defect 4."""
    run = stories.Run().until("authorize_card")
    run.refuses("CardRefused")
    run.until_end()
    already_sent = len(run.sent)

    run.happens(run.reply_of("authorize_card", Kind.DO, 1, Result.SUCCESS, {"transaction_id": "t-9"}))

    assert run.status is Status.COMPENSATED
    assert run.order.order == "rejected"
    assert len(run.sent) == already_sent


# ---- what is committed and what is sent -----------------------------------------------------------------


def test_a_crash_between_the_commit_and_the_sending_loses_no_command(desk: Network) -> None:
    """Defect 5."""
    desk.participant_handles()
    desk.dies = True
    with pytest.raises(Killed):
        desk.orchestrator_hears()

    desk.dies = False
    assert desk.commands == []
    desk.until_sent_again()
    desk.both()

    assert desk.saga.status is Status.COMPLETED
    assert len(desk.handlers.cooked) == 1


class FullDisk(SqlStore):
    """Everything works but the commit."""

    @contextmanager
    @override
    def transaction(self) -> Iterator[SqlTransaction]:
        with super().transaction() as transaction:
            yield transaction
            raise StoreUnavailable("the disk is full")


def test_what_cannot_be_committed_was_not_sent_and_turns_no_saga_back(desk: Network) -> None:
    """Defect 5, the other way round."""
    desk.participant_handles()
    replies = list(desk.replies)
    store = desk.orchestrator.store
    desk.orchestrator.store = FullDisk(desk.sagas.engine)
    with pytest.raises(StoreUnavailable):
        desk.orchestrator_hears()
    unsent = list(desk.commands)

    desk.orchestrator.store = store
    desk.replies = replies  # they were not acknowledged
    desk.orchestrator_hears()
    desk.both()

    assert unsent == []
    assert desk.saga.status is Status.COMPLETED
    assert "compensating" not in [line.recorded.entry for line in desk.sagas.history(desk.id)]


def test_the_id_of_a_message_is_in_the_row_before_the_message_is_sent(desk: Network) -> None:
    """Defect 6."""
    named: list[bool] = []

    class Looking:
        def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
            in_flight = {flight.message_id for _, flight in desk.saga.in_flight()}
            named.extend(message.headers["id"] in in_flight for message in messages)
            return desk.publish(messages)

        def load(self, queue: str) -> Load:
            return desk.load(queue)

        def close(self) -> None: ...

    desk.orchestrator.publisher = Looking()
    desk.both()
    desk.both()

    assert desk.saga.status is Status.COMPLETED
    assert named == [True]


def test_a_lost_reply_is_given_again_and_nothing_is_done_twice(desk: Network) -> None:
    """Defect 7."""
    desk.participant_handles()
    desk.replies.clear()

    desk.until_sent_again()
    desk.both()
    desk.both()

    assert desk.saga.status is Status.COMPLETED
    assert len(desk.handlers.opened) == 1
    assert open_tickets(desk.participant.engine) == 1


def test_workers_acknowledge_after_the_work_and_await_the_brokers_confirmation() -> None:
    """Defect 7."""
    settings = hardened([Queue("kitchen.commands")])

    assert settings["task_acks_late"] is True
    assert settings["broker_transport_options"]["confirm_publish"] is True


def test_two_workers_with_the_same_reply_move_the_saga_once(desk: Network) -> None:
    """Defect 15."""
    desk.participant_handles()
    events = [reply_received(from_wire(reply), desk.now) for reply in desk.replies]
    barrier = threading.Barrier(2)

    def work() -> None:
        orchestrator = Orchestrator(
            SqlStore(desk.sagas.engine),
            desk.sagas.definitions,
            desk,
            reply_to="meal_replies",
            clock=lambda: desk.now,
        )
        barrier.wait(30)
        orchestrator.process(events)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    entries = [line.recorded.entry for line in desk.sagas.history(desk.id)]
    assert [message.headers["task"] for message in desk.commands] == ["kitchen.cook"]
    assert entries.count("open_ticket.succeeded") == entries.count("reply_ignored") == 1


# ---- what is no business failure ----------------------------------------------------------------------


def stopped(state: stories.OrderState) -> stories.CreateTicket:
    raise SystemExit("the worker is told to stop")


class StoppedSaga(Saga[stories.OrderState], name="stopped", version=1):
    """Its worker is told to stop while it builds a request."""

    create_restaurant_ticket = stories.step.command(
        stories.CreateTicket, stopped, compensation=stories.reject_ticket
    )


def test_a_worker_that_is_told_to_stop_compensates_nothing() -> None:
    """Defect 17."""
    run = stories.Run(StoppedSaga.definition)
    before = run.instance

    with pytest.raises(SystemExit):
        run.start()

    assert run.instance == before


def test_ctrl_c_in_a_handler_is_no_answer(sqlite_url: str) -> None:
    """Defect 17."""
    handlers = Handlers()
    participant = make_kitchen(sqlite_url, handlers)
    saga_id = str(uuid4())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    works, handlers.opening = handlers.opening, interrupted
    with pytest.raises(KeyboardInterrupt):
        participant.receive(sent(saga_id, Kind.DO))
    handlers.opening = works

    assert answer(participant.receive(sent(saga_id, Kind.DO)))[0] == "success"
    assert len(handlers.opened) == 1


@pytest.mark.parametrize("error", [Reject("no"), Ignore()])
def test_what_means_something_to_celery_only_is_a_fault_and_no_refusal(
    sqlite_url: str, error: Exception
) -> None:
    """Defect 17."""

    def raising(*_: object) -> None:
        raise error

    participant = make_kitchen(sqlite_url, Handlers(opening=raising))

    assert answer(participant.receive(sent(str(uuid4()), Kind.DO)))[0] == "failed"


@pytest.mark.parametrize("error", [None, OSError("the oven is cold"), KitchenClosed("at night")])
def test_a_handled_message_leaves_no_connection_open(sqlite_url: str, error: Exception | None) -> None:
    """Defect 18."""

    def working(*_: object) -> None:
        if error is not None:
            raise error

    participant = make_kitchen(sqlite_url, Handlers(opening=working))
    taken: list[str] = []
    given_back: list[str] = []
    event.listen(participant.engine, "checkout", lambda *_: taken.append("connection"))
    event.listen(participant.engine, "checkin", lambda *_: given_back.append("connection"))

    participant.receive(sent(str(uuid4()), Kind.DO))

    assert taken
    assert given_back == taken


# ---- what travels -----------------------------------------------------------------------------------


def test_what_is_nested_in_a_payload_is_read_as_the_contract_says() -> None:
    """Defect 20."""
    payload = {"order_id": 1, "customer_id": 70, "items": [{"name": "Dish 1", "quantity": 2}]}

    command = CreateTicket.model_validate(payload)

    assert command.items == [OrderItem(name="Dish 1", quantity=2)]
    assert command.to_json() == payload


def test_a_failure_tells_its_peers_nothing_of_our_insides(sqlite_url: str) -> None:
    """Defect 20."""

    def failing(*_: object) -> None:
        raise OSError("the oven is cold")

    participant = make_kitchen(sqlite_url, Handlers(opening=failing))

    result, payload = answer(participant.receive(sent(str(uuid4()), Kind.DO)))

    assert result == "failed"
    assert payload == {"type": "OSError", "message": "the oven is cold", "module": "builtins"}


# ---- starting ---------------------------------------------------------------------------------------


def test_importing_a_service_makes_no_table_and_no_file(tmp_path: Path) -> None:
    """Defect 23."""
    services = ("order_service", "consumer_service", "restaurant_service", "accounting_service")
    imports = ", ".join([*(f"{service}.worker" for service in services), "order_service.web"])

    subprocess.run(
        [sys.executable, "-c", f"import {imports}"],
        cwd=ROOT,
        env={**os.environ, "DEMO_DATA": str(tmp_path / "data"), "APP_SQLALCHEMY_DATABASE_URI": ""},
        check=True,
    )

    assert list(tmp_path.iterdir()) == []


def test_starting_a_saga_runs_none_of_its_steps(desk: Network) -> None:
    """Defect 21: what a web request does is write two rows."""
    already_sent = len(desk.commands)

    with Session(desk.sagas.engine) as session, session.begin():
        run = desk.sagas.start(MealSaga, Meal(order_id=2), session=session)

    assert desk.sagas.get(run.id).started is False
    assert desk.sagas.history(run.id) == []
    assert len(desk.commands) == already_sent


def test_why_a_saga_was_undone_is_told_by_kind_name_message_and_step() -> None:
    """Defect 14."""
    run = stories.Run().until("authorize_card")

    run.refuses("CardRefused")

    assert run.outcome == Outcome(OutcomeKind.REFUSED, "CardRefused", "says CardRefused", "authorize_card")


# ---- this file ----------------------------------------------------------------------------------------


def test_every_defect_has_a_test_and_every_test_named_above_is_there() -> None:
    assert __doc__ is not None
    source = Path(__file__).read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", __doc__)
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    shown = {int(number) for number in re.findall(r"^\| (\d+) ", __doc__, re.MULTILINE)}
    here = {int(number) for number in re.findall(r'"""Defect (\d+)', source)}

    assert named
    assert missing == []
    assert shown | here | {22} == set(range(1, 25))
