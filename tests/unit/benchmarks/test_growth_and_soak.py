"""What the long benchmarks make of their records."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import growth, soak

MACHINE: dict[str, Any] = {"kind": "load", "rate": 60.0, "minutes": 2.0}


def run(database: str, per_second: float, wal: float) -> dict[str, Any]:
    return {"kind": "run", "round": 1, "database": database, "per_second": per_second, "wal_changes": wal}


def asked(milliseconds: float) -> dict[str, Any]:
    times = {"median_ms": milliseconds, "slowest_ms": milliseconds}
    return {"kind": "question", "question": "list", "statements": 1, "reads_whole": [], **times}


@pytest.mark.parametrize(
    ("grown", "question", "passed"),
    [
        (run("grown", 90.0, 10_400.0), asked(49.0), True),
        (run("grown", 200.0, 5_000.0), asked(49.0), True),
        (run("grown", 80.0, 10_000.0), asked(49.0), False),
        (run("grown", 100.0, 10_600.0), asked(49.0), False),
        (run("grown", 100.0, 10_000.0), asked(51.0), False),
    ],
    ids=["within", "better", "too slow", "too much WAL", "asked too long"],
)
def test_a_grown_database_is_held_against_an_empty_one(
    grown: dict[str, Any], question: dict[str, Any], passed: bool
) -> None:
    told, kept = growth.report([run("empty", 100.0, 10_000.0), grown, question])

    assert kept is passed
    assert "| sagas a second | 100 |" in told


def test_of_several_runs_the_median_counts() -> None:
    records = [run("empty", rate, 1.0) for rate in (100.0, 1.0, 101.0)]
    records += [run("grown", rate, 1.0) for rate in (99.0, 500.0, 98.0)]

    told, kept = growth.report(records)

    assert "| sagas a second | 100 | 99 | -1.0 % | 15 % |" in told
    assert kept


def look(seconds: float, memory: float) -> dict[str, Any]:
    table = {"live": 10, "dead": int(memory), "updates": 200, "hot": 190, "vacuums": 1}
    group = {"pss_mb": memory, "processes": 1, "threads": 3, "sockets": 4, "files": 5}
    return {
        "kind": "look",
        "seconds": seconds,
        "groups": {"orchestrator": group},
        "connections": 7,
        "tables": {"order_service.saga_instance": table},
    }


def test_a_soak_tells_how_memory_grows_after_its_first_quarter() -> None:
    looks = [look(0, 50), look(900, 90), look(1800, 91), look(2700, 92)]
    minute = {"kind": "minute", "minute": 0, "sagas": 3600, "p50_ms": 20.0, "p99_ms": 40.0}
    end = {"kind": "end", "started": 3600, "late": 0.0, "not_completed": 0}

    told, whole = soak.report([MACHINE, *looks, minute, end])

    assert whole
    assert "| orchestrator | 50, 92 | +4.0 | 3 → 3 | 4 → 4 | 5 → 5 |" in told
    assert "| order_service.saga_instance | 10 | 92, 92 | 200 | 95 % | 1 |" in told
    assert "| 1 | 3,600 | 20.0 | 40.0 |" in told


def test_a_saga_that_did_not_complete_fails_the_soak() -> None:
    _, whole = soak.report([MACHINE, {"kind": "end", "started": 2, "not_completed": 1}])

    assert not whole


@pytest.mark.parametrize(
    ("points", "grows"),
    [([], 0.0), ([(1.0, 5.0)], 0.0), ([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)], 2.0), ([(1.0, 2.0)] * 3, 0.0)],
)
def test_the_slope_is_that_of_the_nearest_line(points: list[tuple[float, float]], grows: float) -> None:
    assert soak.slope(points) == pytest.approx(grows)


def test_lines_are_drawn_also_of_nothing() -> None:
    drawn = soak.charts([look(0, 50), look(60, 51)])

    assert "orchestrator" in drawn["memory"].svg()
    assert drawn["latency"].svg().endswith("</svg>\n")
