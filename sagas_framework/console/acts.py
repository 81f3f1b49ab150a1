"""``GET /acts``: what became of acts that were asked for together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request

from sagas_framework.console import answers
from sagas_framework.console.chosen import MOST_AT_ONCE
from sagas_framework.console.desk import Desk
from sagas_framework.console.problem import Problem
from sagas_framework.console.ranges import from_ranges
from sagas_framework.core.instance import SagaInstance
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import ActRow
from sagas_framework.storage.reads import newest, read_instances, read_numbered_acts
from sagas_framework.view import act_to_json

LIVE: Final = 1000
"""Milliseconds after which the page is asked for again, until every act was taken."""


@dataclass(frozen=True)
class Became:
    """An act and its saga. `instance` is None if its row was deleted meanwhile."""

    act: ActRow
    instance: SagaInstance | None

    def to_json(self) -> dict[str, Any]:
        instance = self.instance
        return act_to_json(self.act) | {
            "key": instance and instance.key,
            "status": instance and instance.status.value,
        }


def add_acts_routes(blueprint: Blueprint, desk: Desk) -> None:
    """``GET /acts?numbers=12-57,60``."""

    @blueprint.get("/acts")
    def show_acts() -> Response:
        numbers = from_ranges(request.args.get("numbers", ""), MOST_AT_ONCE)
        gone = max(request.args.get("gone", 0, int), 0)
        with reading(desk.sagas.engine) as connection:
            acts = read_numbered_acts(connection, numbers)
            if not acts:
                raise Problem(404, "There are no such acts", "Look at the saga's own page for its acts")
            waiting = sum(act.handled_at is None for act in acts)
            now = desk.sagas.clock() if waiting else None
            tag = answers.etag(desk, _digest(acts), newest(connection), now=now)
            if (known := answers.unchanged(tag)) is not None:
                return known
            instances = {i.id: i for i in read_instances(connection, [act.saga_id for act in acts])}
        became = sorted(
            [Became(act, instances.get(act.saga_id)) for act in acts],
            key=lambda one: (("refused", "stored", "done").index(one.act.became), one.act.id),
        )
        words = Counter(act.became for act in acts)
        count = {word: words[word] for word in ("done", "refused", "stored")}
        return answers.page(
            "saga_console/acts.html",
            lambda: {"acts": [one.to_json() for one in became], "count": count, "gone": gone},
            title="What became of it",
            live=LIVE if waiting else None,
            live_state=None if waiting else "ended",
            refresh=2 if waiting else None,
            tag=tag,
            became=became,
            count=count,
            gone=gone,
        )


def _digest(acts: Sequence[ActRow]) -> str:
    known = repr([(act.id, act.handled_at, act.refused) for act in acts])
    return hashlib.sha256(known.encode()).hexdigest()
