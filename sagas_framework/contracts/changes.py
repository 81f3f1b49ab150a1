"""What a comparison finds: changes, each with what it does to those who have not been redeployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Effect(StrEnum):
    """What a change does."""

    BREAKING = "breaking"  # to a sender or a receiver of the last release
    SAFE = "safe"


@dataclass(frozen=True)
class Change:
    """One change of a document.

    Args:
        code: stable; what a test or a script may look for.
        pointer: where, as a JSON pointer: in the old document, if it is there.
        what: what changes, and what comes of it.
        breaks: who, of those that have not been redeployed; empty if nobody.
        instead: what to do instead; empty if nobody breaks.
        message: the task's name, or the message's key; empty if it is about no message.
        field: of the payload, or of the headers; empty if it is about none.
    """

    code: str
    effect: Effect
    pointer: str
    what: str
    breaks: str = ""
    instead: str = ""
    message: str = ""
    field: str = ""

    @property
    def breaking(self) -> bool:
        """Whether it breaks somebody."""
        return self.effect is Effect.BREAKING

    def to_json(self) -> dict[str, Any]:
        """All of it; what it is not about is null."""
        return {
            "code": self.code,
            "effect": self.effect.value,
            "breaks": self.breaks or None,
            "message": self.message or None,
            "field": self.field or None,
            "pointer": self.pointer,
            "what": self.what,
            "instead": self.instead or None,
        }


def safe(code: str, pointer: str, what: str, *, message: str = "", field: str = "") -> Change:
    """A change that breaks nobody."""
    return Change(code, Effect.SAFE, pointer, what, message=message, field=field)


@dataclass(frozen=True)
class Compared:
    """What changed in one service's document.

    Args:
        old, new: the versions (`info.version`).
        changes: those that break somebody first.
        major: whether `new` is a higher major version than `old`.
    """

    service: str
    old: str
    new: str
    changes: Sequence[Change]
    major: bool

    @property
    def breaking(self) -> list[Change]:
        """The changes that break somebody."""
        return [change for change in self.changes if change.breaking]

    def to_json(self) -> dict[str, Any]:
        """As ``saga contracts diff --json`` prints it."""
        return {
            "service": self.service,
            "old": self.old,
            "new": self.new,
            "major": self.major,
            "changes": [change.to_json() for change in self.changes],
        }


@dataclass(frozen=True)
class Report:
    """The verdict on all documents.

    Args:
        compared: of each service that has both documents.
        admitted: services without an older document that were expected to have none.
        missing: services without an older document that should have one, and what to do.
    """

    compared: Sequence[Compared]
    admitted: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def breaking(self) -> list[Change]:
        """All changes that break somebody."""
        return [change for one in self.compared for change in one.breaking]

    def passes(self, *, majors: bool = False) -> bool:
        """Whether a pipeline may go on: nothing breaks, and everything was compared.

        Args:
            majors: a document may break others if its major version is higher than before.
        """
        broken = [one for one in self.compared if one.breaking and not (majors and one.major)]
        return not broken and not self.missing

    def to_json(self) -> dict[str, Any]:
        """As ``saga contracts diff --json`` prints it."""
        return {
            "breaking": len(self.breaking),
            "services": [one.to_json() for one in self.compared],
            "admitted": list(self.admitted),
            "missing": dict(self.missing),
        }
