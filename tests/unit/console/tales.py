"""The sagas that the console's pictures are tested on: real histories, with time that passes in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from sagas_framework.console.picture import Picture
from sagas_framework.console.story import picture
from sagas_framework.core.events import Act, Recorded, Result
from sagas_framework.core.ids import Kind
from sagas_framework.saga import SagaDefinition
from sagas_framework.storage.ports import HistoryLine
from tests.unit.core.stories import DELIVER_ORDER, SAGA_ID, OrderState, Run

TICKET: Final = "create_restaurant_ticket"
CARD: Final = "authorize_card"
PIVOT: Final = "approve_restaurant_ticket"
DELIVERY: Final = "start_delivery"


def lines(history: list[Recorded]) -> list[HistoryLine]:
    """The history as it is read back."""
    return [HistoryLine(SAGA_ID, number, number, line) for number, line in enumerate(history, 1)]


class Tale(Run):
    """A `Run` in which every answer takes its time, and everything is drawn."""

    def waits(self, seconds: float) -> Tale:
        self.now += timedelta(seconds=seconds)
        return self

    def comes_to(self, name: str, each: float = 0.03) -> Tale:
        """Start, and let everything succeed, `each` seconds later, until this step's command is in flight."""
        self.waits(0.004).start()
        while self.in_flight != [f"{name} do 1"]:
            self.waits(each).succeeds()
        return self

    def goes_on(self, each: float = 0.03) -> Tale:
        """Let everything in flight succeed, one after the other, until there is no more."""
        while self.in_flight:
            self.waits(each).succeeds(next(self.instance.in_flight())[0].name)
        return self

    def is_sent_again(self, after: float) -> Tale:
        """The timekeeper finds that what is in flight was lost."""
        queues = {flight.queue: self.now + timedelta(days=400) for _, flight in self.instance.in_flight()}
        self.after(after, queues)
        return self

    def picture(self, definition: SagaDefinition | None = None, *, alone: bool = False) -> Picture:
        """What is drawn now. `alone`: without its declaration."""
        return picture(
            self.instance, None if alone else definition or self.saga, lines(self.history), self.now
        )


# ---- tales ----------------------------------------------------------------------------------------


def not_started() -> Tale:
    return Tale().waits(3)


def completed() -> Tale:
    return Tale(DELIVER_ORDER).comes_to(DELIVERY).goes_on()


def refused() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(0.031).refuses("CardRefused")
    return tale.goes_on(0.025)


def unanswered() -> Tale:
    """No answer, sent again, undone all the same; its late success changes nothing."""
    tale = Tale().comes_to(CARD)
    for pause in (10, 20, 40):
        tale.is_sent_again(pause)
    tale.at(tale.step(CARD).deadline)
    return tale


def late() -> Tale:
    tale = unanswered().goes_on(0.04)
    tale.waits(1.3)
    tale.happens(tale.reply_of(CARD, Kind.DO, 1, Result.SUCCESS, {"transaction_id": "t-9"}))
    return tale


def parked_undo() -> Tale:
    """The undo fails eight times, parks after the fifth, and goes on being tried."""
    tale = unanswered()
    tale.waits(0.04).succeeds(CARD)
    for number in range(1, 9):
        tale.waits(0.03).fails(TICKET, "KitchenOffline")
        if number < 8:
            tale.at(tale.step(TICKET).resume_at)
    return tale


def freed() -> Tale:
    tale = parked_undo()
    tale.waits(120).operator(Act.RETRY, TICKET)
    tale.waits(0.05).succeeds(TICKET)
    return tale.goes_on()


def retried_pivot() -> Tale:
    """The pivot is in its third try."""
    tale = Tale().comes_to(PIVOT)
    for _ in range(2):
        tale.waits(0.028).fails(error="KitchenBusy")
        tale.at(tale.step(PIVOT).resume_at)
    tale.waits(3)
    return tale


def settling() -> Tale:
    """The pivot is not answered, and its participant is asked."""
    tale = Tale().comes_to(PIVOT)
    tale.at(tale.step(PIVOT).deadline)
    tale.waits(20)
    return tale


def withdrawn() -> Tale:
    tale = settling()
    tale.settles("withdrawn")
    return tale.goes_on()


def handing_over() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(0.03).refuses("CardRefused")
    tale.waits(0.03).refuses("InvalidPayload", TICKET)
    tale.waits(40).operator(Act.COMPLETE, TICKET)
    tale.waits(2)
    return tale


def handed_over() -> Tale:
    tale = handing_over()
    tale.settles("yours_to_undo", TICKET, reply={"ticket_id": 7})
    return tale.waits(60)


def undone_by_hand() -> Tale:
    tale = handed_over()
    tale.operator(Act.COMPLETE, TICKET)
    return tale


def left_as_it_is() -> Tale:
    tale = handing_over_for_a_skip()
    tale.settles("yours_to_undo", TICKET, reply={"ticket_id": 7})
    return tale


def handing_over_for_a_skip() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(0.03).refuses("CardRefused")
    tale.waits(0.03).refuses("InvalidPayload", TICKET)
    tale.waits(40).operator(Act.SKIP, TICKET)
    return tale.waits(2)


def skipped() -> Tale:
    """A refusal after the pivot is skipped by hand."""
    tale = Tale(DELIVER_ORDER).comes_to(DELIVERY)
    tale.waits(0.03).refuses("NoCourier")
    tale.waits(90).operator(Act.SKIP, DELIVERY)
    return tale.goes_on()


def completed_by_hand() -> Tale:
    tale = Tale(DELIVER_ORDER).comes_to(DELIVERY)
    tale.waits(0.03).refuses("NoCourier")
    tale.waits(90).operator(Act.COMPLETE, DELIVERY, reply={"courier": "Ann"})
    return tale.goes_on()


def blocked() -> Tale:
    """Our own code raises after the pivot, before anything was sent."""
    return Tale(DELIVER_ORDER, OrderState(broken="start_delivery")).comes_to(PIVOT).goes_on().waits(50)


def answered() -> Tale:
    """The pivot succeeded, but our own code cannot take its reply."""
    return Tale(DELIVER_ORDER, OrderState(broken="note_approval")).comes_to(PIVOT).goes_on().waits(50)


def broken_local_end() -> Tale:
    return Tale(state=OrderState(broken="mark_order_approved")).comes_to(PIVOT).goes_on().waits(5)


def cancelled_in_a_pause() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(0.05).fails(error="BankBusy")
    tale.waits(0.4).operator(Act.CANCEL)
    return tale.goes_on()


def cancelled_in_flight() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(4).operator(Act.CANCEL)
    return tale.goes_on()


def sent_again_for_days() -> Tale:
    """After the pivot nobody answers, and it is sent again for three days."""
    tale = Tale(DELIVER_ORDER).comes_to(DELIVERY)
    for _ in range(400):
        tale.is_sent_again(650)
    return tale


def undo_tried_for_days() -> Tale:
    tale = Tale().comes_to(CARD)
    tale.waits(0.03).refuses("CardRefused")
    for _ in range(300):
        tale.waits(0.03).fails(TICKET, "KitchenOffline")
        tale.at(tale.step(TICKET).resume_at)
    return tale


TALES: Final[Mapping[str, Callable[[], Tale]]] = {
    tale.__name__: tale
    for tale in (
        not_started,
        completed,
        refused,
        unanswered,
        late,
        parked_undo,
        freed,
        retried_pivot,
        settling,
        withdrawn,
        handing_over,
        handed_over,
        undone_by_hand,
        left_as_it_is,
        skipped,
        completed_by_hand,
        blocked,
        answered,
        broken_local_end,
        cancelled_in_a_pause,
        cancelled_in_flight,
        sent_again_for_days,
        undo_tried_for_days,
    )
}
