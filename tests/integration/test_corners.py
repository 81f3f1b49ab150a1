"""Two things at nearly the same moment, on RabbitMQ and PostgreSQL: a message is held while another goes by.

The orchestrator is turned by the test; the kitchen is a Celery worker of its own, in a thread or, where
several processes matter, a prefork pool. The same corners in the simulator are in
``tests/simulation/test_corners.py`` and ``test_scenarios.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from kombu import Connection
from sqlalchemy.orm import Session

from sagas_framework import (
    Act,
    Context,
    EmbeddedWorkers,
    Participant,
    Policy,
    Queue,
    Saga,
    SagaInstance,
    Sagas,
    Status,
    orchestrator_app,
    participant_app,
)
from sagas_framework.core.ids import operation_id
from sagas_framework.core.instance import Phase
from sagas_framework.storage.ports import ActRow
from sagas_framework.transport.arrivals import wire_message
from sagas_framework.transport.connecting import kombu_queue
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.worker.participating import ParticipantBeat
from tests.integration.kitchen import (
    Cook,
    Handlers,
    Meal,
    MealSaga,
    OpenTicket,
    kitchen,
    make_kitchen,
    open_tickets,
    step,
)
from tests.integration.without_inbox import Desk
from tests.servers import wait_until

COMMANDS: Final = kitchen.queue.name
REPLIES: Final = "meal_replies"
TIMEOUT: Final = timedelta(seconds=30)


class LateSaga(Saga[Meal], name="late_meal", version=1):
    """Cook, then open the ticket: after the pivot, so it is never given up."""

    cook = step.command(Cook, lambda meal: Cook(ticket_id=0), pivot=True, timeout=TIMEOUT)
    open_ticket = step.command(OpenTicket, lambda meal: OpenTicket(order_id=meal.order_id), timeout=TIMEOUT)


class House:
    """An orchestrator turned by hand, a kitchen that opens when the test says so, and a hand on the queues.

    Attributes:
        unanswered: tasks of the messages that the kitchen took and did not answer.
    """

    def __init__(self, orders: str, meals: str, broker: str, *, outside: bool = False) -> None:
        self.handlers = Handlers()
        self.desk = Desk(orders, broker, [MealSaga, LateSaga], Queue(REPLIES))
        self.participant = make_kitchen(meals, self.handlers)
        self.unanswered: list[str] = []
        self.broker = broker
        self._meals = meals
        self._outside = outside
        self._connection = Connection(broker)
        self._channel: Any = self._connection.default_channel
        self.id = ""
        self._purge()

    def close(self) -> None:
        self._connection.release()
        self.desk.close()
        self.participant.engine.dispose()

    def start(self, saga: type[Saga[Meal]]) -> None:
        self.id = self.desk.start(saga, Meal(order_id=1))

    @contextmanager
    def kitchen_open(self, workers: int = 1) -> Iterator[None]:
        """Workers that take what waits for the kitchen, each one message at a time."""
        # A worker disposes of its engine's connections when it begins, so each has an engine of its own.
        kitchens = [make_kitchen(self._meals, self.handlers, outside=self._outside) for _ in range(workers)]
        apps = [participant_app(self._watched(kitchen), broker=self.broker) for kitchen in kitchens]
        for number, app in enumerate(apps):
            app.main = f"kitchen-{number}"  # each needs a name of its own on the broker
            # Celery's timer thread outlives its worker, and so might a beat the databases of the test.
            app.steps["consumer"].discard(ParticipantBeat)
        with EmbeddedWorkers(apps):
            yield
        for one in kitchens:
            one.engine.dispose()

    def _watched(self, participant: Participant) -> Participant:
        receive = participant.receive

        def watched(message: WireMessage) -> WireMessage | None:
            reply = receive(message)
            if reply is None:
                self.unanswered.append(str(message.headers["task"]))
            return reply

        participant.receive = watched  # type: ignore[method-assign]
        return participant

    # the broker
    def _purge(self) -> None:
        """Empty the queues, which the test before may have left with something in them."""
        for queue in (kitchen.queue, Queue(REPLIES)):
            bound = kombu_queue(queue)(self._channel)
            bound.declare()
            bound.purge()

    def waiting(self, queue: str) -> int:
        """How many messages are in the queue that nobody has taken."""
        return int(self._channel.queue_declare(queue, passive=True).message_count)

    def doubled(self, queue: str) -> None:
        """The first message of the queue, and a copy of it, are its last."""
        message = self._channel.basic_get(queue, no_ack=True)
        copy = wire_message(queue, message)
        self.desk.publisher.publish([copy, copy])

    def hold(self, queue: str) -> Callable[[], None]:
        """Take the first message out of the queue, unacknowledged; call the result to put it back."""
        wait_until(lambda: self.waiting(queue) > 0, f"a message in {queue}")
        message = self._channel.basic_get(queue, no_ack=False)

        def put_back() -> None:
            self._channel.basic_reject(message.delivery_tag, requeue=True)

        return put_back

    # the saga
    @property
    def saga(self) -> SagaInstance:
        return self.desk.sagas.get(self.id)

    @property
    def words(self) -> list[str]:
        return self.desk.words(self.id)

    def until(self, there: Callable[[], bool]) -> None:
        """Turn until it is so."""
        self.desk.until(self.id, lambda _: there())

    def act(
        self, act: Act, step: str | None = None, *, revision: int | None = None, force: bool = False
    ) -> int:
        """An operator's act, not yet carried out; its number."""
        return self.desk.sagas.act(
            self.id, act, by="ann", reason="test", step=step, revision=revision, force=force
        )

    def answer(self, number: int) -> ActRow:
        """What became of an act."""
        return self.desk.sagas.act_answer(number)

    def sent_again(self, step: str) -> None:
        """Let time pass until the step's message has been sent once more."""
        before = self.words.count(f"{step}.sent_again")
        for _ in range(50):
            self.desk.later(timedelta(seconds=60))
            if self.words.count(f"{step}.sent_again") > before:
                return
        raise AssertionError(f"{step} was not sent again: {self.words}")


@pytest.fixture
def new_house(
    postgres_urls: Callable[[], str], rabbitmq_module_url: str
) -> Iterator[Callable[[bool], House]]:
    """Makes the house of a test, in fresh databases; its queues are empty."""
    houses: list[House] = []

    def make(outside: bool) -> House:
        houses.append(House(postgres_urls(), postgres_urls(), rabbitmq_module_url, outside=outside))
        return houses[0]

    yield make
    for house in houses:
        house.close()


@pytest.fixture
def house(new_house: Callable[[bool], House]) -> House:
    """One whose kitchen opens tickets inside its transaction."""
    return new_house(False)


@pytest.fixture(params=[False, True], ids=["in its transaction", "outside"])
def any_house(request: pytest.FixtureRequest, new_house: Callable[[bool], House]) -> House:
    """The same, and one whose kitchen opens tickets outside."""
    return new_house(request.param)


# ---- a compensation overtakes its command -----------------------------------------------------------


def test_a_command_that_its_compensation_has_overtaken_is_refused_when_it_comes(any_house: House) -> None:
    house = any_house
    house.start(MealSaga)
    put_back = house.hold(COMMANDS)
    house.desk.act(house.id, Act.CANCEL)
    with house.kitchen_open():
        assert house.desk.ended(house.id).status is Status.COMPENSATED

        put_back()
        house.until(lambda: "reply_ignored" in house.words)

    assert house.desk.told(house.id, "reply_ignored")["result"] == "refused"
    assert house.handlers.opened == house.handlers.closed == []
    assert open_tickets(house.participant.engine) == 0


# ---- the reply to attempt 1 arrives during attempt 2 --------------------------------------------------


def test_a_failure_of_attempt_1_that_comes_during_attempt_2_is_not_counted_for_it(any_house: House) -> None:
    """The command comes twice and is answered twice; the second answer is held until attempt 2 is at work.
    Counted for attempt 2, which is the last, it would turn the saga back."""
    house = any_house
    working, go = threading.Event(), threading.Event()

    def fails_first(command: OpenTicket, context: Context) -> None:
        if context.attempt == 1:
            raise OSError("the oven is out")
        working.set()
        assert go.wait(60)

    house.handlers.opening = fails_first
    house.start(MealSaga)
    house.doubled(COMMANDS)
    with house.kitchen_open():
        wait_until(lambda: house.waiting(REPLIES) == 2, "both deliveries are answered")
        put_back = house.hold(REPLIES)
        house.until(lambda: house.saga.steps["open_ticket"].phase is Phase.PAUSING)
        house.desk.later(timedelta(seconds=2))
        assert working.wait(60)

        put_back()
        house.until(lambda: "reply_ignored" in house.words)
        assert house.saga.steps["open_ticket"].phase is Phase.RUNNING
        go.set()
        assert house.desk.ended(house.id).status is Status.COMPLETED

    assert house.words.count("open_ticket.attempt_failed") == 1
    assert house.saga.steps["open_ticket"].attempts == 2
    assert open_tickets(house.participant.engine) == 1


def ticket_opened_and_answer_held(house: House) -> Callable[[], None]:
    """The step after the pivot is done, and its answer waits; what puts it back. The kitchen is closed."""
    house.start(LateSaga)
    with house.kitchen_open():
        house.until(lambda: "cook.succeeded" in house.words)
        house.desk.consumer.close()  # so that the next reply stays in its queue
        put_back = house.hold(REPLIES)
    assert open_tickets(house.participant.engine) == 1
    assert house.saga.steps["open_ticket"].phase is Phase.RUNNING
    return put_back


def kitchen_answers_the_rest(house: House) -> None:
    """Attempt 2 comes to the kitchen at last; its answer is ignored, and the ticket is there once."""
    with house.kitchen_open():
        house.until(lambda: "reply_ignored" in house.words)

    assert house.words.count("open_ticket.succeeded") == 1
    assert len(house.handlers.opened) == open_tickets(house.participant.engine) == 1
    assert house.saga.status is Status.COMPLETED


def test_a_success_of_attempt_1_that_comes_during_attempt_2_is_taken_once(house: House) -> None:
    put_back = ticket_opened_and_answer_held(house)
    number = house.act(Act.RETRY, "open_ticket", force=True)
    house.desk.timekeeper.turn()
    assert not house.answer(number).refused
    assert house.saga.steps["open_ticket"].attempts == 2
    assert house.waiting(COMMANDS) == 1

    put_back()

    assert house.desk.ended(house.id).status is Status.COMPLETED
    kitchen_answers_the_rest(house)


# ---- an operator retries a parked step while its late reply arrives -----------------------------------


def parked(house: House) -> tuple[int, Callable[[], None]]:
    """The step is late and parked: the revision that an operator sees, and what lets the reply arrive."""
    put_back = ticket_opened_and_answer_held(house)
    house.desk.later(TIMEOUT + timedelta(seconds=1))
    assert house.saga.status is Status.PARKED
    return house.saga.revision, put_back


def test_a_late_reply_is_taken_first_and_the_retry_is_refused(house: House) -> None:
    seen, put_back = parked(house)
    put_back()
    assert house.desk.ended(house.id).status is Status.COMPLETED

    number = house.act(Act.RETRY, "open_ticket", revision=seen)
    house.desk.timekeeper.turn()

    assert house.answer(number).refused
    assert house.waiting(COMMANDS) == 0
    assert house.words.count("open_ticket.succeeded") == 1
    assert open_tickets(house.participant.engine) == 1


def test_the_retry_is_carried_out_first_and_the_late_reply_ends_the_step(house: House) -> None:
    seen, put_back = parked(house)
    number = house.act(Act.RETRY, "open_ticket", revision=seen)
    house.desk.timekeeper.turn()
    assert not house.answer(number).refused

    put_back()

    assert house.desk.ended(house.id).status is Status.COMPLETED
    kitchen_answers_the_rest(house)


def test_retry_and_late_reply_are_taken_at_once_by_two_threads(house: House) -> None:
    """As in a worker: one thread takes replies, the other turns the timekeeper. The row's lock decides."""
    seen, put_back = parked(house)
    house.until(lambda: True)  # the reply consumer is connected
    house.desk.consumer.turn()
    number = house.act(Act.RETRY, "open_ticket", revision=seen)
    together = threading.Barrier(2)

    def takes_the_reply() -> None:
        together.wait(30)
        put_back()
        while "open_ticket.succeeded" not in house.words:
            house.desk.consumer.turn()

    taking = threading.Thread(target=takes_the_reply)
    taking.start()
    together.wait(30)
    house.desk.timekeeper.turn()
    taking.join(60)

    assert house.desk.ended(house.id).status is Status.COMPLETED
    if house.answer(number).refused:
        assert house.waiting(COMMANDS) == 0
        assert open_tickets(house.participant.engine) == 1
    else:
        kitchen_answers_the_rest(house)


# ---- cancel during a command in flight ----------------------------------------------------------------


def test_a_compensation_of_a_command_that_is_at_work_waits_and_then_undoes(any_house: House) -> None:
    """The other worker finds the key busy, or the claim live, and drops the compensation; it comes again."""
    house = any_house
    working, go = threading.Event(), threading.Event()

    def slowly(command: OpenTicket, context: Context) -> None:
        working.set()
        assert go.wait(60)

    house.handlers.opening = slowly
    house.start(MealSaga)
    with house.kitchen_open(workers=2):
        assert working.wait(60)
        house.desk.act(house.id, Act.CANCEL)
        wait_until(lambda: house.unanswered == ["kitchen.close_ticket"], "the compensation is dropped")
        assert house.handlers.closed == []

        go.set()
        house.until(lambda: "reply_ignored" in house.words)
        assert open_tickets(house.participant.engine) == 1
        house.sent_again("open_ticket")
        assert house.desk.ended(house.id).status is Status.COMPENSATED

    key = operation_id(house.id, "open_ticket")
    assert house.handlers.opened == house.handlers.closed == [key]
    assert open_tickets(house.participant.engine) == 0


def test_a_cancel_while_the_pivot_is_at_work_lets_it_end_and_the_saga_goes_on(house: House) -> None:
    working, go = threading.Event(), threading.Event()

    def slowly(command: Cook, context: Context) -> None:
        working.set()
        assert go.wait(60)

    house.handlers.cooking = slowly
    house.start(MealSaga)
    with house.kitchen_open(workers=2):
        house.until(working.is_set)
        assert "asked first" in house.desk.act(house.id, Act.CANCEL)
        wait_until(lambda: house.unanswered == ["kitchen.cook.settle"], "the question is dropped")

        go.set()
        assert house.desk.ended(house.id).status is Status.COMPLETED

    assert house.handlers.closed == []
    assert len(house.handlers.cooked) == open_tickets(house.participant.engine) == 1


# ---- a handler that takes long ------------------------------------------------------------------------

TAKES: Final = timedelta(seconds=float(os.environ.get("SAGAS_LONG_HANDLER", "5")))
"""How long the handler is at work, at least. Its message is sent again twenty times meanwhile."""
OFTEN: Final = Policy(resend_first=TAKES / 21, resend_ceiling=TAKES / 21, resend_cap=1)
AGAIN: Final = 20


@contextmanager
def pool_of_four(folder: Path, **environment: str) -> Iterator[None]:
    """`long_kitchen` as a prefork pool of four processes."""
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.long_kitchen", "worker"]
    options = ["--pool", "prefork", "-c", "4", "--without-gossip", "--without-mingle", "-l", "INFO"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command + options,
            cwd=Path(__file__).parents[2],
            env=os.environ | environment | {"KITCHEN_FOLDER": str(folder), "C_FORCE_ROOT": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        (folder / "go").touch()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("outside", [False, True], ids=["in its transaction", "outside"])
@pytest.mark.timeout(120 + 2 * TAKES.total_seconds())
def test_a_long_handler_is_begun_once_though_its_message_is_sent_again_twenty_times(
    postgres_urls: Callable[[], str], rabbitmq_url: str, tmp_path: Path, outside: bool
) -> None:
    """Each copy is taken by another process of the pool and dropped, so that the others stay free."""
    sagas = Sagas("orders", postgres_urls(), sagas=[MealSaga], reply_queue=Queue(REPLIES), policy=OFTEN)
    sagas.upgrade()
    meals = postgres_urls()
    participant = make_kitchen(meals, Handlers())
    diary = tmp_path / "diary"

    def start(order: int) -> str:
        with Session(sagas.engine) as session, session.begin():
            return sagas.start(MealSaga, Meal(order_id=order), session=session).id

    def begun(order: int) -> int:
        told = diary.read_text() if diary.exists() else ""
        return told.count(f"begun {order} ")

    def sent_again(saga_id: str) -> int:
        words = [line.recorded.entry for line in sagas.history(saga_id)]
        return words.count("open_ticket.sent_again")

    kitchen_is = {"KITCHEN_DATABASE": meals, "KITCHEN_BROKER": rabbitmq_url}
    kitchen_is |= {"KITCHEN_OUTSIDE": "yes"} if outside else {}
    with (
        Connection(rabbitmq_url) as connection,
        pool_of_four(tmp_path, **kitchen_is),
        EmbeddedWorkers([orchestrator_app(sagas, broker=rabbitmq_url)]),
    ):
        channel: Any = connection.default_channel
        slow = start(1)
        wait_until(lambda: begun(1) == 1, f"the handler begins; see {tmp_path}/log")
        since, before = time.monotonic(), sent_again(slow)
        wait_until(
            lambda: sent_again(slow) >= before + AGAIN, "it is sent again", 60 + 2 * TAKES.total_seconds()
        )
        assert time.monotonic() - since >= TAKES.total_seconds() * 0.9
        wait_until(
            lambda: int(channel.queue_declare(COMMANDS, passive=True).message_count) == 0, "copies are taken"
        )
        quick = sagas.wait(start(2), timeout=timedelta(seconds=30))
        assert begun(1) == 1
        assert "ended 1 " not in diary.read_text()

        (tmp_path / "go").touch()
        ended = sagas.wait(slow, timeout=timedelta(seconds=60))

    assert ended.status is quick.status is Status.COMPLETED
    assert ended.steps["open_ticket"].attempts == 1
    assert begun(1) == diary.read_text().count("ended 1 ") == 1
    assert open_tickets(participant.engine) == 2
    participant.engine.dispose()
    sagas.engine.dispose()
