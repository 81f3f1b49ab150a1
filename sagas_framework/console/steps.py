"""The table of a saga's steps: how each went, how it was undone, what of it is there now, its messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from sagas_framework.console.masking import Masking
from sagas_framework.console.picture import duration
from sagas_framework.core.events import Recorded
from sagas_framework.core.ids import Kind, message_id
from sagas_framework.core.instance import Flight, Phase, SagaInstance, StepRecord
from sagas_framework.core.telling import Effect, effect, phase_in_words
from sagas_framework.core.why import clock_time, in_words, quoted, times
from sagas_framework.messages import Compensation, signal_task
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep, LocalStep, WaitStep
from sagas_framework.view import SagaView

_BACKWARD: Final = frozenset(
    {
        Phase.COMPENSATING,
        Phase.UNDO_PAUSING,
        Phase.HANDING_OVER,
        Phase.HANDED_OVER,
        Phase.COMPENSATED,
    }
)
_TONES: Final = {
    Effect.THERE: "there",
    Effect.KEPT: "kept",
    Effect.UNDONE: "undone",
    Effect.STILL_THERE: "open",
    Effect.UNKNOWN: "unknown",
}
_LONGEST: Final = 80  # characters of a reply in a line
_SHORTEST: Final = 0.0005  # seconds: what took less is not worth a number


@dataclass(frozen=True, slots=True)
class Said:
    """A cell of the table.

    Args:
        tone: ``bad`` for what went wrong.
        below: what stands under it in small.
    """

    text: str
    tone: str = ""
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Payload:
    """What a message carried, as JSON text without its secrets. `message_id`: empty where it is not known."""

    what: str
    name: str
    body: str
    at: datetime | None = None
    message_id: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepRow:
    """A row of the table.

    Args:
        task: of its command; None for a step of the orchestrator's own, or if its declaration is not here.
        forward, undo: None where there is nothing to say.
        tone: of the effect: ``there``, ``kept``, ``undone``, ``open``, ``unknown``, ``awaited`` or ``none``.
    """

    name: str
    task: str | None
    local: bool
    pivot: bool
    forward: Said | None
    undo: Said | None
    effect: str
    tone: str
    of_effect: str
    payloads: Sequence[Payload]
    waits: bool
    """Whether it needs a person."""


def step_rows(view: SagaView, mask: Masking) -> list[StepRow]:
    """The steps in order."""
    told = _told(view)
    return [_row(view, record, told[record.name], mask) for record in view.records]


def step_of(saga: SagaDefinition | None, name: str | None) -> AnyStep | None:
    """The declaration of the step; None if it is not at hand."""
    return next((step for step in saga.steps if step.name == name), None) if saga is not None else None


def reply_model(saga: SagaDefinition | None, name: str | None) -> type[BaseModel] | None:
    """The class of the reply that the step's command gets; None where that is not known."""
    step = step_of(saga, name)
    if not isinstance(step, CommandStep):
        return None
    model = step.command.reply_type()
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def masked_reply(saga: SagaDefinition | None, name: str | None, reply: Any, mask: Masking) -> Any:
    """What came for the step, without its secrets; of a wait what its signal says."""
    step = step_of(saga, name)
    if isinstance(step, WaitStep) and isinstance(reply, Mapping):
        return masked_signal(saga, reply, mask)
    return mask(reply, reply_model(saga, name))


def masked_signal(saga: SagaDefinition | None, said: Mapping[str, Any], mask: Masking) -> dict[str, Any]:
    """Something with a ``signal`` and its ``payload``, without the secrets in it."""
    told = {name: value for name, value in said.items() if name != "payload"}
    if "payload" not in said:
        return told
    model = saga.signal(str(said.get("signal"))) if saga is not None else None
    return told | {"payload": mask(said["payload"], model)}


def undo_model(step: CommandStep[Any]) -> type[Compensation[Any]] | None:
    """The class of the step's compensation."""
    return step.command.compensation


# ---- from the history -----------------------------------------------------------------------------


@dataclass
class _Told:
    """What the history says of a step."""

    sent: datetime | None = None
    ended: Recorded | None = None
    """Its success, or its last failure."""
    undo_sent: datetime | None = None
    undo_failed: datetime | None = None
    undone: Recorded | None = None
    skipped: Recorded | None = None
    late: list[Recorded] = field(default_factory=list)


def _told(view: SagaView) -> dict[str, _Told]:
    found = {record.name: _Told() for record in view.records}
    for line in (line.recorded for line in view.told):
        if line.step is None:
            for name in _late(view.saga, line):
                found.get(name, _Told()).late.append(line)
            continue
        told = found.get(line.step)
        if told is None:
            continue
        match line.entry.removeprefix(f"{line.step}."):
            case "running":
                told.sent = told.sent or line.at
            case "succeeded" | "failed":
                told.ended = line
            case "compensating":
                told.undo_sent = told.undo_sent or line.at
            case "compensation_failed":
                told.undo_failed = line.at
            case "compensated":
                told.undone = line
            case "skipped":
                told.skipped = line
    return found


def _late(saga: SagaDefinition | None, line: Recorded) -> Iterator[str]:
    """The step whose late success it is: one that changed nothing."""
    if line.entry != "reply_ignored" or line.detail.get("result") != "success" or saga is None:
        return
    for step in saga.steps:
        if isinstance(step, CommandStep) and step.command.contract.task == line.detail.get("task"):
            yield step.name


# ---- a row ----------------------------------------------------------------------------------------


def _row(view: SagaView, record: StepRecord, told: _Told, mask: Masking) -> StepRow:
    step = step_of(view.saga, record.name)
    its = effect(record, view.instance, view.saga)
    return StepRow(
        name=record.name,
        task=step.command.contract.task if isinstance(step, CommandStep) else None,
        local=isinstance(step, LocalStep),
        pivot=view.saga is not None and view.saga.pivot < len(view.saga.steps) and _is_pivot(view, record),
        forward=_forward(view, record, told),
        undo=_undo(view, record, told),
        effect=its.value,
        tone=_tone(record, its),
        of_effect=_of_effect(view, record, its, mask),
        payloads=list(_payloads(view, record, told, mask)),
        waits=bool(record.parked),
    )


def _tone(record: StepRecord, its: Effect) -> str:
    if its is Effect.UNKNOWN and record.phase is Phase.RUNNING and not record.parked:
        return "awaited"  # as it should be
    return _TONES.get(its, "none")


def _is_pivot(view: SagaView, record: StepRecord) -> bool:
    assert view.saga is not None
    return view.saga.steps[view.saga.pivot].name == record.name


def _forward(view: SagaView, record: StepRecord, told: _Told) -> Said | None:
    below = _beside(view.instance, record, told)
    word = phase_in_words(record, view.saga).removesuffix(", parked")
    error = (quoted(record.error),) if record.error else ()
    match record.phase:
        case Phase.PENDING:
            return None
        case Phase.RUNNING if record.flight is not None:
            sent = f"sent {in_words(view.now - record.flight.since)} ago"
            return Said(sent, below=(*_of_flight(record.flight), *below))
        case Phase.PAUSING:
            left = _next(record.resume_at, view.now, record.attempts + 1)
            return Said(f"try {record.attempts} failed", "bad", (*error, *left, *below))
        case Phase.WAITING | Phase.DELAYED:
            moment = record.deadline or record.resume_at
            until = (f"until {clock_time(moment, view.now)} UTC",) if moment is not None else ()
            return Said(word, below=(*until, *below))
        case Phase.LEFT_OUT:
            return Said(word)
        case Phase.SETTLING:
            return Said("asked how it stands", below=below)
        case Phase.SUCCEEDED:
            return _ended(record, told, below) or Said(word, below=below)
        case Phase.SKIPPED:
            by = f"by {told.skipped.detail.get('by')}" if told.skipped is not None else ""
            if record.tries or (told.ended is not None and told.ended.entry.endswith(".succeeded")):
                return _ended(record, told, below)
            return Said("skipped", below=((by,) if by else ()) + below)
        case its if its in _BACKWARD:
            if told.sent is None and record.first_sent_at is None and told.ended is None:
                return Said("done" if record.known else "not sent")
            return _ended(record, told, below) or Said("done" if record.known else "sent", below=below)
        case Phase.BLOCKED | Phase.ANSWERED:
            return Said(f"{word}, but our own code failed", "bad", (*error, *below))
        case _:
            return _ended(record, told, below) or Said(word, "bad", (*error, *below))


def _ended(record: StepRecord, told: _Told, below: tuple[str, ...]) -> Said | None:
    """How its way forward ended, as the history has it."""
    line = told.ended
    if line is None:
        return None
    detail = line.detail
    took = _took(told.sent, line.at)
    if line.entry.endswith(".succeeded"):
        if detail.get("by_hand"):
            return Said("done by hand", below=(f"by {detail.get('by')}", *below))
        return Said(f"done in {took}" if took else "done", below=below)
    if detail.get("because") is not None:
        return Said("never happened", below=(str(detail["because"]), *below))
    error = {name: str(detail[name]) for name in ("type", "message") if detail.get(name)}
    if error.get("type") == "DeadlinePassed":
        return Said("its deadline has passed", "bad", below)
    if error.get("type") == "NoAnswer":
        return Said(_unanswered(error.get("message", "")), "bad", below)
    word = {Phase.REFUSED: "refused", Phase.WITHDRAWN: "never happened"}.get(record.phase, "failed")
    told_error = (quoted(error),) if error else ()
    return Said(f"{word} after {took}" if took else word, "bad", (*told_error, *below))


def _unanswered(message: str) -> str:
    """``no answer in 30 s``, without whose."""
    _, found, rest = message.partition("no answer")
    return f"{found}{rest}" or "no answer"


def _beside(instance: SagaInstance, record: StepRecord, told: _Told) -> tuple[str, ...]:
    """What else is worth a line: how often it was tried, what came too late."""
    lines = [f"{record.attempts} tries"] if record.attempts > 1 else []
    for line in told.late[:1]:
        after = duration((line.at - instance.created_at).total_seconds())
        lines.append(f"late success at +{after}: changed nothing")
    return tuple(lines)


def _undo(view: SagaView, record: StepRecord, told: _Told) -> Said | None:
    error = (quoted(record.error),) if record.error else ()
    match record.phase:
        case Phase.COMPENSATED:
            return _undone(view.saga, record, told)
        case Phase.COMPENSATING if record.flight is not None:
            flight = record.flight
            tried = (f"try {record.tries}",) if record.tries > 1 else ()
            failed = error if record.tries > 1 else ()
            sent = f"sent {in_words(view.now - flight.since)} ago"
            return Said(sent, below=(*tried, *_of_flight(flight), *failed))
        case Phase.UNDO_PAUSING:
            last = f", last {in_words(view.now - told.undo_failed)} ago" if told.undo_failed else ""
            left = _next(record.resume_at, view.now, record.tries + 1)
            return Said(f"failed {times(record.tries)}{last}", "bad", (*error, *left))
        case Phase.HANDING_OVER:
            return Said("being handed over to you", below=error)
        case Phase.HANDED_OVER:
            return Said("yours to undo by hand", "bad", error)
        case Phase.SKIPPED if record.tries or _reached_back(told):
            return Said("skipped: left as it is", "bad", error)
        case Phase.COMPENSATING:
            return Said("being undone")
        case Phase.REFUSED | Phase.WITHDRAWN if view.instance.outcome is not None:
            return Said("nothing to undo")
        case Phase.FAILED | Phase.UNKNOWN | Phase.SUCCEEDED if view.instance.outcome is not None:
            if view.instance.status.ended:
                return None
            return Said("waits for its turn")
        case _:
            return None


def _reached_back(told: _Told) -> bool:
    return told.undo_sent is not None


def _undone(saga: SagaDefinition | None, record: StepRecord, told: _Told) -> Said:
    detail: Mapping[str, Any] = told.undone.detail if told.undone is not None else {}
    word = phase_in_words(record, saga)
    if detail.get("nothing_to_undo"):
        word = "nothing to undo"
    if detail.get("by_hand"):
        return Said("undone by hand", below=(f"by {detail.get('by')}",))
    took = _took(told.undo_sent, told.undone.at) if told.undone is not None else ""
    below = [f"{record.tries} tries"] if record.tries > 1 else []
    below += [str(detail["because"])] if detail.get("because") else []
    return Said(f"{word} in {took}" if took and word == "undone" else word, below=tuple(below))


def _of_flight(flight: Flight) -> Iterable[str]:
    if flight.kind is Kind.DO and flight.attempt > 1:
        yield f"try {flight.attempt}"
    if flight.resends:
        yield f"sent again {times(flight.resends)} with one id"


def _next(moment: datetime | None, now: datetime, number: int) -> tuple[str, ...]:
    if moment is None:
        return ()
    return (f"try {number} in {in_words(moment - now)}" if moment > now else f"try {number} is due now",)


def _took(start: datetime | None, end: datetime) -> str:
    """How long it took; empty where that is nothing, or not known."""
    seconds = (end - start).total_seconds() if start is not None else 0.0
    return duration(seconds) if seconds >= _SHORTEST else ""


def _of_effect(view: SagaView, record: StepRecord, its: Effect, mask: Masking) -> str:
    match its:
        case Effect.NONE:
            return "it leaves nothing behind"
        case Effect.UNKNOWN:
            return "nobody has said yet" if record.phase is not Phase.SKIPPED else "left as it is by hand"
        case Effect.STILL_THERE if record.phase is Phase.HANDED_OVER:
            return "undoing it is a person's"
        case Effect.NEVER:
            return ""
        case Effect.UNDONE if not _undo_answers(view, record.name):
            return "sent to a participant that does not acknowledge it"
        case _:
            return _brief(mask(record.reply, reply_model(view.saga, record.name)))


def _undo_answers(view: SagaView, name: str) -> bool:
    step = None if view.saga is None else view.saga.steps[view.saga.index(name)]
    return not isinstance(step, CommandStep) or step.undo_answers


def _brief(reply: Any) -> str:
    """What the participant said, in a line: it often is the number to look for."""
    if not isinstance(reply, Mapping):
        return "" if reply is None else _cut(json.dumps(reply, ensure_ascii=False))
    flat = [f"{name} {value}" for name, value in reply.items() if isinstance(value, (str, int, float))]
    return _cut(", ".join(flat))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


# ---- messages -------------------------------------------------------------------------------------


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _payloads(view: SagaView, record: StepRecord, told: _Told, mask: Masking) -> Iterator[Payload]:
    step, its_id = step_of(view.saga, record.name), view.instance.id
    command = step.command if isinstance(step, CommandStep) else None
    task = command.contract.task if command is not None else record.name
    if record.request is not None:
        yield Payload(
            f"Command, try {record.attempts}" if record.attempts > 1 else "Command",
            task,
            pretty(mask(record.request, command)),
            record.first_sent_at,
            message_id(its_id, record.identity, Kind.DO, max(record.attempts, 1)),
        )
    if isinstance(step, WaitStep):
        yield from _signal(view, record, told, mask)
    elif record.reply is not None:
        at = told.ended.at if told.ended is not None else None
        body = pretty(mask(record.reply, reply_model(view.saga, record.name)))
        yield Payload("Reply: success", f"{task}.response.success", body, at)
    if isinstance(step, CommandStep):
        yield from _undo_payload(view, record, step, mask)
    if record.error:
        at, name = (told.ended.at if told.ended is not None else None), task
        if told.undo_failed is not None:  # the row has the last one
            at = told.undo_failed
            name = command.compensation.contract.task if command and command.compensation else task
        yield Payload("Last failure", name, pretty(dict(record.error)), at)


def _signal(view: SagaView, record: StepRecord, told: _Told, mask: Masking) -> Iterator[Payload]:
    """The signal that it took; none if its deadline passed."""
    reply: Mapping[str, Any] = record.reply or {}
    if "signal" in reply:
        body = pretty(masked_reply(view.saga, record.name, reply, mask).get("payload"))
        at = told.ended.at if told.ended is not None else None
        yield Payload("Signal", signal_task(view.instance.saga, reply["signal"]), body, at)


def _undo_payload(
    view: SagaView, record: StepRecord, step: CommandStep[Any], mask: Masking
) -> Iterator[Payload]:
    """That in flight; else, since the row keeps it no longer, what the state makes of it now."""
    flight, model = record.flight, undo_model(step)
    if flight is not None and flight.kind is not Kind.DO:
        what = "Question how it stands" if flight.kind is Kind.SETTLE else "Undo"
        tried = f", try {flight.attempt}" if flight.attempt > 1 else ""
        body = pretty(mask(flight.payload, model))
        yield Payload(f"{what}{tried}", flight.task, body, flight.since, flight.message_id)
    elif record.tries and callable(step.compensation) and view.saga is not None and model is not None:
        try:
            state = view.saga.state.model_validate(dict(view.instance.state))
            made = step.compensation(state).to_json()
        except Exception:
            return  # our own code cannot build it, which is told as the step's failure
        number = message_id(view.instance.id, record.identity, Kind.UNDO, record.tries)
        yield Payload(
            f"Undo, try {record.tries}" if record.tries > 1 else "Undo",
            model.contract.task,
            pretty(mask(made, model)),
            None,
            number,
            "as the state makes it now",
        )
