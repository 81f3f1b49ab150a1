"""Peers: how they are installed, what becomes of one that cannot be, and a run of several systems."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import machine, rounds
from benchmarks.peers import __main__ as peers
from benchmarks.peers import catalogue, installing
from benchmarks.peers.installing import CannotInstall
from benchmarks.results import load
from benchmarks.rounds import NotMeasured
from benchmarks.systems import BUILD, Group, Needs, Program, System
from tests.unit.benchmarks.test_report import MACHINE
from tests.unit.benchmarks.test_running import DRIVER, NO_SERVERS

INPUTS = sorted(installing.HERE.glob("*.in"))


def fake(name: str, driver: str = DRIVER) -> System:
    """A system that needs no servers."""
    return System(name, "here", Program(Group.DRIVER, ["-c", driver]), python=Path(sys.executable))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    """What a small run is told; it looks for no servers."""

    @contextmanager
    def none(*, own: bool) -> Iterator[Any]:
        server = SimpleNamespace(url="nowhere")
        yield SimpleNamespace(postgres=server, rabbitmq=server, place=NO_SERVERS.place)

    monkeypatch.setattr(rounds, "servers", none)
    monkeypatch.setattr(machine, "describe", lambda *_: MACHINE["machine"])
    parser = argparse.ArgumentParser()
    rounds.add_arguments(parser, "peers")
    sizes = ["--rounds", "2", "--warm", "2", "--batch", "5", "--declined", "2", "--alone", "2"]
    return parser.parse_args([*sizes, "--results", str(tmp_path / "peers.jsonl")])


# ---- a run ----------------------------------------------------------------------------------------


def test_systems_are_measured_in_turn(given: argparse.Namespace) -> None:
    assert rounds.run([fake("first"), fake("second")], given) == 0

    batches = [record for record in load([given.results]) if record["kind"] == "completed"]
    assert [(record["round"], record["system"]) for record in batches] == [
        (1, "first"),
        (1, "second"),
        (2, "first"),
        (2, "second"),
    ]


def test_what_cannot_be_installed_stands_in_the_table(
    given: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = NotMeasured("DBOS", "not installed", "pip failed: no such version")

    assert rounds.run([fake("first"), absent], given) == 0

    told = capsys.readouterr().out
    assert "| DBOS, not installed | not measured: pip failed: no such version |" in told
    assert given.results.with_suffix(".md").read_text() in told


def test_a_system_that_fails_stops_no_other_and_is_told_by_the_exit_code(
    given: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rounds.run([fake("broken", "raise SystemExit('it cannot start')"), fake("sound")], given) == 1

    told = capsys.readouterr()
    assert "| broken, here | not measured: " in told.out
    assert re.search(r"\| sound, here \| \d+ ", told.out)
    assert "it cannot start" in told.err


def test_results_of_a_former_run_are_kept(given: argparse.Namespace) -> None:
    rounds.run([fake("first")], given)
    rounds.run([fake("second")], given)

    kept = list(given.results.parent.glob("peers-*.jsonl"))
    assert len(kept) == 1
    assert {record.get("system") for record in load(kept)} == {None, "first"}


@pytest.mark.parametrize(
    "wrong", [["--rounds", "0"], ["--batch", "0"], ["--alone", "-1"], ["--batch", "many"]]
)
def test_a_size_that_makes_no_sense_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    rounds.add_arguments(parser, "ours")

    with pytest.raises(SystemExit):
        parser.parse_args(wrong)

    assert wrong[0] in capsys.readouterr().err


# ---- installing -----------------------------------------------------------------------------------


def test_a_program_that_is_not_there_says_so() -> None:
    with pytest.raises(CannotInstall, match="no-such-program cannot be run: No such file"):
        installing._run("no-such-program")


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(CannotInstall, match="failed: there is no such version"):
        installing._run(sys.executable, "-c", "raise SystemExit('there is no such version')")


def test_a_peer_that_cannot_be_installed_is_not_left_out() -> None:
    def install() -> None:
        raise CannotInstall("npm failed")

    found = peers._installed(peers.Peer("Restate", install, lambda: [fake("never made")]))

    assert found == [NotMeasured("Restate", "not installed", "npm failed")]


def test_an_environment_is_made_anew_when_its_lock_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(installing, "HERE", tmp_path)
    monkeypatch.setattr(installing, "environment", lambda name: tmp_path / name)
    monkeypatch.setattr(installing, "_run", lambda *command: ran.append(command[2]))
    (tmp_path / "dbos").mkdir()
    lock = tmp_path / "dbos.lock"

    for text in ("dbos==1", "dbos==1", "dbos==2"):
        lock.write_text(text)
        installing.install_python("dbos")

    assert ran == ["venv", "pip", "venv", "pip"]


@pytest.mark.parametrize("wanted", INPUTS, ids=lambda file: file.stem)
def test_every_peer_is_locked_to_the_version_that_is_asked_for(wanted: Path) -> None:
    lock = wanted.with_suffix(".lock").read_text()

    exact = re.findall(r"^([\w-]+==\S+)$", wanted.read_text(), re.MULTILINE)
    assert exact
    assert [version for version in exact if f"{version} \\" not in lock] == []


# ---- the catalogue --------------------------------------------------------------------------------


def test_each_peer_runs_in_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "restate_server", lambda: Path("restate-server"))

    for peer in peers.PEERS.values():
        for system in peer.systems():
            assert system.python.is_relative_to(BUILD)


def test_services_are_processes_of_their_own_and_one_process_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "restate_server", lambda: Path("restate-server"))
    everybody = {Group.ORCHESTRATOR, Group.CONSUMER, Group.RESTAURANT, Group.ACCOUNTING}

    for system in (catalogue.saga_framework(), catalogue.celery(), catalogue.dbos(local=False)):
        assert {program.group for program in system.programs} == everybody
    services = {program.group for program in catalogue.restate(local=False).programs}
    assert services == everybody | {Group.SERVER}
    assert catalogue.dbos(local=True).programs == []
    assert catalogue.dbos(local=True).driver.group is Group.ALL_IN_ONE


def test_what_keeps_no_state_gets_no_database() -> None:
    assert catalogue.celery().needs == {Needs.RABBITMQ}


def test_restate_without_its_server_is_an_error_that_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "restate_server", lambda: None)

    with pytest.raises(FileNotFoundError, match="no restate-server under"):
        catalogue.restate(local=True)
