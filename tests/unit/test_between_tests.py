"""A test finds the process as the one before it did, whatever that one has done to it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

celery_state: Any = import_module("celery._state")


def as_it_is() -> list[object]:
    """What is one for the whole process."""
    return [
        sys.getrecursionlimit(),
        gc.get_threshold(),
        Path.cwd(),
        signal.getsignal(signal.SIGUSR1),
        celery_state.task_join_will_block(),
        celery_state.get_current_app(),
    ]


found: list[list[object]] = []


@pytest.mark.parametrize("turn", [1, 2])
def test_each_turn_finds_what_the_first_has_found(turn: int, tmp_path: Path) -> None:
    found.append(as_it_is())

    sys.setrecursionlimit(sys.getrecursionlimit() + 1000)
    gc.set_threshold(gc.get_threshold()[0] + 1000)
    os.chdir(tmp_path)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    celery_state._set_task_join_will_block(True)
    Celery("another").set_current()

    assert all(now != before for now, before in zip(as_it_is(), found[0], strict=True))
    assert found == [found[0]] * len(found)
