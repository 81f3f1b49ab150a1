"""``saga stub`` in place of the restaurant service, in the order platform on RabbitMQ and PostgreSQL.

The commands are those of ``docs/how-to/stub-a-service.md``, and print what the page shows.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import yaml
from kombu import Connection
from kombu import Queue as KombuQueue

from sagas_framework.doctor.findings import ACCEPT_VARIABLE
from sagas_framework.transport.envelope import ATTEMPT, OPERATION_ID
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.terminals import Command, commands, fits
from tests.servers import OwnRabbitmq, wait_until
from tests.stress.fleet import Fleet

PAGE: Final = ROOT / "docs" / "how-to" / "stub-a-service.md"
TIMEOUT: Final = 5
"""Seconds for which the saga waits for the restaurant. The page's times fit."""
QUEUE: Final = "restaurant_service.commands"
DOCUMENT: Final = "restaurant.asyncapi.yaml"


# ---- a stub in a process of its own -----------------------------------------------------------------


class Stub:
    """A ``saga stub`` in a process of its own; interrupted when the block is left."""

    def __init__(self, typed: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._output, self._errors = folder / "stub.out", folder / "stub.err"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {typed}"],
                cwd=folder,
                env=_wide(environment) | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.interrupt()

    @property
    def printed(self) -> str:
        return self._output.read_text()

    @property
    def told(self) -> str:
        return self._errors.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.printed or self.process.poll() is not None, text, 30)
        assert text in self.printed, self.printed + self.told

    def wait_until_it_printed(self, shown: str) -> None:
        """Wait until it has printed just this, in which times and ids may differ."""
        wanted = normal(shown)
        ready = lambda: fits(normal(self.printed), wanted) or self.process.poll() is not None  # noqa: E731
        try:
            wait_until(ready, "what the page shows", 40)
        except TimeoutError:
            pass
        assert fits(normal(self.printed), wanted), self.printed + self.told

    def interrupt(self, within: float = 20) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def normal(text: str) -> str:
    """The text without what differs from run to run: times, ids and the broker's address."""
    text = re.sub(r"^\d\d:\d\d:\d\d", "TIME", text, flags=re.MULTILINE)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    return re.sub(r"amqp://\S+", "BROKER", text)


@pytest.fixture(scope="module")
def fleet(rabbitmq_module_url: str, postgres_module_url: str, tmp_path_factory: Any) -> Iterator[Fleet]:
    """All workers of the order platform but the restaurant's."""
    fleet = Fleet(
        rabbitmq_module_url,
        postgres_module_url,
        tmp_path_factory.mktemp("fleet"),
        {"RESTAURANT_TIMEOUT": str(TIMEOUT), "CONSUMER_TIMEOUT": "60", "ACCOUNTING_TIMEOUT": "60"},
    )
    try:
        for service in ("order_service", "consumer_service", "accounting_service"):
            fleet.worker(service)
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the two documents of the page."""
    printed = subprocess.run(
        [sys.executable, "-m", "restaurant_service.asyncapi_specification"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / DOCUMENT).write_text(printed)
    (block,) = [block for block in blocks(PAGE) if block.language == "yaml"]
    (tmp_path / "ours.asyncapi.yaml").write_text(block.text)
    return tmp_path


# ---- the sagas of the order platform ----------------------------------------------------------------

SUCCESS: Final = "/run-success-saga"


@dataclass(frozen=True)
class Ending:
    """How a saga ends that is launched while a stub runs.

    Args:
        outcome: kind, name and step.
        history: an entry that comes at last, perhaps after the end.
    """

    status: str
    outcome: tuple[str, str, str]
    launch: str = SUCCESS
    history: str = ""


CREATE: Final = "create_restaurant_ticket"
ENDINGS: Final = {
    f"saga stub {DOCUMENT}": Ending("completed", ("ok", "", ""), history="completed"),
    f"saga stub {DOCUMENT} --refuse create_ticket=RestaurantClosed": Ending(
        "compensated", ("refused", "RestaurantClosed", CREATE)
    ),
    f"saga stub {DOCUMENT} --fail approve_ticket=1": Ending("completed", ("ok", "", "")),
    f"saga stub {DOCUMENT} --silent create_ticket": Ending("compensated", ("expired", "NoAnswer", CREATE)),
    f"saga stub {DOCUMENT} --delay create_ticket=7": Ending(
        "compensated", ("expired", "NoAnswer", CREATE), history="reply_ignored"
    ),
    "saga stub ours.asyncapi.yaml": Ending(
        "compensated",
        ("refused", "InsufficientBalance", "authorize_card"),
        "/run-saga-failing-on-card-authorization",
    ),
}


def shown() -> list[Command]:
    """The stubs of the page, with all that they print in the course of a saga."""
    found: list[Command] = []
    for block in blocks(PAGE):
        if block.language == "console":
            found += [each for each in commands(block.text) if each.typed.startswith("saga ")]
        elif block.language == "text":  # what the last one prints later
            last = found.pop()
            found.append(Command(last.terminal, last.typed, f"{last.shown}\n{block.text}"))
    return found


def last_saga(fleet: Fleet) -> Any:
    """Id, status and outcome of the saga that was launched last."""
    (row,) = fleet.query(
        "order_service", "SELECT id, status, outcome FROM saga_instance ORDER BY id DESC LIMIT 1"
    )
    return row


def history(fleet: Fleet, saga_id: str) -> list[str]:
    """The entries of a saga's history."""
    rows = fleet.query("order_service", "SELECT entry FROM saga_history WHERE saga_id = :id", id=saga_id)
    return [row.entry for row in rows]


def environment(fleet: Fleet) -> dict[str, str]:
    # The test's server may keep its data without fsync; and nothing here is lost with it.
    return {**fleet.environ(), ACCEPT_VARIABLE: "durability"}


@pytest.mark.parametrize("command", shown(), ids=lambda command: command.typed)
def test_a_saga_runs_with_the_stub_and_the_stub_prints_what_the_page_shows(
    fleet: Fleet, folder: Path, command: Command
) -> None:
    ending = ENDINGS[command.typed]
    with Stub(command.typed, folder, environment(fleet)) as stub:
        stub.wait_for("Ctrl-C stops it.")

        fleet.launch(ending.launch, 1)

        stub.wait_until_it_printed(command.shown)
        fleet.wait_until_all_ended(within=30)
        saga = last_saga(fleet)
        assert saga.status == ending.status
        assert tuple(saga.outcome[name] or "" for name in ("kind", "name", "step")) == ending.outcome
        wait_until(lambda: ending.history in ("", *history(fleet, saga.id)), ending.history, 20)
        assert stub.interrupt() == 0
        assert "Stopped." in stub.printed


def test_every_stub_of_the_page_is_run() -> None:
    assert [command.typed for command in shown()] == list(ENDINGS)


def test_a_stub_that_goes_on_with_the_same_inbox_undoes_what_the_first_one_did(
    fleet: Fleet, folder: Path
) -> None:
    """The saga has its ticket, and the answer to its approval is refused by another stub."""
    keep = f"saga stub {DOCUMENT} --inbox stub.sqlite3"
    with Stub(f"{keep} --silent approve_ticket --json", folder, environment(fleet)) as first:
        fleet.launch(SUCCESS, 1)
        first.wait_for('"result": "silent"')
        assert first.interrupt() == 0
        lines = [json.loads(line) for line in first.printed.splitlines()]
        assert [(line["task"], line["result"]) for line in lines] == [
            ("restaurant_service.create_ticket", "success"),
            ("restaurant_service.approve_ticket", "silent"),
        ]
    with Stub(f"{keep} --refuse approve_ticket=TicketNotPending", folder, environment(fleet)) as second:
        fleet.wait_until_all_ended(within=60)

        assert last_saga(fleet).status == "compensated"
        second.wait_for("reject_ticket  success null")
        assert "InboxRowMissing" not in second.printed


# ---- on RabbitMQ, without a saga --------------------------------------------------------------------


def _wide(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program whose lines are not broken."""
    return {name: value for name, value in environment.items() if name != "COLUMNS"}


def run(arguments: Sequence[str], folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A stub that is expected to end by itself."""
    clean = {name: value for name, value in _wide(os.environ).items() if name != "CELERY_BROKER"}
    return subprocess.run(
        [Path(sys.executable).parent / "saga", "stub", *arguments],
        cwd=folder,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_queue_that_somebody_declared_otherwise_ends_the_stub_with_the_reason(
    rabbitmq_url: str, folder: Path
) -> None:
    with Connection(rabbitmq_url) as connection:
        connection.connect()
        KombuQueue(QUEUE)(connection.default_channel).queue_declare()  # classic

    done = run([DOCUMENT, "--broker", rabbitmq_url], folder)

    assert done.returncode == os.EX_CONFIG
    assert QUEUE in done.stderr
    assert "classic" in done.stderr


def _send(broker: str, order_id: int) -> None:
    """The command, as an orchestrator sends it that nobody waits for."""
    headers = {"task": "restaurant_service.create_ticket", "id": str(uuid4()), "root_id": str(uuid4())}
    payload = {"order_id": order_id, "customer_id": 1, "items": [{"name": "soup", "quantity": 1}]}
    with Connection(broker) as connection:
        connection.Producer().publish(
            json.dumps([[str(uuid4()), payload], {}, {}]),
            routing_key=QUEUE,
            content_type="application/json",
            content_encoding="utf-8",
            reply_to="nobody.replies",
            headers={"lang": "py", OPERATION_ID: str(uuid4()), ATTEMPT: 1, **headers},
        )


def test_a_stub_outlives_a_restart_of_its_broker(own_rabbitmq: OwnRabbitmq, folder: Path) -> None:
    environ = {**os.environ, "CELERY_BROKER": own_rabbitmq.url, ACCEPT_VARIABLE: "durability"}
    with Stub(f"saga stub {DOCUMENT}", folder, environ) as stub:
        with Connection(own_rabbitmq.url) as connection:
            wait_until(lambda: _consumers(connection) == 1, "the stub's consumer", 30)
        _send(own_rabbitmq.url, 1)
        wait_until(lambda: stub.printed.count("success") == 1, "the first answer", 30)

        own_rabbitmq.stop()
        own_rabbitmq.start()
        _send(own_rabbitmq.url, 2)

        wait_until(lambda: stub.printed.count("success") == 2, "the second answer", 60)
        assert stub.interrupt() == 0


def test_one_interrupt_ends_a_stub_whose_broker_hangs(own_rabbitmq: OwnRabbitmq, folder: Path) -> None:
    environ = {**os.environ, "CELERY_BROKER": own_rabbitmq.url, ACCEPT_VARIABLE: "durability"}
    with Stub(f"saga stub {DOCUMENT}", folder, environ) as stub:
        with Connection(own_rabbitmq.url) as connection:
            wait_until(lambda: _consumers(connection) == 1, "the stub's consumer", 30)
        own_rabbitmq.pause()
        try:
            assert stub.interrupt(within=20) == 0
        finally:
            own_rabbitmq.resume()

        assert "Stopped. 0 messages." in stub.printed
        assert "Traceback" not in stub.told


def test_a_stub_says_that_others_take_from_its_queue(rabbitmq_url: str, folder: Path) -> None:
    environ = {**os.environ, "CELERY_BROKER": rabbitmq_url, ACCEPT_VARIABLE: "durability"}
    (folder / "first").mkdir()
    with Stub(f"saga stub {folder / DOCUMENT}", folder / "first", environ):
        with Connection(rabbitmq_url) as connection:
            wait_until(lambda: _consumers(connection) == 1, "the first stub's consumer", 30)

        with Stub(f"saga stub {DOCUMENT}", folder, environ) as second:
            second.wait_for("Ctrl-C stops it.")

            assert "1 worker takes from this queue already" in second.printed


def _consumers(connection: Connection) -> int:
    channel: Any = connection.default_channel
    try:
        return int(channel.queue_declare(QUEUE, passive=True).consumer_count)
    except connection.channel_errors:
        return 0


def test_without_any_broker_it_says_where_one_may_be_named(folder: Path) -> None:
    done = run(["ours.asyncapi.yaml"], folder)  # its document names no server

    assert done.returncode == 1
    assert "No broker: ours.asyncapi.yaml has no AMQP server" in done.stderr
    assert "--broker amqp://" in done.stderr


@pytest.mark.parametrize("name", ["broker", "environment", "document"])
def test_a_broker_that_does_not_answer_is_told_with_who_named_it(folder: Path, name: str) -> None:
    nobody = "amqp://ann:secret@127.0.0.1:1//"
    file = folder / "ours.asyncapi.yaml"
    match name:
        case "broker":
            done = run([str(file), "--broker", nobody], folder)
        case "environment":
            done = run([str(file)], folder, CELERY_BROKER=nobody)
        case _:
            document = yaml.safe_load(file.read_text())
            document["servers"] = {"one": {"host": "127.0.0.1:1", "protocol": "amqp"}}
            file.write_text(yaml.safe_dump(document))
            done = run([str(file)], folder)

    assert done.returncode == 1
    assert "No broker answers at amqp://" in done.stderr
    assert {"broker": "--broker", "environment": "CELERY_BROKER", "document": "the server of"}[
        name
    ] in done.stderr
    assert "secret" not in done.stderr


def test_the_page_has_no_other_blocks() -> None:
    """This module executes the whole page: docs/how-to/stub-a-service.md."""
    every: list[Block] = list(blocks(PAGE))

    assert {block.language for block in every} == {"console", "text", "yaml"}
    others = [each.typed for block in every if block.language == "console" for each in commands(block.text)]
    assert [typed for typed in others if not typed.startswith("saga ")] == [
        "pip install 'sagas-framework[cli,asyncapi]'",
        "export CELERY_BROKER=amqp://rabbitmq:rabbitmq@localhost//",
    ]
