"""What docs/reference/http-api.md shows is what the application answers."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from order_service.web import create_app
from tests.integration.back_office import BackOffice
from tests.integration.shopfront import beat, shopfront

PAGE: Final = (Path(__file__).parents[2] / "docs/reference/http-api.md").read_text()
TOKEN: Final = "chris-has-a-token-of-his-own"


@dataclass(frozen=True)
class Block:
    """A request or a response: its first line, its headers, its body."""

    line: str
    headers: dict[str, str]
    body: str


def block(text: str) -> Block:
    head, _, body = text.partition("\n\n")
    line, *headers = head.splitlines()
    return Block(line, dict(header.split(": ", 1) for header in headers), body.strip())


def examples(page: str) -> list[tuple[list[str], Block, Block]]:
    """What happens before each request, the request, and the response below it."""
    found = re.findall(r"^```http\n(.*?)\n```$|^<!-- (.*?) -->$", page, re.DOTALL | re.MULTILINE)
    happened: list[str] = []
    blocks: list[tuple[list[str], Block]] = []
    for text, event in found:
        if event:
            happened.append(event)
        else:
            blocks.append((happened, block(text)))
            happened = []
    assert len(blocks) % 2 == 0
    return [(*asked, said[1]) for asked, said in zip(blocks[::2], blocks[1::2], strict=True)]


def as_read(value: Any, ids: dict[str, str]) -> Any:
    """The value with what differs from run to run replaced: ids by the order in which they come, times."""
    text = re.sub(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}|order_riley_[a-z0-9]{12}",
        lambda found: ids.setdefault(found[0], f"id {len(ids) + 1}"),
        value if isinstance(value, str) else json.dumps(value),
    )
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00", "a moment", text)
    return re.sub(r"\d+ h \d+ min|\d+ (ms|s)\b(?= for| ago)", "some time", text)


def test_every_example_is_answered_as_the_page_says(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    monkeypatch.setenv("APPROVER_TOKENS", f"Chris:{TOKEN}")
    with shopfront(sqlite_url, monkeypatch) as client:
        office, stopped_for = BackOffice(), 0
        for happened, request, shown in examples(PAGE):
            if "the broker is stopped" in happened:
                stopped_for = 20
            if "the orchestrator takes it up" in happened:
                office.turn()
            beat("timekeeper")
            beat("consumer", seconds_ago=stopped_for)
            method, path = request.line.split()
            for theirs_id, ours_id in zip(theirs, ours, strict=True):  # a page's order is ours
                path = path.replace(theirs_id, ours_id)
            headers = {name: value.replace("$TOKEN", TOKEN) for name, value in request.headers.items()}
            with office.at_work() if path.endswith("/approve") else nullcontext():
                answer = client.open(path, method=method, headers=headers, data=request.body)

            assert answer.status == shown.line, request.line
            for name, value in shown.headers.items():
                told = answer.headers[name].removesuffix("; charset=utf-8")
                assert as_read(told, ours) == as_read(value, theirs), request.line
            body, page_body = (
                (answer.json, json.loads(shown.body)) if answer.is_json else (answer.text, shown.body)
            )
            assert as_read(body, ours) == as_read(page_body, theirs), request.line


def test_every_route_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+) (/[^\s?]*)\S*` \|", PAGE, re.MULTILINE)
    listed = {(method, path.replace("/run-...", "/run-")) for method, path in rows}

    routes = {
        (method, re.sub(r"<\w+>", "<id>", re.sub("^/run-.*", "/run-", rule.rule)))
        for rule in create_app().url_map.iter_rules()
        if not rule.endpoint.endswith("static") and not rule.rule.startswith("/sagas")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(method, path) for method, path in listed if not path.startswith("/sagas")} == routes
