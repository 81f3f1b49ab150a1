"""A pivot whose answer does not come, on real databases: it happened or it did not, and both end right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from sagas_framework import Act, Queue, Sagas, Status
from sagas_framework.core.instance import OutcomeKind, Phase, SagaInstance
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.sql import SqlStore
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage, from_wire, reply_received
from sagas_framework.transport.publisher import Load, Receipt
from tests.integration.kitchen import Handlers, Meal, MealSaga, make_kitchen, open_tickets


class Desk:
    """Orchestrator and participant on their own databases; messages wait until the test delivers them."""

    def __init__(self, orders: str, meals: str) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.commands: list[WireMessage] = []
        self.replies: list[WireMessage] = []
        self.handlers = Handlers()
        self.sagas = Sagas(
            "orders", orders, sagas=[MealSaga], reply_queue=Queue("meal_replies"), clock=lambda: self.now
        )
        self.sagas.upgrade()
        self.participant = make_kitchen(meals, self.handlers, clock=lambda: self.now)
        self.orchestrator = Orchestrator(
            SqlStore(self.sagas.engine),
            self.sagas.definitions,
            self,
            reply_to="meal_replies",
            clock=lambda: self.now,
        )
        self.timekeeper = Timekeeper(self.orchestrator, [])
        with Session(self.sagas.engine) as session, session.begin():
            self.id = self.sagas.start(MealSaga, Meal(order_id=1), session=session).id
        self.timekeeper.turn()

    # the network, as the orchestrator sees it
    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.commands.extend(messages)
        return [Receipt.CONFIRMED] * len(messages)

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None:
        self.sagas.engine.dispose()
        self.participant.engine.dispose()

    def participant_handles(self) -> None:
        """Everything that waits at the participant is handled; its replies wait."""
        waiting, self.commands = self.commands, []
        self.replies += [reply for message in waiting if (reply := self.participant.receive(message))]

    def orchestrator_hears(self) -> None:
        """Everything that waits at the orchestrator is decided, as one batch."""
        waiting, self.replies = self.replies, []
        if waiting:
            self.orchestrator.process([reply_received(from_wire(reply), self.now) for reply in waiting])

    def both(self) -> None:
        self.participant_handles()
        self.orchestrator_hears()

    def later(self, by: timedelta) -> None:
        self.now += by
        self.timekeeper.turn()

    def act(self, act: Act, *, revision: int | None = None, step: str | None = None) -> str:
        """An operator's act, carried out; its answer."""
        number = self.sagas.act(self.id, act, by="ann", reason="test", revision=revision, step=step)
        self.timekeeper.turn()
        answer = self.sagas.act_answer(number)
        assert answer.answer is not None
        return ("refused: " if answer.refused else "") + answer.answer

    @property
    def saga(self) -> SagaInstance:
        return self.sagas.get(self.id)

    @property
    def pivot(self) -> Phase:
        return self.saga.steps["cook"].phase


TIMEOUT = timedelta(seconds=31)


@pytest.fixture(params=["sqlite_urls", "postgres_urls"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A desk whose saga has its pivot in flight: the command waits at the participant."""
    urls: Callable[[], str] = request.getfixturevalue(request.param)
    desk = Desk(urls(), urls())
    desk.both()
    assert desk.pivot is Phase.RUNNING
    yield desk
    desk.close()


def test_it_happened_and_the_saga_goes_on(desk: Desk) -> None:
    desk.participant_handles()
    desk.replies.clear()  # the answer is lost

    desk.later(TIMEOUT)
    assert desk.pivot is Phase.SETTLING
    desk.both()

    assert desk.saga.status is Status.COMPLETED
    assert len(desk.handlers.cooked) == 1
    assert open_tickets(desk.participant.engine) == 1


def test_it_did_not_happen_and_never_will(desk: Desk) -> None:
    lost, desk.commands = desk.commands, []

    desk.later(TIMEOUT)
    desk.both()  # settled: withdrawn
    desk.both()  # the ticket is closed
    desk.commands = lost
    desk.both()  # the lost command turns up

    assert desk.saga.status is Status.COMPENSATED
    assert desk.saga.outcome is not None
    assert desk.saga.outcome.kind is OutcomeKind.EXPIRED
    assert desk.handlers.cooked == []
    assert open_tickets(desk.participant.engine) == 0


def test_the_late_answer_comes_while_it_is_being_settled(desk: Desk) -> None:
    desk.participant_handles()

    desk.later(TIMEOUT)
    desk.orchestrator_hears()
    assert desk.saga.status is Status.COMPLETED
    desk.both()  # what settling answers changes nothing any more

    assert desk.saga.status is Status.COMPLETED
    assert open_tickets(desk.participant.engine) == 1


def test_cancel_loses_against_an_effect_that_is_there(desk: Desk) -> None:
    desk.participant_handles()  # it has happened; the answer is on its way

    assert "asked first" in desk.act(Act.CANCEL)
    desk.participant_handles()
    desk.orchestrator_hears()

    assert desk.saga.status is Status.COMPLETED
    assert len(desk.handlers.cooked) == 1


def test_cancel_wins_against_a_command_still_on_its_way(desk: Desk) -> None:
    on_its_way, desk.commands = desk.commands, []

    desk.act(Act.CANCEL)
    desk.both()
    desk.commands += on_its_way
    desk.both()
    desk.both()

    assert desk.saga.status is Status.COMPENSATED
    assert desk.saga.outcome is not None
    assert desk.saga.outcome.kind is OutcomeKind.CANCELLED
    assert desk.handlers.cooked == []
    assert open_tickets(desk.participant.engine) == 0


def test_an_act_that_was_decided_on_an_older_picture_is_refused(desk: Desk) -> None:
    seen = desk.saga.revision
    desk.participant_handles()
    desk.later(TIMEOUT)

    assert desk.act(Act.CANCEL, revision=seen).startswith("refused: it was decided on revision")
    assert desk.act(Act.CANCEL, revision=desk.saga.revision).startswith("refused: the pivot is being settled")
    desk.both()

    assert desk.saga.status is Status.COMPLETED
    assert desk.act(Act.CANCEL) == "refused: the saga has ended: completed"


def test_the_answer_and_the_settled_answer_in_one_batch_count_once(desk: Desk) -> None:
    desk.participant_handles()
    desk.later(TIMEOUT)
    desk.participant_handles()

    desk.orchestrator_hears()

    assert desk.saga.status is Status.COMPLETED
    entries = [line.recorded.entry for line in desk.sagas.history(desk.id)]
    assert entries.count("cook.succeeded") == 1
    assert entries.count("completed") == 1
