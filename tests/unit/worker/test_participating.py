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
    ConfigurationError,
    DefinitionError,
    Participant,
    Reply,
    Service,
    participant_app,
)
from sagas_framework.storage.redis_inbox import RedisInbox
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


def whole(participant: Participant) -> Participant:
    participant.undoes(Close)(undo_nothing)
    return participant


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_batch_of_a_size_that_cannot_be_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot take batches of {size}: write 1 to 1000, as in"):
        participant_app(whole(make_participant(tmp_path)), broker="memory://", batch=size)


def test_commands_that_work_outside_are_not_handled_in_batches(tmp_path: Path) -> None:
    participant = Participant(kitchen, database=f"sqlite:///{tmp_path}/kitchen.sqlite")

    @participant.handles(Open, outside=True)
    def open_ticket(command: Open, context: object) -> Opened:
        return Opened(ticket_id=command.order_id)

    with pytest.raises(ConfigurationError, match=r"small_kitchen\.open work outside their transaction"):
        participant_app(whole(participant), broker="memory://", batch=200)


def test_an_inbox_without_a_database_is_not_for_batches() -> None:
    participant = Participant(kitchen, inbox=RedisInbox("redis://127.0.0.1:1"))

    with pytest.raises(ConfigurationError, match="its inbox is not in a database"):
        participant_app(participant, broker="memory://", batch=200)


@pytest.mark.parametrize(
    ("pool", "batch", "starts"),
    [
        ("solo", None, True),
        ("prefork", None, True),
        ("threads", None, False),
        ("prefork", 200, False),
        ("threads", 200, False),
    ],
)
def test_only_pools_that_keep_the_promises_are_taken(
    tmp_path: Path, pool: str, batch: int | None, starts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = participant_app(whole(make_participant(tmp_path)), broker="memory://", batch=batch)
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
    assert f"needs --pool {'solo' if batch else 'prefork or solo'}" in caplog.text


def test_a_handlers_process_is_killed_before_another_clock_may_see_its_lease_end(tmp_path: Path) -> None:
    participant = make_participant(tmp_path)
    participant.undoes(Close)(undo_nothing)

    app = participant_app(participant, broker="memory://")

    assert app.conf.task_time_limit == participant.lease.total_seconds() - 5 * 60 - 30
