"""Fixtures that every test may use: servers, and databases of one's own on them."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import (
    Ahead,
    Missing,
    OwnPostgres,
    OwnRabbitmq,
    OwnRedis,
    PostgresServer,
    RabbitmqServer,
    RedisServer,
    skip_or_fail,
)

# How fast examples are made and tried says something about the machine, which may have more to do.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_celery_state: Final[Any] = import_module("celery._state")  # its types know nothing of it
_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)


# ---- what is one for the whole process ------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed goes to the other process as UTF-8, which has no half of a surrogate pair."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """Put back what a test may change for all that come after it in this process.

    mypy sets the recursion limit and the collector's thresholds; programs take signals. A Celery worker
    leaves word that nobody may wait for a result in its process, also when it was one of a whole module.
    """
    _celery_state._set_task_join_will_block(False)
    current = _celery_state._tls.current_app
    recursion, collector, folder = sys.getrecursionlimit(), gc.get_threshold(), Path.cwd()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    yield
    _celery_state._tls.current_app = current
    sys.setrecursionlimit(recursion)
    gc.set_threshold(*collector)
    os.chdir(folder)
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


# ---- servers found on this machine ----------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer | Missing:
    """The PostgreSQL of this machine, or why there is none: looked for once."""
    try:
        return PostgresServer()
    except Missing as missing:
        return missing


@pytest.fixture(scope="session")
def rabbitmq_server() -> RabbitmqServer | Missing:
    """The RabbitMQ of this machine, or why there is none: looked for once."""
    try:
        return RabbitmqServer()
    except Missing as missing:
        return missing


@pytest.fixture(scope="session")
def redis_server() -> RedisServer | Missing:
    """The Redis of this machine, or why there is none: looked for once."""
    try:
        return RedisServer()
    except Missing as missing:
        return missing


# ---- databases and virtual hosts of one's own on them ---------------------------------------------


@pytest.fixture(scope="session")
def _databases(postgres_server: PostgresServer | Missing) -> Iterator[Ahead]:
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    databases = Ahead(postgres_server.create, postgres_server.drop)
    yield databases
    databases.close()


@pytest.fixture
def postgres_urls(_databases: Ahead) -> Iterator[Callable[[], str]]:
    """Makes fresh PostgreSQL databases: one for each call."""
    made: list[str] = []

    def make() -> str:
        made.append(_databases.take())
        return made[-1]

    yield make
    for url in made:
        _databases.give_back(url)


@pytest.fixture
def postgres_url(postgres_urls: Callable[[], str]) -> str:
    """A fresh PostgreSQL database for this test."""
    return postgres_urls()


@pytest.fixture(scope="module")
def postgres_module_url(_databases: Ahead) -> Iterator[str]:
    """A PostgreSQL database that the tests of one module share; each leaves it as it found it."""
    url = _databases.take()
    yield url
    _databases.give_back(url)


@pytest.fixture(scope="session")
def _virtual_hosts(rabbitmq_server: RabbitmqServer | Missing) -> Iterator[Ahead]:
    if isinstance(rabbitmq_server, Missing):
        skip_or_fail(rabbitmq_server)
    hosts = Ahead(rabbitmq_server.create, rabbitmq_server.drop)
    yield hosts
    hosts.close()


@pytest.fixture
def rabbitmq_url(_virtual_hosts: Ahead) -> Iterator[str]:
    """A fresh virtual host for this test. Making one takes a second; see `rabbitmq_module_url`."""
    url = _virtual_hosts.take()
    yield url
    _virtual_hosts.give_back(url)


@pytest.fixture(scope="module")
def rabbitmq_module_url(_virtual_hosts: Ahead) -> Iterator[str]:
    """A virtual host that the tests of one module share; each names its queues at random."""
    url = _virtual_hosts.take()
    yield url
    _virtual_hosts.give_back(url)


@pytest.fixture
def redis_url(redis_server: RedisServer | Missing) -> Iterator[str]:
    """An empty Redis database for this test."""
    if isinstance(redis_server, Missing):
        skip_or_fail(redis_server)
    try:
        with redis_server.database() as url:
            yield url
    except Missing as missing:
        skip_or_fail(missing)


@pytest.fixture
def sqlite_urls(tmp_path: Path) -> Callable[[], str]:
    """Names fresh SQLite files: one for each call."""
    names = iter(range(1000))
    return lambda: f"sqlite:///{tmp_path}/database_{next(names)}.sqlite"


@pytest.fixture
def sqlite_url(sqlite_urls: Callable[[], str]) -> str:
    """A fresh SQLite file for this test."""
    return sqlite_urls()


# ---- servers of one's own, to be stopped and reset -------------------------------------------------


@pytest.fixture(scope="session")
def _own_postgres() -> Iterator[OwnPostgres | Missing]:
    try:
        server = OwnPostgres()
    except Missing as missing:
        yield missing
        return
    yield server
    server.close()


@pytest.fixture(scope="session")
def _own_rabbitmq() -> Iterator[OwnRabbitmq | Missing]:
    try:
        server = OwnRabbitmq()
    except Missing as missing:
        yield missing
        return
    yield server
    server.close()


@pytest.fixture
def own_postgres(_own_postgres: OwnPostgres | Missing) -> OwnPostgres:
    """A PostgreSQL that this test may stop, kill, reset and fill: empty and running.

    The node itself is started once for all tests and emptied between them.
    """
    if isinstance(_own_postgres, Missing):
        skip_or_fail(_own_postgres)
    if _own_postgres.used:
        _own_postgres.reset()
    _own_postgres.start()
    return _own_postgres


@pytest.fixture
def own_rabbitmq(_own_rabbitmq: OwnRabbitmq | Missing) -> OwnRabbitmq:
    """A RabbitMQ that this test may stop, kill, reset and fill: empty and running.

    The node itself is started once for all tests and emptied between them.
    """
    if isinstance(_own_rabbitmq, Missing):
        skip_or_fail(_own_rabbitmq)
    if _own_rabbitmq.used:
        _own_rabbitmq.reset()
    _own_rabbitmq.start()
    return _own_rabbitmq


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    """A Redis that this test may kill and fill: empty and running."""
    try:
        server = OwnRedis()
    except Missing as missing:
        skip_or_fail(missing)
    server.start()
    yield server
    server.close()
