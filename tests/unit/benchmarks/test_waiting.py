"""What the benchmark of waiting makes of its records."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import waiting


def watched(name: str, worker: float) -> dict[str, Any]:
    return {
        "kind": "watched",
        "name": name,
        "cores": {"orchestrator": worker, "postgres": 0.004},
        "other_cores": 0.0,
        "rows_read": 3.0,
        "pss_mb": 80.0,
        "threads": 4,
        "sockets": 8,
    }


def fired(*milliseconds: float, wanted: int) -> dict[str, Any]:
    times = waiting._times([one / 1000 for one in milliseconds])
    record = {"kind": "fired", "minutes": 6.0, "told": "to its commit", "wanted": wanted, "disk": {}}
    return {**record, **times, "late_ms": list(milliseconds)}


@pytest.mark.parametrize(
    ("idle", "late", "kept"),
    [
        (0.099, fired(5.0, 999.0, wanted=2), True),
        (0.101, fired(5.0, 999.0, wanted=2), False),
        (0.099, fired(5.0, 1001.0, wanted=2), False),
        (0.099, fired(5.0, wanted=2), False),
        (0.099, fired(wanted=2), False),
    ],
    ids=["within", "not idle", "too late", "one has not fired", "none has"],
)
def test_the_promise_is_held_against_what_was_measured(idle: float, late: dict[str, Any], kept: bool) -> None:
    told, passed = waiting.report([watched("nothing waits", 0.007), watched("all wait", idle), late])

    assert passed is kept
    assert f"| worker: CPU ms | 7 | {1000 * idle:g} |" in told


def test_a_run_that_broke_off_has_kept_nothing() -> None:
    _, passed = waiting.report([watched("nothing waits", 0.007)])

    assert not passed


def test_the_picture_ends_where_all_have_fired() -> None:
    chart = waiting.chart([fired(1.0, 2.0, 4.0, 8.0, wanted=4)])

    assert list(chart.lines[""])[-1] == (8.0, 100.0)
