"""Traces and metrics of the platform's processes: OpenTelemetry's SDK, set up by its standard variables.

Off unless one of these names an exporter. What else the SDK knows it reads itself: `OTEL_TRACES_SAMPLER`,
`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_RESOURCE_ATTRIBUTES`, ...

| variable | values | what |
|---|---|---|
| `OTEL_TRACES_EXPORTER` | `otlp`, `none` | where spans go |
| `OTEL_METRICS_EXPORTER` | `otlp`, `prometheus`, `none` | where measurements go |
| `OTEL_EXPORTER_PROMETHEUS_HOST` | `localhost` | where the orchestrator's worker is asked for its metrics |
| `OTEL_EXPORTER_PROMETHEUS_PORT` | `9464` | the same |
| `OTEL_SERVICE_NAME` | the service's name | what the process is called there |
| `OTEL_SDK_DISABLED` | `true` | nothing of it |
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, signals
from flask import Flask, Response, g, request

from app_common.settings import SettingError
from sagas_framework import enable_telemetry

logger = logging.getLogger(__name__)

NONE: Final = "none"
OTLP: Final = "otlp"
PROMETHEUS: Final = "prometheus"
DEFAULT_METRICS_PORT: Final = "9464"

_TRACES: Final = "OTEL_TRACES_EXPORTER"
_METRICS: Final = "OTEL_METRICS_EXPORTER"
_HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
_PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"

_lock: Final = threading.Lock()
_providers: list[Any] = []
"""Of this process, once they are set up."""


@dataclass(frozen=True)
class TelemetrySettings:
    """Where spans and measurements go. `host`, `port`: where Prometheus asks."""

    traces: str
    metrics: str
    host: str
    port: int

    @property
    def on(self) -> bool:
        return (self.traces, self.metrics) != (NONE, NONE)


def telemetry_settings(environ: Mapping[str, str] = os.environ) -> TelemetrySettings:
    """What the environment says.

    Raises:
        SettingError: an exporter is named that we do not have, or a wrong port.
    """
    disabled = (environ.get("OTEL_SDK_DISABLED") or "").strip().lower() == "true"
    traces = _exporter(_TRACES, (OTLP, NONE), environ)
    metrics = _exporter(_METRICS, (OTLP, PROMETHEUS, NONE), environ)
    port = environ.get(_PORT) or DEFAULT_METRICS_PORT
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise SettingError(_PORT, f"is {port!r}, not a port from 1 to 65535", DEFAULT_METRICS_PORT)
    return TelemetrySettings(
        NONE if disabled else traces,
        NONE if disabled else metrics,
        environ.get(_HOST) or "localhost",
        int(port),
    )


def _exporter(variable: str, known: tuple[str, ...], environ: Mapping[str, str]) -> str:
    value = (environ.get(variable) or NONE).strip()
    if value not in known:
        raise SettingError(variable, f"is {value!r}, not one of {', '.join(known)}", OTLP)
    return value


def set_up(service: str, *, orchestrator: bool = False) -> bool:
    """Set up what the environment asks for, once in a process; whether there is anything.

    Args:
        service: what the process is called, unless `OTEL_SERVICE_NAME` says otherwise.
        orchestrator: it is the worker that Prometheus asks: of all processes it alone knows the sagas.

    Raises:
        SettingError: a variable has a wrong value.
    """
    settings = telemetry_settings()
    with _lock:
        if not settings.on or _providers:
            return bool(_providers)
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource

        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service})
        tracers = _tracers(settings, resource)
        meters = _meters(settings, resource, orchestrator=orchestrator)
        use(tracers, meters)
    return True


def use(tracers: Any, meters: Any) -> None:
    """Have these providers used by all of this process, whatever the environment asks for."""
    enable_telemetry(tracers, meters)
    _providers[:] = (tracers, meters)


def _tracers(settings: TelemetrySettings, resource: Any) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import NoOpTracerProvider

    if settings.traces == NONE:
        return NoOpTracerProvider()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _meters(settings: TelemetrySettings, resource: Any, *, orchestrator: bool) -> Any:
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.metrics import MeterProvider

    if settings.metrics == OTLP:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        return MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    if settings.metrics == PROMETHEUS and orchestrator:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server

        try:
            start_http_server(settings.port, settings.host)
        except OSError as error:
            raise SettingError(
                _PORT,
                f"is {settings.port}, where Prometheus cannot ask ({error.strerror})",
                str(settings.port + 1),
            ) from None
        return MeterProvider([PrometheusMetricReader()], resource=resource)
    return NoOpMeterProvider()


def trace_worker(app: Celery, *, orchestrator: bool = False) -> None:
    """Have workers of this app set it up when they begin, before their pool forks; `saga` does not.

    Raises:
        SettingError: a variable has a wrong value.
    """
    telemetry_settings()  # Celery would only log what is raised when the worker begins

    def begin(sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.app is app:
            try:
                set_up(str(app.main), orchestrator=orchestrator)
            except SettingError as error:  # a port that is taken holds up no order
                logger.error("nothing is traced, nor measured: %s", error)

    def end(**_: Any) -> None:  # a pool's process ends without what Python does at an exit
        for provider in _providers:
            if hasattr(provider, "force_flush"):
                provider.force_flush(2_000)

    signals.worker_init.connect(begin, weak=False)
    signals.worker_process_shutdown.connect(end, weak=False)


def trace_requests(app: Flask, service: str) -> None:
    """Set it up for a web process, and make a span of each request, below that of whoever asks."""
    if not set_up(service):
        return
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    tracer = trace.get_tracer("order_platform", tracer_provider=_providers[0])
    propagator = TraceContextTextMapPropagator()

    @app.before_request
    def begin() -> None:
        route = request.url_rule.rule if request.url_rule is not None else ""
        span = tracer.start_span(
            f"{request.method} {route}".strip(),
            context=propagator.extract(request.headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": request.method, "http.route": route},
        )
        g.span = span
        g.span_block = trace.use_span(span, end_on_exit=True)
        g.span_block.__enter__()

    @app.after_request
    def note(response: Response) -> Response:
        if (span := g.get("span")) is not None:
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(Status(StatusCode.ERROR))
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        if (block := g.pop("span_block", None)) is not None:
            block.__exit__(None, None, None)
