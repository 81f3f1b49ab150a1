"""The demo is killed with -9 while its orders wait for a person: they wait on, and none is late."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from sagas_framework.clock import utc_now
from tests.acceptance.application import Application, demo
from tests.servers import wait_until

TOKEN: Final = "0123456789abcdef0123456789abcdef"
ORDER: Final = json.dumps({"customer": "Riley", "items": ["milk"], "total": "1500.00"})
TEN_SECONDS: Final = "10"
PUNCTUAL: Final = timedelta(seconds=1)


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Application]:
    """A demo whose orders may wait for a day, not started yet."""
    made = demo(tmp_path)
    application = replace(made, environment={**made.environment, "APPROVER_TOKENS": f"chris:{TOKEN}"})
    yield application
    application.close()


@pytest.fixture
def hasty(day: Application) -> Iterator[Application]:
    """The same demo, when orders may wait for ten seconds; not started yet."""
    application = replace(day, environment={**day.environment, "APPROVAL_DEADLINE": TEN_SECONDS})
    yield application
    application.close()


def order(application: Application) -> str:
    """Place one that needs an approval, and wait until it waits; its id."""
    answer = application.ask("POST", "/processing/orders", ORDER)
    assert answer.status == 202, answer.body
    order_id: str = answer.json["order_id"]
    wait_until(lambda: shown(application, order_id)["approval"]["waiting"], "it waits", within=60)
    return order_id


def shown(application: Application, order_id: str) -> Any:
    answer = application.ask("GET", f"/processing/orders/{order_id}")
    assert answer.status == 200, answer.body
    return answer.json


def deadline(application: Application, order_id: str) -> datetime:
    return datetime.fromisoformat(shown(application, order_id)["approval"]["deadline"])


def test_orders_wait_on_after_kill_9_and_end_as_they_should(day: Application, hasty: Application) -> None:
    day.start()
    waits = order(day)
    until = deadline(day, waits)
    day.end(signal.SIGKILL, within=10)

    hasty.start()
    late = order(hasty)
    over = deadline(hasty, late)
    again = shown(hasty, waits)["approval"]
    hasty.end(signal.SIGKILL, within=10)
    wait_until(lambda: utc_now() > over, "its deadline has passed while nothing runs", within=60)

    day.start()
    expired = day.ended(shown(day, late)["saga"]["id"])
    (begun,) = day.query(
        "order_service",
        "SELECT max(started_at) FROM saga_worker WHERE role = 'timekeeper'",
    )
    last = shown(day, waits)["approval"]
    decision = json.dumps({"approver": "chris", "approved": True})
    path = f"/processing/orders/{waits}/approve"
    approved = day.ask("POST", path, decision, more={"Authorization": f"Bearer {TOKEN}"})
    day.ended(shown(day, waits)["saga"]["id"])

    assert until - utc_now() > timedelta(hours=23)
    assert again["waiting"]
    assert last["waiting"]
    assert datetime.fromisoformat(again["deadline"]) == datetime.fromisoformat(last["deadline"]) == until
    assert approved.status in (200, 202), approved.body
    assert shown(day, waits)["order_result"]["success"] is True
    assert (expired["status"], expired["outcome"]["kind"]) == ("compensated", "expired")
    entries = [line["entry"] for line in expired["history"]]
    fired = datetime.fromisoformat(expired["history"][entries.index("approval.waiting") + 1]["at"])
    assert timedelta(0) <= fired.replace(tzinfo=None) - datetime.fromisoformat(begun[0]) < PUNCTUAL
    assert shown(day, late)["order_result"]["message"] == "Approval deadline expired."
