"""Which open sagas the code at hand can carry on, and moving them to another version.

The verdict on each instance is `sagas_framework.core.evolving`'s; here all of them are read, grouped
for people, and moved in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from sagas_framework.core.events import Recorded
from sagas_framework.core.evolving import (
    Outline,
    Verdict,
    Whereabouts,
    carried_on,
    moved,
    outline,
    whereabouts,
)
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.why import in_words
from sagas_framework.errors import SagasError, UnknownSaga
from sagas_framework.migration import Migration
from sagas_framework.saga import Definitions, SagaDefinition
from sagas_framework.storage.declarations import note_declarations, read_open, read_outlines
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Beat, Store
from sagas_framework.storage.reads import read_beats

EXAMPLES: Final = 3
"""Of those that lack the same, so many are named."""
REASONS: Final = 20
"""So many reasons are told to people: what a conversion raises may be another one for each instance."""
ALIVE: Final = timedelta(seconds=60)
"""A worker that turned within this time runs."""
TIMEKEEPER: Final = "timekeeper"
"""The loop whose beat says what its worker declares."""
_WRITTEN_AT_ONCE: Final = 500

Shapes = Mapping[tuple[str, int, str], Outline]


# ---- values ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps some instances from being carried on.

    Args:
        examples: keys of a few of them.
    """

    why: str
    count: int
    examples: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"why": self.why, "count": self.count, "examples": list(self.examples)}


@dataclass(frozen=True, slots=True)
class Group:
    """The open instances of one saga, version and shape.

    Args:
        declared: whether the code at hand declares just this version with just these steps.
        places: how many stand where, most first.
        as_they_are: how many are carried on by their own version.
        to: the version to which instances can be moved; None if there is none.
        movable: how many can be moved there, whether or not they need to be.
        by_moving: how many are carried on only by being moved.
        missing: what the others lack, most first. An instance may lack several things.
        stay: how many others there are.
        not_movable: what keeps instances from being moved, also such as are carried on as they are.
    """

    saga: str
    version: int
    shape: str
    declared: bool
    count: int
    places: tuple[tuple[Whereabouts, int], ...]
    as_they_are: int
    to: int | None
    movable: int
    by_moving: int
    stay: int
    missing: tuple[Missing, ...]
    not_movable: tuple[Missing, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; see `Plan.to_json`."""
        return {
            "saga": self.saga,
            "version": self.version,
            "shape": self.shape,
            "declared": self.declared,
            "count": self.count,
            "at": [
                {"step": at.step or None, "phase": at.phase, "parked": at.parked, "count": count}
                for at, count in self.places
            ],
            "as_they_are": self.as_they_are,
            "to": self.to,
            "movable": self.movable,
            "by_moving": self.by_moving,
            "stay": self.stay,
            "missing": [missing.to_json() for missing in self.missing],
            "not_movable": [missing.to_json() for missing in self.not_movable],
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the open sagas of a database under the code at hand."""

    groups: tuple[Group, ...]

    @property
    def whole(self) -> bool:
        """Whether every open instance can be carried on."""
        return all(group.stay == 0 for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON.

        Shape: ``whole``, ``sagas`` (by name and version): ``saga``, ``version``, ``shape``, ``declared``,
        ``count``, ``at`` (``step``, ``phase``, ``parked``, ``count``), ``as_they_are``, ``to``, ``movable``,
        ``by_moving``, ``stay``, and ``missing`` and ``not_movable`` (``why``, ``count``, ``examples``: keys).
        """
        return {"whole": self.whole, "sagas": [group.to_json() for group in self.groups]}


@dataclass(frozen=True, slots=True)
class Batch:
    """What a migration did, or with `dry_run` would do.

    Args:
        moved: ids of the instances, in the order of ids.
        left: what kept others back; only if they were to be left.
        left_count: how many those are.
    """

    saga: str
    to: int
    moved: tuple[str, ...]
    left: tuple[Missing, ...]
    left_count: int
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON: ``saga``, ``to``, ``dry_run``, ``moved`` (ids), ``left_count``, ``left``."""
        return {
            "saga": self.saga,
            "to": self.to,
            "dry_run": self.dry_run,
            "moved": list(self.moved),
            "left_count": self.left_count,
            "left": [missing.to_json() for missing in self.left],
        }


class NotMovable(SagasError):
    """Some instances cannot be moved, so none was. `missing` says what they lack."""

    def __init__(self, saga: str, to: int, count: int, of: int, missing: Sequence[Missing]) -> None:
        told = "".join(f"\n  {m.count}: {m.why}; {examples(m)}" for m in missing[:REASONS])
        told += f"\n  {rest}" if (rest := more_reasons(missing)) else ""
        super().__init__(
            f"Nothing was moved: {count} of {of} open sagas {saga!r} cannot be moved to version {to}.{told}\n"
            "Change the migration, or move the others alone with --leave-rest."
        )
        self.missing = tuple(missing)
        self.count = count


def examples(missing: Missing) -> str:
    """``order-7``, ``like order-7, order-9``."""
    named = ", ".join(missing.examples)
    return named if missing.count == len(missing.examples) else f"like {named}"


def more_reasons(missing: Sequence[Missing]) -> str:
    """What stands for the reasons after the first `REASONS`, if there are more."""
    return (
        f"and {len(missing) - REASONS:,} more reasons; --json has them all" if len(missing) > REASONS else ""
    )


# ---- planning --------------------------------------------------------------------------------------


def make_plan(engine: Engine, definitions: Definitions, now: datetime, saga: str | None = None) -> Plan:
    """Read every open instance, of one saga if it is named, and say what becomes of it.

    Nothing is locked, and nothing is written.

    Raises:
        UnknownSaga: the named one is not declared, and none of it is open.
    """
    tallies: dict[tuple[str, int, str], _Tally] = {}
    with reading(engine) as connection:
        known = _shapes(read_outlines(connection), definitions)
        with closing(read_open(connection, saga)) as instances:
            for instance in instances:
                shape = (instance.saga, instance.version, instance.shape)
                if shape not in tallies:
                    tallies[shape] = _Tally(_Way(definitions, known, shape))
                tallies[shape].take(instance, now)
    if saga is not None and not tallies and definitions.newest(saga) is None:
        raise UnknownSaga(saga, None, {definition.name for definition in definitions})
    return Plan(tuple(tallies[shape].group() for shape in sorted(tallies)))


def _shapes(noted: Shapes, definitions: Definitions) -> Shapes:
    """What was noted, and what is declared here, where it may be for the first time."""
    declared = {(saga.name, saga.version, saga.shape): outline(saga) for saga in definitions}
    return {**noted, **declared}


class _Way:
    """How the instances of one saga, version and shape can go on."""

    def __init__(self, definitions: Definitions, known: Shapes, shape: tuple[str, int, str]) -> None:
        self.saga, self.version, self.shape = shape
        self.was = known.get(shape)
        self.own = definitions.find(self.saga, self.version)
        self.newest = definitions.newest(self.saga)
        self.migration: Migration | None = None
        if self.newest is not None and self.newest.version > self.version:
            self.migration = definitions.migration(self.saga, self.version, self.newest.version)

    def as_it_is(self, instance: SagaInstance) -> Verdict:
        if self.own is None:
            return Verdict(missing=(self._undeclared(),))
        return carried_on(instance, self.own, self.was)

    def _undeclared(self) -> str:
        told = f"version {self.version} is not declared here"
        if self.newest is None:
            return f"no saga named {self.saga!r} is declared here: give its class to Sagas(...)"
        if self.newest.version < self.version:
            return f"{told}, only up to {self.newest.version}: a newer release started it"
        if self.migration is not None:
            return f"{told}, and {self.migration} does not move it"
        return (
            f"{told}: keep its class beside version {self.newest.version}, or declare "
            f"Migration(from_version={self.version}) there"
        )

    def moved(self, instance: SagaInstance, by: str, reason: str, at: datetime) -> Verdict:
        if self.newest is None or self.migration is None:
            return Verdict(missing=("there is no migration",))
        return moved(instance, self.newest, self.migration, self.was, by=by, reason=reason, at=at)


@dataclass
class _Lacking:
    """Counts what instances lack, and keeps a few of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def take(self, instance: SagaInstance, missing: Sequence[str]) -> None:
        for why in missing:
            self.counts[why] += 1
            some = self.examples.setdefault(why, [])
            if len(some) < EXAMPLES:
                some.append(instance.key)

    def all(self) -> tuple[Missing, ...]:
        """Most first."""
        return tuple(Missing(why, n, tuple(self.examples[why])) for why, n in self.counts.most_common())


class _Tally:
    """Counts the instances of one saga, version and shape."""

    def __init__(self, way: _Way) -> None:
        self.way = way
        self.count = self.as_they_are = self.movable = self.by_moving = 0
        self.places: Counter[Whereabouts] = Counter()
        self.lacking, self.unmovable = _Lacking(), _Lacking()

    def take(self, instance: SagaInstance, now: datetime) -> None:
        self.count += 1
        self.places[whereabouts(instance)] += 1
        stays = self.way.as_it_is(instance)
        goes = self.way.moved(instance, "nobody", "a question", now)
        self.movable += goes.after is not None
        if self.way.migration is not None:
            self.unmovable.take(instance, goes.missing)
        if stays.after is not None:
            self.as_they_are += 1
        elif goes.after is not None:
            self.by_moving += 1
        else:
            # If its own version is gone, what the migration lacks is what is missing.
            gone = self.way.own is None and self.way.migration is not None
            self.lacking.take(instance, goes.missing if gone else stays.missing)

    def group(self) -> Group:
        way = self.way
        return Group(
            saga=way.saga,
            version=way.version,
            shape=way.shape,
            declared=way.own is not None and way.own.shape == way.shape,
            count=self.count,
            places=tuple(sorted(self.places.items(), key=lambda at: (-at[1], at[0].step, at[0].words))),
            as_they_are=self.as_they_are,
            to=way.newest.version if way.newest is not None and way.migration is not None else None,
            movable=self.movable,
            by_moving=self.by_moving,
            stay=self.count - self.as_they_are - self.by_moving,
            missing=self.lacking.all(),
            not_movable=self.unmovable.all(),
        )


# ---- moving ----------------------------------------------------------------------------------------


def move(
    engine: Engine,
    store: Store,
    definitions: Definitions,
    name: str,
    to: int,
    *,
    by: str,
    reason: str,
    now: datetime,
    from_version: int | None = None,
    leave_rest: bool = False,
    dry_run: bool = False,
) -> Batch:
    """Move every open instance of the saga's former versions, in one transaction: all of them, or none.

    Their rows are locked meanwhile: an orchestrator decides before on what they were, or afterwards on
    what they are.

    Args:
        from_version: only those of this version.
        leave_rest: those that cannot be moved keep their version, and the others are moved.
        dry_run: only say what would be moved; nothing is locked.

    Raises:
        SagasError: nobody is named, no reason is given, there is no migration, or an orchestrator runs
            that does not declare the version.
        NotMovable: some cannot be moved, so none was.
        UnknownSaga: the version is not declared here.
        StoreUnavailable: nothing was moved.
    """
    if not by.strip() or not reason.strip():
        raise SagasError("A migration needs a name and a reason: both are kept in each saga's history.")
    target = definitions.get(name, to)
    ways = _ways(definitions, target, from_version)
    with reading(engine) as connection:
        known = _shapes(read_outlines(connection), definitions)
        if dry_run:
            with closing(read_open(connection, name, from_version)) as found:
                instances = [instance for instance in found if instance.version in ways]
            judging = _Judging(target, ways, known, by, reason, now)
            return judging.batch(instances, leave_rest=leave_rest, dry_run=True)[0]
        _all_know(read_beats(connection), target, now)
    with engine.begin() as connection:
        note_declarations(connection, [target], now)
    with store.transaction() as tx:
        judging = _Judging(target, ways, known, by, reason, now)
        batch, changed, history = judging.batch(tx.lock_open(name, list(ways)), leave_rest=leave_rest)
        for first in range(0, len(changed), _WRITTEN_AT_ONCE):
            tx.move(changed[first : first + _WRITTEN_AT_ONCE], [])
        tx.move([], history)
    return batch


def _ways(definitions: Definitions, target: SagaDefinition, from_version: int | None) -> dict[int, Migration]:
    """The migrations that lead to the version, by where they come from."""
    name, to = target.name, target.version
    starts = {hop.from_version for saga in definitions if saga.name == name for hop in saga.migrations}
    if from_version is not None and from_version >= to:
        raise SagasError(
            f"Version {from_version} of {name!r} is not before {to}: a migration leads to a later one."
        )
    wanted = starts if from_version is None else {from_version}
    ways = {start: way for start in wanted if start < to and (way := definitions.migration(name, start, to))}
    if not ways:
        since = "a former version" if from_version is None else f"version {from_version}"
        raise SagasError(
            f"No migration leads from {since} of {name!r} to version {to}. Declare it with that version's "
            f"class: migrations=[Migration(from_version={from_version or to - 1 or 1}, ...)]."
        )
    return ways


def _all_know(beats: Sequence[Beat], target: SagaDefinition, now: datetime) -> None:
    """See that no orchestrator runs that would set aside what is answered to a moved instance."""
    wanted = declared_word(target.name, target.version)
    for beat in beats:
        # One that says nothing is of a release that did not tell yet: it knows no moved instance.
        lacks = beat.role == TIMEKEEPER and wanted not in beat.detail.split(", ")
        if lacks and now - beat.turned_at < ALIVE:
            raise SagasError(
                f"Nothing was moved: the orchestrator {beat.worker}, seen {in_words(now - beat.turned_at)} "
                f"ago, does not declare {wanted}. It would set the answers to moved sagas aside. Deploy this "
                "release to every orchestrator of this database, then migrate; one that was stopped counts "
                f"as gone after {ALIVE.total_seconds():.0f} s."
            )


def declared_word(name: str, version: int) -> str:
    """How a worker's beat tells that it declares a version: ``create_order version 2``."""
    return f"{name} version {version}"


class _Judging:
    """Decides on many instances for one person at one moment."""

    def __init__(
        self,
        target: SagaDefinition,
        ways: Mapping[int, Migration],
        known: Shapes,
        by: str,
        reason: str,
        now: datetime,
    ) -> None:
        self.target, self.ways, self.known = target, ways, known
        self.by, self.reason, self.now = by, reason, now

    def _verdict(self, instance: SagaInstance) -> Verdict:
        was = self.known.get((instance.saga, instance.version, instance.shape))
        way = self.ways[instance.version]
        return moved(instance, self.target, way, was, by=self.by, reason=self.reason, at=self.now)

    def batch(
        self, instances: Sequence[SagaInstance], *, leave_rest: bool, dry_run: bool = False
    ) -> tuple[Batch, list[SagaInstance], list[tuple[str, int, Recorded]]]:
        """The batch, the instances as they will be, and the lines of their histories.

        Raises:
            NotMovable: one cannot be moved, and none is to be left.
        """
        lacking, left = _Lacking(), 0
        changed: list[SagaInstance] = []
        history: list[tuple[str, int, Recorded]] = []
        for instance in instances:
            verdict = self._verdict(instance)
            if verdict.after is None:
                lacking.take(instance, verdict.missing)
                left += 1
                continue
            changed.append(verdict.after)
            history += [(instance.id, verdict.after.revision, line) for line in verdict.history]
        name, to = self.target.name, self.target.version
        if left and not leave_rest:
            raise NotMovable(name, to, left, len(instances), lacking.all())
        batch = Batch(name, to, tuple(i.id for i in changed), lacking.all(), left, dry_run)
        return batch, changed, history
