"""Cells of the crash matrix that every run has time for, and what the matrix' own parts promise.

The whole table is `make crash-matrix`; `docs/reference/crash-matrix.md` shows the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.servers import Missing, skip_or_fail
from tests.stress.matrix import running
from tests.stress.matrix.__main__ import FEWEST
from tests.stress.matrix.running import Bench, Column, Servers
from tests.stress.matrix.table import CELLS, KITCHEN, SAMPLE, Deed, select

CELLS_BY_NAME = {cell.name: cell for cell in CELLS}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Servers of the matrix's own, for all cells of this module."""
    try:
        servers = Servers()
    except Missing as missing:
        skip_or_fail(missing)
    bench = Bench(servers, tmp_path_factory.mktemp("crash_matrix"), FEWEST)
    yield bench
    bench.close()
    servers.close()
    assert bench.troubles == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [cell.name for cell in select(SAMPLE)])  # column after column
def test_no_order_is_lost_or_doubled(bench: Bench, name: str) -> None:
    result = bench.run(CELLS_BY_NAME[name])

    assert result.why is None


@pytest.mark.timeout(300)
def test_a_ticket_too_many_fails_the_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Column._wait_for_the_end

    def and_cook_something_twice(column: Column, *arguments: Any) -> None:
        wait(column, *arguments)
        with psycopg.connect(column.database(KITCHEN), autocommit=True) as kitchen:
            kitchen.execute(
                "INSERT INTO tickets (operation_key, order_id, customer_id, status, items) "
                "SELECT operation_key, order_id, customer_id, status, items FROM tickets "
                "WHERE status = 'APPROVED' ORDER BY id DESC LIMIT 1"
            )

    monkeypatch.setattr(Column, "_wait_for_the_end", and_cook_something_twice)

    result = bench.run(CELLS_BY_NAME["batch_committed:kill"])

    assert result.why is not None
    assert re.match(
        r"Disagreement: tickets: 31 there, 30 due; .* \[logs: .*batch_committed_kill\]", result.why
    )


@pytest.mark.timeout(300)
def test_a_point_that_nobody_reaches_fails_the_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "REACHED_WITHIN", 5.0)
    cell = CELLS_BY_NAME["batch_committed:kill"]
    never = replace(cell, row=replace(cell.row, nth=10**6))

    result = bench.run(never)

    assert result.why is not None
    assert result.why.startswith("NotReached: nobody has reached batch committed (waited 5 s)")


def test_the_sample_has_every_column_and_every_kind_of_process() -> None:
    sample = select(SAMPLE)

    assert {cell.deed for cell in sample} == set(Deed)
    assert {cell.row.victim for cell in sample} == {cell.row.victim for cell in CELLS}
    assert {cell.row.scene for cell in sample} == {cell.row.scene for cell in CELLS}
