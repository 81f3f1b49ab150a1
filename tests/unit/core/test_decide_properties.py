"""What holds for every story: `decide` is pure, and its instances keep their promises.

The stories are random. Hypothesis chooses what happens next from what can happen: answers to anything
that was ever sent (late, double, contradictory), time that passes, queues that lose messages, operators.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sagas_framework.core.decide import decide
from sagas_framework.core.events import (
    Act,
    Event,
    OperatorActed,
    Outgoing,
    Policy,
    ReplyReceived,
    Result,
    Started,
    TimerFired,
    Unroutable,
)
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN
from sagas_framework.core.instance import Phase, SagaInstance, Status
from sagas_framework.saga import Saga, SagaDefinition, Steps
from sagas_framework.steps import NOTHING_TO_UNDO
from tests.unit.core.stories import (
    CREATE_ORDER,
    DELIVER_ORDER,
    REPLIES,
    SAGA_ID,
    CreateTicket,
    OrderState,
    RejectTicket,
    Run,
    VerifyConsumer,
    error_of,
    new_instance,
)

STEPS: Final = [step.name for step in DELIVER_ORDER.steps]
BROKEN: Final = [
    "",
    "open_ticket",
    "remember_ticket",
    "reject_ticket",
    "note_approval",
    "start_delivery",
    "remember_courier",
    "mark_order_rejected",
    "mark_order_approved",
]
# With the second nothing is sent later than two hours after a step's first command (less a skew).
POLICIES: Final = [
    Policy(resend_cap=3),
    Policy(message_lifetime=timedelta(hours=1), inbox_retention=timedelta(hours=3)),
]
ANSWERS: Final = ["done", "refused", "withdrawn", "yours_to_undo", "perhaps"]
ERRORS: Final = ["Trouble", INBOX_ROW_MISSING, WITHDRAWN]


# ---- what can happen ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """A reply to the `which`-th message that was sent (counted from the last)."""

    which: int
    result: Result
    answer: str
    error: str
    nameless: bool

    def event(self, run: Run) -> Event | None:
        if not run.sent:
            return None
        out = run.sent[-1 - self.which % len(run.sent)]
        payload: Any = None
        if self.result is Result.SUCCESS:
            name = step_of(run.saga, out)
            payload = REPLIES.get(name) if out.kind is Kind.DO else None
            if out.kind is Kind.SETTLE:
                payload = {"answer": self.answer, "reply": REPLIES.get(name), "error": error_of(self.error)}
        refs = () if self.nameless else (out.message_id,)
        error = {} if self.result is Result.SUCCESS else error_of(self.error)
        return ReplyReceived(SAGA_ID, run.now, refs, out.task, self.result, payload, error)


@dataclass(frozen=True)
class Passed:
    """Time passes: some seconds, or until something is due."""

    seconds: float | None
    lost: bool

    def event(self, run: Run) -> Event | None:
        if self.seconds is None:
            run.now = max(run.now, run.instance.due_at or run.now)
        else:
            run.now += timedelta(seconds=self.seconds)
        queues = {out.queue for out in run.sent}
        return TimerFired(SAGA_ID, run.now, dict.fromkeys(queues, run.now) if self.lost else {})


@dataclass(frozen=True)
class Acted:
    """An operator does something, perhaps on an old page."""

    act: Act
    step: str | None
    force: bool
    old: bool

    def event(self, run: Run) -> Event | None:
        reply = REPLIES.get(self.step or "") if self.act is Act.COMPLETE else None
        revision = run.instance.revision - self.old
        return OperatorActed(
            SAGA_ID, run.now, self.act, "ann", "I know why", revision, self.step, reply, self.force
        )


@dataclass(frozen=True)
class Repaired:
    """Our own code works from now on."""

    def event(self, run: Run) -> Event | None:
        run.repair()
        return None


@dataclass(frozen=True)
class Restarted:
    """The nudge comes once more."""

    def event(self, run: Run) -> Event | None:
        return Started(SAGA_ID, run.now)


@dataclass(frozen=True)
class HadNoQueue:
    """The broker returns the message sent last."""

    def event(self, run: Run) -> Event | None:
        return Unroutable(SAGA_ID, run.now, run.sent[-1].message_id) if run.sent else None


Chance = Answered | Passed | Acted | Repaired | Restarted | HadNoQueue

LATEST = st.integers(0, 1)
CHANCES: Final[st.SearchStrategy[Chance]] = st.one_of(
    st.builds(
        Answered,
        which=LATEST | st.integers(0, 20),
        result=st.just(Result.SUCCESS) | st.sampled_from(Result),
        answer=st.sampled_from(ANSWERS),
        error=st.sampled_from(ERRORS),
        nameless=st.sampled_from([False, False, False, True]),
    ),
    st.builds(
        Passed, seconds=st.none() | st.sampled_from([0.0, 1.0, 30.0, 300.0, 9000.0]), lost=st.booleans()
    ),
    st.builds(
        Acted,
        act=st.sampled_from(Act),
        step=st.none() | st.sampled_from(STEPS),
        force=st.booleans(),
        old=st.sampled_from([False, False, False, True]),
    ),
    st.sampled_from([Repaired(), Restarted(), HadNoQueue()]),
)
STORIES: Final = st.tuples(
    st.sampled_from([DELIVER_ORDER, CREATE_ORDER]),
    st.sampled_from(BROKEN),
    st.sampled_from(POLICIES),
    st.booleans(),
    st.lists(st.just(Answered(0, Result.SUCCESS, "done", "", False)), max_size=7),
    st.lists(CHANCES, max_size=25),
)
# Saga, what of our own code is broken, policy, whether the nudge came, how it begins, what comes then.
Story = tuple[SagaDefinition, str, Policy, bool, list[Answered], list[Chance]]


# ---- the promises ---------------------------------------------------------------------------------

FORWARD: Final = {Phase.RUNNING, Phase.PAUSING, Phase.BLOCKED, Phase.ANSWERED, Phase.SETTLING}
BACKWARD: Final = {Phase.COMPENSATING, Phase.UNDO_PAUSING, Phase.HANDING_OVER, Phase.HANDED_OVER}


def step_of(saga: SagaDefinition, out: Outgoing) -> str:
    return next(step.name for step in saga.steps if operation_id(SAGA_ID, step.name) == out.operation_id)


def check_instance(saga: SagaDefinition, instance: SagaInstance) -> None:
    records = list(instance.steps.values())
    if instance.status.ended:
        assert instance.due_at is None
        assert instance.ended_at is not None
        assert list(instance.in_flight()) == []
        assert not any(record.parked for record in records)
        assert not any(record.phase in FORWARD | BACKWARD for record in records)
    elif not instance.started:
        assert instance.due_at is not None, "the timekeeper never finds it"
    else:
        assert (instance.status is Status.PARKED) == any(record.parked for record in records)
        assert instance.due_at is not None or instance.status is Status.PARKED, "waits for nothing and nobody"
    if instance.status is Status.COMPLETED:
        assert all(record.phase in (Phase.SUCCEEDED, Phase.SKIPPED) for record in records)
    if instance.status is Status.COMPENSATED:
        kept = (Phase.PENDING, Phase.REFUSED, Phase.WITHDRAWN, Phase.COMPENSATED, Phase.SKIPPED)
        for record in records:
            never_was = record.phase is Phase.FAILED and record.first_sent_at is None
            assert record.phase in kept or never_was, record
    assert sum(record.phase in FORWARD for record in records) <= 1
    if any(record.phase in BACKWARD for record in records):
        assert not any(record.phase in FORWARD for record in records)
        assert all(record.phase is not Phase.SUCCEEDED for record in records[saga.pivot :])


def check_turn(
    before: SagaInstance, after: SagaInstance, commands: list[Outgoing], sent: list[Outgoing]
) -> None:
    assert after.revision >= before.revision
    assert not before.status.ended or after == before
    ids = {(out.operation_id, out.kind, out.attempt, out.message_id) for out in sent}
    assert len(ids) == len({its_id for *_, its_id in ids}), "two messages have one id"
    assert len(ids) == len({what for *what_and_id, _ in ids if (what := tuple(what_and_id))}), "an id changed"
    done = {out.operation_id for out in sent if out.kind is Kind.DO}
    for out in commands:
        assert out.kind is Kind.DO or out.operation_id in done, "undone or settled, but never sent"
        earlier = [o for o in sent[: -len(commands)] if o.message_id == out.message_id]
        assert out.again == bool(earlier)
    if before.revision == after.revision:
        assert after.status is before.status
        assert {n: r.phase for n, r in after.steps.items()} == {n: r.phase for n, r in before.steps.items()}


def tell(story: Story) -> Run:
    """Play a story; check every decision in it."""
    saga, broken, policy, nudged, beginning, chances = story
    run = Run(saga, OrderState(broken=broken), policy)
    if nudged:
        run.start()
    for chance in [*beginning, *chances]:
        event = chance.event(run)
        before, count = run.instance, len(run.sent)
        if event is not None:
            run.happens(event)
        check_instance(run.saga, run.instance)
        check_turn(before, run.instance, run.sent[count:], run.sent)
    return run


@settings(max_examples=300, deadline=None)
@given(STORIES)
def test_in_every_story_every_instance_keeps_its_promises(story: Story) -> None:
    tell(story)


@settings(max_examples=150, deadline=None)
@given(STORIES, CHANCES)
def test_equal_arguments_give_equal_decisions_and_are_left_as_they_were(story: Story, last: Chance) -> None:
    run = tell(story)
    event = last.event(run) or TimerFired(SAGA_ID, run.now, {})
    instance, same = deepcopy(run.instance), deepcopy(event)

    first = decide(run.saga, run.instance, event, run.policy)
    second = decide(run.saga, run.instance, event, run.policy)

    assert first == second
    assert (run.instance, event) == (instance, same)


@settings(max_examples=150, deadline=None)
@given(STORIES, st.booleans())
def test_from_everywhere_a_person_and_willing_participants_bring_the_saga_to_its_end(
    story: Story, willing: bool
) -> None:
    """Rule above all: it ends, or is parked, visible, with buttons that work."""
    run = tell(story)
    run.repair()

    for _ in range(60):
        if run.status.ended:
            break
        bring_on(run, willing)

    assert run.status.ended, run.instance


def bring_on(run: Run, willing: bool) -> None:
    """Answer what is in flight, as a participant who did nothing yet would; else wait, else act."""
    for record, flight in list(run.instance.in_flight()):
        current = run.instance.steps[record.name].flight
        if current != flight:
            continue
        if flight.kind is Kind.SETTLE:
            done = willing and not flight.hand_over
            run.settles("done" if done else "withdrawn", record.name, reply=REPLIES.get(record.name))
        else:
            run.succeeds(record.name)
    if run.status.ended:
        return
    if run.instance.due_at is not None:
        run.at(max(run.instance.due_at, run.now))
    for record in list(run.instance.steps.values()):
        if run.instance.steps[record.name].parked:
            for act in (Act.RETRY, Act.COMPLETE):
                if not run.operator(act, record.name, reply=REPLIES.get(record.name), force=True).refused:
                    break


# ---- a state whose insides pydantic does not copy -------------------------------------------------


class LooseState(BaseModel):
    anything: Any = None


def scribble(state: LooseState) -> VerifyConsumer:
    state.anything["notes"].append("seen")
    return VerifyConsumer(consumer_id=1)


loose = Steps(LooseState)


class LooseSaga(Saga[LooseState], name="loose", version=1):
    verify_consumer_details = loose.command(VerifyConsumer, scribble, compensation=NOTHING_TO_UNDO)
    create_restaurant_ticket = loose.command(
        CreateTicket,
        lambda state: CreateTicket(order_id=1, quantity=len(state.anything["notes"])),
        compensation=lambda state: RejectTicket(ticket_id=None),
    )


def test_a_hook_gets_a_private_copy_down_to_the_insides() -> None:
    definition = LooseSaga.definition
    instance = replace(new_instance(definition), state={"anything": {"notes": []}})

    decision = decide(definition, instance, Started(SAGA_ID, instance.created_at))

    assert instance.state == {"anything": {"notes": []}}
    assert decision.instance.state == {"anything": {"notes": []}}


def test_the_stories_are_not_vacuous() -> None:
    """A story of each kind of end, told by hand with the same chances."""
    ok, no = (Answered(0, result, "done", "Trouble", False) for result in (Result.SUCCESS, Result.REFUSED))

    completed = tell((DELIVER_ORDER, "", POLICIES[0], True, [ok] * 7, []))
    compensated = tell((DELIVER_ORDER, "", POLICIES[0], True, [ok] * 3, [no, ok, ok]))
    parked = tell((DELIVER_ORDER, "", POLICIES[0], True, [ok] * 4, [no]))

    assert [run.status for run in (completed, compensated, parked)] == [
        Status.COMPLETED,
        Status.COMPENSATED,
        Status.PARKED,
    ]
