"""A participant's worker refuses to start where its promises would not hold."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import get_implementation

from sagas_framework import (
    Command,
    Compensation,
    DefinitionError,
    Participant,
    Reply,
    Service,
    participant_app,
)
from sagas_framework.worker.participating import ReadinessStep

kitchen = Service("small_kitchen")


class Opened(Reply):
    ticket_id: int


class Open(Command[Opened], service=kitchen, name="open"):
    order_id: int


class Close(Compensation[Open], service=kitchen, name="close"):
    ticket_id: int | None


def make_participant(folder: Path) -> Participant:
    participant = Participant(kitchen, database=f"sqlite:///{folder}/kitchen.sqlite")
    participant.upgrade()

    @participant.handles(Open)
    def open_ticket(command: Open, context: object) -> Opened:
        return Opened(ticket_id=command.order_id)

    return participant


def undo_nothing(_command: object, _undo: object) -> None: ...


def test_a_command_that_nobody_undoes_is_found_when_the_app_is_made(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="handles Open but not Close"):
        participant_app(make_participant(tmp_path), broker="memory://")


@pytest.mark.parametrize(("pool", "starts"), [("solo", True), ("prefork", True), ("threads", False)])
def test_only_pools_that_keep_the_promises_are_taken(
    tmp_path: Path, pool: str, starts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    participant = make_participant(tmp_path)
    participant.undoes(Close)(undo_nothing)
    app = participant_app(participant, broker="memory://")
    parent: Any = SimpleNamespace(
        app=app,
        pool_cls=get_implementation(pool),
        hostname="kitchen@box",
        concurrency=1,
        prefetch_multiplier=1,
        time_limit=None,
    )

    if starts:
        ReadinessStep(parent).start(parent)
        return
    with pytest.raises(SystemExit) as ended:
        ReadinessStep(parent).start(parent)

    assert ended.value.code == os.EX_CONFIG
    assert "needs --pool prefork or solo" in caplog.text


def test_a_handlers_process_is_killed_before_another_clock_may_see_its_lease_end(tmp_path: Path) -> None:
    participant = make_participant(tmp_path)
    participant.undoes(Close)(undo_nothing)

    app = participant_app(participant, broker="memory://")

    assert app.conf.task_time_limit == participant.lease.total_seconds() - 5 * 60 - 30
