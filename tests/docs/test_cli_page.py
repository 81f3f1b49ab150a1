"""``docs/reference/cli.md``: every command of the page, on a service that stands as the page has it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from kombu import Connection
from kombu import Queue as KombuQueue

from sagas_framework.cli import acting
from sagas_framework.core.events import Result as Answer
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.terminals import Command, commands, fits
from tests.unit.cli.shop import PARTICIPANT, WORKER, Shop, say, standing_in
from tests.unit.core.stories import error_of

PAGE: Final = ROOT / "docs" / "reference" / "cli.md"
SERVICE: Final = "restaurant_service.worker"
NOBODY_WORKS: Final = ("stored as act",)
"""What is only said when no orchestrator runs."""
NOBODY_COOKS: Final = "No worker has taken from"
"""What is only said when a queue is unattended."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(acting, "PATIENCE", timedelta(milliseconds=300))
    with standing_in(tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    """The page's service, five minutes after noon: one order that needs a person, two open, two ended."""
    shop = Shop(folder)
    parked = shop.until("authorize_card", "order-1043")
    says(shop, parked, Answer.REFUSED, "CardRefused", "insufficient funds")
    for _ in range(4):
        says(shop, parked, Answer.FAILED, "KitchenOffline", "kitchen display not reachable")
        shop.after(60)
    says(shop, parked, Answer.FAILED, "KitchenOffline", "kitchen display not reachable")
    undone = shop.until("authorize_card", "order-1050")
    shop.sleeps(0.031)
    says(shop, undone, Answer.REFUSED, "CardRefused", "insufficient funds")
    shop.sleeps(0.025)
    shop.succeeds(undone)
    shop.sleeps(13)
    shop.completed("order-1051")
    shop.sleeps(30)
    shop.until("create_restaurant_ticket", "order-1052")
    shop.sleeps(5)
    retried = shop.until("approve_restaurant_ticket", "order-1053")
    says(shop, retried, Answer.FAILED, "KitchenBusy", "try later")
    shop.after(7, lost=True)
    shop.sleeps(3)
    shop.set_aside()
    for role, seconds in (("timekeeper", 0), ("consumer", 1)):
        shop.beat(role, seconds)
        shop.beat(role, 180 + seconds, "order_service@box-3")
    yield shop
    shop.sagas.engine.dispose()


def says(shop: Shop, saga_id: str, answer: Answer, name: str, message: str) -> None:
    shop.answer(saga_id, answer, error=error_of(name) | {"message": message})


def normal(text: str) -> str:
    """The text without what differs from run to run: the module's name here, ids, how lines are broken."""
    text = re.sub(r"\border_service\.worker\b", "worker", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    return " ".join(text.split())


def shown(section: str) -> list[Block]:
    """The console blocks under this heading."""
    text = PAGE.read_text()
    start = text.index(f"\n## {section}\n")
    end = text.find("\n## ", start + 1)
    first, last = (text.count("\n", 0, place) for place in (start, end if end > 0 else len(text)))
    return [block for block in blocks(PAGE) if block.language == "console" and first < block.line <= last]


def check(command: Command) -> None:
    arguments = shlex.split(normal(command.typed))
    assert arguments[0] == "saga"

    said = say(*arguments[1:])

    assert fits(normal(said.output), normal(command.shown)), f"{command.typed}\n{said.output}"


@pytest.mark.parametrize(
    "block",
    [
        block
        for section in (
            "Looking",
            "Acting",
            "Quarantine",
            "Planning",
            "Checking",
            "Health",
            "Archive",
            "Cost",
        )
        for block in shown(section)
    ],
    ids=str,
)
def test_a_command_says_what_the_page_shows(shop: Shop, block: Block) -> None:
    if NOBODY_COOKS in block.text:
        shop.jams("restaurant_service.commands", 4)
    works = not any(told in block.text for told in NOBODY_WORKS)
    with shop.working() if works else nullcontext():
        for command in commands(block.text):
            check(command)


def test_the_doctor_says_what_the_page_shows(folder: Path, rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection:
        connection.connect()
        KombuQueue("restaurant_service.commands")(connection.default_channel).queue_declare()  # classic
    nobody = "amqp://guest:guest@127.0.0.1:1//"
    text = PARTICIPANT.replace(nobody, rabbitmq_url).replace(", clock=lambda: time[0]", "")
    (folder / "kitchen.py").write_text(text + "app.conf.task_acks_late = False\n")
    assert say("-A", "kitchen", "db", "upgrade").exit_code == 0

    told = say("-A", "kitchen", "doctor").output

    (block,) = shown("Diagnosing")
    (command,) = commands(block.text)
    told = re.sub(r"amqp://\S+", "amqp://shop:***@rabbitmq/shop", told).replace("of kitchen", f"of {SERVICE}")
    told = re.sub(r"RabbitMQ [\d.]+ is", "RabbitMQ 4.1.3 is", told)
    assert fits(normal(told), normal(command.shown)), told


def test_the_schema_is_upgraded_once(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER)

    (block,) = shown("Schema")
    for command in commands(block.text):
        check(command)


def test_errors_say_what_to_do(shop: Shop, folder: Path) -> None:
    (block,) = shown("Errors")
    no_server, no_saga, no_database, no_sagas = commands(block.text)
    nobody = "postgresql://orders:secret@127.0.0.1:1/orders"
    (folder / "broken.py").write_text(WORKER.replace("sqlite:///orders.sqlite3", nobody))
    (folder / "kitchen.py").write_text(PARTICIPANT)

    away = say("-A", "broken", "list").output.replace("127.0.0.1:1/", "db:5432/")
    told = say("-A", "kitchen", "list").output.replace("kitchen is", "consumer_service.worker is")
    check(no_saga)
    shop.sagas.engine.dispose()
    for file in folder.glob("orders.sqlite3*"):
        file.unlink()
    check(no_database)

    assert fits(normal(away), normal(no_server.shown)), away
    assert fits(normal(told.replace("restaurant_service", "consumer_service")), normal(no_sagas.shown))
