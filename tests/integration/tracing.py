"""What tests see of traces and metrics: spans as an exporter gets them, kept in memory or in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id
from typing_extensions import override

from sagas_framework import disable_telemetry, enable_telemetry


@dataclass(frozen=True)
class Seen:
    """A span that was exported. Times in seconds; ids as W3C writes them."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str | None
    begun: float
    ended: float
    status: str
    attributes: Mapping[str, Any]
    links: Sequence[tuple[str, str]]

    @property
    def lasted(self) -> float:
        return self.ended - self.begun


def seen(span: ReadableSpan) -> Seen:
    assert span.start_time is not None
    assert span.end_time is not None
    return Seen(
        name=span.name,
        kind=span.kind.name,
        trace=format_trace_id(span.context.trace_id),
        id=format_span_id(span.context.span_id),
        parent=None if span.parent is None else format_span_id(span.parent.span_id),
        begun=span.start_time / 1e9,
        ended=span.end_time / 1e9,
        status=span.status.status_code.name,
        attributes=dict(span.attributes or {}),
        links=[
            (format_trace_id(link.context.trace_id), format_span_id(link.context.span_id))
            for link in span.links
        ],
    )


class ToFile(SpanExporter):
    """A line of JSON for each span, written at once: what a process that is killed has ended is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.write("".join(json.dumps(vars(seen(span)), default=dict) + "\n" for span in spans))
        return SpanExportResult.SUCCESS


def from_file(path: Path) -> list[Seen]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [Seen(**{**line, "links": [(trace, span) for trace, span in line["links"]]}) for line in lines]


class Traces:
    """The telemetry of this process while a test runs."""

    def __init__(self, *exporters: SpanExporter) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        for exporter in (self._memory, *exporters):
            self.provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[Seen]:
        """Those that have ended, in the order in which they began."""
        return sorted(map(seen, self._memory.get_finished_spans()), key=lambda span: span.begun)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Seen:
        (found,) = self.named(name)
        return found

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """By name, the attributes and the value of each point; of a histogram, how many were recorded."""
        found: dict[str, list[tuple[dict[str, Any], float]]] = {}
        data: Any = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = point.count if hasattr(point, "count") else point.value
                        found.setdefault(metric.name, []).append((dict(point.attributes), value))
        return found


@contextmanager
def traced(*exporters: SpanExporter) -> Iterator[Traces]:
    """With telemetry switched on."""
    traces = Traces(*exporters)
    enable_telemetry(traces.provider, traces.meters)
    try:
        yield traces
    finally:
        disable_telemetry()
        traces.provider.shutdown()
        traces.meters.shutdown()
