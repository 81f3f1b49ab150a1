"""One saga is one trace: over the request that starts it, the orchestrator, participants and subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, Final

import pytest
from celery import Celery
from opentelemetry.trace import format_span_id, format_trace_id
from sqlalchemy import select

from sagas_framework import (
    EmbeddedWorkers,
    OutcomeKind,
    Policy,
    Status,
)
from sagas_framework.storage.tables import saga_event, saga_instance, saga_outbox, saga_signal
from sagas_framework.telemetry import carried_by
from sagas_framework.transport.amqp import AmqpPublisher
from sagas_framework.transport.connecting import kombu_queue
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.generic import KombuPublisher
from sagas_framework.worker.batches import check_queue
from tests.integration.traced_shop import Approval, Shop, stock
from tests.integration.tracing import Seen, Traces, traced
from tests.servers import wait_until


@pytest.fixture
def traces() -> Iterator[Traces]:
    with traced() as traces:
        yield traces


@pytest.fixture(params=[None, 50], ids=["tasks", "batches"])
def shop(
    request: pytest.FixtureRequest, rabbitmq_url: str, postgres_urls: Callable[[], str]
) -> Iterator[Shop]:
    shop = Shop(rabbitmq_url, postgres_urls, batch=request.param)
    yield shop
    shop.close()


def names(spans: list[Seen]) -> list[str]:
    return [span.name for span in spans]


def test_a_request_retry_wait_signal_event_and_compensation_are_one_trace(shop: Shop, traces: Traces) -> None:
    shop.failures = 1
    web = traces.provider.get_tracer("web")
    with EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]):
        with web.start_as_current_span("POST /orders"):
            run = shop.start()
        wait_until(lambda: shop.waits(run), "the saga waits")
        with web.start_as_current_span("POST /approve"):
            shop.sagas.signal(run, Approval(approver="ann"))
        ended = shop.sagas.wait(run)
        wait_until(lambda: shop.heard == [1], "the event is handled")
        wait_until(lambda: bool(traces.named("saga ordering")), "the end is told")

    assert (ended.status, ended.outcome and ended.outcome.kind) == (Status.COMPENSATED, OutcomeKind.REFUSED)
    request = traces.one("POST /orders")
    approve = traces.one("POST /approve")
    ours = [span for span in traces.spans if span.trace == request.trace]
    assert {span.name for span in traces.spans if span not in ours} == {"POST /approve", "signal ordering"}
    begun = traces.one("start ordering")
    assert begun.parent == request.id
    below = [span.name for span in ours if span.parent == begun.id]
    assert sorted(below) == sorted(
        [
            *("step note", "compensate note"),
            *("send stock.reserve", "send stock.reserve", "step reserve", "step reserve", "pause reserve"),
            *("wait approve", "send stock.charge", "step charge"),
            *("send stock.release", "compensate reserve", "saga ordering"),
        ]
    )
    # What participants do is below the sending that they answer, and what they publish below that.
    for task in ("stock.charge", "stock.release"):
        assert traces.one(f"process {task}").parent == traces.one(f"send {task}").id
    handled, sent = traces.named("process stock.reserve"), traces.named("send stock.reserve")
    assert [span.parent for span in handled] == [span.id for span in sent]
    assert [span.status for span in handled] == ["ERROR", "UNSET"]
    said = traces.one("publish stock.stock_taken")
    assert said.parent == handled[1].id
    assert traces.one("process stock.stock_taken").parent == said.id
    # Answers and signals are links.
    first, second = traces.named("step reserve")
    assert list(first.links) == [(handled[0].trace, handled[0].id)]
    assert second.links == [(handled[1].trace, handled[1].id)]
    assert first.attributes["saga.result"] == "attempt_failed"
    assert second.attributes["saga.result"] == "succeeded"
    assert traces.one("step charge").attributes["saga.refusal"] == "NoMoney"
    signal = traces.one("signal ordering")
    assert signal.parent == approve.id
    assert traces.one("wait approve").links == [(signal.trace, signal.id)]
    # Spans last as long as what they tell of.
    assert traces.one("pause reserve").lasted >= 0.3
    waited = traces.one("wait approve")
    assert waited.begun <= signal.begun <= waited.ended
    whole = traces.one("saga ordering")
    assert all(whole.begun <= span.begun + 0.001 for span in ours if span.name.startswith(("step", "send")))
    assert whole.attributes["saga.status"] == "compensated"
    assert whole.attributes["saga.outcome"] == "refused"


def test_a_command_that_was_lost_and_a_new_orchestrator_do_not_break_the_trace(
    shop: Shop, traces: Traces
) -> None:
    second = timedelta(seconds=1)
    shop.sagas.policy = Policy(resend_first=second, resend_ceiling=second)
    check_queue(shop.broker, stock.queue)
    with EmbeddedWorkers([shop.orchestrator()]):
        run = shop.start()
        wait_until(lambda: shop.queued() == 1, "the command is in its queue")
        assert shop.purge() == 1
    with EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]):
        wait_until(lambda: shop.waits(run), "the saga waits")

    again = traces.named("send stock.reserve again")
    assert again
    handled = traces.one("process stock.reserve")
    assert handled.parent in [span.id for span in again]
    assert {span.trace for span in traces.spans} == {traces.one("start ordering").trace}
    assert sum(value for _, value in traces.metrics()["saga.command.resends"]) == len(again)


def test_a_signal_over_the_broker_goes_on_in_its_senders_trace(shop: Shop, traces: Traces) -> None:
    another = traces.provider.get_tracer("another service")
    with EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]), Celery(broker=shop.broker) as sender:
        run = shop.start()
        with another.start_as_current_span("click") as click:
            context = click.get_span_context()
            parent = f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-01"
            headers = {"traceparent": parent, "tracestate": "shop=1"}
            for its_id, carried in (("first", headers), ("late", {"traceparent": "nonsense"})):
                where: Any = kombu_queue(shop.sagas.reply_queue)  # Celery takes it, too
                sender.send_task(
                    "ordering.signal.approval",
                    args=[run.id, {"approver": "ann"}],
                    task_id=its_id,
                    queue=where,
                    headers=carried,
                )
        wait_until(lambda: len(traces.named("signal ordering")) == 2, "both signals are stored")
        shop.sagas.wait(run)
        wait_until(lambda: bool(traces.named("saga ordering")), "the end is told")

    said, late = traces.named("signal ordering")
    assert (said.trace, said.parent) == (traces.one("click").trace, traces.one("click").id)
    assert late.parent is None
    assert traces.one("wait approve").links == [(said.trace, said.id)]
    kept = {row.said_id: dict(row.trace or {}) for row in shop.sagas.signals()}
    assert kept["first"] == {"traceparent": f"00-{said.trace}-{said.id}-01", "tracestate": "shop=1"}
    assert kept["late"].keys() == {"traceparent"}
    assert kept["late"]["traceparent"].startswith(f"00-{late.trace}-{late.id}-")


def test_what_was_started_where_nothing_is_traced_is_one_trace_too(shop: Shop) -> None:
    run = shop.start()
    with traced() as traces, EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]):
        wait_until(lambda: shop.waits(run), "the saga waits")

    assert {"step note", "send stock.reserve", "process stock.reserve"} <= set(names(traces.spans))
    assert {span.trace for span in traces.spans} == {run.id.replace("-", "")}


def sent(patch: pytest.MonkeyPatch) -> list[WireMessage]:
    """All that is published in this process from now on."""
    found: list[WireMessage] = []
    for kind in (AmqpPublisher, KombuPublisher):
        publish_it = kind.publish

        def noted(self: Any, messages: Sequence[WireMessage], publish_it: Any = publish_it) -> Any:
            found.extend(messages)
            return publish_it(self, messages)

        patch.setattr(kind, "publish", noted)
    return found


CARRIERS: Final = (saga_instance, saga_signal, saga_outbox, saga_event)


def kept(shop: Shop) -> list[Any]:
    """The contexts in rows, of all tables that have one."""
    found: list[Any] = []
    for engine in (shop.sagas.engine, shop.participant.engine):
        with engine.connect() as connection:
            for table in CARRIERS:
                found += connection.scalars(select(table.c.trace))
    return found


@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
def test_commands_replies_events_and_rows_have_a_context_only_if_it_is_switched_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    messages = sent(monkeypatch)
    shop.failures = 1
    with (
        traced() if on else nullcontext(),
        EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]),
    ):
        run = shop.start()
        wait_until(lambda: shop.waits(run), "the saga waits")
        wait_until(lambda: shop.heard == [1], "the event is handled")
        rows = kept(shop)  # that of the event in its inbox goes on
        shop.sagas.signal(run, Approval(approver="ann"))
        rows += kept(shop)
        shop.sagas.wait(run)

    carried = {message.headers["task"]: carried_by(message.headers).keys() for message in messages}
    assert carried.keys() >= {
        *("stock.reserve", "stock.reserve.response.failure", "stock.reserve.response.success"),
        *("stock.stock_taken", "stock.charge", "stock.release", "stock.release.response.success"),
    }
    assert set(map(frozenset, carried.values())) == {frozenset({"traceparent"} if on else ())}
    assert len(rows) >= 4
    assert all((row is not None) == on for row in rows)
    # Each message has one of its own, and all are of one trace.
    parents = {message.headers["traceparent"] for message in messages if on}
    assert len(parents) == (len(messages) if on else 0)
    assert len({parent.split("-")[1] for parent in parents}) == int(on)


def test_sagas_are_counted_by_how_they_ended_and_their_steps_are_timed(shop: Shop, traces: Traces) -> None:
    shop.failures = 1
    with EmbeddedWorkers([shop.orchestrator(), shop.stockroom()]):
        run = shop.start()
        shop.sagas.signal(run, Approval(approver="ann"))
        shop.sagas.wait(run)
        wait_until(lambda: bool(traces.named("saga ordering")), "the end is told")

    found = traces.metrics()
    assert found["saga.started"] == [({"saga": "ordering"}, 1)]
    assert found["saga.ended"] == [({"saga": "ordering", "status": "compensated", "outcome": "refused"}, 1)]
    assert found["saga.step.retries"] == [({"saga": "ordering", "task": "stock.reserve"}, 1)]
    steps = {(of["step"], of["kind"], of["result"]): count for of, count in found["saga.step.duration"]}
    assert steps == {
        ("note", "step", "succeeded"): 1,
        ("reserve", "step", "attempt_failed"): 1,
        ("reserve", "step", "succeeded"): 1,
        ("charge", "step", "refused"): 1,
        ("reserve", "compensate", "compensated"): 1,
        ("note", "compensate", "compensated"): 1,
    }
    assert sum(count for _, count in found["saga.reply.commit.duration"]) == 4
    assert sum(count for _, count in found["saga.timekeeper.lag"]) >= 2
