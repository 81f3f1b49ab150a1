"""``GET /stuck``: what open sagas wait for, those that need a person first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from flask import Blueprint, Response, url_for

from sagas_framework.console import answers
from sagas_framework.console.desk import Desk
from sagas_framework.console.lines import shortened
from sagas_framework.console.lists import names
from sagas_framework.core.instance import Cause, Status
from sagas_framework.core.why import SEEN_WITHIN, QueueSeen, clock_time, count, in_words, queue_of
from sagas_framework.errors import UnknownRun
from sagas_framework.storage.ports import Stuck
from sagas_framework.view import SagaView

LIVE: Final = 5000
"""Milliseconds after which the page is asked for again."""
MOST: Final = 50
"""Groups that are shown."""


@dataclass(frozen=True)
class Group:
    """Sagas that wait for the same. `view`: of one of them; None if it has just ended."""

    stuck: Stuck
    view: SagaView | None
    now: datetime
    address: str

    @property
    def title(self) -> str:
        """What they wait for."""
        match self.stuck.cause:
            case Cause.PERSON:
                return f"{self.stuck.what} needs a person"
            case Cause.ANSWER:
                return f"{self.stuck.what} has not answered"
            case Cause.PAUSE:
                return f"{self.stuck.what} pauses before its next try"
            case Cause.START:
                return "No orchestrator has taken them up"
            case Cause.TURN:
                return "No orchestrator has looked at them again"

    @property
    def parked(self) -> bool:
        return self.stuck.cause is Cause.PERSON

    @property
    def since(self) -> str:
        return in_words(self.now - self.stuck.since)

    @property
    def queue(self) -> str | None:
        """What the broker says of the queue whose worker should answer."""
        name = None if self.view is None else queue_of(self.view.instance)
        seen = None if self.view is None or name is None else self.view.queues.get(name)
        return None if seen is None else queue_in_words(seen, self.now)

    @property
    def why(self) -> str:
        """Of one of them, without what is said of all of them already."""
        return "" if self.view is None else shortened(replace(self.view, queues={}, same=0).why, 300)

    def to_json(self) -> dict[str, Any]:
        return {
            "saga": self.stuck.saga,
            "version": self.stuck.version,
            "cause": self.stuck.cause.value,
            "for": self.stuck.what or None,
            "count": self.stuck.count,
            "since": self.stuck.since.isoformat(),
            "queue": self.queue,
            "example": self.stuck.example,
            "why": self.view and self.view.why,
            "sagas": self.address,
        }


def add_stuck_routes(blueprint: Blueprint, desk: Desk) -> None:
    """``GET /stuck``."""

    @blueprint.get("/stuck")
    def show_stuck() -> Response:
        now = desk.sagas.clock()
        tag = answers.etag(desk, answers.newest_of_all(desk), now=now)
        if (known := answers.unchanged(tag)) is not None:
            return known
        found = desk.sagas.stuck()
        groups = [_group(desk, stuck, now) for stuck in found[:MOST]]
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


def queue_in_words(seen: QueueSeen, now: datetime) -> str:
    """``restaurant_service.commands: 312 messages, no worker since 09:12``."""
    told = [count(seen.messages, "message", "messages")]
    if seen.unattended_since is not None:
        told.append(f"no worker since {clock_time(seen.unattended_since, now)}")
    elif seen.consumers is not None:
        told.append(count(seen.consumers, "worker", "workers"))
    if now - seen.seen_at > SEEN_WITHIN:
        told.append(f"seen {in_words(now - seen.seen_at)} ago")
    return f"{seen.queue}: {', '.join(told)}"


def _group(desk: Desk, stuck: Stuck, now: datetime) -> Group:
    try:
        view = desk.sagas.view(stuck.example)
    except UnknownRun:
        view = None
    named = stuck.saga if stuck.saga in names(desk) else None
    address = url_for(
        ".list_sagas",
        status=Status.PARKED.value if stuck.cause is Cause.PERSON else None,
        saga=named,
        waits=stuck.what or None,
    )
    return Group(stuck, view, now, address)
