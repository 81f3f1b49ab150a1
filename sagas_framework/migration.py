"""Declaring what changed between two versions of a saga, so that its instances can be moved::

    class CreateOrderSaga(
        Saga[CreateOrderState],
        name="create_order",
        version=2,
        migrations=[
            Migration(
                from_version=1,
                renamed={"create_ticket": "open_ticket"},
                added=["check_fraud"],
                state=with_currency,
            )
        ],
    ): ...

Whether an instance can be moved is decided by `sagas_framework.core.evolving`, for each on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sagas_framework.errors import DefinitionError

StateConversion = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Makes the state of the new version, as plain JSON, from (a copy of) that of the old one."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """What changed from one version of a saga to a later one.

    What is not named here stayed: a step keeps its name, its command, its side of the pivot.

    Args:
        from_version: of the instances that it moves.
        to_version: to which; the version of the class that declares it, unless given. Given, it is one
            hop of several, for a version whose class is gone.
        renamed: old names of steps, and their new ones.
        added: steps that the old version did not have.
        removed: steps that the new version does not have. An instance that has begun one stays.
        done_without: of the added steps, those that an instance which is past their place is done
            without. Without this such an instance stays.
        state: makes the new state from the old one, both plain JSON. None: the new model reads the old
            state as it is, which it can if each new field has a default, and each old one is still there.

    Raises:
        DefinitionError: it contradicts itself. What contradicts the saga's steps is told when the class
            is made.
    """

    from_version: int
    to_version: int | None = None
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    added: Collection[str] = ()
    removed: Collection[str] = ()
    done_without: Collection[str] = ()
    state: StateConversion | None = None

    def __post_init__(self) -> None:
        for name in ("added", "removed", "done_without"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise DefinitionError(f"{self}: {name} is a list of steps: write {name}=[{given!r}].")
            object.__setattr__(self, name, tuple(dict.fromkeys(given)))
        object.__setattr__(self, "renamed", MappingProxyType(dict(self.renamed)))
        if trouble := self._trouble():
            raise DefinitionError(f"{self}: {trouble}")

    def _trouble(self) -> str | None:
        if self.from_version < 1:
            return "versions begin at 1."
        if self.to_version is not None and self.to_version <= self.from_version:
            return "it leads to a later version, never to the same or an earlier one."
        targets = list(self.renamed.values())
        if twice := _first(name for name in targets if targets.count(name) > 1):
            return f"two steps are renamed to {twice!r}: each step of an instance is one step."
        if same := _first(old for old, new in self.renamed.items() if old == new):
            return f"{same!r} is renamed to itself: leave it out, it stays."
        if both := _first(name for name in self.added if name in targets):
            return f"{both!r} is a renamed step and an added one: it is either."
        if both := _first(name for name in self.removed if name in self.renamed):
            return f"{both!r} is renamed and removed: it is either."
        if unknown := _first(name for name in self.done_without if name not in self.added):
            return f"done_without names {unknown!r}, which is not added: only an added step can be missing."
        return None

    def __str__(self) -> str:
        to = "" if self.to_version is None else f", to_version={self.to_version}"
        return f"Migration(from_version={self.from_version}{to})"

    @property
    def to(self) -> int:
        """The version that it leads to; known once a class has declared it."""
        assert self.to_version is not None
        return self.to_version

    def now(self, step: str) -> str:
        """The name that a step of the old version has in the new one."""
        return self.renamed.get(step, step)


def declared(
    where: str, version: int, steps: Sequence[str], migrations: Iterable[Migration]
) -> tuple[Migration, ...]:
    """The migrations that a class declares, each with the version that it leads to.

    Args:
        where: the class's name, for messages.
        steps: names of its steps.

    Raises:
        DefinitionError: one contradicts the class, or leads nowhere.
    """
    hops = tuple(
        hop if hop.to_version is not None else _leading_to(version, hop, where) for hop in migrations
    )
    seen: set[tuple[int, int]] = set()
    for hop in hops:
        if (hop.from_version, hop.to) in seen:
            raise DefinitionError(
                f"{where} has two migrations from version {hop.from_version} to {hop.to}: keep one of them."
            )
        seen.add((hop.from_version, hop.to))
        if hop.to == version and (trouble := _against(hop, steps)):
            raise DefinitionError(f"{where}, {hop}: {trouble}")
        if path(hops, hop.from_version, version) is None:
            raise DefinitionError(
                f"{where} is version {version}, and {hop} leads to none of its own: add "
                f"Migration(from_version={hop.to}, ...), or let it lead to version {version}."
            )
    return hops


def _leading_to(version: int, hop: Migration, where: str) -> Migration:
    if hop.from_version >= version:
        raise DefinitionError(
            f"{where} is version {version}, and {hop} comes from no earlier one: give the class the next "
            "version, or the migration an earlier from_version."
        )
    return replace(hop, to_version=version)


def _against(hop: Migration, steps: Sequence[str]) -> str | None:
    """What of the migration does not fit the steps that it leads to."""
    names = ", ".join(steps)
    made = {*hop.added, *hop.renamed.values()}
    if unknown := _first(name for name in hop.renamed.values() if name not in steps):
        return f"a step is renamed to {unknown!r}, which is none of its steps ({names})."
    if unknown := _first(name for name in hop.added if name not in steps):
        return f"{unknown!r} is added, but is none of its steps ({names})."
    if there := _first(name for name in hop.removed if name in steps and name not in made):
        return f"{there!r} is removed, but is one of its steps. If it is another one by now, say added=."
    if there := _first(name for name in hop.renamed if name in steps and name not in made):
        return (
            f"{there!r} is renamed to {hop.renamed[there]!r}, but is one of its steps as well. If it is "
            "another one by now, say added=."
        )
    return None


def path(hops: Iterable[Migration], start: int, end: int) -> Migration | None:
    """The migration from one version to another: the shortest way over these hops, as one.

    None if there is no way.
    """
    hops = list(hops)
    reached: dict[int, Migration | None] = {start: None}
    edge = [start]
    while edge and end not in reached:
        following = []
        for version in edge:
            for hop in hops:
                if hop.from_version == version and hop.to not in reached:
                    before = reached[version]
                    reached[hop.to] = hop if before is None else composed(before, hop)
                    following.append(hop.to)
        edge = following
    return reached.get(end)


def composed(first: Migration, second: Migration) -> Migration:
    """Both, one after the other, as one."""
    was = {new: old for old, new in first.renamed.items()}
    renamed = {old: second.now(new) for old, new in first.renamed.items() if new not in second.removed}
    only_then = {m: new for m, new in second.renamed.items() if m not in was and m not in first.added}
    kept = [name for name in first.added if name not in second.removed]
    gone = [was.get(name, name) for name in second.removed if name not in first.added]
    return Migration(
        from_version=first.from_version,
        to_version=second.to_version,
        renamed={old: new for old, new in (renamed | only_then).items() if old != new},
        added=[*map(second.now, kept), *second.added],
        removed=[*first.removed, *gone],
        done_without=[second.now(name) for name in first.done_without if name in kept]
        + list(second.done_without),
        state=_one_after_the_other(first.state, second.state),
    )


def _one_after_the_other(
    first: StateConversion | None, second: StateConversion | None
) -> StateConversion | None:
    if first is None or second is None:
        return first or second
    return lambda state: second(dict(first(state)))


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)
