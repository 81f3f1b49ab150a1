"""A run, from the start of its processes to their end, with a driver that needs no servers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from benchmarks.configurations import CONFIGURATIONS, MAIN
from benchmarks.results import Record
from benchmarks.running import CannotMeasure, Load, Place, Servers, measure
from benchmarks.systems import Group, Needs, Program, System
from tests.servers import PostgresServer, RabbitmqServer

NO_SERVERS = Servers(cast(PostgresServer, None), cast(RabbitmqServer, None))
SMALL = Load(warm=3, batch=10, declined=4, alone=3)

DRIVER = """
import os, time
from benchmarks.driving import serve
class Busy:
    def batch(self, count, *, declined):
        print("a library prints")
        if declined and os.environ.get("FAILS"):
            raise RuntimeError("3 of 4 orders are approved")
        until = time.process_time() + 0.002 * count
        while time.process_time() < until:
            pass
        return 0.002 * count
    def one(self, *, declined):
        return 0.004 if declined else 0.003
serve(Busy())
"""
SLEEPER = "import time; time.sleep(60)"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux alone has /proc")


def system(driver: str = DRIVER, **more: str) -> System:
    return System(
        name="fake",
        variant="here",
        driver=Program(Group.DRIVER, ["-c", driver], more),
        programs=[Program(Group.ORCHESTRATOR, ["-c", SLEEPER])],
        python=Path(sys.executable),
    )


def of_kind(records: list[Record], kind: str) -> Record:
    return next(record for record in records if record["kind"] == kind)


def test_a_run_measures_batches_and_sagas_one_at_a_time(tmp_path: Path) -> None:
    records = cast(list[Record], measure(system(), NO_SERVERS, replace(SMALL, batch=100), tmp_path))

    assert [record["kind"] for record in records] == ["completed", "declined", "alone"]
    batch = of_kind(records, "completed")
    assert batch["per_second"] == 500.0
    assert batch["cpu_ms_by_group"]["driver"] == pytest.approx(2.0, abs=1.0)
    assert batch["cpu_ms_by_group"]["orchestrator"] < 0.5  # it sleeps
    assert of_kind(records, "alone")["p99_ms"] == 3.0
    assert of_kind(records, "alone")["declined_p50_ms"] == 4.0


def test_what_a_load_leaves_out_is_not_measured(tmp_path: Path) -> None:
    records = measure(system(), NO_SERVERS, replace(SMALL, declined=0, alone=0), tmp_path)

    assert [record["kind"] for record in records] == ["completed"]


def test_sagas_that_end_otherwise_than_they_should_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="3 of 4 orders are approved"):
        measure(system(FAILS="yes"), NO_SERVERS, SMALL, tmp_path)


def test_a_driver_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match=r"ended with code 3(.|\n)*no such database"):
        measure(
            system("import sys; print('no such database', file=sys.stderr); sys.exit(3)"),
            NO_SERVERS,
            SMALL,
            tmp_path,
        )


def test_what_prepares_must_succeed(tmp_path: Path) -> None:
    fails = replace(system(), prepare=[Program(Group.DRIVER, ["-c", "raise SystemExit(2)"])])

    with pytest.raises(CannotMeasure, match="failed; see"):
        measure(fails, NO_SERVERS, SMALL, tmp_path)


def test_a_place_tells_our_services_and_a_peers_driver() -> None:
    told = Place("postgresql://postgres@host/run", "amqp://host/run").environment()

    assert told["APP_SQLALCHEMY_DATABASE_URI"] == "postgresql://postgres@host/run_{service}"
    assert told["CELERY_BROKER"] == told["BENCHMARK_BROKER"] == "amqp://host/run"
    assert told["BENCHMARK_DATABASE"] == "postgresql://postgres@host/run"


@pytest.mark.parametrize(
    ("name", "count"), [("plain", 1), ("plain-2", 2), ("plain-3", 3), ("batched-2", 2), ("batched-3", 3)]
)
def test_each_of_several_orchestrators_is_started_and_waited_for(name: str, count: int) -> None:
    found = CONFIGURATIONS[name]

    nodes = [p.arguments[p.arguments.index("-n") + 1] for p in found.programs]
    assert len(set(nodes)) == len(nodes) == count + 3
    assert found.driver.arguments[-1] == str(count)
    assert found.needs == set(Needs)


def test_what_is_compared_with_peers_is_one_of_the_configurations() -> None:
    assert MAIN in CONFIGURATIONS
