"""The archive's files: what was written is read, whatever died while it was being written."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sagas_framework.storage.archive import LONGEST, Archive, ArchiveWriter
from tests.contract.looking import NOON

HOUR = timedelta(hours=1)


class Rows:
    """The database's rows, as the writer asks for them."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.writers: list[ArchiveWriter] = []

    @contextmanager
    def still_there(self, ids: Collection[str]) -> Iterator[bool]:
        yield bool(self.there & set(ids))


@pytest.fixture
def rows() -> Iterator[Rows]:
    rows = Rows()
    yield rows
    for one in rows.writers:
        one.doubt()


def writer(folder: Path, rows: Rows, **options: Any) -> ArchiveWriter:
    made = ArchiveWriter(folder, "order_service-sagas", rows.still_there, **options)
    rows.writers.append(made)
    made.prepare()
    return made


def row(number: int, **more: Any) -> dict[str, Any]:
    its_id = f"00000000-0000-7000-8000-{number:012}"
    return {"id": its_id, "key": f"order-{number}", "history": [], **more}


def operation(number: int, **more: Any) -> dict[str, Any]:
    """As an inbox has it: its key is its id."""
    its_id = f"00000000-0000-5000-8000-{number:012}"
    return {"id": its_id, "key": its_id, "saga_id": row(number)["id"], "state": "done", **more}


def dies(part: ArchiveWriter) -> None:
    """Its process ends, and with it its lock."""
    part.doubt()


def found(folder: Path, named: str) -> list[str]:
    return [one["key"] for one in Archive(folder).find(named)]


def test_a_closed_segment_is_json_lines_and_its_manifest_tells_what_is_in_it(
    tmp_path: Path, rows: Rows
) -> None:
    part = writer(tmp_path, rows)
    part.add([row(1), row(2, note="Grüße\u2028\n")], NOON)
    part.add([row(3)], NOON)

    part.close()

    (file,) = Archive(tmp_path).files()
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    assert [json.loads(line) for line in lines if line] == [row(1), row(2, note="Grüße\u2028\n"), row(3)]
    told = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert told["rows"] == 3
    assert (told["first"], told["last"]) == (row(1)["id"], row(3)["id"])
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [one.trouble for one in Archive(tmp_path).check()] == [None]


def test_what_is_added_can_be_read_before_the_segment_is_closed(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)

    part.add([row(1)], NOON)

    assert found(tmp_path, "order-1") == ["order-1"]
    assert [(one.open, one.trouble) for one in Archive(tmp_path).check()] == [(True, None)]


def test_a_segment_is_closed_when_it_is_large(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows, largest=1)

    for number in (1, 2):
        part.add([row(number)], NOON)
        part.settle(NOON)

    assert len([file for file in Archive(tmp_path).files() if not file.name.endswith(".part")]) == 2


def test_a_segment_is_closed_when_it_is_old(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)
    part.add([row(1)], NOON)

    part.settle(NOON + LONGEST / 2)
    assert [one.open for one in Archive(tmp_path).check()] == [True]

    part.settle(NOON + LONGEST)
    assert [one.open for one in Archive(tmp_path).check()] == [False]


def test_a_row_is_found_by_id_by_key_and_by_the_beginning_of_its_id(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)
    part.add([row(1), row(20)], NOON)
    part.close()
    part.add([row(300)], NOON)
    part.close()

    assert found(tmp_path, row(20)["id"].upper()) == ["order-20"]
    assert found(tmp_path, row(300)["id"].replace("-", "")[:-1]) == ["order-300"]
    assert found(tmp_path, "order-1") == ["order-1"]
    assert found(tmp_path, "00000000-0000-7") == ["order-300", "order-20", "order-1"]
    assert found(tmp_path, "order-2") == []


def test_a_business_key_that_looks_like_an_id_is_found_and_an_id_without_dashes(
    tmp_path: Path, rows: Rows
) -> None:
    part, key = writer(tmp_path, rows), "3f2b6c1e-1111-4222-8333-44445555AAAA"
    part.add([row(1) | {"key": key}, row(2)], NOON)
    part.close()

    assert found(tmp_path, key) == [key]
    assert found(tmp_path, row(1)["id"].replace("-", "")) == [key]
    assert found(tmp_path, key.lower()) == []


def test_of_many_that_fit_the_newest_are_given(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)
    part.add([row(number) for number in range(30)], NOON)
    part.close()

    assert found(tmp_path, "0000") == [f"order-{number}" for number in range(29, 19, -1)]


# ---- a process dies ---------------------------------------------------------------------------------


def test_what_a_dead_process_left_is_closed_by_the_next_writer(tmp_path: Path, rows: Rows) -> None:
    first = writer(tmp_path, rows)
    first.add([row(1)], NOON)
    first.add([row(2)], NOON)
    dies(first)

    writer(tmp_path, rows).adopt()

    assert [(one.open, one.rows, one.trouble) for one in Archive(tmp_path).check()] == [(False, 2, None)]


def test_what_was_written_and_never_deleted_does_not_stand_there_twice(tmp_path: Path, rows: Rows) -> None:
    first = writer(tmp_path, rows)
    first.add([row(1)], NOON)
    first.add([row(2), row(3)], NOON)
    dies(first)
    rows.there = {row(2)["id"], row(3)["id"]}

    second = writer(tmp_path, rows)
    second.add([row(2), row(3)], NOON)

    checked = list(Archive(tmp_path).check())
    assert sum(one.rows for one in checked) == 3
    assert sum(one.twice for one in checked) == 0


def test_a_segment_of_nothing_that_was_deleted_goes(tmp_path: Path, rows: Rows) -> None:
    first = writer(tmp_path, rows)
    first.add([row(1)], NOON)
    dies(first)
    rows.there = {row(1)["id"]}

    writer(tmp_path, rows).adopt()

    assert Archive(tmp_path).files() == []


@pytest.mark.parametrize("lost", [1, 10, 30])
def test_half_a_member_is_cut_off_and_the_rest_stays(tmp_path: Path, rows: Rows, lost: int) -> None:
    first = writer(tmp_path, rows)
    first.add([row(1)], NOON)
    (file,) = Archive(tmp_path).files()
    whole = file.stat().st_size
    first.add([row(2)], NOON)
    dies(first)
    with file.open("r+b") as torn:
        torn.truncate(file.stat().st_size - lost)
    rows.there = {row(2)["id"]}
    assert found(tmp_path, "order-1") == ["order-1"]
    assert found(tmp_path, "order-2") == []

    writer(tmp_path, rows).adopt()

    (file,) = Archive(tmp_path).files()
    assert file.stat().st_size == whole
    assert [one.trouble for one in Archive(tmp_path).check()] == [None]


def test_what_a_living_process_writes_is_left_to_it(tmp_path: Path, rows: Rows) -> None:
    first, second = writer(tmp_path, rows), writer(tmp_path, rows)
    first.add([row(1)], NOON)

    second.add([row(2)], NOON)
    second.close()
    first.add([row(3)], NOON)
    first.close()

    assert sorted(one.rows for one in Archive(tmp_path).check()) == [1, 2]
    assert all(one.trouble is None for one in Archive(tmp_path).check())


def test_a_segment_that_another_writer_deleted_before_it_was_locked_is_not_written_to(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = writer(tmp_path, rows), writer(tmp_path, rows)
    lock, begun = fcntl.flock, list[int]()

    def slow_lock(file: Any, how: int) -> None:
        if not begun:
            begun.append(1)
            second.adopt()  # finds an empty segment that nobody has locked yet
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    first.add([row(1)], NOON)

    assert found(tmp_path, "order-1") == ["order-1"]
    first.close()
    assert [(one.rows, one.trouble) for one in Archive(tmp_path).check()] == [(1, None)]


# ---- reading what is not as it should be --------------------------------------------------------------


def test_a_file_that_was_changed_is_told(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)
    part.add([row(1)], NOON)
    part.add([row(2)], NOON)
    part.close()
    (file,) = Archive(tmp_path).files()
    with file.open("r+b") as changed:
        changed.seek(-4, 2)
        changed.write(b"\0\0\0\0")

    (checked,) = Archive(tmp_path).check()

    assert checked.trouble == "it is not as it was closed: 1 rows of 2 can be read"


def test_a_row_that_stands_there_twice_is_given_once_as_it_was_written_last(
    tmp_path: Path, rows: Rows
) -> None:
    part = writer(tmp_path, rows)
    part.add([row(1, revision=3)], NOON)
    part.close()
    part.add([row(1, revision=4)], NOON + HOUR)
    part.close()

    (one,) = Archive(tmp_path).find("order-1")

    assert one["revision"] == 4
    assert [checked.twice for checked in Archive(tmp_path).check()] == [0, 1]


def test_the_operations_of_an_inbox_in_the_same_folder_are_no_sagas(tmp_path: Path, rows: Rows) -> None:
    part = writer(tmp_path, rows)
    part.add([row(number) for number in range(3)] + [operation(number) for number in range(20)], NOON)
    part.close()
    op = operation(2)["id"]

    assert found(tmp_path, op) == found(tmp_path, op[:19]) == []
    assert found(tmp_path, "00000000") == ["order-2", "order-1", "order-0"]


@pytest.mark.parametrize("written", [str, str.upper, lambda its_id: its_id.replace("-", "")])
def test_an_operation_is_found_by_its_whole_id_and_as_it_was_written_last(
    tmp_path: Path, rows: Rows, written: Callable[[str], str]
) -> None:
    part = writer(tmp_path, rows)
    for hours, state in enumerate(("failed", "undone")):
        part.add([row(1), operation(1, state=state)], NOON + hours * HOUR)
        part.close()
    archive = Archive(tmp_path)

    assert archive.operation(written(operation(1)["id"])) == operation(1, state="undone")
    assert archive.operation(operation(1)["id"][:-1]) is None
    assert archive.operation(row(1)["id"]) is archive.operation("order-1") is None
