"""Settings, read from environment variables. A wrong one is told by name, with what to write.

| variable | default | what |
|---|---|---|
| `CELERY_BROKER` | `amqp://rabbitmq:rabbitmq@localhost//` | where commands and replies travel |
| `CELERY_RESULT_BACKEND` | none | where a saga's outcome is also stored as a Celery result |
| `APP_SQLALCHEMY_DATABASE_URI` | SQLite files in `DEMO_DATA` | `{service}` in it becomes the service's name |
| `CONSUMER_TIMEOUT`, `RESTAURANT_TIMEOUT`, `ACCOUNTING_TIMEOUT` | 300 | seconds a service has to answer |
| `INVENTORY_TIMEOUT`, `DELIVERY_TIMEOUT` | 300 | the same |
| `APPROVAL_THRESHOLD` | 1000.00 | an order of this total or more waits for an approval |
| `APPROVAL_DEADLINE` | 86400: a day | seconds after which nobody can approve an order any more |
| `APPROVER_TOKENS` | none | who may approve orders: `chris:<token>,ann:<token>` |
| `SAGA_RETENTION` | 7776000: 90 days | seconds after which a saga that has ended goes to the archive |
| `SAGA_ARCHIVE` | `archive` in `DEMO_DATA` | folder of the archive |
| `COMMAND_BATCH` | none: as Celery tasks | how many commands a service handles in one transaction, at most |
| `ORDER_SERVICE_PORT` | 5000 | of the homepage |
| `NOTIFICATION_SERVICE_PORT` | 3001 | of the notifications' page |
| `INVENTORY_SERVICE_PORT` | 3002 | of the stock's page |
| `DELIVERY_SERVICE_PORT` | 3004 | of the shipping's page |
| `ORDER_SERVICE_DOCS_PORT`, `CONSUMER_SERVICE_DOCS_PORT`, ... | 8081, 8082, ... | of their docs sites |
| `OPERATOR_TOKENS` | none | who may change stock and shipping: `ann:<token>,ben:<token>` |
| `LOW_STOCK` | 3 | an item of which fewer are left is low |
| `ORDER_SERVICE_OPERATORS` | none | names, with commas between, of those who may act on sagas on the pages |
| `ORDER_SERVICE_SECRET_KEY` | none | signs the forms of the pages; needed with operators |
| `DEMO_DATA` | `var/demo` | folder of the demo's databases and log |
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app_common.people import SHORTEST_TOKEN, People

DEFAULT_BROKER: Final = "amqp://rabbitmq:rabbitmq@localhost//"
DEFAULT_STEP_TIMEOUT: Final = "300"
FIRST_DOCS_PORT: Final = 8081
DATABASE_VARIABLE: Final = "APP_SQLALCHEMY_DATABASE_URI"
OPERATOR_TOKENS: Final = "OPERATOR_TOKENS"
APPROVER_TOKENS: Final = "APPROVER_TOKENS"
PAGES: Final = {
    "order_service": 5000,
    "notification_service": 3001,
    "inventory_service": 3002,
    "delivery_service": 3004,
}
"""The default ports of the services that have pages of their own."""
DEFAULT_LOW_STOCK: Final = "3"
DEFAULT_APPROVAL_THRESHOLD: Final = "1000.00"
DEFAULT_APPROVAL_DEADLINE: Final = "86400"
DEFAULT_RETENTION: Final = "7776000"


class SettingError(ValueError):
    """An environment variable cannot be used as it is. Its value is left out: it may hold a password."""

    def __init__(self, variable: str, problem: str, write: str) -> None:
        super().__init__(f"{variable} {problem}. Write it like this: {variable}={write}")
        self.variable = variable


@dataclass(frozen=True)
class ServiceSettings:
    """What a service's worker needs to know. `database` is an SQLAlchemy URL.

    `command_batch`: how many commands it handles in one transaction, at most; None: as Celery tasks.
    """

    database: str
    celery_broker: str
    result_backend: str | None
    command_batch: int | None = None


@dataclass(frozen=True)
class PageSettings:
    """Who may act on the pages, and what signs their forms. Without operators the pages only show."""

    operators: tuple[str, ...]
    secret_key: str | None


@dataclass(frozen=True)
class StepTimeouts:
    """How long an order's saga waits for each service to do its first step."""

    consumer: timedelta
    restaurant: timedelta
    accounting: timedelta
    inventory: timedelta
    delivery: timedelta


@dataclass(frozen=True)
class ApprovalSettings:
    """Orders of `threshold` or more need an approval, within `deadline` after they were taken."""

    threshold: Decimal
    deadline: timedelta


@dataclass(frozen=True)
class ArchiveSettings:
    """Sagas go to the archive `keep` after their end; `folder` may not exist yet."""

    keep: timedelta
    folder: Path


def service_settings(service: str, environ: Mapping[str, str] = os.environ) -> ServiceSettings:
    """The settings of one service.

    Raises:
        SettingError: a variable has a wrong value.
    """
    return ServiceSettings(
        database=_database(service, environ),
        celery_broker=_address(
            "CELERY_BROKER", environ.get("CELERY_BROKER") or DEFAULT_BROKER, DEFAULT_BROKER
        ),
        result_backend=_result_backend(environ),
        command_batch=_command_batch(environ),
    )


def step_timeouts(environ: Mapping[str, str] = os.environ) -> StepTimeouts:
    """The timeouts of the orders' sagas.

    Raises:
        SettingError: one is no number of seconds above 0.
    """
    return StepTimeouts(
        consumer=_seconds("CONSUMER_TIMEOUT", environ),
        restaurant=_seconds("RESTAURANT_TIMEOUT", environ),
        accounting=_seconds("ACCOUNTING_TIMEOUT", environ),
        inventory=_seconds("INVENTORY_TIMEOUT", environ),
        delivery=_seconds("DELIVERY_TIMEOUT", environ),
    )


def approval_settings(environ: Mapping[str, str] = os.environ) -> ApprovalSettings:
    """Which orders must be approved, and how soon.

    Raises:
        SettingError: the threshold is no amount, or the deadline no number of seconds above 0.
    """
    variable = "APPROVAL_THRESHOLD"
    value = environ.get(variable) or DEFAULT_APPROVAL_THRESHOLD
    if re.fullmatch(r"\d{1,10}(\.\d{1,2})?", value, re.ASCII) is None:
        raise SettingError(variable, f"is {value!r}, not an amount of money", DEFAULT_APPROVAL_THRESHOLD)
    return ApprovalSettings(Decimal(value), _seconds("APPROVAL_DEADLINE", environ, DEFAULT_APPROVAL_DEADLINE))


def archive_settings(environ: Mapping[str, str] = os.environ) -> ArchiveSettings:
    """How long sagas that have ended are kept, and where they go then.

    Raises:
        SettingError: the time is none, or there is something else in the folder's place.
    """
    folder = Path(environ.get("SAGA_ARCHIVE") or demo_data(environ) / "archive").absolute()
    if folder.exists() and not folder.is_dir():
        raise SettingError("SAGA_ARCHIVE", f"names {folder}, which is not a folder", "var/archive")
    return ArchiveSettings(_seconds("SAGA_RETENTION", environ, DEFAULT_RETENTION), folder)


def approvers(environ: Mapping[str, str] = os.environ) -> People:
    """Who may approve orders.

    Raises:
        SettingError: the tokens cannot be used.
    """
    return people(APPROVER_TOKENS, environ)


def page_settings(environ: Mapping[str, str] = os.environ) -> PageSettings:
    """The settings of the pages.

    Raises:
        SettingError: there are operators and no secret key, which every web process must share.
    """
    named = (environ.get("ORDER_SERVICE_OPERATORS") or "").split(",")
    operators = tuple(name.strip() for name in named if name.strip())
    secret_key = environ.get("ORDER_SERVICE_SECRET_KEY") or None
    if operators and secret_key is None:
        raise SettingError(
            "ORDER_SERVICE_SECRET_KEY",
            "is missing, and with ORDER_SERVICE_OPERATORS the forms of the pages must be signed",
            "$(openssl rand -hex 32)",
        )
    return PageSettings(operators, secret_key)


def operators(environ: Mapping[str, str] = os.environ) -> People:
    """Who may change stock and shipping.

    Raises:
        SettingError: the tokens cannot be used.
    """
    return people(OPERATOR_TOKENS, environ)


def people(variable: str, environ: Mapping[str, str] = os.environ) -> People:
    """People with their tokens, from a variable like ``ann:<token>,ben:<token>``.

    Raises:
        SettingError: one has no name or no token, or two have the same, or a token can be guessed.
    """
    example = "ann:$(openssl rand -hex 16)"
    tokens: dict[str, str] = {}
    for entry in filter(None, map(str.strip, (environ.get(variable) or "").split(","))):
        name, _, token = (part.strip() for part in entry.partition(":"))
        if not (name and token):
            raise SettingError(variable, "has an entry that is no name with a token", example)
        if not (name.isprintable() and token.isascii() and token.isprintable()):
            raise SettingError(variable, "has signs that no name or token can have", example)
        if len(token) < SHORTEST_TOKEN:
            raise SettingError(variable, f"has a token of fewer than {SHORTEST_TOKEN} characters", example)
        if name in tokens or token in tokens.values():
            raise SettingError(variable, "has a name or a token twice", example)
        tokens[name] = token
    return People(tokens)


def low_stock(environ: Mapping[str, str] = os.environ) -> int:
    """An item of which fewer than this are left is low.

    Raises:
        SettingError: it is no number from 0 to 1,000,000.
    """
    value = environ.get("LOW_STOCK") or DEFAULT_LOW_STOCK
    if not (value.isascii() and value.isdecimal() and int(value) <= 1_000_000):
        raise SettingError(
            "LOW_STOCK", f"is {value!r}, not a number of items from 0 to 1000000", DEFAULT_LOW_STOCK
        )
    return int(value)


def order_service_port(environ: Mapping[str, str] = os.environ) -> int:
    """The port of the homepage.

    Raises:
        SettingError: it is no port.
    """
    return _port(port_variable("order_service"), str(PAGES["order_service"]), environ)


def page_ports(environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """The ports of the services' own pages, by service: the homepage's first.

    Raises:
        SettingError: one is no port, or another one's.
    """
    return _ports({port_variable(service): default for service, default in PAGES.items()}, PAGES, {}, environ)


def port_variable(service: str) -> str:
    """The variable that sets the port of the service's pages."""
    return f"{service.upper()}_PORT"


def docs_ports(services: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """The ports of the services' docs sites, by service.

    Args:
        services: in the order of their default ports, from `FIRST_DOCS_PORT` on.

    Raises:
        SettingError: one is no port, or another one's.
    """
    taken = {port: port_variable(service) for service, port in page_ports(environ).items()}
    defaults = {
        docs_port_variable(service): FIRST_DOCS_PORT + number for number, service in enumerate(services)
    }
    return _ports(defaults, services, taken, environ)


def docs_port_variable(service: str) -> str:
    """The variable that sets the port of the service's docs site."""
    return f"{service.upper()}_DOCS_PORT"


def demo_data(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the demo's databases and log, as an absolute path; it may not exist yet.

    Raises:
        SettingError: there is something else in its place.
    """
    folder = Path(environ.get("DEMO_DATA") or "var/demo").absolute()
    if folder.exists() and not folder.is_dir():
        raise SettingError("DEMO_DATA", f"names {folder}, which is not a folder", "var/demo")
    return folder


def demo_database(folder: Path) -> str:
    """Value for `APP_SQLALCHEMY_DATABASE_URI` that gives each service a file in the folder."""
    return f"sqlite:///{folder}/{{service}}.sqlite3"


def _database(service: str, environ: Mapping[str, str]) -> str:
    value = environ.get(DATABASE_VARIABLE) or demo_database(demo_data(environ))
    try:
        url = make_url(value.replace("{service}", service))
    except ArgumentError:
        raise SettingError(
            DATABASE_VARIABLE,
            "is not an SQLAlchemy URL",
            "postgresql+psycopg://user:password@localhost/{service}",
        ) from None
    if url.drivername == "postgresql":  # SQLAlchemy takes this for psycopg2, which is not what we install
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def _result_backend(environ: Mapping[str, str]) -> str | None:
    value = environ.get("CELERY_RESULT_BACKEND")
    return _address("CELERY_RESULT_BACKEND", value, "redis://localhost/0") if value else None


def _command_batch(environ: Mapping[str, str]) -> int | None:
    value = environ.get("COMMAND_BATCH")
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= 1000):
        raise SettingError("COMMAND_BATCH", f"is {value!r}, not a number of commands from 1 to 1000", "200")
    return int(value)


def _address(variable: str, value: str, example: str) -> str:
    if "://" not in value:
        raise SettingError(variable, "is not an address of the form transport://host", example)
    return value


def _port(variable: str, default: str, environ: Mapping[str, str]) -> int:
    value = environ.get(variable) or default
    if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
        raise SettingError(variable, f"is {value!r}, not a port from 1 to 65535", default)
    return int(value)


def _ports(
    defaults: Mapping[str, int], services: Iterable[str], taken: Mapping[int, str], environ: Mapping[str, str]
) -> dict[str, int]:
    """The ports of the services, by service.

    Args:
        defaults: by variable, in the order of the services.
        taken: the variables of the ports that something else has.

    Raises:
        SettingError: one is no port, or another one's.
    """
    known, ports = dict(taken), {}
    for service, (variable, default) in zip(services, defaults.items(), strict=True):
        port = _port(variable, str(default), environ)
        if port in known:
            free = next(free for free in count(default) if free not in known)
            raise SettingError(variable, f"is {port}, which {known[port]} is, too", str(free))
        known[port] = variable
        ports[service] = port
    return ports


def _seconds(variable: str, environ: Mapping[str, str], default: str = DEFAULT_STEP_TIMEOUT) -> timedelta:
    value = environ.get(variable) or default
    try:
        seconds = timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        seconds = timedelta(0)
    if seconds <= timedelta(0):
        raise SettingError(variable, f"is {value!r}, not a number of seconds above 0", default)
    return seconds
