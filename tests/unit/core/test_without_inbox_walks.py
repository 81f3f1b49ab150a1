"""Random walks through sagas that mix steps with and without an inbox, on a pretended network.

The network delivers, loses, delays and doubles; participants work, fail, or work and stay silent. What each
step has left behind is counted there, so that what the saga says of its effects can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from sagas_framework.core.decide import decide
from sagas_framework.core.events import (
    Act,
    Confirmed,
    OperatorActed,
    Outgoing,
    ReplyReceived,
    Result,
    Unroutable,
)
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.inbox import SettleAnswer
from sagas_framework.core.instance import Phase, Status, StepRecord
from sagas_framework.core.options import Option, options
from sagas_framework.core.telling import Effect, effect
from sagas_framework.core.why import why
from sagas_framework.messages import Command, Compensation, Reply, Service
from sagas_framework.saga import Saga, SagaDefinition, Steps, undo_task
from sagas_framework.steps import NOTHING_TO_UNDO, CommandStep
from tests.unit.core.stories import (
    SAGA_ID,
    CreateTicket,
    OrderState,
    Run,
    StartDelivery,
    error_of,
    mark_order_approved,
    mark_order_rejected,
    open_ticket,
    reject_ticket,
    remember_courier,
    remember_ticket,
    start_delivery,
)

bakery = Service("bakery", protocol="demo-0.1")


class Baked(Reply):
    courier: str


class Bake(Command[Baked], service=bakery, name="bake"):
    order_id: int


class ThrowAway(Compensation[Bake], service=bakery, name="throw_away"):
    order_id: int


class Look(Command[None], service=bakery, name="look"):
    pass


class Hand(Command[Baked], service=bakery, name="hand"):
    order_id: int


def bake(state: OrderState) -> Bake:
    return Bake(order_id=state.order_id)


def remember_baked(state: OrderState, reply: Baked) -> None:
    state.may_break("remember_baked")
    state.courier = reply.courier


def throw_away(state: OrderState) -> ThrowAway:
    state.may_break("throw_away")
    return ThrowAway(order_id=state.order_id)


def remember_payment(state: OrderState, result: Any) -> None:
    state.may_break("remember_payment")
    state.transaction_id = result


def pay_back(state: OrderState) -> dict[str, Any]:
    state.may_break("pay_back")
    return {"payment": state.transaction_id}


def hand(state: OrderState) -> Hand:
    state.may_break("hand")
    return Hand(order_id=state.order_id)


def remember_handed(state: OrderState, reply: Baked) -> None:
    state.may_break("remember_handed")
    state.courier = reply.courier


step = Steps(OrderState)


class WithInboxPivotSaga(Saga[OrderState], name="with_inbox_pivot", version=1):
    reject_order = step.local(compensation=mark_order_rejected)
    bake = step.command(Bake, bake, on_success=remember_baked, compensation=throw_away)
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    look = step.command(Look, lambda state: Look(), compensation=NOTHING_TO_UNDO)
    pay = step.task(
        "till.take_payment",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", pay_back),
    )
    deliver = step.command(StartDelivery, start_delivery, on_success=remember_courier, pivot=True)
    hand = step.command(Hand, hand, on_success=remember_handed)
    thank = step.task("post.thank", lambda state: {"order": state.order_id})
    approve_order = step.local(mark_order_approved)


class OldPivotSaga(Saga[OrderState], name="old_pivot", version=1):
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    pay = step.task(
        "till.take_payment",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", pay_back),
    )
    reject_order = step.local(compensation=mark_order_rejected)
    hand = step.command(Hand, hand, on_success=remember_handed, pivot=True)
    deliver = step.command(StartDelivery, start_delivery, on_success=remember_courier)
    thank = step.task("post.thank", lambda state: {"order": state.order_id}, on_success=remember_payment)


class PlainPivotSaga(Saga[OrderState], name="plain_pivot", version=1):
    bake = step.command(Bake, bake, on_success=remember_baked, compensation=throw_away)
    pay = step.task(
        "till.take_payment",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", pay_back),
    )
    thank = step.task(
        "post.thank", lambda state: {"order": state.order_id}, on_success=remember_payment, pivot=True
    )
    approve_order = step.local(mark_order_approved)
    hand = step.command(Hand, hand, on_success=remember_handed)


class NoPivotSaga(Saga[OrderState], name="no_pivot", version=1):
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    bake = step.command(Bake, bake, on_success=remember_baked, compensation=throw_away)
    pay = step.task(
        "till.take_payment",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", pay_back),
    )


SAGAS: Final = [saga.definition for saga in (WithInboxPivotSaga, OldPivotSaga, PlainPivotSaga, NoPivotSaga)]
HOOKS: Final = [
    "open_ticket", "remember_ticket", "reject_ticket", "remember_baked", "throw_away", "remember_payment",
    "pay_back", "start_delivery", "remember_courier", "hand", "remember_handed", "mark_order_rejected",
    "mark_order_approved",
]  # fmt: skip
ANSWERS: Final[dict[str, Any]] = {
    "ticket": {"ticket_id": 7},
    "bake": {"courier": "Ann"},
    "pay": "p-1",
    "deliver": {"courier": "Bob"},
    "hand": {"courier": "Eve"},
    "thank": None,
}
NAMES: Final = sorted({s.name for saga in SAGAS for s in saga.steps})
BACKWARD: Final = frozenset({Phase.COMPENSATING, Phase.UNDO_PAUSING, Phase.HANDING_OVER, Phase.HANDED_OVER})


# ---- the network and its participants -------------------------------------------------------------


@dataclass
class World:
    """A saga, what is under way to and from its participants, and what these have done.

    Args:
        waiting: sent, and neither begun nor lost.
        answers: on their way to the saga.
        unconfirmed: published, and the broker has not said what became of it.
        there: for each step, how often its effect is there now.
        heard: steps without an inbox of which a success came before the saga's end.
        closed: steps whose inbox refuses the command from now on.
        retried: for ``(step, kind)``, how often a person had it sent once more.
    """

    run: Run
    waiting: list[Outgoing] = field(default_factory=list)
    answers: list[ReplyReceived] = field(default_factory=list)
    unconfirmed: list[Outgoing] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    stored: dict[str, ReplyReceived] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    retried: dict[tuple[str, Kind], int] = field(default_factory=dict)
    taken: int = 0

    @property
    def saga(self) -> SagaDefinition:
        return self.run.saga

    def take(self) -> None:
        """Put what the saga has sent since on the network."""
        new = self.run.sent[self.taken :]
        self.taken = len(self.run.sent)
        self.waiting += new
        self.unconfirmed += [out for out in new if out.unanswered]

    def step_of(self, out: Outgoing) -> str:
        return next(s.name for s in self.saga.steps if operation_id(SAGA_ID, s.name) == out.operation_id)

    def expire(self) -> None:
        """No worker begins a plain task after its deadline."""
        self.waiting = [
            out for out in self.waiting if out.protocol != "celery" or self.run.now < out.not_after
        ]

    def _settled(self, name: str, out: Outgoing, done: bool, how: str) -> dict[str, Any]:
        if how == "refuse":
            return {"answer": "perhaps"}  # which nobody asked for
        if done and not out.hand_over:
            answer = SettleAnswer.DONE
        else:
            answer = SettleAnswer.YOURS_TO_UNDO if done else SettleAnswer.WITHDRAWN
            self.closed.add(name)
        return {"answer": answer.value, "reply": ANSWERS.get(name)}

    def lose(self, which: int) -> Outgoing | None:
        """A message gets lost; but not one that nobody answers, once the broker has it."""
        out = self.waiting[which % len(self.waiting)]
        if out.unanswered and not any(out is other for other in self.unconfirmed):
            return None
        self.unconfirmed = [other for other in self.unconfirmed if other is not out]
        self.waiting = [other for other in self.waiting if other is not out]
        return out

    def work(self, out: Outgoing, how: str) -> None:
        """A participant handles a message: well, badly, or well without its answer coming home."""
        name = self.step_of(out)
        reply = self._with_inbox(name, out, how) if out.protocol == "inbox" else self._plain(name, out, how)
        if reply is not None and how != "silent":
            self.answers.append(reply)

    def _reply(self, out: Outgoing, result: Result, payload: Any = None, error: str = "") -> ReplyReceived:
        told = error_of(error) if error else {}
        return ReplyReceived(SAGA_ID, self.run.now, (out.message_id,), out.task, result, payload, told)

    def _plain(self, name: str, out: Outgoing, how: str) -> ReplyReceived | None:
        if how == "fail" and not out.unanswered:  # nobody would notice
            return self._reply(out, Result.FAILED, error="TaskFailed")
        self.there[name] += 1 if out.kind is Kind.DO else -1
        if out.unanswered:
            return None
        return self._reply(out, Result.SUCCESS, ANSWERS.get(name) if out.kind is Kind.DO else None)

    def _with_inbox(self, name: str, out: Outgoing, how: str) -> ReplyReceived:
        if out.kind is Kind.DO:
            if name in self.closed:
                return self._reply(out, Result.REFUSED, error="Withdrawn")
            if name in self.stored:
                return self._reply(out, Result.SUCCESS, ANSWERS.get(name))
            if how == "fail":
                return self._reply(out, Result.FAILED, error="Busy")
            if how == "refuse":
                self.closed.add(name)
                return self._reply(out, Result.REFUSED, error="No")
            self.there[name] += 1
            self.stored[name] = self._reply(out, Result.SUCCESS, ANSWERS.get(name))
            return self.stored[name]
        done = name in self.stored and name not in self.closed
        if out.kind is Kind.SETTLE:
            return self._reply(out, Result.SUCCESS, self._settled(name, out, done, how))
        if how in ("fail", "refuse"):
            return self._reply(out, Result.FAILED if how == "fail" else Result.REFUSED, error="Busy")
        self.there[name] -= done
        self.closed.add(name)
        return self._reply(out, Result.SUCCESS)

    def hear(self, reply: ReplyReceived) -> None:
        """Note that a step without an inbox is known to have happened, if the saga can still do something."""
        if reply.result is Result.SUCCESS and not self.run.status.ended:
            self.heard |= {
                self.step_of(out)
                for out in self.run.sent
                if out.message_id in reply.refs and out.kind is Kind.DO and out.protocol != "inbox"
            }

    # ---- people ---------------------------------------------------------------------------------------

    def options(self) -> list[Option]:
        return options(self.saga, self.run.instance, self.run.now)

    def act(self, act: Act, name: str | None, *, force: bool = False, reply: Any = None) -> bool:
        """A person acts; whether it was obeyed."""
        before = self.run.instance
        if self.run.operator(act, name, force=force, reply=reply).refused:
            assert self.run.instance == before
            return False
        if act is Act.RETRY and name is not None:
            kind = Kind.UNDO if before.steps[name].phase in BACKWARD else Kind.DO
            self.retried[name, kind] = self.retried.get((name, kind), 0) + 1
        return True

    def asked(self) -> Iterator[tuple[Act, str | None, bool, bool]]:
        """Every act there is on every step, and whether it would be obeyed."""
        for name in (s.name for s in self.saga.steps):
            for act in Act:
                for force in (False, True):
                    where = None if act is Act.CANCEL else name
                    reply = ANSWERS.get(name) if act is Act.COMPLETE else None
                    event = OperatorActed(SAGA_ID, self.run.now, act, "a", "b", None, where, reply, force)
                    yield act, where, force, not decide(self.saga, self.run.instance, event).refused


# ---- what may happen ------------------------------------------------------------------------------


def happens(world: World, what: str, which: int, twist: int) -> None:
    run = world.run
    match what:
        case "work" | "fail" | "refuse" | "silent" if world.waiting:
            world.work(world.waiting.pop(which % len(world.waiting)), what)
        case "delivered twice" if world.waiting:
            world.work(world.waiting[which % len(world.waiting)], "work" if twist % 2 else "fail")
        case "lost" if world.waiting:
            world.lose(which)
        case "answer" | "answer twice" if world.answers:
            at = which % len(world.answers)
            reply = world.answers[at] if what == "answer twice" else world.answers.pop(at)
            world.hear(reply)
            run.happens(reply)
        case "answer lost" if world.answers:
            world.answers.pop(which % len(world.answers))
        case "confirmed" if world.unconfirmed:
            held = world.unconfirmed.pop(which % len(world.unconfirmed))
            run.happens(Confirmed(SAGA_ID, run.now, held.message_id))
        case "no queue" if world.waiting:
            if (lost := world.lose(which)) is not None:
                run.happens(Unroutable(SAGA_ID, run.now, lost.message_id))
        case "due" if run.instance.due_at is not None:
            run.at(max(run.instance.due_at, run.now))
        case "a minute" | "six minutes":
            queues = {out.queue for out in run.sent}
            pause = 60 if what == "a minute" else 360
            run.after(pause, dict.fromkeys(queues, run.now) if twist % 2 else {})
        case "button":
            if offered := world.options():
                option = offered[which % len(offered)]
                given = ANSWERS.get(option.step or "")
                if not world.act(option.act, option.step, force=option.force, reply=given):
                    assert is_deaf(world, option.act, option.step), option
                    assert world.act(option.act, option.step, force=True, reply=given), option
        case "any act":
            act = list(Act)[which % len(Act)]
            name = world.saga.steps[twist % len(world.saga.steps)].name
            world.act(act, name if act is not Act.CANCEL else None, force=bool(which & 8))
        case "repaired":
            run.repair()
        case _:
            pass
    world.take()
    world.expire()


RASH: Final = [
    "work", "work", "work", "fail", "refuse", "silent", "lost", "answer", "answer", "answer", "answer twice",
    "answer lost", "confirmed", "no queue", "due", "due", "a minute", "six minutes", "button", "button",
    "any act", "repaired", "delivered twice",
]  # fmt: skip
HONEST: Final = [what for what in RASH if what not in ("button", "any act", "delivered twice")] + [
    "person",
    "person",
]


def walks(words: list[str]) -> Any:
    return st.tuples(
        st.sampled_from(SAGAS),
        st.sampled_from(["", "", *HOOKS]),
        st.integers(0, 8),
        st.lists(
            st.tuples(st.sampled_from(words), st.integers(0, 15), st.integers(0, 15)),
            min_size=25,
            max_size=60,
        ),
    )


Walk = tuple[SagaDefinition, str, int, list[tuple[str, int, int]]]


CHECKED: Final[set[object]] = set()


def stands(record: StepRecord) -> object:
    """All of a step that matters to what may be done with it."""
    return record.phase, record.parked, record.flight and record.flight.kind, bool(record.first_sent_at)


# ---- what holds at every moment -------------------------------------------------------------------


def check(world: World) -> None:
    run = world.run
    instance = run.instance
    records = list(instance.steps.values())
    if instance.status.ended:
        assert instance.due_at is None
        assert not list(instance.in_flight())
        assert not any(record.parked for record in records)
        assert world.options() == []
    else:
        assert (instance.status is Status.PARKED) == any(record.parked for record in records)
        assert instance.due_at is not None or instance.status is Status.PARKED, "waits for nothing and nobody"
    check_sent_once(world)
    for name in world.heard - {"look"}:
        assert run.phase(name) not in (Phase.REFUSED, Phase.WITHDRAWN), "taken for what never happened"
    standing = (run.saga.name, run.instance.state["broken"], *map(stands, records))
    if standing not in CHECKED:  # the same buttons as there
        check_buttons(world)
        CHECKED.add(standing)
    check_words(world)


def check_sent_once(world: World) -> None:
    """Nothing goes to a service without an inbox twice without a person's word."""
    count: dict[tuple[str, Kind], int] = {}
    for out in world.run.sent:
        if out.protocol != "inbox":
            assert out.kind is not Kind.SETTLE
            assert not out.again
            key: tuple[str, Kind] = (world.step_of(out), out.kind)
            count[key] = count.get(key, 0) + 1
    for key, sent in count.items():
        assert sent <= 1 + world.retried.get(key, 0), key


def check_buttons(world: World) -> None:
    offered = {(option.act, option.step): option.force for option in world.options()}
    for act, name, force, obeyed in world.asked():
        button = offered.get((act, name))
        asks_again = act is Act.RETRY and world.run.phase(name or "") in (Phase.SETTLING, Phase.HANDING_OVER)
        if button is not None and not (asks_again and force):  # "ask again" and "do not ask" at once
            fits = force or not (button or is_deaf(world, act, name))
            assert obeyed is fits, (act, name, force)
        elif obeyed:
            # With force a person may interfere with what only waits for its answer; nobody is asked to.
            record, its_step = world.run.step(name or ""), step_named(world.saga, name or "")
            assert force
            assert record.flight is not None
            assert not record.parked
            assert isinstance(its_step, CommandStep)
            assert its_step.has_inbox, (act, name, record.phase)
    for record in world.run.instance.steps.values():
        if record.parked:
            assert [name for _, name in offered if name == record.name], f"{record.name}: no button"


def is_deaf(world: World, act: Act, name: str | None) -> bool:
    """Whether it is to be completed, and our own code takes no result of that task."""
    if act is not Act.COMPLETE or name is None or world.run.order.broken != "remember_payment":
        return False
    its_step, phase = step_named(world.saga, name), world.run.phase(name)
    hooked = isinstance(its_step, CommandStep) and its_step.on_success is remember_payment
    return hooked and phase in (Phase.RUNNING, Phase.REFUSED, Phase.BLOCKED)


def check_words(world: World) -> None:
    told = why(world.run.instance, world.run.now, world.saga)
    assert "None" not in told
    assert "Nothing is in flight" not in told
    for record in world.run.instance.steps.values():
        if record.parked:
            assert f"{record.name} needs a person: " in told


def step_named(saga: SagaDefinition, name: str) -> Any:
    return saga.steps[saga.index(name)]


def walk(told: Walk, also: Callable[[World], None] = lambda world: None) -> World:
    saga, broken, smooth, story = told
    world = World(Run(saga, OrderState(broken=broken)).start())
    world.take()
    beginning = [(what, 0, 0) for _ in range(smooth) for what in ("work", "answer")]
    for what, which, twist in [*beginning, *story]:
        if what == "person":
            honest(world)
        else:
            happens(world, what, which, twist)
        check(world)
        also(world)
    return world


# ---- a person who looks before she acts ------------------------------------------------------------


def honest(world: World) -> None:
    """Press the button that the step's effect asks for, once nothing of the step is under way any more."""
    for record in list(world.run.instance.steps.values()):
        if not record.parked or world.run.instance.status.ended:
            continue
        under_way = [*map(world.step_of, world.waiting)]
        under_way += [n for r in world.answers for n in NAMES if asks(world, r, n)]
        if record.name in under_way:
            continue
        act, force = choice(world, record)
        if act is not None:
            assert world.act(act, record.name, force=force, reply=ANSWERS.get(record.name)), (act, record)
            world.take()
        return


def asks(world: World, reply: ReplyReceived, name: str) -> bool:
    return any(out.message_id in reply.refs and world.step_of(out) == name for out in world.run.sent)


def choice(world: World, record: StepRecord) -> tuple[Act | None, bool]:
    name, there = record.name, world.there[record.name]
    buttons = {option.act: option.force for option in world.options() if option.step == name}
    inbox = getattr(step_named(world.saga, name), "has_inbox", True)
    if record.phase is Phase.HANDED_OVER:
        world.there[name] = 0  # by hand
        return Act.COMPLETE, False
    if inbox and record.flight is not None:
        return None, False  # it is being asked, or tried again
    if inbox:
        world.run.repair()
        act = Act.RETRY if Act.RETRY in buttons else Act.COMPLETE if Act.COMPLETE in buttons else None
        if act is Act.COMPLETE and record.phase is Phase.REFUSED:
            world.there[name] += 1  # by hand
        return act, bool(act and buttons[act])
    if record.phase in BACKWARD:
        return (Act.RETRY if there else Act.COMPLETE), False
    world.run.repair()
    if record.phase is Phase.ANSWERED:
        return Act.RETRY, False
    if there:
        return Act.COMPLETE, False
    return (Act.WITHDRAW if Act.WITHDRAW in buttons else Act.RETRY), False


def bring_on(world: World) -> None:
    """A round in which everybody does what should be done."""
    world.run.repair()
    for _ in range(6):
        for what in ("work", "answer", "confirmed"):
            happens(world, what, 0, 0)
    honest(world)
    if not (world.waiting or world.answers or world.unconfirmed):
        happens(world, "due", 0, 0)
    world.take()
    check(world)


# ---- the promises ----------------------------------------------------------------------------------


@settings(max_examples=250, deadline=None)
@given(walks(RASH))
def test_whatever_happens_and_whatever_people_do_it_ends_or_somebody_is_asked(told: Walk) -> None:
    world = walk(told)

    for _ in range(60):
        if world.run.status.ended:
            break
        bring_on(world)

    assert world.run.status.ended, (world.run.instance.steps, world.options())


TRUE: Final = {Effect.THERE: (1,), Effect.KEPT: (1,), Effect.STILL_THERE: (0, 1), Effect.UNDONE: (0,),
               Effect.NEVER: (0,)}  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(walks(HONEST))
def test_with_people_who_look_first_every_effect_is_there_once_or_not_at_all(told: Walk) -> None:
    def also(world: World) -> None:
        assert set(world.there.values()) <= {0, 1}, world.there

    world = walk(told, also)
    for _ in range(60):
        if world.run.status.ended:
            break
        bring_on(world)
        also(world)

    assert world.run.status.ended, (world.run.instance.steps, world.options())
    while world.waiting:  # a compensation that counts as done once the broker has it
        happens(world, "work", 0, 0)
    for record in world.run.instance.steps.values():
        if record.name in ANSWERS:
            is_there = effect(record, world.run.instance, world.saga)
            if is_there in TRUE:
                assert world.there[record.name] in TRUE[is_there], (record, is_there)
            if is_there is not Effect.NONE:
                assert world.there[record.name] == (world.run.status is Status.COMPLETED) or (
                    record.phase is Phase.SKIPPED
                ), record


def test_the_walks_are_not_vacuous() -> None:
    """A walk to each kind of end, and one to what happened after all."""
    saga = OldPivotSaga.definition

    completed = walk((saga, "", 6, []))
    compensated = walk((saga, "", 2, [("fail", 0, 0), *[("answer", 0, 0), ("work", 0, 0)] * 3]))
    asked = walk((saga, "", 2, [("lost", 0, 0), ("six minutes", 0, 0)]))
    # The second button is "withdraw"; the message was only late.
    late = walk((saga, "", 2, [("six minutes", 0, 0), ("button", 1, 0), ("work", 0, 0), ("answer", 0, 0)]))

    assert completed.run.status is Status.COMPLETED
    assert compensated.run.status is Status.COMPENSATED
    assert asked.run.status is Status.PARKED
    assert asked.run.phase("hand") is Phase.RUNNING
    assert late.run.phase("hand") is Phase.HANDED_OVER
