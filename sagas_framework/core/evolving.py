"""Whether a saga that was begun by one declaration can be carried on by another, and why not.

Ids of operations and messages derive from a step's name (`sagas_framework.core.ids`), and a participant
remembers what it did under them. So a record keeps the name that its step had when it was begun, and a
step that is added gets one that no former step of the instance can have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from sagas_framework.core.decide import error_payload, storable
from sagas_framework.core.events import Recorded
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import (
    Cause,
    Intent,
    Outcome,
    Phase,
    SagaInstance,
    StepRecord,
    Waiting,
    with_due,
    with_waiting,
)
from sagas_framework.core.telling import phase_in_words
from sagas_framework.core.why import MIGRATE
from sagas_framework.messages import WireProtocol, readable
from sagas_framework.migration import Migration
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep, DelayStep, LocalStep, WaitStep

MIGRATED: Final = "migrated"
"""The line of the history that says by whom an instance was moved to another version, why, and how."""


# ---- what a declaration was ------------------------------------------------------------------------


class Place(StrEnum):
    """Where a step stands to the pivot."""

    BEFORE = "before the pivot"
    PIVOT = "the pivot"
    AFTER = "after the pivot"


_LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class StepOutline:
    """What of a step's declaration matters to an instance that has begun it.

    Args:
        task: of its command; None for a local step.
        undo: task of its compensation, ``local`` for that of a local step; None if there is none.
        protocol: in which its service is spoken to; None for a local step.
        given: a local step without an action. As a first step it stands for what was committed together
            with the saga.
        kind: of a step that neither sends nor runs anything: ``a wait for approval``, ``a delay``.
    """

    name: str
    place: Place
    task: str | None
    undo: str | None
    protocol: str | None
    given: bool = False
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """What a version of a saga was, for when its class is gone."""

    saga: str
    version: int
    shape: str
    steps: tuple[StepOutline, ...]

    def steps_to_json(self) -> list[dict[str, Any]]:
        """The steps in order, as plain JSON."""
        return [{f.name: getattr(step, f.name) for f in fields(StepOutline)} for step in self.steps]

    @classmethod
    def from_json(cls, saga: str, version: int, shape: str, steps: Sequence[Mapping[str, Any]]) -> Outline:
        """The inverse of `steps_to_json`."""
        read = [StepOutline(**{**step, "place": Place(step["place"])}) for step in steps]
        return cls(saga, version, shape, tuple(read))


def outline(saga: SagaDefinition) -> Outline:
    """What the declaration says of its steps."""
    return Outline(saga.name, saga.version, saga.shape, tuple(_outlines(saga)))


def _outlines(saga: SagaDefinition) -> Iterator[StepOutline]:
    for index, step in enumerate(saga.steps):
        place = Place.BEFORE if index < saga.pivot else Place.PIVOT if index == saga.pivot else Place.AFTER
        if isinstance(step, CommandStep):
            undo = step.command.compensation if step.undoable else None
            yield StepOutline(
                step.name,
                place,
                step.command.contract.task,
                undo.contract.task if undo else None,
                str(step.command.contract.service.protocol),
            )
        else:
            yield _of_our_own(step, place)


def _of_our_own(step: AnyStep, place: Place) -> StepOutline:
    match step:
        case LocalStep():
            undone = _LOCAL if step.undoable else None
            return StepOutline(step.name, place, None, undone, None, step.action is None)
        case WaitStep():
            kind = f"a wait for {' or '.join(sorted(step.names))}"
            return StepOutline(step.name, place, None, None, None, kind=kind)
        case _:
            kind = "a delay" if isinstance(step, DelayStep) else "an early end"
            return StepOutline(step.name, place, None, None, None, kind=kind)


def differences(was: Outline, now: Outline) -> list[str]:
    """What was changed between two declarations, in words; nothing if they have one shape."""
    old, new = {step.name: step for step in was.steps}, {step.name: step for step in now.steps}
    told = [f"{name} is gone" for name in old if name not in new]
    told += [f"{name} is new" for name in new if name not in old]
    for name in (name for name in old if name in new):
        told += _changes(old[name], new[name])
    common = [name for name in old if name in new]
    if common != [name for name in new if name in old]:
        told.append("the steps are in another order")
    return told


def _changes(old: StepOutline, new: StepOutline) -> Iterator[str]:
    if (old.task, old.kind) != (new.task, new.kind):
        yield f"{old.name} was {_work(old)}, and is {_work(new)} now"
    if old.place != new.place:
        yield f"{old.name} was {old.place.value}, and is {new.place.value} now"
    if old.undo != new.undo:
        yield f"{old.name} was undone by {_undoing(old)}, and is by {_undoing(new)} now"
    if old.protocol != new.protocol and old.protocol and new.protocol:
        yield f"{old.name} was sent as {old.protocol}, and is as {new.protocol} now"


def _work(step: StepOutline) -> str:
    return step.task or step.kind or "a local step"


def _undoing(step: StepOutline) -> str:
    return "nothing" if step.undo is None else "a local compensation" if step.undo == _LOCAL else step.undo


# ---- the verdict -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an instance can be carried on.

    Args:
        after: the instance as it would be; None if it cannot.
        history: the lines that tell of it.
        missing: what is in the way, each in words; nothing if nothing is.
    """

    after: SagaInstance | None = None
    history: tuple[Recorded, ...] = ()
    missing: tuple[str, ...] = ()


def carried_on(instance: SagaInstance, saga: SagaDefinition, was: Outline | None = None) -> Verdict:
    """Whether the declaration of its own version carries the instance on as it stands.

    Args:
        was: the declaration that it was started with, if it was noted: to say what was changed.
    """
    if saga.shape != instance.shape:
        told = differences(was, outline(saga)) if was is not None else []
        what = f" ({'; '.join(told)})" if told else ""
        return Verdict(
            missing=_one(
                f"version {saga.version} was changed since it was started{what}: give the changed class "
                "the next version, and keep the former beside it or declare a migration"
            )
        )
    try:
        made = _as_json(_read(saga, instance.state))
    except Exception as error:
        return Verdict(
            missing=_one(
                f"its state cannot be read by {saga.state.__name__} as it is now ({_said(error)}): give "
                "what is new a default, or the class the next version and a migration with state="
            )
        )
    if lost := _lost(saga, instance.state, made):
        return Verdict(
            missing=_one(
                f"its state has {', '.join(lost)}, which {saga.state.__name__} does not keep as it is now: "
                "keep that until it has ended, or give the class the next version and a migration with state="
            )
        )
    return Verdict(after=instance)


def _one(told: str) -> tuple[str]:
    return (told,)


def moved(
    instance: SagaInstance,
    saga: SagaDefinition,
    migration: Migration,
    was: Outline | None,
    *,
    by: str,
    reason: str,
    at: datetime,
) -> Verdict:
    """The instance moved to the version that the migration leads to, or what is in the way of that.

    Equal arguments give equal verdicts. The conversion of the state and the compensations of the new
    version are called with copies; what they raise is a reason not to move the instance.

    Args:
        saga: the version that it leads to.
        was: the declaration that it was started with; None if nobody knows it any more.
    """
    move = _Move(instance, saga, migration, was)
    state = move.state()
    records = move.records(Intent(MIGRATE, by, reason))
    if move.missing or state is None:
        return Verdict(missing=tuple(move.missing))
    left_out = [name for name, r in records.items() if r.phase is Phase.SKIPPED and name in migration.added]
    names = {old: new for old, new in migration.renamed.items() if old in instance.steps}
    detail = {
        "by": by,
        "reason": reason,
        "from": instance.version,
        "to": saga.version,
        "renamed": names,
        "added": [name for name in records if name in migration.added],
        "removed": [name for name in migration.removed if name in instance.steps],
    }
    history = [Recorded(at, MIGRATED, None, {name: value for name, value in detail.items() if value})]
    history += [Recorded(at, f"{name}.skipped", name, {"by": by, "reason": reason}) for name in left_out]
    after = replace(
        instance,
        version=saga.version,
        shape=saga.shape,
        state=state,
        steps=records,
        outcome=_renamed(instance.outcome, migration),
        revision=instance.revision + 1,
        updated_at=at,
        waiting=_waiting(instance.waiting, names),
    )
    if after.started:
        due = with_due(after).due_at
        # One that stumbled may have nothing to wait for but to be looked at again.
        after = with_waiting(replace(after, due_at=due or instance.due_at), at)
    return Verdict(after, tuple(history))


# Nothing more is sent for these, whatever comes.
_CLOSED: Final = frozenset({Phase.COMPENSATED, Phase.WITHDRAWN, Phase.REFUSED, Phase.SKIPPED, Phase.LEFT_OUT})
_UNDOING: Final = frozenset({Phase.COMPENSATING, Phase.UNDO_PAUSING, Phase.HANDING_OVER})


class _Move:
    """One instance on its way to another version; `missing` grows with what is in the way."""

    def __init__(
        self, instance: SagaInstance, saga: SagaDefinition, migration: Migration, was: Outline | None
    ) -> None:
        self.instance = instance
        self.saga = saga
        self.migration = migration
        self.outline = was
        kept = [] if was is None else [step for step in was.steps if step.name not in migration.removed]
        self.was = {migration.now(step.name): step for step in kept}
        self.now = {step.name: step for step in outline(saga).steps}
        self.version = f"version {saga.version}"
        self.missing: list[str] = []
        self.read: BaseModel | None = None
        self.steps = instance.steps or _at_the_start(was)
        if was is None:
            self.missing.append(
                f"what the steps of version {instance.version} were is not noted in this database: give its "
                "class to Sagas(...) beside the new one"
            )

    # ---- the state --------------------------------------------------------------------------------

    def state(self) -> Mapping[str, Any] | None:
        """The state of the new version, as plain JSON."""
        state: Mapping[str, Any] = deepcopy(dict(self.instance.state))
        try:
            if self.migration.state is not None:
                state = self.migration.state(dict(state))
        except Exception as error:
            self.missing.append(f"state= of {self.migration} fails on its state ({_said(error)})")
            return None
        try:
            self.read = _read(self.saga, state)
            made = _as_json(self.read)
        except Exception as error:
            self.missing.append(
                f"its state does not fit {self.saga.state.__name__} of {self.version} ({_said(error)}): let "
                f"state= of {self.migration} make one that does"
            )
            return None
        if self.migration.state is None and (lost := _lost(self.saga, state, made)):
            self.missing.append(
                f"its state has {', '.join(lost)}, which {self.saga.state.__name__} of {self.version} does "
                f"not keep: let state= of {self.migration} say what becomes of it"
            )
        return made

    # ---- the steps --------------------------------------------------------------------------------

    def records(self, left_out: Intent) -> dict[str, StepRecord]:
        """The records under their new names, in their new order."""
        if self.outline is None:
            return {}
        found = len(self.missing)
        kept = dict(self._kept())
        new = [step.name for step in self.saga.steps if step.name not in kept]
        if len(self.missing) == found:  # else it follows from that
            self._declared(new)
        records = {step.name: kept.get(step.name) or self._added(step.name) for step in self.saga.steps}
        if len(self.missing) > found:
            return records
        begun = [name for name, record in records.items() if _is_begun(record)]
        if self.instance.outcome is None and begun:  # else nothing new is begun
            self._passed(records, begun[-1], left_out)
        self._in_order(kept)
        past = any(r.phase is Phase.SUCCEEDED and self.now[n].place is Place.PIVOT for n, r in kept.items())
        for name in (name for name in begun if name in self.was):
            self._fits(records[name], self.was[name], self.now[name], past=past)
        if not self.instance.steps:
            self._not_begun(records)
            return {}  # it begins in the new version
        return records

    def _not_begun(self, records: Mapping[str, StepRecord]) -> None:
        """What the caller committed together with the saga was done by the old version's word."""
        for name, step in self.now.items():
            done = _is_begun(records[name]) and records[name].phase is not Phase.SKIPPED
            if done and not step.given:
                self.missing.append(
                    f"{name} was committed together with the saga, and is done by a step in {self.version}: "
                    "it would be done twice"
                )
            if done:
                continue
            if step.given or records[name].phase is Phase.SKIPPED:
                self.missing.append(
                    f"{name} stands for what is committed together with a saga of {self.version}, and this "
                    f"one was started by version {self.instance.version}: let that one begin it"
                )
            return

    def _kept(self) -> Iterator[tuple[str, StepRecord]]:
        taken: dict[str, str] = {}
        for record in self.steps.values():
            name = self.migration.now(record.name)
            if record.name in self.migration.removed:
                if _is_begun(record):
                    self.missing.append(
                        f"{record.name} is {_stands(record)}, and {self.version} has no such step: only the "
                        "version that began it can bring it to its end"
                    )
            elif name not in self.now:
                self.missing.append(
                    f"{record.name} is no step of {self.version}: say renamed= or removed= in "
                    f"{self.migration}"
                )
            elif name in self.migration.added:
                self.missing.append(
                    f"{self.migration} adds {name}, which version {self.instance.version} has already: say "
                    "what became of that one with renamed= or removed=, or leave it out of added="
                )
            elif (other := taken.setdefault(name, record.name)) != record.name:
                self.missing.append(
                    f"{other} and {record.name} of version {self.instance.version} are both {name} in "
                    f"{self.version}, and one would be forgotten: say in {self.migration} which of them is "
                    "removed=, or what it is renamed= to"
                )
            else:
                identity = record.identity
                turning = _renamed(record.turning, self.migration)
                yield (
                    name,
                    replace(
                        record, name=name, known_as="" if identity == name else identity, turning=turning
                    ),
                )

    def _declared(self, new: Sequence[str]) -> None:
        for name in new:
            if name not in self.migration.added:
                self.missing.append(
                    f"{name} is new in {self.version}: say added= (or renamed=) in {self.migration}"
                )

    def _added(self, name: str) -> StepRecord:
        # A former step of this name may have left a row, even a tombstone, in its participant's inbox.
        return StepRecord(name, known_as=f"{name}@{self.saga.version}")

    def _passed(self, records: dict[str, StepRecord], last: str, left_out: Intent) -> None:
        """Nothing is begun before what was begun already."""
        for name in list(records)[: list(records).index(last)]:
            if _is_begun(records[name]):
                continue
            if name in self.migration.done_without:
                records[name] = replace(records[name], phase=Phase.SKIPPED, intent=left_out)
            elif name in self.migration.added:
                self.missing.append(
                    f"{name} comes before {last}, which is {_stands(records[last])}: the instance is past "
                    f"its place. If it may be done without, say done_without=[{name!r}] in {self.migration}"
                )
            else:
                self.missing.append(
                    f"{name} comes before {last} in {self.version}, and the other way round when {last} was "
                    "begun: the instance would go on without it"
                )

    def _in_order(self, kept: Mapping[str, StepRecord]) -> None:
        begun = [name for name, record in kept.items() if _is_begun(record)]
        order = list(self.now)
        for earlier, later in pairwise(begun):
            if order.index(earlier) > order.index(later):
                self.missing.append(
                    f"{earlier} was begun before {later}, and comes after it in {self.version}: they would "
                    "be undone in the wrong order"
                )

    def _fits(self, record: StepRecord, was: StepOutline, now: StepOutline, *, past: bool) -> None:
        """See that the new declaration of a step ends what the old one began."""
        name = record.name
        if was.place is not now.place:
            self.missing.append(
                f"{name} was {was.place.value} when it was begun, and is {now.place.value} in {self.version}"
            )
        if _is_over(record, was, past=past):
            return
        if (was.task, was.kind) != (now.task, now.kind):
            self.missing.append(
                f"{name} was begun as {_work(was)}, and is {_work(now)} in {self.version}: "
                f"{'only its participant' if was.task else 'only the version that began it'} knows what was "
                "done"
            )
        elif was.protocol != now.protocol:
            self.missing.append(
                f"{name} was sent as {was.protocol}, and is sent as {now.protocol} in {self.version}"
            )
        elif now.place is Place.BEFORE and not past:
            self._can_be_undone(record, was, now)

    def _can_be_undone(self, record: StepRecord, was: StepOutline, now: StepOutline) -> None:
        name = record.name
        if was.undo is not None and now.undo is None:
            self.missing.append(
                f"{name} is {_stands(record)} and would be undone by {_undoing(was)}; {self.version} undoes "
                "nothing there, and what it did would stay"
            )
        elif record.phase in _UNDOING and was.undo != now.undo:
            self.missing.append(
                f"{name} is {_stands(record)} by {_undoing(was)}, and {self.version} undoes it by "
                f"{_undoing(now)}"
            )
        elif record.first_sent_at is not None and not _carries_undo(record):
            step = self.saga.steps[self.saga.index(name)]
            if isinstance(step, CommandStep) and callable(step.compensation) and self.read is not None:
                try:
                    storable(step.compensation(self.read.model_copy(deep=True)).to_json())
                except Exception as error:
                    self.missing.append(
                        f"{name} is {_stands(record)}, and the compensation that {self.version} has for it "
                        f"cannot be made from its state ({_said(error)})"
                    )


def _at_the_start(was: Outline | None) -> dict[str, StepRecord]:
    """The records of an instance that nobody has taken up: what its caller did is done."""
    records = {step.name: StepRecord(step.name) for step in ([] if was is None else was.steps)}
    for step in [] if was is None else was.steps:
        if not step.given:
            break
        records[step.name] = replace(records[step.name], phase=Phase.SUCCEEDED, known=True)
    return records


def _is_begun(record: StepRecord) -> bool:
    return record.phase is not Phase.PENDING


def _is_over(record: StepRecord, was: StepOutline, *, past: bool) -> bool:
    """Whether nothing more will be sent for the step, nor anything be run, nor any answer matter."""
    if record.phase is Phase.SUCCEEDED:
        return past
    if record.phase in (Phase.REFUSED, Phase.WITHDRAWN) and was.protocol not in (None, WireProtocol.INBOX):
        return False  # without an inbox it may have happened after all, and its success be still on the way
    return record.phase is Phase.HANDED_OVER or (record.phase in _CLOSED and not record.parked)


def _carries_undo(record: StepRecord) -> bool:
    """Whether its compensation is on its way, as it was made."""
    return record.flight is not None and record.flight.kind is Kind.UNDO


def _stands(record: StepRecord) -> str:
    return phase_in_words(record, None)


def _renamed(outcome: Outcome | None, migration: Migration) -> Outcome | None:
    return None if outcome is None else replace(outcome, step=migration.now(outcome.step))


def _waiting(waiting: Waiting | None, names: Mapping[str, str]) -> Waiting | None:
    """It still waits for the same, since then; a task is no step, and keeps its name."""
    if waiting is None or waiting.cause is Cause.ANSWER:
        return waiting
    return replace(waiting, what=names.get(waiting.what, waiting.what))


def _read(saga: SagaDefinition, state: Mapping[str, Any]) -> BaseModel:
    return saga.state.model_validate(deepcopy(dict(state)))


def _as_json(state: BaseModel) -> Mapping[str, Any]:
    return storable(state.model_dump(mode="json", warnings="error"))


def _lost(saga: SagaDefinition, state: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """The fields with a value that the model neither keeps nor reads under another name.

    Args:
        made: what it makes of the state.
    """
    return [name for name in state if name not in made and _is_unread(saga, state, name, made)]


def _is_unread(saga: SagaDefinition, state: Mapping[str, Any], name: str, made: Mapping[str, Any]) -> bool:
    if state[name] is None:
        return False
    try:
        return _as_json(_read(saga, {n: v for n, v in state.items() if n != name})) == made
    except Exception:
        return False  # it cannot do without


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return readable(error)
    told = error_payload(error)
    return ": ".join(part for part in (told["type"], told["message"]) if part)


# ---- looking ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an instance stands: at which step, and how that stands, also in words.

    Without a step: before the first, or between two.
    """

    step: str
    phase: str
    parked: bool
    words: str


def whereabouts(instance: SagaInstance) -> Whereabouts:
    """The step that holds the instance; the most pressing, if it is more than one."""
    if not instance.started:
        return Whereabouts("", Phase.PENDING.value, parked=False, words="not begun")
    records = list(instance.steps.values())
    for holds in (
        [record for record in records if record.parked],
        [record for record in records if record.flight is not None],
        [record for record in records if record.resume_at is not None or record.phase is Phase.WAITING],
    ):
        if holds:
            held = holds[0]
            return Whereabouts(held.name, held.phase.value, bool(held.parked), phase_in_words(held, None))
    return Whereabouts("", Phase.PENDING.value, parked=False, words="between two steps")


def under_new_names(history: Sequence[Recorded]) -> list[Recorded]:
    """The history as if its steps had always been named as they are now. The stored one keeps the old."""
    since: list[Mapping[str, str]] = []  # renamings after the line, the earliest first
    told: list[Recorded] = []
    for line in reversed(history):
        if line.entry == MIGRATED and (names := line.detail.get("renamed")):
            since.insert(0, names)
        step = line.step
        for names in since:
            step = names.get(step, step) if step is not None else None
        if step is not None and step != line.step:
            entry = line.entry
            if entry.startswith(f"{line.step}."):
                entry = f"{step}.{entry.removeprefix(f'{line.step}.')}"
            line = replace(line, entry=entry, step=step)
        told.append(line)
    return told[::-1]
