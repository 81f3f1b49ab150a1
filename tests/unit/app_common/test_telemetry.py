"""Where spans and measurements go, as OpenTelemetry's standard variables say it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider

from app_common import telemetry
from app_common.settings import SettingError
from app_common.telemetry import TelemetrySettings, set_up, telemetry_settings, trace_requests
from sagas_framework import disable_telemetry
from sagas_framework.telemetry import active

OFF = TelemetrySettings("none", "none", "localhost", 9464)
Say = Callable[..., None]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Says it in the environment, in which nothing is said so far; afterwards it is switched off."""

    def say(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_{name}", value)

    for name in ("TRACES_EXPORTER", "METRICS_EXPORTER", "SDK_DISABLED", "SERVICE_NAME"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)
    for name in ("HOST", "PORT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_PROMETHEUS_{name}", raising=False)
    yield say
    for provider in telemetry._providers:
        if hasattr(provider, "shutdown"):
            provider.shutdown()
    telemetry._providers.clear()
    disable_telemetry()


@pytest.mark.parametrize(
    "nothing",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "", "OTEL_METRICS_EXPORTER": "", "OTEL_EXPORTER_PROMETHEUS_PORT": ""},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": " none "},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "prometheus", "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_it_is_off_unless_an_exporter_is_named(nothing: dict[str, str]) -> None:
    assert telemetry_settings(nothing) == OFF
    assert not telemetry_settings(nothing).on


def test_each_exporter_switches_it_on() -> None:
    assert telemetry_settings({"OTEL_TRACES_EXPORTER": "otlp"}).on
    assert telemetry_settings({"OTEL_METRICS_EXPORTER": "otlp"}).on
    asked = telemetry_settings(
        {
            "OTEL_METRICS_EXPORTER": "prometheus",
            "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
            "OTEL_EXPORTER_PROMETHEUS_PORT": "9999",
        }
    )
    assert asked == TelemetrySettings("none", "prometheus", "0.0.0.0", 9999)
    assert asked.on


@pytest.mark.parametrize(
    ("variable", "wrong", "told"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "is 'jaeger', not one of otlp, none.*=otlp"),
        ("OTEL_TRACES_EXPORTER", "prometheus", "is 'prometheus', not one of otlp, none.*=otlp"),
        ("OTEL_METRICS_EXPORTER", "OTLP", "is 'OTLP', not one of otlp, prometheus, none.*=otlp"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "http", "is 'http', not a port from 1 to 65535.*=9464"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "0", "is '0', not a port.*=9464"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "65536", "is '65536', not a port.*=9464"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "\u0663", "not a port.*=9464"),
    ],
)
def test_a_wrong_value_is_told_with_what_to_write(variable: str, wrong: str, told: str) -> None:
    with pytest.raises(SettingError, match=f"{variable} {told}" if told.startswith("is") else told) as error:
        telemetry_settings({variable: wrong})

    assert error.value.variable == variable


def test_where_nothing_is_asked_for_nothing_is_set_up(say: Say) -> None:
    assert set_up("order_service", orchestrator=True) is False
    assert active() is None


def test_a_service_is_called_by_its_name_unless_the_environment_names_it(say: Say) -> None:
    say(TRACES_EXPORTER="otlp", SERVICE_NAME="orders of the shop")

    assert set_up("order_service") is True

    tracers, meters = telemetry._providers
    assert isinstance(tracers, TracerProvider)
    assert tracers.resource.attributes["service.name"] == "orders of the shop"
    assert isinstance(meters, NoOpMeterProvider)
    assert active() is not None


def test_it_is_set_up_once_however_often_it_is_asked_for(say: Say) -> None:
    say(TRACES_EXPORTER="otlp")
    assert set_up("order_service")
    first: list[Any] = [*telemetry._providers, active()]

    assert set_up("order_service", orchestrator=True)

    assert [*telemetry._providers, active()] == first


def test_only_the_orchestrators_worker_has_a_port_for_prometheus(say: Say) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        say(METRICS_EXPORTER="prometheus", EXPORTER_PROMETHEUS_PORT=str(port))

        assert set_up("accounting_service")  # it asks for no port, so that none is taken

        tracers, meters = telemetry._providers
        assert isinstance(tracers, NoOpTracerProvider)
        assert isinstance(meters, NoOpMeterProvider)


def test_a_port_that_is_taken_is_told_with_another(say: Say) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        say(METRICS_EXPORTER="prometheus", EXPORTER_PROMETHEUS_PORT=str(port))

        told = rf"OTEL_EXPORTER_PROMETHEUS_PORT is {port}, where Prometheus cannot ask.*PORT={port + 1}"
        with pytest.raises(SettingError, match=told):
            set_up("order_service", orchestrator=True)

    assert active() is None


def test_requests_are_not_touched_when_it_is_off(say: Say) -> None:
    web = Flask("order_service")

    trace_requests(web, "order_service")

    assert not web.before_request_funcs
    assert not web.after_request_funcs
