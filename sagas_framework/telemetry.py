"""Traces and metrics by OpenTelemetry's API, of which the rest of the library knows no more than is here.

Nothing is done before `enable_telemetry`, but a look at a global name; and opentelemetry-api need not even be
installed (it is the extra ``otel``). Which exporters there are, and how much is sampled, is said by the SDK
that the process sets up; the library makes spans and measurements, and carries the context in its rows and
in the headers of its messages, as W3C Trace Context has it.

Reference:
    W3C Trace Context; OpenTelemetry, "Semantic conventions for messaging spans".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sagas_framework.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Link, Span, SpanKind, TracerProvider

SCOPE: Final = "sagas_framework"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
CARRIED: Final = (TRACEPARENT, TRACESTATE)
"""The headers in which a message carries its context."""

Carrier = Mapping[str, str]
"""A context on its way: `TRACEPARENT`, and `TRACESTATE` if there is one."""
NOWHERE: Final[Carrier] = MappingProxyType({})

LONGEST_STATE: Final = 512
"""Characters of `TRACESTATE`: what everybody must carry on at least. A longer one is left out."""
_SECONDS: Final = [
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0),
]
"""Bounds of the histograms. A saga may last a second, and may wait a day for a person."""

Figure = tuple[float, Mapping[str, str]]
"""A gauge's value, and whose it is."""
Figures = Mapping[str, Sequence[Figure]]
"""By the gauge's name."""

OPEN: Final = "saga.open"
OLDEST: Final = "saga.oldest.age"
OVERDUE: Final = "saga.overdue.age"
QUARANTINED: Final = "saga.quarantined"
WAITING: Final = "saga.queue.messages"
_GAUGES: Final = {
    OPEN: ("{saga}", "Sagas that have not ended"),
    OLDEST: ("s", "Age of the oldest saga that has not ended"),
    OVERDUE: ("s", "How long the saga is due that no timekeeper has come to"),
    QUARANTINED: ("{message}", "Messages that were set aside"),
    WAITING: ("{message}", "Messages in a queue, as an orchestrator last saw it"),
}


class Telemetry:
    """The tracer and the instruments of this process.

    Args:
        tracer_provider, meter_provider: of the SDK; None: the process's own, which does nothing unless
            somebody has set one.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ConfigurationError(
                "Traces and metrics need opentelemetry-api: pip install 'sagas-framework[otel]', and "
                "opentelemetry-sdk with an exporter, without which they go nowhere."
            ) from None
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self.tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)

        def seconds(name: str, told: str) -> Any:
            return meter.create_histogram(
                name, unit="s", description=told, explicit_bucket_boundaries_advisory=_SECONDS
            )

        def counter(name: str, unit: str, told: str) -> Any:
            return meter.create_counter(name, unit=unit, description=told)

        self.started = counter("saga.started", "{saga}", "Sagas that were started")
        self.ended = counter("saga.ended", "{saga}", "Sagas that have ended")
        self.duration = seconds("saga.duration", "From a saga's start to its end")
        self.step_duration = seconds(
            "saga.step.duration", "From the first sending of a step's command, or undo, to its result"
        )
        self.retries = counter("saga.step.retries", "{attempt}", "Attempts after the first")
        self.resends = counter("saga.command.resends", "{message}", "Messages that were sent again")
        self.late_replies = counter("saga.replies.late", "{reply}", "Replies that changed nothing any more")
        self.commit_duration = seconds(
            "saga.reply.commit.duration", "From taking a reply off the queue to the commit of what it decided"
        )
        self.lag = seconds("saga.timekeeper.lag", "By how much a saga that was due was late when decided")
        self.handled = seconds("saga.command.duration", "A participant's work on a command")
        self._watched: list[Callable[[], Figures]] = []
        for name, (unit, told) in _GAUGES.items():
            meter.create_observable_gauge(name, [partial(self._observe, name)], unit=unit, description=told)

    # ---- spans ------------------------------------------------------------------------------------

    def span(
        self,
        name: str,
        kind: str,
        parent: Context | None,
        attributes: Mapping[str, Any],
        *,
        start: datetime | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """A span that has begun, now unless `start` is given. Whoever asks for it ends it.

        Args:
            kind: the name of a `SpanKind`.
            parent: None: whatever span is current.
            attributes: those that are None are left out.
        """
        return self.tracer.start_span(
            name,
            context=parent,
            kind=self._kind(kind),
            attributes={key: value for key, value in attributes.items() if value is not None},
            links=links,
            start_time=None if start is None else nanoseconds(start),
        )

    @contextmanager
    def current(self, span: Span) -> Iterator[Span]:
        """Within it, what else makes spans makes them below this one; it ends with the block."""
        with self._trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            yield span

    def fail(self, span: Span, why: str) -> None:
        """Mark the span as an error; `why` holds no data of the business."""
        span.set_attribute("error.type", why)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))

    def _kind(self, name: str) -> SpanKind:
        kind: SpanKind = self._trace.SpanKind[name]
        return kind

    # ---- contexts ---------------------------------------------------------------------------------

    def carrier(self, span: Span) -> Carrier:
        """The span's context, to be kept or sent; empty if it has none."""
        return self._carried(self._trace.set_span_in_context(span))

    def here(self) -> Carrier:
        """The context of the current span; empty if there is none."""
        return self._carried(None)

    def _carried(self, context: Context | None) -> Carrier:
        found: dict[str, str] = {}
        self._propagator.inject(found, context)
        if len(found.get(TRACESTATE, "")) > LONGEST_STATE:
            del found[TRACESTATE]
        return found

    def context(self, carried: Carrier) -> Context | None:
        """The context that was carried; None if there is none, or none that can be read."""
        if TRACEPARENT not in carried:
            return None
        context = self._propagator.extract(carried)
        return context if self._trace.get_current_span(context).get_span_context().is_valid else None

    def of_saga(self, saga_id: str, carried: Carrier | None) -> Context:
        """The context below which the spans of a saga are: the one that was kept at its start.

        One that was started where nothing is traced has one that derives from its id: so it is one trace,
        too, whichever process makes the spans.
        """
        context = self.context(carried or NOWHERE)
        if context is not None:
            return context
        try:
            number = UUID(saga_id).int
        except ValueError:  # not given by us
            number = int.from_bytes(saga_id.encode()[-16:])
        derived = self._trace.SpanContext(
            number, number & (1 << 64) - 1 or 1, is_remote=True, trace_flags=self._trace.TraceFlags(1)
        )
        # Of no other: neither what happens to be current here, nor its baggage.
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(derived), _nothing())

    def below(self, carried: Carrier) -> AbstractContextManager[Any]:
        """Within it, spans are made below the one whose context was carried, if there is one."""
        context = self.context(carried)
        if context is None:
            return nullcontext()
        return self._trace.use_span(self._trace.get_current_span(context))

    def links(self, carried: Carrier | None) -> Sequence[Link]:
        """A link to what is in this context; none if there is none."""
        context = self.context(carried or NOWHERE)
        if context is None:
            return ()
        return (self._trace.Link(self._trace.get_current_span(context).get_span_context()),)

    # ---- metrics ----------------------------------------------------------------------------------

    def watch(self, read: Callable[[], Figures]) -> Callable[[], None]:
        """Have the gauges read this whenever somebody looks at them, until what is returned is called."""
        self._watched.append(read)
        return lambda: self._watched.remove(read)

    def _observe(self, name: str, _options: CallbackOptions) -> list[Observation]:
        from opentelemetry.metrics import Observation

        found = [figure for read in self._watched for figure in read().get(name, ())]
        return [Observation(value, dict(whose)) for value, whose in found]


def _nothing() -> Context:
    from opentelemetry.context import Context

    return Context()


def nanoseconds(moment: datetime) -> int:
    """The moment as OpenTelemetry has it. Through microseconds: a float has not as many digits."""
    return round(moment.timestamp() * 1_000_000) * 1000


def carried_by(headers: Mapping[str, Any]) -> Carrier:
    """The context that a message carries; empty if it carries none."""
    return {name: value for name in CARRIED if isinstance(value := headers.get(name), str)}


# ---- on and off -----------------------------------------------------------------------------------

_active: Telemetry | None = None


def active() -> Telemetry | None:
    """The telemetry of this process; None if it is switched off, and then there is nothing to be done."""
    return _active


def enable_telemetry(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Make spans and measurements in this process from now on; once, before sagas and workers begin.

    Args:
        tracer_provider, meter_provider: of the SDK. None: those that the process has set, or will set, with
            OpenTelemetry itself.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """
    global _active
    _active = Telemetry(tracer_provider, meter_provider)


def disable_telemetry() -> None:
    """Make none any more."""
    global _active
    _active = None
