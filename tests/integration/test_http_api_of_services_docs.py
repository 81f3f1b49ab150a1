"""What docs/reference/http-api-of-services.md shows is what the services answer."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from notification_service.notifications import keep
from sagas_framework import Participant, Subscriber
from tests.integration.asking import client_of, listening, serving, session_of
from tests.integration.test_http_api_docs import examples

PAGE: Final = (Path(__file__).parents[2] / "docs/reference/http-api-of-services.md").read_text()
NOON: Final = datetime(2026, 3, 17, 12, tzinfo=UTC)


def section(title: str) -> str:
    """The part of the page below this heading."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def as_shown(value: Any) -> Any:
    """The value with the moment at which the test runs replaced."""
    if isinstance(value, dict) and "switched_at" in value:
        return value | {"switched_at": NOON.isoformat()}
    return value


def tell(service: Participant | Subscriber) -> None:
    """What the page shows was told."""
    order = "order_riley_o066i"
    with session_of(service) as session:
        keep(
            session,
            "1",
            "Received order for Riley: 1 milk. Total = 1299.00",
            NOON.replace(hour=10, minute=2, second=5),
            order_id=order,
        )
        session.flush()
        keep(session, "2", "Order was approved by Chris.", NOON.replace(hour=10, minute=10), order_id=order)


@pytest.mark.parametrize("name", ["notification", "inventory", "delivery"])
def test_every_example_is_answered_as_the_page_says(
    name: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = f"{name}_service"
    running = listening if name == "notification" else serving
    with running(service, sqlite_url, monkeypatch) as serves, client_of(service, monkeypatch) as client:
        if name == "notification":
            tell(serves)
        shown_here = examples(section(f"{name.capitalize()} service"))
        for _, request, shown in shown_here:
            method, path = request.line.split()
            answer = client.open(path, method=method, headers=request.headers, data=request.body or None)

            assert answer.status == shown.line, request.line
            for header, value in shown.headers.items():
                assert answer.headers[header].removesuffix("; charset=utf-8") == value, request.line
            if answer.is_json:
                assert as_shown(answer.json) == json.loads(shown.body), request.line
            else:
                assert answer.text.strip() == shown.body, request.line
        assert shown_here


def test_every_change_that_the_page_names_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notification", "inventory", "delivery"):
        with client_of(f"{name}_service", monkeypatch) as client:
            rules = {
                (method, rule.rule)
                for rule in client.application.url_map.iter_rules()
                for method in rule.methods
            }
        named = re.findall(r"`(GET|POST) (/[^`\s?]*)`", section(f"{name.capitalize()} service"))
        assert named
        assert set(named) <= rules
