"""Draws the trace of an order that is undone, from the spans that an exporter got: ``make trace``.

It runs the whole order platform in this process, on SQLite and a broker in memory, with an exporter that
keeps spans in memory. An order over HTTP waits for its approval, gets it, and its payment is refused.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app_common import telemetry
from app_common.magic import DECLINED_CUSTOMER
from app_common.running import ORCHESTRATOR, SERVICES, upgrade, web_application, worker_module
from app_common.settings import APPROVER_TOKENS, DATABASE_VARIABLE, demo_database
from sagas_framework import EmbeddedWorkers

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "trace.svg"
APPROVER: Final = "chris"
_WITHIN: Final = 60.0  # seconds, for each wait
_THINKS: Final = 0.4  # seconds, before the approver says yes

_COLOURS: Final = {
    "SERVER": "#64748b",
    "PRODUCER": "#b45309",
    "CONSUMER": "#15803d",
    "INTERNAL": "#1d4ed8",
}
_MEANINGS: Final = {
    "SERVER": "web request",
    "PRODUCER": "sent",
    "CONSUMER": "a service's work",
    "INTERNAL": "the saga",
}
_WAITING: Final = "#93c5fd"
_ERROR: Final = "#b91c1c"
_ROW, _LABEL, _BARS, _TIME, _TOP = 22, 330, 560, 90, 56


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        spans = spans_of_an_order(Path(folder))
    PICTURE.write_text(drawn(spans))
    print(f"Wrote {PICTURE.relative_to(ROOT)}: {len(spans)} spans")
    return 0


def spans_of_an_order(folder: Path) -> list[ReadableSpan]:
    """The spans of one order's trace, in the order of their beginnings."""
    token = secrets.token_hex(16)
    os.environ["CELERY_BROKER"] = "memory://localhost"
    os.environ[DATABASE_VARIABLE] = demo_database(folder)
    os.environ[APPROVER_TOKENS] = f"{APPROVER}:{token}"
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use(provider, NoOpMeterProvider())
    for service in SERVICES:
        upgrade(service)
    web = web_application(ORCHESTRATOR).test_client()
    with EmbeddedWorkers(worker_module(service).app for service in SERVICES):
        order = {"customer": DECLINED_CUSTOMER, "items": ["iPhone"], "total": "1200.00"}
        links = _taken(web.post("/processing/orders", json=order))["links"]
        _wait(lambda: bool(web.get("/processing/orders?waiting=1").json["orders"]), "it waits for approval")
        time.sleep(_THINKS)
        decision = {"approver": APPROVER, "approved": True}
        _taken(web.post(links["approve"], json=decision, headers={"Authorization": f"Bearer {token}"}))
        _wait(lambda: any(_is_whole(span) for span in exporter.get_finished_spans()), "the saga ends")
        _wait(lambda: _settled(exporter), "its events are handled")
    spans = exporter.get_finished_spans()
    trace = next(span.context.trace_id for span in spans if _is_whole(span))
    return sorted((span for span in spans if span.context.trace_id == trace), key=_begun)


def drawn(spans: Sequence[ReadableSpan]) -> str:
    """The spans as an SVG: a bar for each, below the one that it belongs to."""
    rows = list(_tree(spans))
    first, last = min(map(_begun, spans)), max(map(_ended, spans))
    scale = _BARS / max(last - first, 1)
    width, height = _LABEL + _BARS + _TIME + 20, _TOP + _ROW * len(rows) + 30
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img">'
        ),
        f"<title>One trace: {escape(rows[0][1].name)}, {len(rows)} spans</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (kind, meaning) in enumerate(
        [
            *((_COLOURS[kind], told) for kind, told in _MEANINGS.items()),
            (_WAITING, "waits"),
            (_ERROR, "error"),
        ]
    ):
        at = 20 + number * 150
        parts.append(f'<rect x="{at}" y="14" width="12" height="12" rx="2" fill="{kind}"/>')
        parts.append(f'<text x="{at + 18}" y="24" fill="#334155">{meaning}</text>')
    for tick in range(5):
        x = _LABEL + _BARS * tick / 4
        told = f"{(last - first) / 1e6 * tick / 4:,.0f} ms"
        bottom = height - 20
        parts.append(f'<line x1="{x:g}" y1="{_TOP - 6}" x2="{x:g}" y2="{bottom}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{x:g}" y="{_TOP - 10}" text-anchor="middle" fill="#64748b">{told}</text>')
    for row, (depth, span) in enumerate(rows):
        y = _TOP + row * _ROW
        if row % 2:
            parts.append(f'<rect y="{y}" width="{width}" height="{_ROW}" fill="#0f172a" opacity="0.03"/>')
        x, long = _LABEL + (_begun(span) - first) * scale, max((_ended(span) - _begun(span)) * scale, 2)
        lasted = (_ended(span) - _begun(span)) / 1e6
        parts.append(
            f'<text x="{20 + depth * 14}" y="{y + 15}" fill="#0f172a">{escape(span.name)}</text>'
            f'<rect x="{x:.1f}" y="{y + 5}" width="{long:.1f}" height="{_ROW - 10}" rx="2" '
            f'fill="{_colour(span)}"/>'
            f'<text x="{_LABEL + _BARS + _TIME}" y="{y + 15}" text-anchor="end" fill="#64748b">'
            f"{lasted:,.1f} ms</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _tree(spans: Sequence[ReadableSpan]) -> list[tuple[int, ReadableSpan]]:
    """`(depth, span)` pairs: each below its parent, those beside each other as they began."""
    there = {span.context.span_id for span in spans}
    below: dict[int | None, list[ReadableSpan]] = {}
    for span in spans:
        parent = span.parent.span_id if span.parent is not None and span.parent.span_id in there else None
        below.setdefault(parent, []).append(span)

    def walk(parent: int | None, depth: int) -> list[tuple[int, ReadableSpan]]:
        found = []
        # What lasts longest first: a step stands before its sending, which began in the same moment.
        for span in sorted(below.get(parent, ()), key=lambda one: (_begun(one) // 1_000_000, -_ended(one))):
            found += [(depth, span), *walk(span.context.span_id, depth + 1)]
        return found

    return walk(None, 0)


def _colour(span: ReadableSpan) -> str:
    if not span.status.is_ok and span.status.status_code.name == "ERROR":
        return _ERROR
    if span.name.startswith(("wait ", "delay ", "pause ")):
        return _WAITING
    return _COLOURS[span.kind.name]


def _begun(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def _ended(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


def _is_whole(span: ReadableSpan) -> bool:
    return span.name.startswith("saga ")


def _settled(exporter: InMemorySpanExporter) -> bool:
    """Whether each event that was published has been handled by its subscriber."""
    spans = exporter.get_finished_spans()
    said = sum(span.name.startswith("publish order_service.") for span in spans)
    return said == sum(span.name.startswith("process order_service.") for span in spans)


def _taken(response: TestResponse) -> Any:
    if response.status_code not in (200, 202):
        raise SystemExit(f"{response.request.path} answers {response.status_code}: {response.text}")
    return response.json


def _wait(ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _WITHIN
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"not within {_WITHIN:g} s: {what}")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
