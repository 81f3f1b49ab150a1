"""The page's tables and the pictures."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.charts import WIDTH, Bar, Chart
from benchmarks.report import NoPlace, best, main, placed
from benchmarks.results import append, summaries
from tests.unit.benchmarks.test_results import alone, completed

MACHINE = {
    "kind": "machine",
    "machine": {
        "processor": "a processor",
        "cores": 2,
        "memory_gb": 24,
        "system": "Linux 6",
        "fdatasync_ms": 0.1,
        **dict.fromkeys(("python", "celery", "sqlalchemy", "psycopg", "pydantic", "rabbitmq"), "1"),
        "postgres": dict.fromkeys(("server_version", "fsync", "synchronous_commit", "shared_buffers"), "on"),
    },
}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A file of two systems, one of them ours, and one that was not measured."""
    file = tmp_path / "peers.jsonl"
    absent = {"kind": "missing", "system": "DBOS", "variant": "not installed", "why": "pip failed"}
    measured = [
        completed("sagas_framework", 300),
        alone("sagas_framework", 10, 20),
        completed("Restate", 200),
    ]
    for record in (MACHINE, *measured, absent):
        append(file, record)
    return file


def test_the_page_gets_the_tables_in_their_place(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmarks: peers -->\nold figures\n<!-- end -->\nafter\n")

    assert main([str(results), "--page", str(page)]) == 0

    said = page.read_text()
    assert said.startswith("before\n<!-- benchmarks: peers -->\n")
    assert said.endswith("<!-- end -->\nafter\n")
    assert "old figures" not in said
    assert "2 cores of a processor" in said
    assert "| Restate, plain | 1.5 x | 1.0 x |" in said
    assert "DBOS, not installed was not measured: pip failed" in said


def test_writing_the_tables_again_changes_nothing(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmarks: peers -->\n<!-- end -->\n")
    main([str(results), "--page", str(page)])
    once = page.read_text()

    main([str(results), "--page", str(page)])

    assert page.read_text() == once


def test_a_page_without_a_place_says_what_to_write(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")

    assert main([str(results), "--page", str(page)]) == 1

    assert "<!-- benchmarks: peers -->\n<!-- end -->" in capsys.readouterr().err
    assert page.read_text() == "nothing here\n"


def test_two_places_of_one_name_are_too_many() -> None:
    page = "<!-- benchmarks: ours -->\n<!-- end -->\n" * 2

    with pytest.raises(NoPlace, match="2 places"):
        placed(page, "ours", "told")


def test_the_fastest_of_ours_is_compared() -> None:
    slow = completed("sagas_framework", 100)
    fast = completed("sagas_framework", 200) | {"variant": "batched"}

    found = best(summaries([slow, fast, completed("Restate", 900)]))

    assert found is not None
    assert found.title == "sagas_framework, batched"


def test_pictures_are_written_and_can_be_read(results: Path, tmp_path: Path) -> None:
    assert main([str(results), "--pictures", str(tmp_path / "pictures")]) == 0

    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == [
        f"benchmark-peers-{what}.svg" for what in ("cpu", "latency", "throughput")
    ]
    for file in files:
        assert ElementTree.parse(file).getroot().tag == f"{SVG}svg"


# ---- charts ---------------------------------------------------------------------------------------


def rectangles(chart: Chart) -> list[ElementTree.Element]:
    """The parts of the bars, which tell what they are."""
    found = ElementTree.fromstring(chart.svg()).iter(f"{SVG}rect")
    return [one for one in found if one.find(f"{SVG}title") is not None]


def test_bars_are_as_long_as_their_values() -> None:
    chart = Chart("t", "u", [Bar("a", {"x": 30.0}, "30"), Bar("b", {"x": 10.0}, "10")])

    long, short = (float(one.attrib["width"]) for one in rectangles(chart))

    assert long == pytest.approx(3 * short, abs=0.2)


def test_the_longest_bar_and_its_range_fit_into_the_picture() -> None:
    chart = Chart("t", "u", [Bar("a", {"x": 10.0}, "10", low=5.0, high=40.0)])

    path = ElementTree.fromstring(chart.svg()).find(f"{SVG}path")

    assert path is not None
    right = re.search(r"H([\d.]+)", path.attrib["d"])
    assert right is not None
    assert float(right[1]) < WIDTH


def test_parts_follow_one_another_in_one_colour_each() -> None:
    bars = [Bar("a", {"x": 1.0, "y": 2.0}, ""), Bar("b", {"y": 3.0}, "")]

    first, second, third = rectangles(Chart("t", "u", bars))

    ends = float(first.attrib["x"]) + float(first.attrib["width"])
    assert float(second.attrib["x"]) == pytest.approx(ends, abs=0.2)
    assert second.attrib["fill"] == third.attrib["fill"] != first.attrib["fill"]


def test_a_legend_that_is_too_long_goes_on_below() -> None:
    chart = Chart("t", "u", [Bar("a", {f"a rather long name {n}": 1.0 for n in range(9)}, "")])

    texts = [
        one for one in ElementTree.fromstring(chart.svg()).iter(f"{SVG}text") if "rather" in (one.text or "")
    ]

    assert len({one.attrib["y"] for one in texts}) > 1
    assert max(float(one.attrib["x"]) for one in texts) < WIDTH


def test_names_cannot_break_the_picture() -> None:
    chart = Chart("a < b & c", "u", [Bar('<script>"', {"x": 0.0}, "&")])

    assert ElementTree.fromstring(chart.svg()).findtext(f"{SVG}title") == "a < b & c"
