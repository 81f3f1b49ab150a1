"""Commands handled in batches, on real databases: each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sagas_framework import (
    Command,
    Context,
    EmbeddedWorkers,
    Later,
    Participant,
    Queue,
    Sagas,
    Status,
    Unavailable,
    Undo,
    orchestrator_app,
    participant_app,
)
from sagas_framework.core.ids import Kind
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.reads import read_beats, read_quarantine
from sagas_framework.transport.envelope import WireMessage
from tests.integration.kitchen import (
    CloseTicket,
    Handlers,
    KitchenClosed,
    Meal,
    MealSaga,
    OpenTicket,
    TicketOpened,
    answer,
    kitchen,
    make_kitchen,
    open_tickets,
    sent,
)
from tests.servers import wait_until

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


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
    assert len(set(handlers.opened)) == 2  # the first perhaps twice: it was rolled back with the others


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


def test_of_a_lone_command_only_what_its_handler_does_goes_by_itself(postgres_url: str) -> None:
    participant = make_kitchen(postgres_url, Handlers())
    statements: list[str] = []
    event.listen(
        participant.engine, "before_cursor_execute", lambda *told: statements.append(told[2].split()[0])
    )

    message = sent(str(uuid4()), Kind.DO)
    assert answers(participant, [message]) == ["success"]

    assert statements == ["INSERT"]  # its row goes with the beginning and the end
    assert answers(participant, [message]) == ["success"]  # from the row
    assert statements == ["INSERT"]


def test_a_refusal_on_the_payload_alone_has_nobody_handled_again(database: str) -> None:
    def refuses(context: Context) -> None:
        raise KitchenClosed("at night")

    handlers, messages = orders(works, refuses, works)
    participant = make_kitchen(database, handlers)

    assert answers(participant, messages) == ["success", "refused", "success"]
    assert len(handlers.opened) == 2


def test_a_kind_that_had_work_to_take_back_is_guarded_for_a_while(database: str) -> None:
    calls: list[int] = []

    def fails_after_writing(command: OpenTicket, context: Context) -> None:
        calls.append(command.order_id)
        if command.order_id == 1:
            writes_and_raises(OSError("the oven is out"))(context)

    now = [NOON]
    participant = make_kitchen(database, Handlers(opening=fails_after_writing), clock=lambda: now[0])

    def handled(minutes: float) -> list[int]:
        now[0] = NOON + timedelta(minutes=minutes)
        calls.clear()
        batch = [
            sent(str(uuid4()), Kind.DO, payload={"order_id": n}, not_after=NOON + timedelta(days=1))
            for n in range(3)
        ]
        assert answers(participant, batch) == ["success", "failed", "success"]
        return list(calls)

    assert handled(0) == [0, 1, 0, 1, 2]
    assert handled(0.9) == [0, 1, 2]
    assert handled(1.8) == [0, 1, 2]  # it failed again meanwhile
    assert handled(2.9) == [0, 1, 0, 1, 2]


def test_what_is_handled_again_is_told_once(database: str, caplog: pytest.LogCaptureFixture) -> None:
    def fails(context: Context) -> None:
        raise OSError("before it wrote")

    handlers, messages = orders(fails, writes_and_raises(OSError("after it wrote")), works)
    participant = make_kitchen(database, handlers)

    assert answers(participant, messages) == ["failed", "failed", "success"]
    told = [record.getMessage() for record in caplog.records if "failed (attempt" in record.getMessage()]
    assert [line.rpartition(": ")[2] for line in told] == ["before it wrote", "after it wrote"]


class Base(DeclarativeBase):
    pass


class Plate(Base):
    """A row whose id the database gives; there is one of each name."""

    __tablename__ = "kitchen_plates"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


def make_plates(database: str) -> Participant:
    """Answers with the plate's id as the ticket's. Order 0 cannot be answered; 1 and 2 want one plate."""
    participant = Participant(kitchen, database=database)
    participant.upgrade()
    Base.metadata.create_all(participant.engine)

    @participant.handles(OpenTicket)
    def open_ticket(command: OpenTicket, context: Context) -> Later[TicketOpened]:
        plate = Plate(name=f"plate {1 if command.order_id == 2 else command.order_id}")
        context.session.add(plate)
        return lambda: TicketOpened(ticket_id=plate.id if command.order_id else 1 // 0)

    @participant.undoes(CloseTicket, loads=lambda command: (Plate, command.ticket_id))
    def close_ticket(command: CloseTicket, undo: Undo[OpenTicket]) -> None:
        assert undo.reply is not None
        undo.session.delete(undo.session.get_one(Plate, undo.reply.ticket_id))

    return participant


def plates(participant: Participant) -> int:
    with participant.engine.connect() as connection:
        return len(connection.execute(text("SELECT 1 FROM kitchen_plates")).all())


@pytest.mark.parametrize("how", ["together", "each", "alone"])
def test_a_reply_may_wait_for_what_the_database_gives(database: str, how: str) -> None:
    participant = make_plates(database)
    receive: Callable[[Sequence[WireMessage]], list[WireMessage | None]] = {
        "together": participant.receive_all,
        "each": participant.receive_each,
        "alone": lambda messages: [participant.receive(message) for message in messages],
    }[how]
    sagas = [str(uuid4()) for _ in range(5)]
    numbers = [3, 1, 0, 2, 4]
    messages = [sent(saga, Kind.DO, payload={"order_id": n}) for saga, n in zip(sagas, numbers, strict=True)]

    found = [answer(reply) for reply in receive(messages)]

    assert [result for result, _ in found] == ["success", "success", "failed", "failed", "success"]
    assert [payload["type"] for result, payload in found if result == "failed"] == [
        "ZeroDivisionError",
        "IntegrityError",
    ]
    assert len({payload["ticket_id"] for result, payload in found if result == "success"}) == 3
    assert [answer(reply) for reply in receive(messages)] == found
    assert plates(participant) == 3

    undoing = [
        sent(saga, Kind.UNDO, payload={"ticket_id": payload.get("ticket_id")})
        for saga, (_, payload) in zip(sagas, found, strict=True)
    ]
    assert [answer(reply) for reply in receive(undoing)] == [("success", None)] * 5
    assert plates(participant) == 0


class Serve(Command[None], service=kitchen, name="serve", failures=[KitchenClosed]):
    dishes: list[str]
    wishes: dict[str, Any]


def served(dishes: list[str], wishes: dict[str, Any] | None = None) -> WireMessage:
    message = sent(str(uuid4()), Kind.DO, payload={"dishes": dishes, "wishes": wishes or {}})
    return replace(message, headers={**message.headers, "task": Serve.contract.task})


@pytest.mark.parametrize("how", ["alone", "in a batch"])
def test_what_is_handled_again_is_handled_with_the_same_message(database: str, how: str) -> None:
    participant = make_kitchen(database, Handlers())
    seen: list[list[str]] = []

    @participant.handles(Serve)
    def serve(command: Serve, context: Context) -> None:
        seen.append([])
        while command.dishes:
            seen[-1].append(command.dishes.pop())
        seen[-1].append(command.wishes["with"].pop())
        if len(seen) == 1:
            context.session.begin_nested()  # left open: the attempt cannot be kept

    message = served(["soup", "fish"], {"with": ["salt"]})
    replies = [participant.receive(message)] if how == "alone" else participant.receive_all([message])

    assert [answer(reply)[0] for reply in replies] == ["success"]
    assert seen == [["fish", "soup", "salt"]] * 2


def test_who_swallows_that_anothers_reply_could_not_be_made_loses_it_nothing(database: str) -> None:
    participant = make_plates(database)

    @participant.handles(Serve)
    def serve(command: Serve, context: Context) -> None:
        try:
            context.session.add(Plate(name="special"))
        except Exception as error:
            raise KitchenClosed(str(error)) from error
        if command.dishes == ["tripe"]:
            raise KitchenClosed("nobody cooks this")

    # Whoever has had work to take back is guarded the next time.
    assert answers(participant, [served(["tripe"])]) == ["refused"]
    messages = [sent(str(uuid4()), Kind.DO, payload={"order_id": 0}), served(["soup"])]

    assert answers(participant, messages) == ["failed", "success"]
    assert answers(participant, messages) == ["failed", "success"]
    assert plates(participant) == 1


def test_a_copy_is_answered_with_the_reply_that_was_waited_for(database: str) -> None:
    participant = make_plates(database)
    saga = str(uuid4())
    message = sent(saga, Kind.DO, payload={"order_id": 7})

    first, copy, undone = participant.receive_all([message, message, sent(saga, Kind.UNDO)])

    assert answer(first) == answer(copy)
    assert (answer(first)[0], answer(undone)[0]) == ("success", "success")
    assert plates(participant) == 0


def test_a_batch_that_adds_takes_one_statement_for_all(postgres_url: str) -> None:
    participant = make_plates(postgres_url)
    statements: list[str] = []
    event.listen(
        participant.engine, "before_cursor_execute", lambda *told: statements.append(told[2].split()[0])
    )

    participant.receive_all([sent(str(uuid4()), Kind.DO, payload={"order_id": n}) for n in range(3, 20)])

    assert statements == ["SELECT", "SELECT", "INSERT", "INSERT"]  # locks, rows; plates, rows


def test_one_by_one_each_has_a_transaction_of_its_own(postgres_url: str) -> None:
    seen: list[int] = []

    def looks(context: Context) -> None:
        with reading(participant.engine) as connection:  # what others have committed
            seen.append(connection.scalar(text("SELECT count(*) FROM kitchen_tickets")) or 0)

    handlers, messages = orders(looks, writes_and_raises(OSError("the oven is out")), looks)
    participant = make_kitchen(postgres_url, handlers)

    found = [answer(reply)[0] for reply in participant.receive_each(messages)]

    assert found == ["success", "failed", "success"]
    assert seen == [0, 1]


def test_one_by_one_a_database_that_goes_away_leaves_all_to_come_again(postgres_url: str) -> None:
    participant = make_kitchen(postgres_url, Handlers())
    messages = [sent(str(uuid4()), Kind.DO) for _ in range(3)]
    begun: list[object] = []

    def away(*_: Any) -> None:
        begun.append(None)
        if len(begun) > 2:
            raise StoreUnavailable("the server is shut down")

    event.listen(participant.engine, "begin", away)
    with pytest.raises(StoreUnavailable):
        participant.receive_each(messages)
    event.remove(participant.engine, "begin", away)

    assert [answer(reply)[0] for reply in participant.receive_each(messages)] == ["success"] * 3
    assert open_tickets(participant.engine) == 3


@pytest.mark.parametrize("size", [1, 50])
def test_a_worker_in_batches_serves_sagas_and_shows_that_it_turns(
    rabbitmq_url: str, postgres_url: str, size: int
) -> None:
    handlers = Handlers()
    participant = make_kitchen(postgres_url, handlers)
    sagas = Sagas("orders", postgres_url, sagas=[MealSaga], reply_queue=Queue("batch_replies"))
    sagas.upgrade()
    apps = [
        orchestrator_app(sagas, broker=rabbitmq_url),
        participant_app(participant, broker=rabbitmq_url, batch=size),
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
