"""The command ``saga stub``: its options, and what it prints of a message. Nothing is served here."""

from __future__ import annotations

import builtins
import json
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest

from sagas_framework import ConfigurationError
from sagas_framework.cli.stubbing import Teller, stub
from sagas_framework.stub.behaviour import behaviours
from sagas_framework.stub.participant import Told
from sagas_framework.stub.running import see_broker, stub_app
from tests.unit.cli.shop import say
from tests.unit.cli.test_program import importing_without
from tests.unit.stub.documents import TASK, UNDO, read, shop, written

NOBODY = "amqp://ann:secret@127.0.0.1:1//"


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(written(tmp_path, shop()))


# ---- options ----------------------------------------------------------------------------------------


def test_options_are_pairs_of_a_task_and_what_is_said_of_it() -> None:
    arguments = [
        "shop.yaml",
        *("--answer", 'reserve={"number": 17, "note": "a=b"}'),
        *("--refuse", "shop.reserve=SoldOut"),
        *("--fail", "reserve", "--fail", "release=2"),
        *("--delay", "reserve=0.5", "--delay", "release=1m30s"),
    ]

    parsed = stub.make_context("stub", arguments).params

    assert parsed["answer"] == (("reserve", '{"number": 17, "note": "a=b"}'),)
    assert parsed["refuse"] == (("shop.reserve", "SoldOut"),)
    assert parsed["fail"] == (("reserve", inf), ("release", 2))
    assert parsed["delay"] == (
        ("reserve", timedelta(milliseconds=500)),
        ("release", timedelta(seconds=90)),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ["--answer", "reserve"],
        ["--refuse", "reserve"],
        ["--refuse", "reserve="],
        ["--refuse", "=SoldOut"],
        ["--fail", "reserve=0"],
        ["--fail", "reserve=often"],
        ["--delay", "reserve"],
        ["--delay", "reserve=soon"],
        ["--delay", "reserve=-1"],
        ["--delay", "reserve=nan"],
        ["--delay", "reserve=86401"],
        ["--delay", "reserve=2d"],
    ],
)
def test_an_option_that_cannot_be_read_is_told_how_to_write_it(file: str, wrong: list[str]) -> None:
    done = say("stub", file, *wrong)

    assert done.exit_code == 1
    assert f"{wrong[1]!r} should be written like " in " ".join(done.stderr.split())


def test_what_is_wrong_with_the_document_comes_before_the_broker(file: str) -> None:
    done = say("stub", file, "--silent", "pay", "--broker", NOBODY)

    assert done.exit_code == 1
    assert "it receives reserve, release" in done.stderr


def test_a_document_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = say("stub", str(tmp_path / "other.yaml"))

    assert done.exit_code == 1
    assert "other.yaml cannot be read: No such file or directory" in done.stderr


@pytest.mark.parametrize("library", ["yaml", "jsonschema"])
def test_without_the_extra_it_says_which_one_to_install(
    file: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "__import__", importing_without(library))

    done = say("stub", file)

    assert done.exit_code == 1
    assert f"needs {library}" in done.stderr
    assert "pip install 'sagas-framework[cli,asyncapi]'" in done.stderr


# ---- broker and inbox -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "told"),
    [
        (NOBODY, r"No broker answers at amqp://ann:\*\*\*@127.0.0.1:1// \(from a test\)"),
        ("redis://127.0.0.1:1/0", r"No broker answers at redis://127\.0\.0\.1:1/0"),
        ("memory://", "lives in the memory of one process"),
        ("localhost", "'localhost' .* is no address"),
        ("carrier://pigeon", "cannot be used"),
    ],
)
def test_a_broker_that_cannot_be_used_is_told_with_who_named_it(broker: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        see_broker(broker, "from a test")


@pytest.mark.parametrize(("name", "told"), [("", "name one in a folder"), ("no/such", "in a folder")])
def test_an_inbox_that_cannot_be_a_file_is_told(tmp_path: Path, name: str, told: str) -> None:
    document = read(shop())

    with (
        pytest.raises(ConfigurationError, match=told),
        stub_app(document, behaviours(document), broker=NOBODY, tell=lambda _: None, inbox=tmp_path / name),
    ):
        pass


def test_a_file_that_is_no_inbox_is_left_as_it_is(file: str) -> None:
    document, text = read(shop()), Path(file).read_text()

    with (
        pytest.raises(ConfigurationError, match="not a database"),
        stub_app(document, behaviours(document), broker=NOBODY, tell=lambda _: None, inbox=Path(file)),
    ):
        pass

    assert Path(file).read_text() == text


# ---- what is printed --------------------------------------------------------------------------------


def told(**changes: Any) -> Told:
    values: dict[str, Any] = {
        "at": datetime(2026, 3, 1, 9, 12, 3, tzinfo=UTC),
        "saga_id": "saga-1",
        "task": TASK,
        "attempt": 1,
        "result": "success",
        "payload": {"number": 17},
    }
    return Told(**values | changes)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (told(), f'09:12:03  saga-1  {TASK}  success {{"number": 17}}'),
        (told(payload=None), f"09:12:03  saga-1  {TASK}  success null"),
        (told(why="after 3 s"), f'09:12:03  saga-1  {TASK}  success {{"number": 17}}, after 3 s'),
        (
            told(attempt=2, result="failed", payload={"type": "StubFault", "message": "no"}),
            f"09:12:03  saga-1  {TASK} (attempt 2)  failed StubFault: no",
        ),
        (
            told(result="silent", payload=None, why="as --silent says"),
            f"09:12:03  saga-1  {TASK}  silent: as --silent says",
        ),
        (
            told(saga_id="", task="", result="set aside", payload=None, why="no\x1b[2J task"),
            "09:12:03  -  -  set aside: no\\x1b[2J task",
        ),
    ],
)
def test_a_message_is_one_line(message: Told, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Teller(as_json=False).message(message)

    assert capsys.readouterr().out == f"{line}\n"


def test_as_json_a_message_is_one_object_and_nothing_else_is_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    teller = Teller(as_json=True)
    document = read(shop())
    teller.beginning(document, behaviours(document), NOBODY, consumers=2)
    teller.message(told(why="after 3 s"))
    teller.end()

    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "at": "2026-03-01T09:12:03+00:00",
        "saga_id": "saga-1",
        "task": TASK,
        "attempt": 1,
        "result": "success",
        "payload": {"number": 17},
        "why": "after 3 s",
    }
    assert "2 workers take from this queue" in printed.err


def test_the_beginning_says_what_becomes_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    document = read(shop())

    Teller(as_json=False).beginning(document, behaviours(document), NOBODY, consumers=0)

    assert capsys.readouterr().out.splitlines() == [
        "A stub of Shop 2.1.0, on shop.commands at amqp://ann:***@127.0.0.1:1//",
        f'  {TASK} answers {{"number": 17}}',
        f"  {UNDO} answers null",
        "Ctrl-C stops it.",
    ]
