"""From what is known of a saga to its picture: what its history says, line by line, and its row.

A picture never fails: lines that are out of order by a clock's skew, of steps that the declaration does
not know, or in words that another version wrote are drawn as far as they can be, or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sagas_framework.console.picture import Lane, Look, Mark, Picture, Shape, Span, Turn, duration
from sagas_framework.console.rows import SHORTEST, TICK, Bar, Row
from sagas_framework.console.timeline import Pip, draw_pips
from sagas_framework.core.events import Recorded
from sagas_framework.core.instance import (
    Outcome,
    OutcomeKind,
    Phase,
    SagaInstance,
    Status,
    StepRecord,
)
from sagas_framework.core.why import because, in_words, quoted
from sagas_framework.messages import settle_task
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep
from sagas_framework.storage.ports import HistoryLine

_UNANSWERED: Final = re.compile(r"no answer in ([0-9.e+]+) s\Z")
_LONGEST: Final = 200  # characters quoted of what somebody else's code said
_LONGEST_NAME: Final = 32  # characters of a step's name inside the picture


def picture(
    instance: SagaInstance,
    definition: SagaDefinition | None,
    history: Sequence[HistoryLine],
    now: datetime,
) -> Picture:
    """What happened to a saga so far, and what is under way.

    Args:
        definition: its declaration, if it is at hand: it knows the pivot, and which step a late reply
            answers.
        history: all of it.
    """
    story = _Story(instance, definition)
    lines = [line.recorded for line in sorted(history, key=lambda line: line.seq)]
    for number, line in enumerate(lines, 1):
        story.tell(line, lines[number] if number < len(lines) else None)
    return story.picture(now)


def pips(instance: SagaInstance, definition: SagaDefinition | None) -> str:
    """The same without time, for lists: what the row alone says, as an ``<svg>`` element."""
    turned = _turned_back(instance)
    cells = [_cell(record, definition, turned=turned) for record in _records(instance, definition)]
    return draw_pips(cells, _pips_label(cells))


# ---- the story ------------------------------------------------------------------------------------


class _Story:
    """The saga's rows while its history is told. Times are seconds since its start."""

    def __init__(self, instance: SagaInstance, definition: SagaDefinition | None) -> None:
        self.instance = instance
        self.definition = definition
        self.rows = {r.name: Row(r.name) for r in _records(instance, definition)}
        self.turned: Turn | None = None
        self.clock = 0.0
        self.ended: float | None = None
        self.current: Row | None = None
        self.tasks = _tasks(definition)

    # ---- telling ----------------------------------------------------------------------------------

    def tell(self, line: Recorded, following: Recorded | None) -> None:
        """One line. Lines count in their order; a clock that is behind stands still until it catches up."""
        self.clock = max(self.clock, self._seconds(line.at))
        if line.step is None or not line.entry.startswith(f"{line.step}."):
            self._of_saga(line)
            return
        row = self.current = self.rows.setdefault(line.step, Row(line.step))
        detail = line.detail
        match line.entry.removeprefix(f"{line.step}."):
            case "running":
                row.begins(Lane.FORWARD, self.clock, _number(detail.get("attempt")))
            case "waiting" | "delayed":
                row.begins(Lane.FORWARD, self.clock, 1, Look.AWAIT)
            case "left_out":
                row.left_out = True
                self._marks(row, Shape.SKIP, "left out: its condition did not hold", "left out")
            case "ended":
                self._ends_early(row, detail)
            case "compensating":
                self._turns()
                row.begins(Lane.UNDO, self.clock, _number(detail.get("try")))
            case "sent_again":
                why = f" ({detail['why']})" if detail.get("why") else ""
                row.marks(Shape.RESEND, self.clock, f"sent again{why}, same id")
            case "unroutable":
                row.marks(Shape.NO_QUEUE, self.clock, f"the broker had no queue {detail.get('queue', '')}")
            case "attempt_failed" | "compensation_failed":
                self._fails(row, detail)
            case "failed":
                self._step_fails(row, detail, following)
            case "succeeded":
                by_hand = f"done by hand, {_by(detail)}" if detail.get("by_hand") else ""
                self._is_done(row, by_hand, _taken(detail))
            case "compensated":
                self._is_undone(row, detail)
            case "settling":
                self._settles(row, detail)
            case "handed_over":
                row.is_freed(self.clock)
                self._close_wait(row, "asked how it stands: it happened, and undoing it is a person's")
            case "skipped":
                self._is_skipped(row, detail)
            case "parked":
                self._parks(row, str(detail.get("reason", "")))

    # ---- how a step ends --------------------------------------------------------------------------

    def _ends(self, row: Row, look: Look, text: str, told: str) -> None:
        self.clock = max(self.clock, row.ends(look, self.clock, text, told))

    def _is_done(self, row: Row, by_hand: str = "", taken: str = "") -> None:
        row.done = True
        self._close_wait(row)
        took = self._took(row)
        if by_hand:
            self._ends(row, Look.DONE, "done by hand", by_hand)
        elif row.open is not None and row.open.look is Look.AWAIT:
            self._ends(row, Look.AWAIT, f"waited {took}" if took else "", taken or "its time came")
        else:
            self._ends(row, Look.DONE, took, f"done in {took}" if took else "done")
        row.is_freed(self.clock)

    def _is_undone(self, row: Row, detail: Mapping[str, Any]) -> None:
        if detail.get("nothing_to_undo"):
            if row.open is not None and row.open.look is Look.FLIGHT:
                row.forget_open()
            self._close_wait(row)
            by = f", {_by(detail)}" if detail.get("by") else ""
            self._marks(row, Shape.NOTHING, f"nothing to undo{by}")
        else:
            row.undone = True
            self._close_wait(row)
            took = self._took(row)
            told = f"undone in {took}" if took else "undone"
            if detail.get("by_hand"):
                told = f"undone by hand, {_by(detail)}"
            self._ends(row, Look.DONE, told.partition(",")[0], told)
        row.is_freed(self.clock)

    def _ends_early(self, row: Row, detail: Mapping[str, Any]) -> None:
        row.done = True
        self._ends(row, Look.DONE, "ended here", "the saga ended early here, with every effect kept")
        for name in detail.get("left_out") or ():
            if (behind := self.rows.get(str(name))) is not None:
                behind.left_out = True

    def _is_skipped(self, row: Row, detail: Mapping[str, Any]) -> None:
        self._close_wait(row)
        if row.open is not None:
            self._ends(row, Look.FAILED, "given up", "given up")
        row.skipped = True
        text = "skipped" if row.lane is Lane.FORWARD else "left as it is"
        effect = f": its effect {detail['effect']}" if detail.get("effect") else ""
        self._marks(row, Shape.SKIP, f"{text}, {_by(detail)}{effect}", text)
        row.is_freed(self.clock)

    def _settles(self, row: Row, detail: Mapping[str, Any]) -> None:
        row.is_freed(self.clock)
        self._close_wait(row, "asked how it stands, without an answer that helps")
        if row.open is not None:
            reason = str(detail.get("because") or "")
            silent = _unanswered(reason)
            told = silent or f"given up: {_short(reason)}" if reason else "given up"
            self._ends(row, Look.FAILED, silent or "given up", told)
        row.begins(row.lane, self.clock, 1, Look.WAIT)

    def _close_wait(self, row: Row, told: str = "asked how it stands") -> None:
        if row.open is not None and row.open.look is Look.WAIT:
            self._ends(row, Look.WAIT, "", told)

    def _step_fails(self, row: Row, detail: Mapping[str, Any], following: Recorded | None) -> None:
        """``<step>.failed`` is said of seven things; the outcome and the line after it tell which."""
        error, outcome = _error(detail), self.instance.outcome
        here = outcome if outcome is not None and outcome.step == row.name else None
        parked = ""
        if following is not None and following.entry == f"{row.name}.parked":
            parked = str(following.detail.get("reason", ""))
        self._close_wait(row)
        row.is_freed(self.clock)
        if row.open is not None and row.open.look is Look.AWAIT:
            self._ends(row, Look.FAILED, *_in_vain(here, outcome, error))
        elif detail.get("forced") or "because" in detail:
            if row.open is not None:
                self._ends(row, Look.FAILED, "given up", "given up")
            told = str(detail.get("because") or f"taken as never happened, {_by(detail)}")
            self._marks(row, Shape.TOMB, told)
        elif here is not None and here.kind is OutcomeKind.EXPIRED:
            silent = _unanswered(here.message) or "no answer"
            self._ends(row, Look.FAILED, silent, silent)
        elif outcome is not None and outcome.kind is OutcomeKind.CANCELLED and self._cancelled(detail):
            if row.open is None:
                row.ends_pause(self.clock)
            else:
                self._ends(row, Look.FAILED, "cancelled", f"cancelled: {_short(outcome.message)}")
        elif parked.startswith("it succeeded"):
            self._is_done(row)
            row.bars[-1].text = row.bars[-1].alone = "done, our code failed"
            row.bars[-1].title += f", but our own code could not take its reply: {error}"
        elif parked.startswith("our own code"):
            self._ends(row, Look.FAILED, "our code failed", f"our own code raised {error}")
        elif (here is not None and here.kind is OutcomeKind.REFUSED) or parked or "module" in detail:
            self._ends(row, Look.FAILED, "refused", f"refused: {error}")
        else:
            self._ends(row, Look.FAILED, "failed", f"failed: {error}")

    def _cancelled(self, detail: Mapping[str, Any]) -> bool:
        return detail.get("type") == "Cancelled" and "module" not in detail and self.turned is None

    def _fails(self, row: Row, detail: Mapping[str, Any]) -> None:
        """A try failed; another one may come after a pause."""
        self._ends(row, Look.FAILED, "failed", _error(detail))
        if detail.get("next_at"):
            row.pause = self.clock

    def _took(self, row: Row) -> str:
        """How long what is open has taken; empty for what took no time."""
        if row.open is None or self.clock - row.open.start < SHORTEST:
            return ""
        return duration(self.clock - row.open.start)

    def _marks(self, row: Row, shape: Shape, title: str, text: str = "") -> None:
        self.clock += TICK
        row.marks(shape, self.clock, title, text=text)

    def _parks(self, row: Row, reason: str) -> None:
        if reason.startswith("settling was answered"):
            self._close_wait(row, "asked how it stands, without an answer that helps")
        self.clock = max(self.clock, row.parks(self.clock + TICK, _short(reason)).at)

    # ---- of the saga as a whole -------------------------------------------------------------------

    def _of_saga(self, line: Recorded) -> None:
        word = line.entry
        if word in (Status.COMPENSATING.value, Status.COMPENSATED.value):
            self._turns()
        if word in (Status.COMPLETED.value, Status.COMPENSATED.value):
            self.ended = self.clock
        elif word == "reply_ignored":
            self._ignores(line.detail)
        elif word == "stumbled" and self.current is not None:
            told = f"our own code could not decide: {_error(line.detail)}"
            self.current.marks(Shape.STUMBLE, self.clock, told)
        elif word.startswith("operator."):
            self._acts(line)

    def _acts(self, line: Recorded) -> None:
        act, row = line.entry.removeprefix("operator."), self.current
        if line.step is not None:
            row = self.rows.setdefault(line.step, Row(line.step))
        if row is None:  # cancelled before it began: the turning line says so
            return
        force = ", by force" if line.detail.get("force") else ""
        row.marks(Shape.HAND, self.clock, f"{act}{force}, {_by(line.detail)}")
        if act == "retry":
            row.is_freed(self.clock)

    def _ignores(self, detail: Mapping[str, Any]) -> None:
        task, why = str(detail.get("task", "")), str(detail.get("why", ""))
        name, lane = self.tasks.get(task, (why.partition(" ")[0], Lane.FORWARD))
        row = self.rows.get(name) or self.current
        if row is None:
            return
        told = f"late {detail.get('result', 'reply')} of {task}: recorded, changes nothing ({_short(why)})"
        row.marks(Shape.LATE, self.clock, told, lane=lane)

    def _turns(self) -> None:
        outcome = _turned_back(self.instance)
        if self.turned is not None or outcome is None:
            return
        self.clock += TICK
        # The bar to the left of the line shows whose answer did not come, and there is not much room.
        silent = outcome.kind is OutcomeKind.EXPIRED and outcome.name == "NoAnswer"
        why = _unanswered(outcome.message) if silent else _shortly(outcome)
        self.turned = Turn(self.clock, f"turned back: {why or 'no answer'}", because(outcome))
        row = self.rows.get(outcome.step)
        if row is not None and outcome.kind is OutcomeKind.REFUSED:
            self.clock += TICK
            row.marks(Shape.NOTHING, self.clock, "refused, so nothing to undo", lane=Lane.UNDO)
        self.clock += TICK

    # ---- the picture ------------------------------------------------------------------------------

    def picture(self, now: datetime) -> Picture:
        """All that was told, and what is under way at this moment."""
        ended = self.instance.status.ended
        at = max(self.clock, self._seconds(now))
        ahead: list[Span] = []
        flags: list[Mark] = []
        for index, row in enumerate(self.rows.values()):
            record = self.instance.steps.get(row.name)
            if ended or record is None:
                self._close(row, self.clock)
                continue
            self._find_open(row, record)
            if row.open is not None or row.pause is not None:
                until = self._under_way(row, record, at)
                ahead += self._ahead(index, row, until, at, record)
                if record.deadline is not None and until == self._seconds(record.deadline) > at:
                    flags.append(_flag(index, row, record.deadline, until))
            if record.parked:
                row.parks(self.clock, _short(record.parked)).text = "needs a person"
            else:
                row.is_freed(at)
        rows = list(self.rows.values())
        return Picture(
            name=f"Timeline of {self.instance.key}",
            summary=self._summary(at),
            steps=tuple(self.rows),
            spans=(*(span for n, row in enumerate(rows) for span in row.spans(n)), *ahead),
            marks=(*(mark for n, row in enumerate(rows) for mark in row.drawn_marks(n)), *flags),
            pivot=self._pivot(),
            turned=self.turned,
            now=None if ended else at,
        )

    def _pivot(self) -> int | None:
        declared = self.definition
        if declared is None or declared.pivot >= len(declared.steps):
            return None
        names = tuple(self.rows)[: len(declared.steps)]
        return declared.pivot if names == tuple(step.name for step in declared.steps) else None

    def _find_open(self, row: Row, record: StepRecord) -> None:
        """The row in the database knows what is in flight, whatever the history says."""
        flight = record.flight
        if flight is not None and row.open is None and row.pause is None:
            row.open = Bar(row.lane, Look.FLIGHT, *(min(self._seconds(flight.sent_at), self.clock),) * 2)

    def _close(self, row: Row, at: float) -> None:
        """What has no end although the saga has one."""
        if row.open is not None:
            row.ends(Look.FAILED, at, "given up", "given up")
        row.ends_pause(at)
        row.is_freed(at)

    def _under_way(self, row: Row, record: StepRecord, at: float) -> float:
        """Draw what goes on up to now; until when it may."""
        if row.pause is not None:
            row.pauses(row.pause, max(at, row.pause + TICK))
            row.pause = None
            # A step is given up at its deadline, in a pause too; an undo never is.
            ends = (record.resume_at, record.deadline if row.lane is Lane.FORWARD else None)
            return min((self._seconds(moment) for moment in ends if moment), default=at)
        bar = row.open
        assert bar is not None
        row.open = None
        bar.end = max(at, bar.start)
        age = in_words(timedelta(seconds=bar.end - bar.start))
        resends = record.flight.resends if record.flight else 0
        sent = f"sent {age} ago" if bar.end - bar.start >= 1 else "just sent"
        if resends:
            sent = f"sent {resends + 1} times, first {age} ago"
        number = f"try {bar.number}, " if bar.number is not None and bar.number > 1 else ""
        bar.text = bar.alone = f"{number}{sent}"
        if bar.look is Look.AWAIT:
            for_what = "for its time" if record.phase is Phase.DELAYED else "for a signal"
            bar.text = bar.alone = f"waits {for_what}, {age} so far"
        if bar.look is Look.WAIT:
            bar.text = bar.alone = f"asked how it stands, {age} ago"
        undo = "undo, " if bar.lane is Lane.UNDO else ""
        bar.title = f"{row.name}: {undo}{bar.text}"
        row.bars.append(bar)
        moment = record.resume_at if record.phase is Phase.DELAYED else record.deadline
        return self._seconds(moment) if moment else at

    def _ahead(self, index: int, row: Row, until: float, at: float, record: StepRecord) -> Iterator[Span]:
        if until <= at:
            return
        left = in_words(timedelta(seconds=until - at))
        text = f"{left} left"
        if (
            record.phase is not Phase.DELAYED
            and record.resume_at is not None
            and until == self._seconds(record.resume_at)
        ):
            text = f"next try in {left}"
        yield Span(index, row.lane, Look.AHEAD, at, until, text, f"{row.name}: {text}")

    def _seconds(self, moment: datetime) -> float:
        return max((moment - self.instance.created_at).total_seconds(), 0.0)

    # ---- in words ---------------------------------------------------------------------------------

    def _summary(self, at: float) -> str:
        instance, rows = self.instance, list(self.rows.values())
        took = duration(self.ended if self.ended is not None else at)
        done = sum(row.done for row in rows)
        if instance.status is Status.COMPLETED:
            out = sum(row.left_out and not row.done for row in rows)
            left = len(rows) - done - out
            if not left and not out:
                return f"All {_count(done, 'step')} done in {took}."
            others = [f"{out} left out"] if out else []
            others += [f"{left} skipped by hand"] if left else []
            return f"{done} of {_count(len(rows), 'step')} done in {took}, {', '.join(others)}."
        if not instance.started:
            return "Not started yet: no orchestrator has taken it up."
        parts = [f"{_count(done, 'step')} done" if done else "No step done"]
        if (outcome := _turned_back(instance)) is not None:
            parts[0] += f", then {_shortly(outcome)}"
            parts.append(self._undone())
        parked = [r.name for r in instance.steps.values() if r.parked]
        if parked:
            parts.append(f"{_listed(parked)} {'needs' if len(parked) == 1 else 'need'} a person")
        if not instance.status.ended:
            parts += [told for r in instance.steps.values() if not r.parked and (told := _moves(r))]
        return "; ".join(parts) + "."

    def _undone(self) -> str:
        """How much of what was there has been undone."""
        undone = sum(row.undone for row in self.rows.values())
        skipped = sum(row.skipped for row in self.rows.values())
        open_ = sum(_to_undo(record, self.definition) for record in self.instance.steps.values())
        total = undone + skipped + open_
        if not total:
            return "there was nothing to undo"
        if undone < total:
            return f"{undone} of {_count(total, 'effect')} undone"
        if self.instance.status.ended and self.turned is not None and self.ended is not None:
            took = self.ended - self.turned.at
            return f"everything undone {'at once' if took < SHORTEST else f'in {duration(took)}'}"
        return "everything undone"


# ---- words ----------------------------------------------------------------------------------------


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _short(text: str) -> str:
    return quoted({"message": text}) if text else ""


_NO_ERROR: Final = quoted({})


def _error(detail: Mapping[str, Any]) -> str:
    return quoted({name: str(detail[name]) for name in ("type", "message") if detail.get(name)})


def _by(detail: Mapping[str, Any]) -> str:
    """``by ann: "she knows why"``."""
    return f'by {_short(str(detail.get("by", "")))}: "{_short(str(detail.get("reason", "")))}"'


def _in_vain(here: Outcome | None, outcome: Outcome | None, error: str) -> tuple[str, str]:
    """How a wait failed, in few words and in more.

    Args:
        here: the saga's outcome if this step brought it about.
    """
    if here is not None and here.kind is OutcomeKind.EXPIRED:
        return "deadline passed", _short(here.message)
    if here is None and outcome is not None and outcome.kind is OutcomeKind.CANCELLED:
        return "cancelled", f"cancelled: {_short(outcome.message)}"
    if here is not None and here.kind is OutcomeKind.REFUSED:
        return "refused", f"refused: {error}"
    return "given up", f"given up: {error}" if error != _NO_ERROR else "given up"


def _taken(detail: Mapping[str, Any]) -> str:
    """How a wait ended: ``took the signal approval, by ann``; empty if nothing came."""
    if (signal := detail.get("signal")) is not None:
        by = f", by {_short(str(detail['by']))}" if detail.get("by") else ""
        return f"took the signal {_short(str(signal))}{by}"
    return str(detail.get("because") or "")


def _unanswered(message: str) -> str:
    """``no answer in 30 s``, if that is what the message ends with."""
    found = _UNANSWERED.search(message)
    return f"no answer in {duration(float(found[1]))}" if found else ""


def _shortly(outcome: Outcome) -> str:
    """Why it turned back, in a few words: ``authorize_card was refused``."""
    step = outcome.step if len(outcome.step) <= _LONGEST_NAME else f"{outcome.step[: _LONGEST_NAME - 1]}…"
    match outcome.kind:
        case OutcomeKind.CANCELLED:
            return "cancelled"
        case OutcomeKind.REFUSED:
            return f"{step} was refused"
        case OutcomeKind.EXPIRED:
            if outcome.name == "NoAnswer":
                return f"{step} gave {_unanswered(outcome.message) or 'no answer'}"
            return outcome.message
        case _:
            return f"{step} failed"


def _moves(record: StepRecord) -> str:
    """What goes on at a step that needs nobody; empty if nothing does."""
    match record.phase:
        case Phase.RUNNING:
            return f"{record.name} is sent" + (f", try {record.attempts}" if record.attempts > 1 else "")
        case Phase.PAUSING:
            return f"{record.name} pauses after {_tries(record.attempts)}"
        case Phase.WAITING:
            return f"{record.name} waits for a signal"
        case Phase.DELAYED:
            return f"{record.name} waits for its time"
        case Phase.SETTLING | Phase.HANDING_OVER:
            return f"its participant is asked how {record.name} stands"
        case Phase.COMPENSATING:
            return f"{record.name} is being undone" + (f", try {record.tries}" if record.tries > 1 else "")
        case Phase.UNDO_PAUSING:
            return f"undoing {record.name} pauses after {_tries(record.tries)}"
        case _:
            return ""


def _tries(number: int) -> str:
    return "a failed try" if number == 1 else f"{number} failed tries"


# ---- facts ----------------------------------------------------------------------------------------


def _records(instance: SagaInstance, definition: SagaDefinition | None) -> Iterable[StepRecord]:
    if not instance.steps and definition is not None:  # not started yet
        return [StepRecord(step.name) for step in definition.steps]
    return instance.steps.values()


def _turned_back(instance: SagaInstance) -> Outcome | None:
    outcome = instance.outcome
    return None if outcome is None or outcome.kind is OutcomeKind.OK else outcome


def _tasks(definition: SagaDefinition | None) -> dict[str, tuple[str, Lane]]:
    """Whose row a reply belongs to, by the name of the task that it answers."""
    tasks: dict[str, tuple[str, Lane]] = {}
    for step in definition.steps if definition is not None else ():
        if isinstance(step, CommandStep):
            tasks.setdefault(step.command.contract.task, (step.name, Lane.FORWARD))
            tasks.setdefault(settle_task(step.command), (step.name, Lane.FORWARD))
            if step.command.compensation is not None:
                tasks.setdefault(step.command.compensation.contract.task, (step.name, Lane.UNDO))
    return tasks


def _undoable(name: str, definition: SagaDefinition | None) -> bool:
    """Whether a step leaves something behind, as far as is known."""
    declared = definition.steps if definition is not None else ()
    return all(step.undoable for step in declared if step.name == name)


def _to_undo(record: StepRecord, definition: SagaDefinition | None) -> bool:
    """Whether a saga that has turned back still has an effect there."""
    match record.phase:
        case Phase.COMPENSATING | Phase.UNDO_PAUSING | Phase.HANDING_OVER | Phase.HANDED_OVER:
            return True
        case Phase.SUCCEEDED:
            return _undoable(record.name, definition)
        case Phase.FAILED | Phase.UNKNOWN:
            return record.first_sent_at is not None and _undoable(record.name, definition)
        case _:
            return False


def _flag(index: int, row: Row, deadline: datetime, at: float) -> Mark:
    told = f"{row.name}: deadline {deadline:%Y-%m-%d %H:%M:%S}"
    return Mark(index, row.lane, Shape.FLAG, at, title=told)


# ---- pips -----------------------------------------------------------------------------------------

_CELLS: Final = {
    Phase.PENDING: (Pip.LEFT, Pip.NONE),
    Phase.RUNNING: (Pip.MOVING, Pip.NONE),
    Phase.PAUSING: (Pip.MOVING, Pip.NONE),
    Phase.WAITING: (Pip.MOVING, Pip.NONE),
    Phase.DELAYED: (Pip.MOVING, Pip.NONE),
    Phase.SETTLING: (Pip.MOVING, Pip.NONE),
    Phase.BLOCKED: (Pip.FAILED, Pip.NONE),
    Phase.ANSWERED: (Pip.DONE, Pip.NONE),
    Phase.SUCCEEDED: (Pip.DONE, Pip.NONE),
    Phase.REFUSED: (Pip.FAILED, Pip.NONE),
    Phase.FAILED: (Pip.FAILED, Pip.NONE),
    Phase.UNKNOWN: (Pip.FAILED, Pip.NONE),
    Phase.WITHDRAWN: (Pip.FAILED, Pip.NONE),
    Phase.SKIPPED: (Pip.LEFT, Pip.NONE),
    Phase.LEFT_OUT: (Pip.LEFT, Pip.NONE),
    Phase.COMPENSATING: (Pip.DONE, Pip.MOVING),
    Phase.UNDO_PAUSING: (Pip.DONE, Pip.MOVING),
    Phase.HANDING_OVER: (Pip.DONE, Pip.MOVING),
    Phase.HANDED_OVER: (Pip.DONE, Pip.FAILED),
    Phase.COMPENSATED: (Pip.DONE, Pip.DONE),
}


def _cell(
    record: StepRecord, definition: SagaDefinition | None, *, turned: Outcome | None
) -> tuple[Pip, Pip]:
    forward, undo = _CELLS[record.phase]
    if turned is not None and record.phase is Phase.SKIPPED:  # what was not undone
        forward, undo = Pip.DONE, Pip.LEFT
    if undo is not Pip.NONE and not record.known:  # given up, and undone because it may have happened
        forward = Pip.FAILED
    if record.phase is Phase.COMPENSATED and not _undoable(record.name, definition):
        undo = Pip.NONE
    if record.parked and undo is not Pip.NONE:
        undo = Pip.FAILED
    elif record.parked:
        forward = Pip.FAILED
    return forward, undo


def _pips_label(cells: Sequence[tuple[Pip, Pip]]) -> str:
    """``3 of 6 steps done, 1 failed, 2 undone``."""
    forward, undo = [cell[0] for cell in cells], [cell[1] for cell in cells]
    told = [f"{forward.count(Pip.DONE)} of {_count(len(cells), 'step')} done"]
    for half, pip, words in (
        (forward, Pip.MOVING, "under way"),
        (forward, Pip.FAILED, "failed"),
        (undo, Pip.DONE, "undone"),
        (undo, Pip.MOVING, "being undone"),
        (undo, Pip.FAILED, "not undone: needs a person"),
    ):
        if count := half.count(pip):
            told.append(f"{count} {words}")
    return ", ".join(told)
