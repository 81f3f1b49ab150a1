"""``GET /``: the sagas there are, those that need a person first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request, url_for

from sagas_framework.console import answers
from sagas_framework.console.chosen import MOST_AT_ONCE
from sagas_framework.console.desk import Desk
from sagas_framework.console.filters import AGES, ALL, CAUSES, OPEN, TABS, Wanted
from sagas_framework.console.lines import Line
from sagas_framework.console.problem import Problem
from sagas_framework.core.instance import OutcomeKind, Status
from sagas_framework.core.why import MOST
from sagas_framework.errors import SagasError
from sagas_framework.storage.engine import reading
from sagas_framework.storage.reads import count_fitting

PER_PAGE: Final = 50
LIVE: Final = 2000
"""Milliseconds after which a list is asked for again."""


@dataclass(frozen=True)
class Listed:
    """A page of the list. `next`: address of the following page, if there is one."""

    lines: Sequence[Line]
    next: str | None


def add_list_routes(blueprint: Blueprint, desk: Desk) -> None:
    """``GET /``."""

    @blueprint.get("/")
    def list_sagas() -> Response:
        wanted = wanted_now(desk)
        now = desk.sagas.clock()
        tag = answers.etag(desk, answers.newest_of_all(desk), now=now)
        if (known := answers.unchanged(tag)) is not None:
            return known
        counts = desk.sagas.count()
        listed = _found(desk, wanted) if wanted.key else _page(desk, wanted)
        return answers.page(
            "saga_console/sagas.html",
            lambda: _to_json(listed, counts),
            title="Sagas",
            live=LIVE,
            tag=tag,
            wanted=wanted,
            tabs=[(tab, capped(_count(tab, counts)), tab == wanted.tab) for tab in TABS],
            lines=listed.lines,
            next=listed.next,
            empty=not any(counts.values()),
            matching=_matching(desk, wanted, listed, counts) if desk.guard.acting else 0,
            most=MOST_AT_ONCE,
            names=names(desk),
            ages={word: words for word, (words, _) in AGES.items()},
            causes=CAUSES,
            outcomes=[kind.value for kind in OutcomeKind],
        )


def wanted_now(desk: Desk) -> Wanted:
    """What this request's address asks for.

    Raises:
        Problem: 400; a value is none of those there are.
    """
    return Wanted.of(request.args, names(desk))


def names(desk: Desk) -> list[str]:
    """The names of the declared sagas."""
    return sorted({name for name, _ in desk.sagas.definitions.known()})


def capped(number: int) -> str:
    """``1,204``, and ``10,000+`` for what was counted no further."""
    return f"{MOST:,}+" if number > MOST else f"{number:,}"


def _page(desk: Desk, wanted: Wanted) -> Listed:
    try:
        page = desk.sagas.page(wanted.filter(desk.sagas.clock(), PER_PAGE))
    except SagasError as error:
        told, _, do = str(error).partition(". ")
        raise Problem(400, told, do.rstrip(".")) from None
    following = page.next and url_for(".list_sagas", **wanted.args(after=page.next))
    return Listed([Line(view) for view in page.views], following)


def _found(desk: Desk, wanted: Wanted) -> Listed:
    now = desk.sagas.clock()
    found = [i for i in desk.sagas.find(wanted.key or "") if wanted.fits(i, now)]
    return Listed([Line(view) for view in desk.sagas.views(found)], None)


def _count(tab: str, counts: Mapping[Status, int]) -> int:
    if tab not in (OPEN, ALL):
        return counts[Status(tab)]
    return sum(number for status, number in counts.items() if tab == ALL or not status.ended)


def _matching(desk: Desk, wanted: Wanted, listed: Listed, counts: Mapping[Status, int]) -> int:
    """How many open ones fit, counted up to one more than can be acted on at once."""
    if listed.next is None and wanted.after is None:
        return sum(line.open for line in listed.lines)
    if wanted.tab in (Status.COMPLETED, Status.COMPENSATED):
        return 0
    if not wanted.narrowed:
        return _count(OPEN if wanted.tab == ALL else wanted.tab, counts)
    with reading(desk.sagas.engine) as connection:
        return count_fitting(connection, wanted.open_ones(desk.sagas.clock(), MOST_AT_ONCE), MOST_AT_ONCE)


def _to_json(listed: Listed, counts: Mapping[Status, int]) -> dict[str, Any]:
    """Shape: ``sagas`` (as `saga list --json` has them), ``next`` (address or None), ``counts`` by status."""
    return {
        "sagas": [line.to_json() for line in listed.lines],
        "next": listed.next,
        "counts": {status.value: number for status, number in counts.items()},
    }
