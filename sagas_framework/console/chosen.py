"""Which sagas somebody chose in a list, and what for: read from a form or from JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import request

from sagas_framework.console.fields import parse_object
from sagas_framework.console.problem import Problem
from sagas_framework.core.events import Act
from sagas_framework.storage.ports import is_storable

ACTS: Final = (Act.RETRY, Act.CANCEL, Act.SKIP)
MOST_AT_ONCE: Final = 1000
"""Sagas that are acted on in one go."""
LONGEST_STEP: Final = 100
"""Characters of a step's name that a database keeps."""

_LIKE: Final = (
    'Send {"act": "retry", "sagas": [{"id": ..., "revision": ...}], "by": ..., "reason": ..., '
    '"confirmed": true}'
)


@dataclass(frozen=True)
class Chosen:
    """A saga as it was when somebody looked at it.

    Args:
        revision: then; None: as it stands now.
        step: which the act was about; None: whichever it can be.
    """

    saga_id: str
    revision: int | None = None
    step: str | None = None

    @classmethod
    def of(cls, text: str) -> Chosen:
        """The inverse of `str`.

        Raises:
            Problem: 400; it is not one of ours.
        """
        saga_id, _, rest = text.partition(".")
        revision, _, step = rest.partition(".")
        if not saga_id or not _is_name(text) or (rest and not _is_number(revision)) or not _is_step(step):
            raise Problem(400, f"{text[:60]!r} names no saga of a list", "Choose them in the list of sagas")
        return cls(saga_id, int(revision) if rest else None, step or None)

    def __str__(self) -> str:
        return f"{self.saga_id}.{self.revision}.{self.step or ''}"


@dataclass(frozen=True)
class ChosenMany:
    """What is asked of many sagas.

    Args:
        fields: ``by`` and ``reason``.
        all: of those that match the address.
    """

    act: Act
    chosen: Sequence[Chosen]
    all: bool
    confirmed: bool
    fields: dict[str, Any]

    @classmethod
    def from_request(cls) -> ChosenMany:
        """Raises Problem: 400; it cannot be read, or names no act or too many sagas."""
        if request.is_json:
            body = parse_object(request.get_data(), _LIKE)
            chosen = list(_from_json(body.get("sagas", [])))
            everything, confirmed = body.get("all") is True, body.get("confirmed") is True
            fields = {name: body.get(name) for name in ("by", "reason")}
            act = body.get("act")
        else:
            form = request.form
            chosen = [Chosen.of(text) for text in form.getlist("saga")]
            everything, confirmed = form.get("all") == "1", form.get("confirmed") == "1"
            fields = {name: form.get(name) for name in ("by", "reason")}
            act = form.get("act")
        if act not in [known.value for known in ACTS]:
            raise Problem(
                400,
                f"There is no act {str(act)[:60]!r} for many sagas",
                f"Use one of these: {', '.join(ACTS)}",
            )
        if len(chosen) > MOST_AT_ONCE:
            raise Problem(
                400,
                f"{len(chosen):,} sagas were chosen, and {MOST_AT_ONCE:,} at most are acted on at once",
                "Choose fewer",
            )
        unique = {one.saga_id: one for one in chosen}
        return cls(Act(act), list(unique.values()), everything, confirmed, fields)


def _from_json(value: object) -> Iterator[Chosen]:
    for one in value if isinstance(value, list) else [value]:
        match one:
            case str():
                yield Chosen.of(one)
            case {"id": str() as saga_id, **rest} if _is_name(saga_id):
                revision, step = rest.get("revision"), rest.get("step")
                if isinstance(revision, bool) or not isinstance(revision, int | None) or not _fits(revision):
                    raise Problem(400, f"{revision!r} is no revision", "Send the revision that was shown")
                if not isinstance(step, str | None) or not _is_step(step or ""):
                    raise Problem(400, f"{str(step)[:60]!r} is no step", "Send the name of a step")
                yield Chosen(saga_id, revision, step)
            case _:
                raise Problem(
                    400,
                    f"{str(one)[:60]!r} names no saga",
                    'Send a list: "sagas": [{"id": ..., "revision": ...}]',
                )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _is_name(text: str) -> bool:
    """Whether a database can be asked for it."""
    return len(text) <= 250 and is_storable(text)


def _is_step(text: str) -> bool:
    return len(text) <= LONGEST_STEP and is_storable(text)


def _fits(revision: int | None) -> bool:
    return revision is None or 0 <= revision < 1_000_000_000
