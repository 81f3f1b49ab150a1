"""What docs/reference/http-api.md shows is what the application answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from order_service.web import create_app
from tests.integration.shopfront import beat, shopfront

PAGE: Final = (Path(__file__).parents[2] / "docs/reference/http-api.md").read_text()
STOPPED: Final = "<!-- the broker is stopped -->"


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


def examples(page: str) -> list[tuple[Block, Block]]:
    """Each request with the response below it."""
    blocks = [block(text) for text in re.findall(r"^```http\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)]
    assert len(blocks) % 2 == 0
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def as_read(value: Any, ids: dict[str, str]) -> Any:
    """The value with what differs from run to run replaced: ids by the order in which they come, times."""
    text = re.sub(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}",
        lambda found: ids.setdefault(found[0], f"saga {len(ids) + 1}"),
        value if isinstance(value, str) else json.dumps(value),
    )
    return re.sub(r"\d+ (ms|s)\b(?= for| ago)", "some time", text)


def test_every_example_is_answered_as_the_page_says(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    well, ill = PAGE.split(STOPPED)
    with shopfront(sqlite_url, monkeypatch) as client:
        for part, stopped_for in ((well, 0), (ill, 20)):
            beat("timekeeper")
            beat("consumer", seconds_ago=stopped_for)
            for request, shown in examples(part):
                method, path = request.line.split()
                answer = client.open(path, method=method, headers=request.headers, data=request.body)

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
