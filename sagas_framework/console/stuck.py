"""``GET /stuck``: what open sagas wait for, those that need a person first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, url_for

from sagas_framework.console import answers
from sagas_framework.console.desk import Desk
from sagas_framework.console.lists import names
from sagas_framework.core.instance import Cause, Status
from sagas_framework.storage.ports import Stuck
from sagas_framework.view import StuckView

LIVE: Final = 5000
"""Milliseconds after which the page is asked for again."""
MOST: Final = 50
"""Groups that are shown."""


@dataclass(frozen=True)
class Group:
    """Sagas that wait for the same. `address`: of the list of them."""

    view: StuckView
    address: str

    @property
    def stuck(self) -> Stuck:
        return self.view.stuck

    @property
    def parked(self) -> bool:
        return self.stuck.cause is Cause.PERSON

    @property
    def title(self) -> str:
        """What they wait for, in a few words."""
        match self.stuck.cause:
            case Cause.PERSON:
                return f"{self.stuck.what} needs a person"
            case Cause.ANSWER:
                return f"{self.stuck.what} has not answered"
            case Cause.PAUSE:
                return f"{self.stuck.what} pauses before its next try"
            case Cause.SIGNAL:
                return f"{self.stuck.what} waits for a signal beyond its deadline"
            case Cause.TIME:
                return f"{self.stuck.what} waits beyond its time"
            case Cause.START:
                return "No orchestrator has taken them up"
            case Cause.TURN:
                return "No orchestrator has looked at them again"

    def to_json(self) -> dict[str, Any]:
        """As `saga stuck --json` has it, and ``sagas``: where they are listed."""
        return self.view.to_json() | {"sagas": self.address}


def add_stuck_routes(blueprint: Blueprint, desk: Desk) -> None:
    """``GET /stuck``."""

    @blueprint.get("/stuck")
    def show_stuck() -> Response:
        tag = answers.etag(desk, answers.newest_of_all(desk), now=desk.sagas.clock())
        if (known := answers.unchanged(tag)) is not None:
            return known
        found = desk.sagas.stuck_views()
        groups = [_group(desk, view) for view in found[:MOST]]
        return answers.page(
            "saga_console/stuck.html",
            lambda: {"stuck": [group.to_json() for group in groups], "more": len(found) > MOST},
            title="What is stuck",
            live=LIVE,
            refresh=10,
            tag=tag,
            groups=groups,
            more=len(found) > MOST,
        )


def _group(desk: Desk, view: StuckView) -> Group:
    stuck = view.stuck
    address = url_for(
        ".list_sagas",
        status=Status.PARKED.value if stuck.cause is Cause.PERSON else None,
        saga=stuck.saga if stuck.saga in names(desk) else None,
        waits=stuck.what or None,
    )
    return Group(view, address)
