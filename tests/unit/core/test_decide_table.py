"""Every situation of a step, met by every event that can come: each cell is meant.

The product of `SITUATIONS` and `EVENTS` is made mechanically. A cell without an expectation fails,
and so does an expectation without a cell. What a cell says:

- ``ignored``, ``refused``: nothing changed, and the decision says why;
- ``nothing``: nothing changed (a look at the clock that found nothing to do);
- ``waits its turn``: only the next look was put off;
- otherwise the saga's status and the step's phase, then what is sent or run: ``do 3``, ``settle 1``,
  ``do 2 again``; of another step with its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from sagas_framework.core.events import (
    Act,
    Decision,
    Event,
    LocalRan,
    OperatorActed,
    ReplyReceived,
    Result,
    Started,
    TimerFired,
    Unroutable,
)
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN
from sagas_framework.core.instance import SagaInstance, StepRecord
from tests.unit.core.stories import DELIVER_ORDER, REPLIES, SAGA_ID, OrderState, Run, error_of

TIMEOUT = timedelta(minutes=5)
TICKET, PIVOT, DELIVERY = "create_restaurant_ticket", "approve_restaurant_ticket", "start_delivery"

# ---- situations: a run, and the step that the events are about ------------------------------------

Situation = tuple[Run, str]


def _second_attempt(name: str) -> Run:
    """So that there is an older attempt whose answers may still come."""
    run = Run(DELIVER_ORDER).until(name)
    run.fails()
    run.at(run.step(name).resume_at)
    return run


def not_started() -> Situation:
    return Run(DELIVER_ORDER), TICKET


def in_flight() -> Situation:
    return _second_attempt(TICKET), TICKET


def pausing() -> Situation:
    run = _second_attempt(TICKET)
    run.fails()
    return run, TICKET


def pivot_in_flight() -> Situation:
    return _second_attempt(PIVOT), PIVOT


def pivot_pausing() -> Situation:
    run = _second_attempt(PIVOT)
    run.fails()
    return run, PIVOT


def pivot_settling() -> Situation:
    run = _second_attempt(PIVOT)
    run.at(run.step(PIVOT).deadline)
    return run, PIVOT


def pivot_settling_parked() -> Situation:
    run, name = pivot_settling()
    run.at(run.step(PIVOT).deadline)
    return run, name


def pivot_answered() -> Situation:
    run = Run(DELIVER_ORDER, OrderState(broken="note_approval")).until(PIVOT)
    run.succeeds()
    return run, PIVOT


def retriable_in_flight() -> Situation:
    return _second_attempt(DELIVERY), DELIVERY


def retriable_pausing() -> Situation:
    run = _second_attempt(DELIVERY)
    run.fails()
    return run, DELIVERY


def retriable_late() -> Situation:
    run = _second_attempt(DELIVERY)
    run.at(run.step(DELIVERY).deadline)
    return run, DELIVERY


def retriable_pausing_parked() -> Situation:
    run, name = retriable_pausing()
    run.at(run.step(DELIVERY).resume_at)
    run.fails()
    return run, name


def retriable_settling() -> Situation:
    run, name = retriable_late()
    run.operator(Act.SKIP)
    return run, name


def refused_after_the_pivot() -> Situation:
    run = _second_attempt(DELIVERY)
    run.refuses("NoCourier")
    return run, DELIVERY


def blocked() -> Situation:
    run = Run(DELIVER_ORDER, OrderState(broken="start_delivery")).until(PIVOT)
    run.succeeds()
    run.repair()
    return run, DELIVERY


def answered() -> Situation:
    run = Run(DELIVER_ORDER, OrderState(broken="remember_courier")).until(DELIVERY)
    run.succeeds()
    run.repair()
    return run, DELIVERY


def compensating() -> Situation:
    run = Run(DELIVER_ORDER).until("authorize_card")
    run.refuses("CardRefused")
    run.fails()
    run.at(run.step(TICKET).resume_at)
    return run, TICKET


def undo_pausing() -> Situation:
    run, name = compensating()
    run.fails()
    return run, name


def undo_late() -> Situation:
    run, name = compensating()
    run.at(run.step(TICKET).deadline)
    return run, name


def undo_refused() -> Situation:
    run, name = compensating()
    run.refuses("Unwilling")
    return run, name


def handing_over() -> Situation:
    run, name = undo_late()
    run.operator(Act.COMPLETE)
    return run, name


def handed_over() -> Situation:
    run, name = handing_over()
    run.settles("yours_to_undo", reply={"ticket_id": 7})
    return run, name


def completed() -> Situation:
    return Run(DELIVER_ORDER).start().until_end(), DELIVERY


def compensated() -> Situation:
    run, name = compensating()
    return run.until_end(), name


def local_running() -> Situation:
    run = Run(DELIVER_ORDER, local_by_hand=True)
    run.start()
    return run, "reject_order"


def local_undoing() -> Situation:
    run = Run(DELIVER_ORDER).until("verify_consumer_details")
    run.local_by_hand = True
    run.refuses("ConsumerUnknown")
    return run, "reject_order"


def local_undo_pausing() -> Situation:
    run = Run(DELIVER_ORDER, OrderState(broken="mark_order_rejected")).until("verify_consumer_details")
    run.refuses("ConsumerUnknown")
    return run, "reject_order"


def local_blocked() -> Situation:
    run = Run(DELIVER_ORDER, OrderState(broken="mark_order_approved")).until("send_receipt")
    run.succeeds()
    return run, "approve_order"


SITUATIONS: Final[dict[str, Callable[[], Situation]]] = {
    made.__name__: made
    for made in (
        not_started,
        in_flight,
        pausing,
        pivot_in_flight,
        pivot_pausing,
        pivot_settling,
        pivot_settling_parked,
        pivot_answered,
        retriable_in_flight,
        retriable_pausing,
        retriable_late,
        retriable_pausing_parked,
        retriable_settling,
        refused_after_the_pivot,
        blocked,
        answered,
        compensating,
        undo_pausing,
        undo_late,
        undo_refused,
        handing_over,
        handed_over,
        completed,
        compensated,
    )
}
# A local step runs in the transaction of the decision that asks for it, so nothing else can come before
# its result; between transactions it is pausing or blocked.
LOCAL_AT_WORK: Final[dict[str, Callable[[], Situation]]] = {
    made.__name__: made for made in (local_running, local_undoing)
}
LOCAL_WAITING: Final[dict[str, Callable[[], Situation]]] = {
    made.__name__: made for made in (local_undo_pausing, local_blocked)
}

# ---- events ---------------------------------------------------------------------------------------

Happening = Callable[[Run, str], Event]
Replying = Callable[[Run, str], ReplyReceived]


def _record(run: Run, name: str) -> StepRecord:
    return run.instance.steps.get(name, StepRecord(name))


def _reply(kind: Kind, result: Result, *, back: int = 0, error: str = "Trouble") -> Replying:
    """An answer to the newest message of this kind, or to one `back` attempts before it."""

    def event(run: Run, name: str) -> ReplyReceived:
        record = _record(run, name)
        newest = {Kind.DO: record.attempts, Kind.UNDO: record.tries, Kind.SETTLE: record.settles}[kind]
        payload = REPLIES.get(name) if kind is Kind.DO and result is Result.SUCCESS else None
        return run.reply_of(name, kind, max(newest, 1) - back, result, payload, error_of(error))

    return event


def _settled(answer: str) -> Happening:
    def event(run: Run, name: str) -> ReplyReceived:
        settles = max(_record(run, name).settles, 1)
        payload = {"answer": answer, "reply": REPLIES.get(name), "error": error_of("Trouble")}
        return run.reply_of(name, Kind.SETTLE, settles, Result.SUCCESS, payload)

    return event


def _settled_anew(run: Run, name: str) -> ReplyReceived:
    return run.reply_of(name, Kind.SETTLE, _record(run, name).settles + 1, Result.SUCCESS, {"answer": "done"})


def _without_ids(kind: Kind, result: Result) -> Happening:
    def event(run: Run, name: str) -> ReplyReceived:
        return replace(_reply(kind, result)(run, name), refs=())

    return event


def _foreign(run: Run, name: str) -> ReplyReceived:
    return replace(_reply(Kind.DO, Result.SUCCESS)(run, name), refs=("someone-elses",))


def _look(run: Run, name: str, *, lost: bool) -> TimerFired:
    """At the moment when the message in flight is looked for (or soon, when there is none)."""
    flight = _record(run, name).flight
    at = (flight and flight.check_at) or run.now + timedelta(milliseconds=1)
    queues = ("restaurant_service.commands", "delivery_service.commands")
    return TimerFired(SAGA_ID, at, dict.fromkeys(queues, at) if lost else {})


def _pause_over(run: Run, name: str) -> TimerFired:
    return TimerFired(SAGA_ID, _record(run, name).resume_at or run.now + timedelta(milliseconds=1))


def _timeout(run: Run, name: str) -> TimerFired:
    return TimerFired(SAGA_ID, _record(run, name).deadline or run.now + timedelta(milliseconds=1))


def _unroutable(run: Run, name: str) -> Unroutable:
    flight = _record(run, name).flight
    return Unroutable(
        SAGA_ID, run.now, flight.message_id if flight else message_id(SAGA_ID, name, Kind.DO, 1)
    )


def _act(act: Act, *, force: bool = False, on: int = 0) -> Happening:
    """An operator's act on the revision that they saw; `on` is how far behind it is."""

    def event(run: Run, name: str) -> OperatorActed:
        reply = REPLIES.get(name) if act is Act.COMPLETE else None
        step = None if act is Act.CANCEL else name
        revision = run.instance.revision - on
        return OperatorActed(SAGA_ID, run.now, act, "ann", "I know why", revision, step, reply, force)

    return event


def _local(*, fails: bool) -> Happening:
    def event(run: Run, name: str) -> LocalRan:
        kind = Kind.UNDO if run.instance.outcome else Kind.DO
        error = error_of("Trouble") if fails else None
        return LocalRan(SAGA_ID, run.now, name, kind, None if fails else run.instance.state, error)

    return event


ACTS: Final[dict[str, Happening]] = {
    "retry": _act(Act.RETRY),
    "retry, forced": _act(Act.RETRY, force=True),
    "skip": _act(Act.SKIP),
    "skip, forced": _act(Act.SKIP, force=True),
    "complete": _act(Act.COMPLETE),
    "complete, forced": _act(Act.COMPLETE, force=True),
    "cancel": _act(Act.CANCEL),
    "cancel, forced": _act(Act.CANCEL, force=True),
}

TIMES: Final[dict[str, Happening]] = {
    "look: lost": lambda run, name: _look(run, name, lost=True),
    "look: not lost": lambda run, name: _look(run, name, lost=False),
    "look before anything is due": lambda run, name: TimerFired(SAGA_ID, run.now),
    "pause over": _pause_over,
    "timeout": _timeout,
}

EVENTS: Final[dict[str, Happening]] = {
    "started again": lambda run, name: Started(SAGA_ID, run.now),
    "success": _reply(Kind.DO, Result.SUCCESS),
    "refusal": _reply(Kind.DO, Result.REFUSED),
    "refusal as withdrawn": _reply(Kind.DO, Result.REFUSED, error=WITHDRAWN),
    "failure": _reply(Kind.DO, Result.FAILED),
    "older success": _reply(Kind.DO, Result.SUCCESS, back=1),
    "older refusal": _reply(Kind.DO, Result.REFUSED, back=1),
    "older failure": _reply(Kind.DO, Result.FAILED, back=1),
    "success without ids": _without_ids(Kind.DO, Result.SUCCESS),
    "undone": _reply(Kind.UNDO, Result.SUCCESS),
    "undo refused": _reply(Kind.UNDO, Result.REFUSED),
    "undo failed": _reply(Kind.UNDO, Result.FAILED),
    "undo found no row": _reply(Kind.UNDO, Result.FAILED, error=INBOX_ROW_MISSING),
    "older undone": _reply(Kind.UNDO, Result.SUCCESS, back=1),
    "older undo failed": _reply(Kind.UNDO, Result.FAILED, back=1),
    "undone without ids": _without_ids(Kind.UNDO, Result.SUCCESS),
    "settled: done": _settled("done"),
    "settled: refused": _settled("refused"),
    "settled: withdrawn": _settled("withdrawn"),
    "settled: yours to undo": _settled("yours_to_undo"),
    "settling failed": _reply(Kind.SETTLE, Result.FAILED),
    "unroutable": _unroutable,
    **TIMES,
    **ACTS,
}
RESULTS_OF_LOCAL_STEPS: Final[dict[str, Happening]] = {
    "ran": _local(fails=False),
    "raised": _local(fails=True),
}

# What is the same in every situation.
EVERYWHERE: Final[dict[str, tuple[Happening, str]]] = {
    "success with a foreign id": (_foreign, "ignored"),
    "answer to a settling never sent": (_settled_anew, "ignored"),
    "retry on an old page": (_act(Act.RETRY, on=1), "refused"),
    "skip on an old page": (_act(Act.SKIP, force=True, on=1), "refused"),
    "complete on an old page": (_act(Act.COMPLETE, force=True, on=1), "refused"),
    "cancel on an old page": (_act(Act.CANCEL, force=True, on=1), "refused"),
}

# ---- what was decided, in a few words -------------------------------------------------------------


def told(before: SagaInstance, decision: Decision, name: str) -> str:
    after = decision.instance
    if decision.refused or decision.ignored:
        assert after == before
        assert not decision.commands
        assert decision.local is None
        return "refused" if decision.refused else "ignored"
    moves = [
        " ".join(
            filter(
                None,
                [
                    "" if out.operation_id == operation_id(SAGA_ID, name) else out.task.partition(".")[2],
                    out.kind.value,
                    str(out.attempt),
                    "again" if out.again else "",
                ],
            )
        )
        for out in decision.commands
    ]
    if decision.local is not None:
        moves.append(f"{decision.local.step} runs {decision.local.kind}")
    if after == before and not moves:
        return "nothing"
    if after.revision == before.revision and not moves:
        return "waits its turn"
    return ": ".join([after.status.value, ", ".join([after.steps[name].phase.value, *moves])])


# ---- the table ------------------------------------------------------------------------------------

TABLE: Final = """
[not_started]
running: pending, reject_order runs do
    <- started again | look: lost | look: not lost | look before anything is due | pause over |
       timeout
compensating: pending, reject_order runs undo
    <- cancel | cancel, forced
refused
    <- retry | retry, forced | skip | skip, forced | complete | complete, forced
ignored
    <- success | refusal | refusal as withdrawn | failure | older success | older refusal | older
       failure | success without ids | undone | undo refused | undo failed | undo found no row |
       older undone | older undo failed | undone without ids | settled: done | settled: refused |
       settled: withdrawn | settled: yours to undo | settling failed | unroutable

[in_flight]
running: succeeded, authorize_card do 1
    <- success | older success | success without ids
compensating: refused, reject_order runs undo
    <- refusal | refusal as withdrawn | older refusal
running: pausing
    <- failure
running: running, do 2 again
    <- look: lost
waits its turn
    <- look: not lost
compensating: compensating, undo 1
    <- timeout | cancel | cancel, forced
running: running, do 3
    <- retry, forced
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | skip | skip, forced | complete | complete, forced
ignored
    <- started again | older failure | undone | undo refused | undo failed | undo found no row |
       older undone | older undo failed | undone without ids | settled: done | settled: refused |
       settled: withdrawn | settled: yours to undo | settling failed

[pausing]
running: succeeded, authorize_card do 1
    <- success | older success
compensating: refused, reject_order runs undo
    <- refusal | refusal as withdrawn | older refusal
running: running, do 3
    <- pause over | retry | retry, forced
compensating: compensating, undo 1
    <- timeout | cancel | cancel, forced
nothing
    <- look: lost | look: not lost | look before anything is due
refused
    <- skip | skip, forced | complete | complete, forced
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids |
       settled: done | settled: refused | settled: withdrawn | settled: yours to undo | settling
       failed | unroutable

[pivot_in_flight]
running: succeeded, start_delivery do 1
    <- success | older success | success without ids
compensating: refused, reverse_authorization undo 1
    <- refusal | refusal as withdrawn | older refusal
running: pausing
    <- failure
running: running, do 2 again
    <- look: lost
waits its turn
    <- look: not lost
running: settling, settle 1
    <- timeout | cancel | cancel, forced
running: running, do 3
    <- retry, forced
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | skip | skip, forced | complete | complete, forced
ignored
    <- started again | older failure | undone | undo refused | undo failed | undo found no row |
       older undone | older undo failed | undone without ids | settled: done | settled: refused |
       settled: withdrawn | settled: yours to undo | settling failed

[pivot_pausing]
running: succeeded, start_delivery do 1
    <- success | older success
compensating: refused, reverse_authorization undo 1
    <- refusal | refusal as withdrawn | older refusal
running: running, do 3
    <- pause over | retry | retry, forced
running: settling, settle 1
    <- timeout | cancel | cancel, forced
nothing
    <- look: lost | look: not lost | look before anything is due
refused
    <- skip | skip, forced | complete | complete, forced
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids |
       settled: done | settled: refused | settled: withdrawn | settled: yours to undo | settling
       failed | unroutable

[pivot_settling]
running: succeeded, start_delivery do 1
    <- success | older success | settled: done | complete, forced
compensating: refused, reverse_authorization undo 1
    <- refusal | older refusal | settled: refused
compensating: withdrawn, reverse_authorization undo 1
    <- refusal as withdrawn | settled: withdrawn | cancel, forced
parked: settling
    <- settled: yours to undo | settling failed | timeout
running: settling, settle 1 again
    <- look: lost
waits its turn
    <- look: not lost
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | retry, forced | skip | skip, forced | complete | cancel
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids

[pivot_settling_parked]
running: succeeded, start_delivery do 1
    <- success | older success | settled: done | complete, forced
compensating: refused, reverse_authorization undo 1
    <- refusal | older refusal | settled: refused
compensating: withdrawn, reverse_authorization undo 1
    <- refusal as withdrawn | settled: withdrawn | cancel, forced
parked: settling
    <- settled: yours to undo | settling failed
parked: settling, settle 1 again
    <- look: lost
waits its turn
    <- look: not lost
nothing
    <- unroutable | look before anything is due | pause over | timeout
refused
    <- retry | retry, forced | skip | skip, forced | complete | cancel
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids

[pivot_answered]
parked: answered
    <- retry | retry, forced
running: succeeded, start_delivery do 1
    <- skip | skip, forced | complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable

[retriable_in_flight]
running: succeeded, send_receipt do 1
    <- success | older success | success without ids | complete, forced
parked: refused
    <- refusal | refusal as withdrawn | older refusal
running: pausing
    <- failure
running: running, do 2 again
    <- look: lost
waits its turn
    <- look: not lost
parked: running
    <- timeout
running: running, do 3
    <- retry, forced
running: skipped, send_receipt do 1
    <- skip, forced
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | skip | complete | cancel | cancel, forced
ignored
    <- started again | older failure | undone | undo refused | undo failed | undo found no row |
       older undone | older undo failed | undone without ids | settled: done | settled: refused |
       settled: withdrawn | settled: yours to undo | settling failed

[retriable_pausing]
running: succeeded, send_receipt do 1
    <- success | older success | complete, forced
parked: refused
    <- refusal | refusal as withdrawn | older refusal
running: running, do 3
    <- pause over | timeout | retry | retry, forced
running: settling, settle 1
    <- skip | complete
running: skipped, send_receipt do 1
    <- skip, forced
nothing
    <- look: lost | look: not lost | look before anything is due
refused
    <- cancel | cancel, forced
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids |
       settled: done | settled: refused | settled: withdrawn | settled: yours to undo | settling
       failed | unroutable

[retriable_late]
running: succeeded, send_receipt do 1
    <- success | older success | success without ids | complete, forced
parked: refused
    <- refusal | refusal as withdrawn | older refusal
parked: pausing
    <- failure
parked: running, do 2 again
    <- look: lost
waits its turn
    <- look: not lost
running: running, do 3
    <- retry | retry, forced
running: settling, settle 1
    <- skip | complete
running: skipped, send_receipt do 1
    <- skip, forced
nothing
    <- unroutable | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | older failure | undone | undo refused | undo failed | undo found no row |
       older undone | older undo failed | undone without ids | settled: done | settled: refused |
       settled: withdrawn | settled: yours to undo | settling failed

[retriable_pausing_parked]
running: succeeded, send_receipt do 1
    <- success | older success | complete, forced
parked: refused
    <- refusal | refusal as withdrawn | older refusal
parked: running, do 4
    <- pause over | timeout
running: running, do 4
    <- retry | retry, forced
running: settling, settle 1
    <- skip | complete
running: skipped, send_receipt do 1
    <- skip, forced
nothing
    <- look: lost | look: not lost | look before anything is due
refused
    <- cancel | cancel, forced
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids |
       settled: done | settled: refused | settled: withdrawn | settled: yours to undo | settling
       failed | unroutable

[retriable_settling]
running: succeeded, send_receipt do 1
    <- success | older success | settled: done | complete, forced
running: skipped, send_receipt do 1
    <- refusal | refusal as withdrawn | older refusal | settled: refused | settled: withdrawn |
       skip, forced
parked: settling
    <- settled: yours to undo | settling failed | timeout
running: settling, settle 1 again
    <- look: lost
waits its turn
    <- look: not lost
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | retry, forced | skip | complete | cancel | cancel, forced
ignored
    <- started again | failure | older failure | success without ids | undone | undo refused |
       undo failed | undo found no row | older undone | older undo failed | undone without ids

[refused_after_the_pivot]
running: skipped, send_receipt do 1
    <- skip | skip, forced
running: succeeded, send_receipt do 1
    <- complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- retry | retry, forced | cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable

[blocked]
running: running, do 1
    <- retry | retry, forced
running: skipped, send_receipt do 1
    <- skip | skip, forced
running: succeeded, send_receipt do 1
    <- complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable

[answered]
running: succeeded, send_receipt do 1
    <- retry | retry, forced | skip | skip, forced | complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable

[compensating]
compensating: compensated, reject_order runs undo
    <- undone | older undone | undone without ids | complete, forced
parked: undo_pausing, reject_order runs undo
    <- undo refused | undo found no row
compensating: undo_pausing
    <- undo failed
compensating: compensating, undo 2 again
    <- look: lost
waits its turn
    <- look: not lost
parked: compensating, reject_order runs undo
    <- timeout
compensating: compensating, undo 3
    <- retry, forced
compensating: skipped, reject_order runs undo
    <- skip, forced
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | skip | complete | cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | older undo failed | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed

[undo_pausing]
compensating: compensated, reject_order runs undo
    <- undone | older undone | complete, forced
compensating: compensating, undo 3
    <- pause over | timeout | retry | retry, forced
compensating: handing_over, settle 1
    <- skip | complete
compensating: skipped, reject_order runs undo
    <- skip, forced
nothing
    <- look: lost | look: not lost | look before anything is due
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undo refused | undo failed | undo found no
       row | older undo failed | undone without ids | settled: done | settled: refused | settled:
       withdrawn | settled: yours to undo | settling failed | unroutable

[undo_late]
compensated: compensated
    <- undone | older undone | undone without ids | complete, forced
parked: undo_pausing
    <- undo refused | undo failed | undo found no row
parked: compensating, undo 2 again
    <- look: lost
waits its turn
    <- look: not lost
compensating: compensating, undo 3
    <- retry | retry, forced
compensating: handing_over, settle 1
    <- skip | complete
compensated: skipped
    <- skip, forced
nothing
    <- unroutable | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | older undo failed | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed

[undo_refused]
compensated: compensated
    <- undone | older undone | complete, forced
compensating: compensating, undo 3
    <- retry | retry, forced
compensating: handing_over, settle 1
    <- skip | complete
compensated: skipped
    <- skip, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undo refused | undo failed | undo found no
       row | older undo failed | undone without ids | settled: done | settled: refused | settled:
       withdrawn | settled: yours to undo | settling failed | unroutable

[handing_over]
parked: handing_over
    <- settled: done | settling failed | timeout
compensated: compensated
    <- settled: refused | settled: withdrawn | complete, forced
parked: handed_over
    <- settled: yours to undo
compensating: handing_over, settle 1 again
    <- look: lost
waits its turn
    <- look: not lost
compensated: skipped
    <- skip, forced
nothing
    <- unroutable | look before anything is due | pause over
refused
    <- retry | retry, forced | skip | complete | cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids

[handed_over]
compensated: skipped
    <- skip | skip, forced
compensated: compensated
    <- complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- retry | retry, forced | cancel | cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable

[completed]
refused
    <- retry | retry, forced | skip | skip, forced | complete | complete, forced | cancel |
       cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable | look: lost | look: not lost | look before anything is due | pause over |
       timeout

[compensated]
refused
    <- retry | retry, forced | skip | skip, forced | complete | complete, forced | cancel |
       cancel, forced
ignored
    <- started again | success | refusal | refusal as withdrawn | failure | older success | older
       refusal | older failure | success without ids | undone | undo refused | undo failed | undo
       found no row | older undone | older undo failed | undone without ids | settled: done |
       settled: refused | settled: withdrawn | settled: yours to undo | settling failed |
       unroutable | look: lost | look: not lost | look before anything is due | pause over |
       timeout
"""

LOCAL_TABLE: Final = """
[local_running]
running: succeeded, verify_consumer_details do 1
    <- ran
compensated: failed
    <- raised

[local_undoing]
compensated: compensated
    <- ran
compensating: undo_pausing
    <- raised

[local_undo_pausing]
compensating: compensating, reject_order runs undo
    <- pause over | retry | retry, forced
compensated: skipped
    <- skip | skip, forced
compensated: compensated
    <- complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | timeout
refused
    <- cancel | cancel, forced

[local_blocked]
running: running, approve_order runs do
    <- retry | retry, forced
completed: skipped
    <- skip | skip, forced
completed: succeeded
    <- complete | complete, forced
nothing
    <- look: lost | look: not lost | look before anything is due | pause over | timeout
refused
    <- cancel | cancel, forced
"""

Cell = tuple[str, str]


def cells(table: str) -> dict[Cell, str]:
    """What is expected of each situation and event. One that is named twice is an error."""
    result: dict[Cell, str] = {}
    for block in table.split("["):
        situation, _, groups = block.partition("]\n")
        for group in re.split(r"\n(?=\S)", groups.strip()):
            expected, _, events = group.partition("<-")
            for event in events.split("|"):
                cell = situation.strip(), " ".join(event.split())
                assert cell not in result, f"{cell}: two expectations"
                if cell[1]:
                    result[cell] = expected.strip()
    return result


def product(situations: dict[str, Callable[[], Situation]], events: dict[str, Happening]) -> set[Cell]:
    return {(situation, event) for situation in situations for event in events}


ALL_SITUATIONS: Final = {**SITUATIONS, **LOCAL_AT_WORK, **LOCAL_WAITING}
ALL_EVENTS: Final = {**EVENTS, **RESULTS_OF_LOCAL_STEPS}
EXPECTED: Final = {**cells(TABLE), **cells(LOCAL_TABLE)}


def test_every_cell_of_the_table_is_meant() -> None:
    wanted = (
        product(SITUATIONS, EVENTS)
        | product(LOCAL_AT_WORK, RESULTS_OF_LOCAL_STEPS)
        | product(LOCAL_WAITING, {**TIMES, **ACTS})
    )

    assert wanted - EXPECTED.keys() == set(), "cells without an expectation"
    assert EXPECTED.keys() - wanted == set(), "expectations without a cell"


@pytest.mark.parametrize(("situation", "event"), sorted(EXPECTED))
def test_the_table_holds(situation: str, event: str) -> None:
    run, name = ALL_SITUATIONS[situation]()
    before = run.instance

    decision = run.happens_alone(ALL_EVENTS[event](run, name))

    assert told(before, decision, name) == EXPECTED[situation, event]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("event", EVERYWHERE)
def test_some_events_mean_the_same_everywhere(situation: str, event: str) -> None:
    run, name = ALL_SITUATIONS[situation]()
    happening, expected = EVERYWHERE[event]
    before = run.instance

    decision = run.happens_alone(happening(run, name))

    assert told(before, decision, name) == expected


OTHERS: Final = {*TIMES, *ACTS, "started again", "unroutable"}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("event", [event for event in EVENTS if event not in OTHERS])
def test_a_reply_is_in_the_history_as_ignored_exactly_when_it_is(situation: str, event: str) -> None:
    run, name = SITUATIONS[situation]()

    decision = run.happens_alone(EVENTS[event](run, name))

    noted = [line.entry for line in decision.history] == ["reply_ignored"]
    assert noted == (decision.ignored is not None)
