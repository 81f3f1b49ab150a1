"""``saga signal``, ``saga signals`` and ``saga reschedule``, on a service whose sagas wait."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sagas_framework import Sagas
from sagas_framework.cli import signalling
from sagas_framework.core.instance import Phase
from tests.unit.cli.shop import orchestrator_of, say

WORKER = """
from datetime import timedelta
from pydantic import BaseModel
from sagas_framework import Queue, Saga, Sagas, Signal, Steps, on, orchestrator_app

class Order(BaseModel):
    approver: str = ""

class Approval(Signal, name="approval"):
    approver: str

def take(order, approval):
    order.approver = approval.approver

step = Steps(Order)

class Renewal(Signal, name="renewal"):
    days: int = 1

class Approved(Saga[Order], name="approved", version=1, deadline=timedelta(days=2)):
    approve = step.wait(
        on(Approval, take), on(Renewal, lambda order, renewal: None), deadline=timedelta(hours=24)
    )
    done = step.local(lambda order, session: None)

sagas = Sagas("signalled", "sqlite:///signalled.sqlite3", sagas=[Approved], reply_queue=Queue("r"))
app = orchestrator_app(sagas, broker="amqp://guest:guest@127.0.0.1:1//")
"""


def waiting(key: str) -> Sagas:
    """The service, with a saga of that key that waits for its approval."""
    module = importlib.import_module("signalled_worker")
    sagas: Sagas = module.sagas
    with sagas.engine.begin() as connection:
        sagas.start(module.Approved, module.Order(), key=key, session=connection)
    orchestrator_of(sagas).fire_timers({})
    return sagas


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "signalled_worker.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(signalling, "PATIENCE", timedelta(0))
    monkeypatch.delitem(__import__("sys").modules, "signalled_worker", raising=False)
    assert say("-A", "signalled_worker", "db", "upgrade").exit_code == 0
    yield
    __import__("sys").modules["signalled_worker"].sagas.engine.dispose()


def test_a_signal_that_nobody_has_looked_at_is_stored_and_listed() -> None:
    said = say(
        *("-A", "signalled_worker", "signal", "approved", "order-1", "approval"),
        *("--payload", '{"approver": "ann"}', "--id", "click-1", "--by", "ann"),
    )
    listed = say("-A", "signalled_worker", "signals", "--kept", "--json")

    assert said.exit_code == 2
    assert "is stored as signal 1: no orchestrator has looked at it yet" in " ".join(said.stdout.split())
    (row,) = json.loads(listed.stdout)["signals"]
    assert (row["key"], row["signal"], row["id"], row["by"], row["became"]) == (
        *("order-1", "approval", "click-1", "ann", "stored"),
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("approved", "order-1", "approval"), "$.approver: Field required"),
        (("approved", "order-1", "rejection"), "waits for: approval, renewal"),
        (("nothing", "order-1", "approval"), "No saga named 'nothing'"),
        (("approved", "order-1", "approval", "--payload", "{"), "--payload is no JSON"),
    ],
)
def test_a_bad_signal_is_told_what_is_wrong_and_not_stored(arguments: tuple[str, ...], told: str) -> None:
    said = say("-A", "signalled_worker", "signal", *arguments, "--by", "ann")

    assert said.exit_code != 0
    assert told in " ".join(said.output.split())
    assert "No signals." in say("-A", "signalled_worker", "signals").stdout


@pytest.mark.parametrize("step", [("approve",), ()])
def test_the_command_that_a_waiting_saga_is_shown_with_moves_its_deadline(step: tuple[str, ...]) -> None:
    sagas = waiting("order-1")
    shown = say("-A", "signalled_worker", "show", "order-1").stdout
    words = ["saga", "-A", "signalled_worker", "reschedule", "order-1", *step, "--until", "MOMENT"]
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)

    asked = [word.replace("MOMENT", until.isoformat()) for word in words[1:]]
    said = say(*asked, "--reason", "ann is on holiday", "--by", "jo", "--no-wait")
    orchestrator_of(sagas).obey_acts()

    assert f"{shlex.join(words)} --reason '...'" in shown
    assert said.exit_code == 0, said.output
    (instance,) = sagas.find("order-1")
    assert (instance.steps["approve"].deadline if step else instance.deadline) == until


@pytest.mark.parametrize("name", ["approval", "renewal"])
def test_the_command_that_a_waiting_saga_is_shown_with_tells_it_what_it_waits_for(name: str) -> None:
    sagas = waiting("order 1")  # two words for a shell, unless it is quoted
    payload = {"approval": """ --payload '{"approver": <string>}'""", "renewal": ""}[name]
    line = f"saga -A signalled_worker signal approved 'order 1' {name}{payload}"

    shown = say("-A", "signalled_worker", "show", "order 1").stdout
    said = say(*shlex.split(line.replace("<string>", '"ann"'))[1:], "--no-wait")
    orchestrator_of(sagas).take_signals()

    assert f"{line}\n    approve: takes the signal, and waits no longer.\n" in shown
    assert said.exit_code == 0, said.output
    (instance,) = sagas.find("order 1")
    assert instance.steps["approve"].phase is Phase.SUCCEEDED
    assert "saga -A signalled_worker signal" not in say("-A", "signalled_worker", "show", "order 1").stdout
