"""The sagas that the core's tests tell stories about, and `Run`, which moves one through its story.

`Run` holds an instance and a clock that is moved by hand. What is said to it goes through `decide`;
local steps run at once, as in the orchestrator, only without a database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework.core.decide import DEFAULT_POLICY, decide, error_payload
from sagas_framework.core.events import (
    Act,
    Decision,
    Event,
    LocalRan,
    OperatorActed,
    Outgoing,
    Policy,
    Recorded,
    ReplyReceived,
    Result,
    SignalReceived,
    Started,
    TimerFired,
)
from sagas_framework.core.ids import Kind, message_id
from sagas_framework.core.instance import Flight, Outcome, Phase, SagaInstance, Status, StepRecord
from sagas_framework.errors import Failure
from sagas_framework.messages import Command, Compensation, Reply, Service, settle_task
from sagas_framework.saga import Saga, SagaDefinition, Steps
from sagas_framework.steps import NOTHING_TO_UNDO, CommandStep, LocalStep, Retry

SAGA_ID: Final = "01890a5d-ac96-774b-bcce-b302099a8057"
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)

# ---- contracts ------------------------------------------------------------------------------------

consumer_service = Service("consumer_service")
restaurant_service = Service("restaurant_service")
accounting_service = Service("accounting_service")
delivery_service = Service("delivery_service")


class ConsumerUnknown(Failure):
    """No such consumer."""


class RestaurantClosed(Failure):
    """The kitchen is closed."""


class CardRefused(Failure):
    """The bank says no."""


class TicketCreated(Reply):
    ticket_id: int


class CardAuthorized(Reply):
    transaction_id: str


class DeliveryStarted(Reply):
    courier: str


class VerifyConsumer(
    Command[None], service=consumer_service, name="verify_consumer_details", failures=[ConsumerUnknown]
):
    consumer_id: int


class CreateTicket(
    Command[TicketCreated], service=restaurant_service, name="create_ticket", failures=[RestaurantClosed]
):
    order_id: int
    quantity: int


class RejectTicket(Compensation[CreateTicket], service=restaurant_service, name="reject_ticket"):
    ticket_id: int | None


class AuthorizeCard(
    Command[CardAuthorized], service=accounting_service, name="authorize_card", failures=[CardRefused]
):
    order_id: int
    amount: Decimal


class ReverseAuthorization(
    Compensation[AuthorizeCard], service=accounting_service, name="reverse_authorization"
):
    transaction_id: str | None


class ApproveTicket(Command[None], service=restaurant_service, name="approve_ticket"):
    ticket_id: int


class StartDelivery(Command[DeliveryStarted], service=delivery_service, name="start_delivery"):
    order_id: int
    address: str


class SendReceipt(Command[None], service=consumer_service, name="send_receipt"):
    order_id: int


# ---- sagas ----------------------------------------------------------------------------------------


class OrderState(BaseModel):
    """`broken` names what our own code gets wrong in this story."""

    order_id: int = 1
    consumer_id: int = 2
    quantity: int = 3
    amount: Decimal = Decimal("12.30")
    address: str = "Main Street 1"
    ticket_id: int | None = None
    transaction_id: str | None = None
    courier: str | None = None
    order: str = "approval_pending"
    broken: str = ""

    def may_break(self, what: str) -> None:
        if self.broken == what:
            raise KeyError(f"{what} is broken")


def verify(state: OrderState) -> VerifyConsumer:
    return VerifyConsumer(consumer_id=state.consumer_id)


def open_ticket(state: OrderState) -> CreateTicket:
    state.may_break("open_ticket")
    return CreateTicket(order_id=state.order_id, quantity=state.quantity)


def remember_ticket(state: OrderState, reply: TicketCreated) -> None:
    state.ticket_id = reply.ticket_id
    state.may_break("remember_ticket")


def reject_ticket(state: OrderState) -> RejectTicket:
    state.may_break("reject_ticket")
    return RejectTicket(ticket_id=state.ticket_id)


def authorize(state: OrderState) -> AuthorizeCard:
    return AuthorizeCard(order_id=state.order_id, amount=state.amount)


def remember_authorization(state: OrderState, reply: CardAuthorized) -> None:
    state.transaction_id = reply.transaction_id


def reverse_authorization(state: OrderState) -> ReverseAuthorization:
    return ReverseAuthorization(transaction_id=state.transaction_id)


def approve_ticket(state: OrderState) -> ApproveTicket:
    assert state.ticket_id is not None
    return ApproveTicket(ticket_id=state.ticket_id)


def note_approval(state: OrderState, reply: None) -> None:
    state.may_break("note_approval")


def start_delivery(state: OrderState) -> StartDelivery:
    state.may_break("start_delivery")
    return StartDelivery(order_id=state.order_id, address=state.address)


def remember_courier(state: OrderState, reply: DeliveryStarted) -> None:
    state.may_break("remember_courier")
    state.courier = reply.courier


def send_receipt(state: OrderState) -> SendReceipt:
    return SendReceipt(order_id=state.order_id)


def mark_order_rejected(state: OrderState, session: Session) -> None:
    state.may_break("mark_order_rejected")
    state.order = "rejected"


def mark_order_approved(state: OrderState, session: Session) -> None:
    state.order = "half approved"
    state.may_break("mark_order_approved")
    state.order = "approved"


step = Steps(OrderState)
PIVOT_RETRY: Final = Retry(3, pause=timedelta(seconds=5))


class CreateOrderSaga(Saga[OrderState], name="create_order", version=1):
    """Create an order across consumer, restaurant and accounting."""

    reject_order = step.local(compensation=mark_order_rejected)
    verify_consumer_details = step.command(VerifyConsumer, verify, compensation=NOTHING_TO_UNDO)
    create_restaurant_ticket = step.command(
        CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket
    )
    authorize_card = step.command(
        AuthorizeCard, authorize, on_success=remember_authorization, compensation=reverse_authorization
    )
    approve_restaurant_ticket = step.command(ApproveTicket, approve_ticket, pivot=True, retry=PIVOT_RETRY)
    approve_order = step.local(mark_order_approved)


class DeliverOrderSaga(Saga[OrderState], name="deliver_order", version=1):
    """The same, with two steps of other services after the pivot."""

    reject_order = step.local(compensation=mark_order_rejected)
    verify_consumer_details = step.command(VerifyConsumer, verify, compensation=NOTHING_TO_UNDO)
    create_restaurant_ticket = step.command(
        CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket
    )
    authorize_card = step.command(
        AuthorizeCard, authorize, on_success=remember_authorization, compensation=reverse_authorization
    )
    approve_restaurant_ticket = step.command(
        ApproveTicket, approve_ticket, on_success=note_approval, pivot=True, retry=PIVOT_RETRY
    )
    start_delivery = step.command(StartDelivery, start_delivery, on_success=remember_courier)
    send_receipt = step.command(SendReceipt, send_receipt)
    approve_order = step.local(mark_order_approved)


CREATE_ORDER: Final = CreateOrderSaga.definition
DELIVER_ORDER: Final = DeliverOrderSaga.definition

REPLIES: Final[Mapping[str, dict[str, Any] | None]] = {
    "create_restaurant_ticket": {"ticket_id": 7},
    "authorize_card": {"transaction_id": "t-9"},
    "start_delivery": {"courier": "Ann"},
    "first_ticket": {"ticket_id": 7},
    "second_ticket": {"ticket_id": 8},
    "ticket": {"ticket_id": 7},
}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def error_of(name: str, message: str = "") -> dict[str, str]:
    """A failure payload."""
    return {"type": name, "message": message or f"says {name}", "module": "somewhere"}


def new_instance(saga: SagaDefinition, state: OrderState | None = None) -> SagaInstance:
    """A row as it is written by whoever starts the saga."""
    return SagaInstance(
        id=SAGA_ID,
        saga=saga.name,
        version=saga.version,
        shape=saga.shape,
        key="order-1",
        status=Status.RUNNING,
        state=(state or OrderState()).model_dump(mode="json"),
        created_at=NOON,
        updated_at=NOON,
        due_at=NOON,
        steps={},
    )


@dataclass
class Run:
    """One saga on its way. `sent`: all commands, in order. `local_by_hand`: the test runs local steps."""

    saga: SagaDefinition = CREATE_ORDER
    state: OrderState | None = None
    policy: Policy = DEFAULT_POLICY
    local_by_hand: bool = False
    now: datetime = NOON
    instance: SagaInstance = field(init=False)
    decision: Decision = field(init=False)
    sent: list[Outgoing] = field(default_factory=list)
    history: list[Recorded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.instance = new_instance(self.saga, self.state)
        self.decision = Decision(self.instance)

    # ---- what is seen -----------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self.instance.status

    @property
    def outcome(self) -> Outcome | None:
        return self.instance.outcome

    @property
    def order(self) -> OrderState:
        return OrderState.model_validate(dict(self.instance.state))

    @property
    def words(self) -> list[str]:
        """The history's entries."""
        return [line.entry for line in self.history]

    def step(self, name: str) -> StepRecord:
        return self.instance.steps[name]

    def phase(self, name: str) -> Phase:
        return self.step(name).phase

    def flight(self, name: str) -> Flight:
        flight = self.step(name).flight
        assert flight is not None, f"{name} has nothing in flight"
        return flight

    @property
    def in_flight(self) -> list[str]:
        """``step kind attempt`` of every message that waits for its answer."""
        return [
            f"{record.name} {flight.kind} {flight.attempt}" for record, flight in self.instance.in_flight()
        ]

    @property
    def sends(self) -> list[str]:
        """``task attempt`` of what the last decision sends."""
        return [f"{out.task} {out.attempt}" for out in self.decision.commands]

    # ---- what happens -----------------------------------------------------------------------------

    def happens(self, event: Event) -> Decision:
        """Decide; run the local steps that it asks for. The decision is the first one, `sends` of all."""
        decision = first = self.happens_alone(event)
        commands = list(first.commands)
        while decision.local is not None and not self.local_by_hand:
            decision = self.happens_alone(self.local_ran(decision.local.step, decision.local.kind))
            commands += decision.commands
        self.decision = Decision(
            self.instance,
            tuple(commands),
            first.history,
            decision.local,
            first.answer,
            first.refused,
            first.ignored,
            first.too_late,
            first.answered,
        )
        return self.decision

    def happens_alone(self, event: Event) -> Decision:
        """One decision, without the local steps that it asks for."""
        decision = decide(self.saga, self.instance, event, self.policy)
        self.instance = decision.instance
        self.sent += decision.commands
        self.history += decision.history
        return decision

    def local_ran(self, name: str, kind: Kind) -> LocalRan:
        """What the orchestrator says after running a local step in its savepoint."""
        local = self.saga.steps[self.saga.index(name)]
        assert isinstance(local, LocalStep)
        state = OrderState.model_validate(dict(self.instance.state))
        try:
            if kind is Kind.DO:
                local.do(state, cast(Session, None))
            else:
                local.undo(state, cast(Session, None), self.instance.outcome)
        except Exception as error:
            return LocalRan(SAGA_ID, self.now, name, kind, error=error_payload(error))
        return LocalRan(SAGA_ID, self.now, name, kind, state=state.model_dump(mode="json"))

    def start(self) -> Run:
        self.happens(Started(SAGA_ID, self.now))
        return self

    def reply_of(
        self,
        name: str,
        kind: Kind,
        attempt: int,
        result: Result,
        payload: Any = None,
        error: Mapping[str, Any] | None = None,
        refs: tuple[str, ...] | None = None,
    ) -> ReplyReceived:
        """An answer to a message, whether or not it was ever sent."""
        command_step = self.saga.steps[self.saga.index(name)]
        assert isinstance(command_step, CommandStep)
        command = command_step.command
        task = command.contract.task
        if kind is Kind.UNDO:
            task = command.compensation.contract.task if command.compensation else f"{task}.no_undo"
        elif kind is Kind.SETTLE:
            task = settle_task(command)
        own = (message_id(SAGA_ID, name, kind, attempt),)
        return ReplyReceived(
            SAGA_ID, self.now, own if refs is None else refs, task, result, payload, error or {}
        )

    def _answer(
        self, name: str | None, result: Result, payload: Any = None, error: Mapping[str, str] | None = None
    ) -> Decision:
        """An answer to what is in flight: of the step, or of the only one that has something there."""
        if name is None:
            ((record, _),) = self.instance.in_flight()
            name = record.name
        flight = self.flight(name)
        if result is Result.SUCCESS and flight.kind is Kind.DO and payload is None:
            payload = REPLIES.get(name)
        return self.happens(self.reply_of(name, flight.kind, flight.attempt, result, payload, error))

    def succeeds(self, name: str | None = None, payload: Any = None) -> Decision:
        return self._answer(name, Result.SUCCESS, payload)

    def refuses(self, error: str, name: str | None = None) -> Decision:
        return self._answer(name, Result.REFUSED, error=error_of(error))

    def fails(self, name: str | None = None, error: str = "ConnectionReset") -> Decision:
        return self._answer(name, Result.FAILED, error=error_of(error))

    def settles(self, answer: str, name: str | None = None, **more: Any) -> Decision:
        """The participant answers how the step stands."""
        return self._answer(name, Result.SUCCESS, {"answer": answer, **more})

    def after(
        self,
        pause: float | timedelta,
        horizons: Mapping[str, datetime] | None = None,
        unattended: Collection[str] = (),
    ) -> Decision:
        """Time passes, then the timekeeper looks."""
        self.now += pause if isinstance(pause, timedelta) else seconds(pause)
        return self.happens(TimerFired(SAGA_ID, self.now, horizons or {}, frozenset(unattended)))

    def at(
        self,
        moment: datetime | None,
        horizons: Mapping[str, datetime] | None = None,
        unattended: Collection[str] = (),
    ) -> Decision:
        """The timekeeper looks at this moment."""
        assert moment is not None
        return self.after(moment - self.now, horizons, unattended)

    def operator(
        self,
        act: Act,
        step: str | None = None,
        *,
        force: bool = False,
        reply: Any = None,
        revision: int | None = None,
    ) -> Decision:
        return self.happens(
            OperatorActed(SAGA_ID, self.now, act, "ann", "I know why", revision, step, reply, force)
        )

    def signal(
        self, name: str, payload: Mapping[str, Any] | None = None, *, said_at: datetime | None = None
    ) -> Decision:
        """Somebody outside says something, stored now unless another moment is given."""
        return self.happens(SignalReceived(SAGA_ID, self.now, 1, name, payload or {}, said_at or self.now))

    def reschedules(self, step: str | None, until: datetime) -> Decision:
        return self.happens(
            OperatorActed(
                SAGA_ID, self.now, Act.RESCHEDULE, "ann", "I know why", None, step, None, until=until
            )
        )

    def repair(self) -> None:
        """Our own code works from now on."""
        self.instance = replace(self.instance, state={**self.instance.state, "broken": ""})

    def until(self, name: str) -> Run:
        """Start, and let everything succeed until this step's command is in flight."""
        self.start()
        for _ in self.saga.steps:
            if self.in_flight == [f"{name} do 1"]:
                return self
            self.succeeds()
        raise AssertionError(f"{name} never began: {self.words}")

    def until_end(self) -> Run:
        """Let everything in flight succeed until there is no more."""
        for _ in range(2 * len(self.saga.steps)):
            if not self.in_flight:
                return self
            self.succeeds(next(self.instance.in_flight())[0].name)
        raise AssertionError(f"it does not end: {self.words}")
