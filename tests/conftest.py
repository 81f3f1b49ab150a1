"""Fixtures that every test may use: servers, and databases of one's own on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import (
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


@pytest.fixture
def postgres_urls(postgres_server: PostgresServer | Missing) -> Iterator[Callable[[], str]]:
    """Makes fresh PostgreSQL databases: one for each call."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    made: list[str] = []

    def make() -> str:
        made.append(postgres_server.create())
        return made[-1]

    yield make
    for url in made:
        postgres_server.drop(url)


@pytest.fixture
def postgres_url(postgres_urls: Callable[[], str]) -> str:
    """A fresh PostgreSQL database for this test."""
    return postgres_urls()


@pytest.fixture(scope="module")
def postgres_module_url(postgres_server: PostgresServer | Missing) -> Iterator[str]:
    """A PostgreSQL database that the tests of one module share; each leaves it as it found it."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitmqServer | Missing) -> Iterator[str]:
    """A fresh virtual host for this test. Making one takes a second; see `rabbitmq_module_url`."""
    if isinstance(rabbitmq_server, Missing):
        skip_or_fail(rabbitmq_server)
    url = rabbitmq_server.create()
    yield url
    rabbitmq_server.drop(url)


@pytest.fixture(scope="module")
def rabbitmq_module_url(rabbitmq_server: RabbitmqServer | Missing) -> Iterator[str]:
    """A virtual host that the tests of one module share; each names its queues at random."""
    if isinstance(rabbitmq_server, Missing):
        skip_or_fail(rabbitmq_server)
    url = rabbitmq_server.create()
    yield url
    rabbitmq_server.drop(url)


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
