"""Records, what they sum up to, and the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import (
    Spread,
    Summary,
    UnreadableResults,
    append,
    cpu_by_process,
    load,
    percentile,
    ratios,
    summaries,
    table,
    throughput,
)


def completed(system: str = "ours", rate: float = 100.0, **more: Any) -> dict[str, Any]:
    """A record of a batch."""
    cpu = more.pop("cpu", {"orchestrator": 2.0, "postgres": 1.0})
    return {
        "kind": "completed",
        "system": system,
        "variant": "plain",
        "per_second": rate,
        "cpu_ms": sum(cpu.values()),
        "cpu_ms_by_group": cpu,
        "other_cores": 0.05,
        "rss_mb": 400,
        "pss_mb": 250,
        "wal_bytes": 12_500.0,
        "write_transactions": 18.25,
    } | more


def alone(system: str, p50: float, p99: float) -> dict[str, Any]:
    """A record of sagas one at a time."""
    told = {"p50_ms": p50, "p99_ms": p99, "declined_p50_ms": p50}
    return {"kind": "alone", "system": system, "variant": "plain", **told}


def cells(of_table: str, title: str) -> list[str]:
    """The cells of the row that begins with the title."""
    row = next(line for line in of_table.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


# ---- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_of_one_value_every_percentile_is_that() -> None:
    assert percentile([7.0], 99) == 7.0


def test_of_no_values_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 50)


def test_a_spread_has_median_lowest_and_highest() -> None:
    assert Spread.of([3.0, 1.0, 8.0, 2.0]) == Spread(2.5, 1.0, 8.0)
    assert Spread.of([]) is None


# ---- JSON lines -----------------------------------------------------------------------------------


def test_what_is_appended_is_loaded_in_order(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "results.jsonl"

    append(file, completed(rate=1.0))
    append(file, completed(rate=2.0))

    assert [record["per_second"] for record in load([file])] == [1.0, 2.0]


@pytest.mark.parametrize(("line", "why"), [("{", "is not JSON"), ("[]", "is no record"), ("{}", "no kind")])
def test_a_line_that_is_no_record_is_told_with_its_number(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "results.jsonl"
    append(file, completed())
    file.write_text(file.read_text() + line + "\n")

    with pytest.raises(UnreadableResults, match=f"line 2, .*{why}"):
        load([file])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResults, match="cannot be read: No such file"):
        load([tmp_path / "nothing"])


# ---- tables ---------------------------------------------------------------------------------------


def test_a_table_is_markdown() -> None:
    assert table([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"


def test_rounds_of_a_system_are_summed_up_and_systems_kept_in_order() -> None:
    found = summaries([completed("b"), completed("a"), completed("b"), {"kind": "machine", "machine": {}}])

    assert [(one.system, one.rounds) for one in found] == [("b", 2), ("a", 1)]


def test_a_row_has_medians_and_their_range() -> None:
    records = [completed(rate=rate) for rate in (90.0, 110.0, 400.0)] + [alone("ours", 12.34, 101.5)]

    row = cells(throughput(summaries(records)), "ours, plain")

    assert row[1:4] == ["110 (90-400)", "3.0 (3.0)", "12.3 / 102"]
    assert row[5:] == ["12.5, 18.2, -", "400 / 250", "0.05 (max 0.05)", "3"]


def test_figures_beside_other_load_are_marked() -> None:
    quiet, disturbed = completed("quiet", other_cores=0.2), completed("disturbed", other_cores=0.21)

    shown = throughput(summaries([quiet, disturbed]))

    assert cells(shown, "quiet, plain")[1] == "100 (100-100)"
    assert cells(shown, "disturbed, plain")[1] == "100 (100-100) *"


def test_what_could_not_be_measured_stands_in_the_table_with_the_reason() -> None:
    absent = {"kind": "missing", "system": "DBOS", "variant": "services", "why": "pip | failed\nat length"}

    row = cells(throughput(summaries([absent])), "DBOS, services")

    assert row[1] == "not measured: pip / failed"
    assert len(row) == 9


def test_a_round_that_failed_does_not_hide_those_that_did_not() -> None:
    failed = {"kind": "missing", "system": "ours", "variant": "plain", "why": "no broker"}

    (summary,) = summaries([completed(), failed])

    assert summary.missing is None
    assert cells(throughput([summary]), "ours, plain")[1] == "100 (100-100)"


def test_cpu_is_told_by_process_and_what_a_system_lacks_is_empty() -> None:
    other = completed("other", cpu={"orchestrator": 1.0, "server": 4.0})

    shown = cpu_by_process(summaries([completed(), completed(cpu={"orchestrator": 3.0}), other]))

    assert cells(shown, "CPU ms a saga") == ["CPU ms a saga", "orchestrator", "postgres", "server", "all"]
    assert cells(shown, "ours, plain") == ["ours, plain", "2.50", "0.50", "", "3.00"]
    assert cells(shown, "other, plain") == ["other, plain", "1.00", "", "4.00", "5.00"]


def test_ratios_say_how_many_times_as_good_ours_is() -> None:
    ours, other = summaries(
        [completed(rate=300.0), alone("ours", 10, 20), completed("other", 60.0, cpu={"all": 12.0})]
    )

    assert cells(ratios([ours, other], ours), "other, plain") == ["other, plain", "5.0 x", "4.0 x", ""]


def test_nothing_is_compared_with_a_system_that_was_not_measured() -> None:
    ours = Summary("ours", "plain", [completed()])

    assert len(ratios([ours, Summary("other", "plain")], ours).splitlines()) == 2
