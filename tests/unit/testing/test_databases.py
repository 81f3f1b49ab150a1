"""A run on SQLite goes as it does in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagas_framework.testing import Scripted
from tests.simulation.shapes import SHAPES, sown

ON_SQLITE = {"the databases are": "on SQLite"}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_schedule_goes_the_same_way(shape: str) -> None:
    simulation = SHAPES[shape]
    schedule = simulation.run(sown(5)).schedule

    in_memory, on_sqlite = simulation.replay(schedule), simulation.run(Scripted({**schedule, **ON_SQLITE}))

    assert on_sqlite.trace() == in_memory.trace()
    assert on_sqlite.words == in_memory.words
    assert on_sqlite.state == in_memory.state
    assert on_sqlite.database.rows == in_memory.database.rows


def test_what_was_not_committed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = SHAPES["comp"].replay(
        {**ON_SQLITE, "committing reserve 1": "dies before", "sending reserve 1": "lost"}
    )

    assert run.count("reserve") == 1
    assert run.executions("reserve") == 2
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
