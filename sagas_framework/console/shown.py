"""What the page of one saga shows, as plain data: no request, no HTML but its picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup, escape

from sagas_framework.console.choices import Choice, choices, refusal
from sagas_framework.console.masking import Masking
from sagas_framework.console.picture import Picture, duration
from sagas_framework.console.signals import SignalForm, forms
from sagas_framework.console.steps import (
    StepRow,
    masked_reply,
    masked_signal,
    pretty,
    reply_model,
    step_of,
    step_rows,
    undo_model,
)
from sagas_framework.console.story import picture
from sagas_framework.console.timeline import draw, legend
from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.instance import Cause, Phase, Status
from sagas_framework.core.telling import line_in_words
from sagas_framework.core.why import because, clock_time, count, in_words
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep
from sagas_framework.storage.ports import ActRow, Became, HistoryLine, SignalRow
from sagas_framework.view import SagaView, act_to_json, line_to_json

MOST_LINES: Final = 200
"""Lines of a history that are shown at first."""
MOST_OF_ALL: Final = 5000
"""Lines of a history that are shown to who asks for all: more make megabytes. JSON has every one."""
MOVING: Final = 900
"""Milliseconds between two looks at a saga that may end any moment: that is to be seen within a second."""
WAITING: Final = 5000
"""The same while nothing can happen."""
_SOON: Final = timedelta(seconds=10)
_WAITS: Final = (Cause.PAUSE, Cause.START, Cause.SIGNAL, Cause.TIME)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about the saga. With a `moment` it is shown as a time."""

    name: str
    text: str
    moment: datetime | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """The sentence, in parts.

    Args:
        lead: where it stands, with the names of its steps marked.
        before, others, after: the rest; `others` names how many sagas wait for the same (`waits`), and
            leads to them. All may be empty.
    """

    lead: Markup
    before: str = ""
    others: str = ""
    after: str = ""
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the history."""

    at: datetime
    time: str
    after: str
    entry: str
    words: str


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator's act that is not in the history."""

    number: int
    what: str
    by: str
    reason: str
    at: datetime
    time: str
    became: str
    """``stored`` or ``refused``."""
    answer: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A signal that no step has taken. `payload`: JSON text without its secrets."""

    number: int
    signal: str
    payload: str
    by: str
    reason: str
    at: datetime
    time: str
    too_late: bool
    answer: str


@dataclass(frozen=True)
class Shown:
    """The page of a saga.

    Args:
        tone: of the box that says why: a status, or ``wait``.
        no_cancel: why it cannot be cancelled; None if it can, or there is nothing more to cancel.
        history: newest first, `hidden` older lines left out.
        all_lines: whether all of them were asked for.
        state: JSON text.
    """

    view: SagaView
    started: str
    facts: Sequence[Fact]
    why: Why
    tone: str
    undeclared: str | None
    choices: Sequence[Choice]
    no_cancel: str | None
    picture: Picture
    steps: Sequence[StepRow]
    history: Sequence[Line]
    hidden: int
    all_lines: bool
    state: str
    asked: Sequence[Asked]
    signals: Sequence[SignalForm]
    heard: Sequence[Heard]

    @property
    def groups(self) -> list[tuple[str | None, list[Choice]]]:
        """The choices by step, `(step, its choices)`; without a name if it can only be one step's."""
        steps = list(dict.fromkeys(choice.step for choice in self.choices))
        if len([step for step in steps if step]) < 2:
            return [(None, list(self.choices))] if self.choices else []
        return [(step, [choice for choice in self.choices if choice.step == step]) for step in steps]

    @property
    def svg(self) -> Markup:
        return Markup(draw(self.picture))  # drawn by us, texts escaped

    @property
    def legend(self) -> list[tuple[Markup, str]]:
        return [(Markup(sample), words) for sample, words in legend(self.picture)]


def shown(view: SagaView, mask: Masking, *, all_lines: bool = False) -> Shown:
    """What there is to see of the saga now.

    Args:
        all_lines: of the history, up to `MOST_OF_ALL`.
    """
    instance = view.instance
    lines = list(view.history)[-(MOST_OF_ALL if all_lines else MOST_LINES) :]
    return Shown(
        view=view,
        started=clock(instance.created_at, view.now),
        facts=_facts(view),
        why=_why(view),
        tone=_tone(view),
        undeclared=_undeclared(view),
        choices=choices(view),
        no_cancel=_no_cancel(view),
        picture=picture(instance, view.saga, view.told, view.now),
        steps=step_rows(view, mask),
        history=history_lines(view, lines[::-1], mask),
        hidden=len(view.history) - len(lines),
        all_lines=all_lines,
        state=pretty(mask(dict(instance.state), None if view.saga is None else view.saga.state)),
        asked=[_asked(act, view.now) for act in view.acts],
        signals=forms(view),
        heard=[_heard(view, row, mask) for row in view.said],
    )


def pace(view: SagaView) -> int | None:
    """After how many milliseconds to look again; None once it has ended."""
    if view.instance.status.ended:
        return None
    if not view.instance.started or next(view.instance.in_flight(), None) is not None:
        return MOVING
    if any(act.handled_at is None for act in view.acts) or any(
        row.became is Became.STORED for row in view.said
    ):
        return MOVING
    waits = [record for record in view.records if record.phase is Phase.WAITING]
    due = [r.resume_at for r in view.records] + [r.deadline for r in waits]
    if any(moment - view.now < _SOON for moment in due if moment is not None):
        return MOVING
    parked = any(record.parked for record in view.records)
    return WAITING if parked or waits or any(due) else MOVING


def clock(moment: datetime, now: datetime) -> str:
    """``10:42:07.113`` of today, else with its date; UTC."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    time = f"{moment:%H:%M:%S.%f}"[:-3]
    return time if moment.date() == now.date() else f"{moment:%Y-%m-%d} {time}"


# ---- the head -------------------------------------------------------------------------------------


def _facts(view: SagaView) -> list[Fact]:
    instance, now = view.instance, view.now
    facts = []
    if instance.ended_at is not None:
        took = duration((instance.ended_at - instance.created_at).total_seconds())
        facts = [Fact("Ended", clock(instance.ended_at, now), instance.ended_at), Fact("Took", took)]
    elif instance.status is Status.PARKED and instance.waiting is not None:
        since = instance.waiting.since
        after = duration((since - instance.created_at).total_seconds())
        facts = [Fact("Parked", f"{in_words(now - since)} ago, after {after}", since)]
    elif not instance.started:
        facts = [Fact("Waiting for", in_words(now - instance.created_at))]
    else:
        facts = [Fact("Running for", in_words(now - instance.created_at))]
    return [*facts, *_moments(view), Fact("Revision", str(instance.revision))]


def _moments(view: SagaView) -> Iterator[Fact]:
    """Until when it waits, and until when it must be through."""
    instance, now = view.instance, view.now
    if instance.status.ended:
        return
    for record in view.records:
        if record.phase is Phase.WAITING:
            until = record.deadline
            told = "for ever" if until is None else _until(until, now)
            yield Fact("Waits", told, until)
        elif record.phase is Phase.DELAYED and record.resume_at is not None:
            yield Fact("Waits", _until(record.resume_at, now), record.resume_at)
    if instance.deadline is not None and instance.outcome is None:
        yield Fact("Deadline", _until(instance.deadline, now), instance.deadline)


def _until(moment: datetime, now: datetime) -> str:
    left = f"{in_words(moment - now)} left" if moment > now else "it has passed"
    return f"until {clock_time(moment, now)}, {left}"


def _tone(view: SagaView) -> str:
    instance = view.instance
    waits = instance.waiting is not None and instance.waiting.cause in _WAITS
    return "wait" if instance.status is Status.RUNNING and waits else instance.status.value


def _why(view: SagaView) -> Why:
    told, instance = view.why, view.instance
    others, at = "", -1
    if view.same and instance.waiting is not None:
        others = count(view.same, "more saga", "more sagas")
        at = told.rfind(others)
    turned = f"It turned back because {because(instance.outcome)}." if instance.outcome is not None else ""
    starts = [place for place in (at, told.rfind(turned) if turned else -1) if place > 0]
    split = min(starts, default=len(told))
    lead, rest = told[:split].rstrip(), told[split:]
    if at < 0:
        return Why(_marked(view, lead), rest)
    before, _, after = rest.partition(others)
    what = instance.waiting.what if instance.waiting is not None else ""
    return Why(_marked(view, lead), before, others, after, what)


def _marked(view: SagaView, text: str) -> Markup:
    """The text with the first mention of each step that it is about in bold."""
    marked = str(escape(text))
    for record in view.records:
        waits = record.resume_at is not None or record.phase is Phase.WAITING
        if record.parked or record.flight is not None or waits:
            name = re.escape(str(escape(record.name)))
            marked = re.sub(rf"(?<![\w.&#])({name})(?![\w.]*\w)", r"<b>\1</b>", marked, count=1)
    return Markup(marked)  # escaped above


def _undeclared(view: SagaView) -> str | None:
    if view.saga is not None:
        return None
    instance = view.instance
    return (
        f"{instance.saga} version {instance.version} is not declared here: this service's workers do not "
        "move it, and nothing can be done with it on this page."
    )


def _no_cancel(view: SagaView) -> str | None:
    if view.instance.status.ended or any(option.act is Act.CANCEL for option in view.options):
        return None
    why = refusal(view, Act.CANCEL)
    return None if why is None else f"It cannot be cancelled: {why}."


def _asked(act: ActRow, now: datetime) -> Asked:
    return Asked(
        number=act.id,
        what=f"{act.act.value} {act.step}" if act.step else act.act.value,
        by=act.by,
        reason=act.reason,
        at=act.created_at,
        time=clock(act.created_at, now),
        became=act.became,
        answer=act.answer or "no orchestrator has taken it yet",
    )


def _heard(view: SagaView, row: SignalRow, mask: Masking) -> Heard:
    said = masked_signal(view.saga, {"signal": row.signal, "payload": row.payload}, mask)
    kept = "kept until the saga waits for it" if row.became is Became.KEPT else "not looked at yet"
    return Heard(
        number=row.id,
        signal=row.signal,
        payload=json.dumps(said["payload"], ensure_ascii=False) if row.payload else "",
        by=row.by,
        reason=row.reason,
        at=row.said_at,
        time=clock(row.said_at, view.now),
        too_late=row.too_late,
        answer=row.answer or kept,
    )


# ---- the history ----------------------------------------------------------------------------------


def history_lines(view: SagaView, lines: Sequence[HistoryLine], mask: Masking) -> list[Line]:
    """Lines of the saga's history, in the order given."""
    start = view.instance.created_at
    return [_line(_masked_line(line.recorded, view.saga, mask), start, view.now) for line in lines]


def _line(recorded: Recorded, start: datetime, now: datetime) -> Line:
    gone = (recorded.at - start).total_seconds()
    return Line(
        at=recorded.at,
        time=clock(recorded.at, now),
        after=f"+{duration(gone)}" if gone > 0 else "0",
        entry=recorded.entry,
        words=line_in_words(recorded),
    )


def _masked_line(recorded: Recorded, saga: SagaDefinition | None, mask: Masking) -> Recorded:
    """Replies and signals are the only things that others put into it."""
    detail = dict(recorded.detail)
    if "reply" in detail:
        detail["reply"] = masked_reply(saga, recorded.step, detail["reply"], mask)
    if "signal" in detail:
        detail = masked_signal(saga, detail, mask)
    return replace(recorded, detail=detail)


# ---- JSON -----------------------------------------------------------------------------------------


def masked_json(view: SagaView, mask: Masking) -> dict[str, Any]:
    """`SagaView.to_json` without what is secret."""
    told = view.to_json()
    told["state"] = mask(told["state"], None if view.saga is None else view.saga.state)
    told["steps"] = [_masked_step(its, view.saga, mask) for its in told["steps"]]
    told["said"] = [masked_signal(view.saga, one, mask) for one in told["said"]]
    told["history"] = [masked_line(line, view.saga, mask) for line in view.history]
    return told


def masked_line(line: HistoryLine, saga: SagaDefinition | None, mask: Masking) -> dict[str, Any]:
    """A line of the history as plain JSON, without what is secret."""
    return line_to_json(replace(line, recorded=_masked_line(line.recorded, saga, mask)))


def _masked_step(its: Mapping[str, Any], saga: SagaDefinition | None, mask: Masking) -> dict[str, Any]:
    step, reply = step_of(saga, its["name"]), reply_model(saga, its["name"])
    command = step.command if isinstance(step, CommandStep) else None
    undo = undo_model(step) if isinstance(step, CommandStep) else None
    told = dict(its)
    if "request" in told:
        told["request"] = mask(told["request"], command)
    if "reply" in told:
        told["reply"] = masked_reply(saga, its["name"], told["reply"], mask)
    if told.get("flight"):
        told["flight"] = {**told["flight"], "payload": mask(told["flight"]["payload"], undo)}
    if told.get("intent"):
        told["intent"] = {**told["intent"], "reply": mask(told["intent"]["reply"], reply)}
    return told


def act_json(
    act: ActRow, view: SagaView, since: Sequence[HistoryLine], summary: Mapping[str, Any], mask: Masking
) -> dict[str, Any]:
    """An act, what became of it, the saga in a line, and its history since the act was decided on."""
    lines = [masked_line(line, view.saga, mask) for line in since]
    return act_to_json(act) | {"saga": dict(summary), "history": lines}
