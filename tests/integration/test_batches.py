"""Commands handled in batches, on real databases: each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from sagas_framework import (
    Context,
    EmbeddedWorkers,
    Participant,
    Queue,
    Sagas,
    Status,
    Unavailable,
    orchestrator_app,
    participant_app,
)
from sagas_framework.core.ids import Kind
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.reads import read_beats, read_quarantine
from sagas_framework.transport.envelope import WireMessage
from tests.integration.kitchen import (
    Handlers,
    KitchenClosed,
    Meal,
    MealSaga,
    OpenTicket,
    answer,
    make_kitchen,
    open_tickets,
    sent,
)
from tests.servers import wait_until


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def answers(participant: Participant, messages: Sequence[WireMessage]) -> list[str]:
    return [answer(reply)[0] for reply in participant.receive_all(messages)]


def orders(*opening: Callable[[Context], None]) -> tuple[Handlers, list[WireMessage]]:
    """A command for each of these functions, which are called when it is handled."""

    def open_as_told(command: OpenTicket, context: Context) -> None:
        opening[command.order_id](context)

    messages = [sent(str(uuid4()), Kind.DO, payload={"order_id": place}) for place in range(len(opening))]
    return Handlers(opening=open_as_told), messages


def works(context: Context) -> None: ...


def writes_and_raises(error: Exception) -> Callable[[Context], None]:
    def handle(context: Context) -> None:
        context.session.execute(text("INSERT INTO kitchen_tickets (operation, status) VALUES ('x', 'open')"))
        raise error

    return handle


def test_each_command_is_answered_as_if_it_were_alone(database: str) -> None:
    handlers, messages = orders(
        works,
        writes_and_raises(KitchenClosed("at night")),
        writes_and_raises(OSError("the oven is out")),
        writes_and_raises(Unavailable("the kitchen is flooded")),
        works,
    )
    bad = sent(str(uuid4()), Kind.DO, payload={"order_id": "seven"})
    participant = make_kitchen(database, handlers)

    found = answers(participant, [*messages, bad])
    again = answers(participant, [*messages, bad])

    assert found == ["success", "refused", "failed", "nothing", "success", "refused"]
    assert again == found
    assert open_tickets(participant.engine) == 2
    assert len(handlers.opened) == 2


def test_messages_of_one_operation_are_handled_in_their_order(database: str) -> None:
    handlers = Handlers()
    participant = make_kitchen(database, handlers)
    saga, other = str(uuid4()), str(uuid4())

    replies = participant.receive_all(
        [
            sent(saga, Kind.DO),
            sent(saga, Kind.DO),
            sent(saga, Kind.UNDO),
            sent(saga, Kind.DO),
            sent(other, Kind.UNDO),
            sent(other, Kind.DO),
        ]
    )

    first, copy, undone, late, early, tombstoned = map(answer, replies)
    assert first == copy
    assert (first[0], undone, early) == ("success", ("success", None), ("success", None))
    assert late[1]["type"] == tombstoned[1]["type"] == "Withdrawn"
    assert (len(handlers.opened), len(handlers.closed)) == (1, 1)
    assert open_tickets(participant.engine) == 0


def test_a_failed_attempt_and_the_next_in_one_batch_count_for_themselves(database: str) -> None:
    troubles = [OSError("the oven is out")]

    def fail_once(_: object, __: object) -> None:
        if troubles:
            raise troubles.pop()

    participant = make_kitchen(database, Handlers(opening=fail_once))
    saga = str(uuid4())

    found = answers(participant, [sent(saga, Kind.DO, attempt=n) for n in (1, 1, 2, 1)])

    assert found == ["failed", "failed", "success", "success"]
    assert open_tickets(participant.engine) == 1


def test_what_cannot_be_handled_is_set_aside_and_the_others_are_answered(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    good = sent(str(uuid4()), Kind.DO)
    unreadable = WireMessage(good.queue, good.headers, good.properties, b"{nonsense")

    found = participant.receive_all([unreadable, good])

    assert [answer(reply)[0] for reply in found] == ["nothing", "success"]
    with reading(participant.engine) as connection:
        assert [message.body for message in read_quarantine(connection)] == ["{nonsense"]


def test_work_that_cannot_be_committed_is_the_fault_of_its_own_command(postgres_url: str) -> None:
    def works_badly(context: Context) -> None:
        context.session.execute(text("INSERT INTO child VALUES (1)"))

    handlers, messages = orders(works, works_badly, works)
    participant = make_kitchen(postgres_url, handlers)
    with participant.engine.begin() as connection:
        connection.execute(text("CREATE TABLE parent (id int PRIMARY KEY)"))
        connection.execute(
            text("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        )

    found = answers(participant, messages)

    assert found == ["success", "failed", "success"]
    assert answers(participant, messages) == found
    assert open_tickets(participant.engine) == 2


def test_a_handler_that_hits_a_lock_leaves_the_others_alone(postgres_url: str) -> None:
    def waits(context: Context) -> None:
        context.session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        context.session.execute(text("LOCK TABLE locked"))

    handlers, messages = orders(works, waits, works)
    participant = make_kitchen(postgres_url, handlers)
    with participant.engine.begin() as connection:
        connection.execute(text("CREATE TABLE locked (id int)"))
    with participant.engine.begin() as holder:
        holder.execute(text("LOCK TABLE locked"))

        found = answers(participant, messages)

    assert found == ["success", "nothing", "success"]
    assert answers(participant, messages) == ["success", "success", "success"]
    assert open_tickets(participant.engine) == 3


def test_an_operation_that_is_being_handled_is_dropped_from_the_batch(postgres_url: str) -> None:
    at_work, may_end = threading.Event(), threading.Event()

    def waits(context: Context) -> None:
        at_work.set()
        may_end.wait(15)

    handlers, (slow, quick) = orders(waits, works)
    participant = make_kitchen(postgres_url, handlers)
    first = threading.Thread(target=participant.receive, args=[slow])
    first.start()
    at_work.wait(15)

    found = answers(participant, [slow, quick])
    may_end.set()
    first.join(15)

    assert found == ["nothing", "success"]
    assert answers(participant, [slow, quick]) == ["success", "success"]
    assert len(handlers.opened) == 2


def test_a_database_that_is_away_leaves_the_whole_batch_to_come_again(postgres_url: str) -> None:
    participant = make_kitchen(postgres_url, Handlers())
    messages = [sent(str(uuid4()), Kind.DO) for _ in range(3)]

    def away(*_: Any) -> None:
        raise StoreUnavailable("the server is shut down")

    event.listen(participant.engine, "begin", away)
    with pytest.raises(StoreUnavailable):
        participant.receive_all(messages)
    event.remove(participant.engine, "begin", away)

    assert answers(participant, messages) == ["success"] * 3


def test_a_batch_takes_few_statements(postgres_url: str) -> None:
    participant = make_kitchen(postgres_url, Handlers())
    participant.receive_all([sent(str(uuid4()), Kind.DO)])
    statements: list[str] = []
    event.listen(
        participant.engine, "before_cursor_execute", lambda *told: statements.append(told[2].split()[0])
    )

    participant.receive_all([sent(str(uuid4()), Kind.DO) for _ in range(20)])

    ours = [word for word in statements if word not in ("SAVEPOINT", "RELEASE")]
    assert ours == ["SELECT", "SELECT", *["INSERT"] * 20, "INSERT"]  # the handlers' own, then the rows


def test_a_worker_in_batches_serves_sagas_and_shows_that_it_turns(
    rabbitmq_url: str, postgres_url: str
) -> None:
    handlers = Handlers()
    participant = make_kitchen(postgres_url, handlers)
    sagas = Sagas("orders", postgres_url, sagas=[MealSaga], reply_queue=Queue("batch_replies"))
    sagas.upgrade()
    apps = [
        orchestrator_app(sagas, broker=rabbitmq_url),
        participant_app(participant, broker=rabbitmq_url, batch=50),
    ]

    with EmbeddedWorkers(apps):
        with sagas.engine.begin() as connection:
            runs = [
                sagas.start(MealSaga, Meal(order_id=number), key=f"meal-{number}", session=connection)
                for number in range(60)
            ]
        ended = [sagas.wait(run, timeout=timedelta(seconds=40)).status for run in runs]

        def beats() -> bool:
            with reading(participant.engine) as connection:
                return any(beat.role == "participant" for beat in read_beats(connection))

        wait_until(beats, "the participant's beat", 15)

    assert ended == [Status.COMPLETED] * 60
    assert open_tickets(participant.engine) == 60
    assert len(set(handlers.cooked)) == len(handlers.cooked) == 60
    participant.engine.dispose()
    sagas.engine.dispose()
