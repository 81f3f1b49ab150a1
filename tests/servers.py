"""Servers for tests: those that run on this machine already, and those that a test starts for itself.

A server that was found is shared with everybody: a test gets a database, virtual host or database
number of its own there, and must not stop, reset or fill it. `OwnPostgres` and `OwnRabbitmq` are
for tests that do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from kombu import Connection

POSTGRES_VARIABLE: Final = "SAGAS_TEST_POSTGRES"
RABBITMQ_VARIABLE: Final = "SAGAS_TEST_RABBITMQ"
MANAGEMENT_VARIABLE: Final = "SAGAS_TEST_RABBITMQ_MANAGEMENT"
REDIS_VARIABLE: Final = "SAGAS_TEST_REDIS"

_POSTGRES: Final = ("postgresql://postgres@127.0.0.1/postgres", "postgresql://root@127.0.0.1/postgres")
_RABBITMQ: Final = "amqp://guest:guest@127.0.0.1:5672/"
_REDIS: Final = "redis://127.0.0.1:6379"

_READY_WITHIN: Final = 60.0  # seconds; a broker on a busy machine takes its time


class Missing(Exception):
    """A server, or the programs to start one, cannot be had here."""


def skip_or_fail(missing: Missing) -> NoReturn:
    """Skip the test on a laptop; in CI a missing server is a failure."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"MISSING SERVER, and this is CI: {missing}", pytrace=False)
    pytest.skip(f"MISSING SERVER: {missing}")


def random_name() -> str:
    return f"sagas_test_{uuid4().hex[:12]}"


_PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to connections that go out, which would take one between here and its use."""
_claimed: Final[set[int]] = set()


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now, and which no other run of these tests gets while this one lasts.

    Raises:
        RuntimeError: there are not so many.
    """
    claims = _port_claims()
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if port in _claimed:
            continue
        try:
            fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:  # another run's
            continue
        _claimed.add(port)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found.append(port)
    raise RuntimeError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop}; see {claims.name}")


@cache
def _port_claims() -> IO[bytes]:
    """A file of which this process locks one byte for each port, until it ends; it is never closed."""
    return (Path(tempfile.gettempdir()) / f"sagas_test_ports_{os.getuid()}").open("ab")


def wait_until(ready: Callable[[], bool], what: str, within: float = _READY_WITHIN) -> None:
    """Wait for another process.

    Raises:
        TimeoutError: it is not ready in time.
    """
    until = time.monotonic() + within
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {within:g} s: {what}")
        time.sleep(0.05)


class Ahead:
    """Makes one thing ahead of whoever takes it, and drops later what was given back: nobody waits for it.

    Args:
        make: makes one; its address.
        drop: takes an address made by `make`.
    """

    def __init__(self, make: Callable[[], str], drop: Callable[[str], None]) -> None:
        self._make, self._drop = make, drop
        self._making = ThreadPoolExecutor(1, "making")
        self._dropping = ThreadPoolExecutor(1, "dropping")
        self._next: Future[str] | None = None
        self._dropped: list[Future[None]] = []

    def take(self) -> str:
        """The address of one that nobody else has. What `make` raises is raised here."""
        taken = self._next or self._making.submit(self._make)
        self._next = self._making.submit(self._make)
        return taken.result()

    def give_back(self, address: str) -> None:
        """Have it dropped soon."""
        self._dropped.append(self._dropping.submit(self._drop, address))

    def close(self) -> None:
        """Drop the one that nobody took and wait for the others. What `drop` raised is raised here."""
        self._making.shutdown()
        if self._next is not None and self._next.exception() is None:
            self.give_back(self._next.result())
        self._dropping.shutdown()
        for dropped in self._dropped:
            dropped.result()


# ---- PostgreSQL -----------------------------------------------------------------------------------


class PostgresServer:
    """A PostgreSQL server on which databases may be made.

    Raises:
        Missing: none answers at the addresses tried.
    """

    def __init__(self, *urls: str) -> None:
        given = os.environ.get(POSTGRES_VARIABLE)
        tried = urls or ((given,) if given else _POSTGRES)
        for url in tried:
            try:
                psycopg.connect(url, connect_timeout=3).close()
            except psycopg.OperationalError as error:
                why = str(error).strip().splitlines()[0]
            else:
                self.url = url
                return
        raise Missing(
            f"PostgreSQL. Tried {' and '.join(tried)}: {why}. "
            f"Start one, or give another address in {POSTGRES_VARIABLE}."
        )

    def create(self) -> str:
        """Make a database; its address."""
        name = random_name()
        self._run(f"CREATE DATABASE {name}")
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop(self, url: str) -> None:
        """Drop a database made by `create`, also when connections to it linger."""
        self._run(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)")

    @contextlib.contextmanager
    def not_made_yet(self, services: Iterable[str]) -> Iterator[str]:
        """The address of databases that do not exist yet, with ``{service}`` in it; dropped afterwards."""
        template = urlunsplit(urlsplit(self.url)._replace(path=f"/{random_name()}_{{service}}"))
        yield template
        for service in services:
            self.drop(template.replace("{service}", service))

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


# ---- RabbitMQ -------------------------------------------------------------------------------------


class VirtualHosts(Protocol):
    """A way to make virtual hosts on a broker."""

    def create(self, name: str, user: str) -> None: ...
    def drop(self, name: str) -> None: ...


class ByManagement:
    """Through the HTTP API of the management plugin."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._credentials = b64encode(f"{user}:{password}".encode()).decode()

    def create(self, name: str, user: str) -> None:
        self._ask("PUT", f"/api/vhosts/{quote(name, safe='')}")
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        self._ask("PUT", f"/api/permissions/{quote(name, safe='')}/{quote(user, safe='')}", rights)

    def drop(self, name: str) -> None:
        self._ask("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def _ask(self, method: str, path: str, body: Any = None) -> None:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {self._credentials}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()


class ByRabbitmqctl:
    """Through the command line, for a broker on this machine."""

    def create(self, name: str, user: str) -> None:
        self._run("add_vhost", name)
        self._run("set_permissions", "-p", name, user, ".*", ".*", ".*")

    def drop(self, name: str) -> None:
        self._run("delete_vhost", name)

    @staticmethod
    def _run(*arguments: str) -> None:
        subprocess.run(["rabbitmqctl", *arguments], check=True, capture_output=True, timeout=60)


class RabbitmqServer:
    """A RabbitMQ broker on which virtual hosts may be made.

    Raises:
        Missing: none answers at the address, or it lets us make no virtual hosts.
    """

    def __init__(self) -> None:
        self.url = os.environ.get(RABBITMQ_VARIABLE) or _RABBITMQ
        if (why := trouble_with_broker(self.url)) is not None:
            raise Missing(
                f"RabbitMQ. Tried {self.url}: {why}. "
                f"Start one, or give another address in {RABBITMQ_VARIABLE}."
            )
        parts = urlsplit(self.url)
        self._user = unquote(parts.username or "guest")
        management = os.environ.get(MANAGEMENT_VARIABLE) or f"http://{parts.hostname}:15672"
        ways: list[VirtualHosts] = [
            ByManagement(management, self._user, unquote(parts.password or "guest")),
            ByRabbitmqctl(),
        ]
        for way in ways:
            # rabbitmqctl may speak to another broker than this one, so a virtual host counts once it is seen.
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self._hosts = way
                url = self.create()
                seen = trouble_with_broker(url) is None
                self.drop(url)
                if seen:
                    return
        raise Missing(
            f"RabbitMQ. {self.url} answers, but virtual hosts for tests can be made neither through "
            f"{management} (enable the management plugin, or give its address in {MANAGEMENT_VARIABLE}) "
            f"nor by rabbitmqctl (run the tests as a user who may use it)."
        )

    def create(self) -> str:
        """Make a virtual host; its address."""
        name = random_name()
        self._hosts.create(name, self._user)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop(self, url: str) -> None:
        """Drop a virtual host made by `create`, with its queues and connections."""
        self._hosts.drop(urlsplit(url).path[1:])


def trouble_with_broker(url: str) -> str | None:
    """Why no connection can be opened there; None when one can."""
    with Connection(url, connect_timeout=3) as connection:
        try:
            connection.connect()
        except Exception as error:
            return str(error) or type(error).__name__
        return None


# ---- Redis ----------------------------------------------------------------------------------------


class RedisServer:
    """A Redis server with numbered databases.

    Raises:
        Missing: none answers at the address.
    """

    def __init__(self) -> None:
        self.url = (os.environ.get(REDIS_VARIABLE) or _REDIS).rstrip("/")
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=3) as client:
                client.ping()
        except redis.RedisError as error:
            raise Missing(
                f"Redis. Tried {self.url}: {error}. Start one, or give another address in {REDIS_VARIABLE}."
            ) from None

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The address of an empty database that nobody else who runs these tests has.

        Raises:
            Missing: every database holds something.
        """
        # Number 0 is where people keep things, so only the claims are there.
        with redis.Redis.from_url(f"{self.url}/0") as claims:
            for number in range(15, 0, -1):
                claim, url = f"sagas_test:database:{number}", f"{self.url}/{number}"
                if not claims.set(claim, "in use", nx=True, ex=3600):
                    continue
                try:
                    with redis.Redis.from_url(url) as client:
                        if client.dbsize() == 0:
                            try:
                                yield url
                            finally:
                                client.flushdb()
                            return
                finally:
                    claims.delete(claim)
        raise Missing(f"Redis. {self.url} answers, but its databases 1 to 15 all hold something.")


# ---- servers of one's own -------------------------------------------------------------------------


class OwnPostgres:
    """A PostgreSQL of the test's own, to be stopped, killed and emptied.

    Args:
        settings: lines for its ``postgresql.conf``.

    Raises:
        Missing: initdb or postgres is not installed.
    """

    def __init__(self, settings: str = "") -> None:
        self._settings = settings
        self._binaries = self._find()
        self._user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        if self._user is not None and not any(known.pw_name == self._user for known in pwd.getpwall()):
            self._user = "nobody"
        # Not pytest's temporary folder: that one is closed to the user whom the server runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="sagas_postgres_"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        [self._port] = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._resets = 0
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self.used = False
        self._initialize()

    @staticmethod
    def _find() -> Path:
        debians = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: f.parent.name)
        on_path = shutil.which("initdb")
        for folder in [*([Path(on_path).resolve().parent] if on_path else []), *reversed(debians)]:
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return folder
        raise Missing(
            "a PostgreSQL of the test's own. Looked for initdb and postgres on PATH and in "
            "/usr/lib/postgresql; install the PostgreSQL server (it need not run)."
        )

    def start(self) -> None:
        """Start it and wait until it takes connections; nothing if it runs."""
        if self._process is not None:
            return
        self.used = True
        # After a kill the old backends may still hold the shared memory; then the server gives up at once.
        until = time.monotonic() + _READY_WITHIN
        while True:
            self._process = self._popen("postgres", "-D", str(self._data))
            try:
                wait_until(self._settled, f"PostgreSQL on port {self._port}; see {self._log}")
            except TimeoutError:
                self.kill()
                raise
            if self._process.poll() is None:
                return
            self._process = None
            if time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it properly: every session is ended, every transaction rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill it with -9, as when the machine's power fails."""
        self._end(signal.SIGKILL)

    def reset(self) -> None:
        """Lose everything it holds, then start it again."""
        self.kill()
        self._resets += 1  # another folder: a backend that outlives its server may still write to this one
        self._initialize()
        self.start()

    def create(self) -> str:
        """Make a database; its address."""
        return PostgresServer(self.url).create()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / f"data_{self._resets}"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _initialize(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        initdb = self._popen("initdb", f"--pgdata={self._data}", *options)
        if initdb.wait(timeout=_READY_WITHIN) != 0:
            raise RuntimeError(f"initdb failed: {self._log.read_text()[-2000:]}")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self._port}\n"
                f"unix_socket_directories = '{self._folder}'\nshared_buffers = 32MB\n{self._settings}\n"
            )

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(self._binaries / program), *arguments],
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _settled(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            return True
        try:
            psycopg.connect(self.url, connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(timeout=_READY_WITHIN)


class OwnRabbitmq:
    """A RabbitMQ node of the test's own, to be stopped, killed and emptied.

    Args:
        settings: further lines of its rabbitmq.conf.

    Raises:
        Missing: rabbitmq-server or epmd is not installed.
    """

    def __init__(self, settings: str = "") -> None:
        # Debian's wrapper in /usr/sbin refuses everybody but two users, so what it wraps comes first.
        server = shutil.which("rabbitmq-server", path=f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}")
        epmd = shutil.which("epmd")
        if server is None or epmd is None:
            raise Missing(
                "a RabbitMQ of the test's own. Looked for rabbitmq-server and epmd on PATH and in "
                "/usr/lib/rabbitmq/bin; install RabbitMQ (it need not run)."
            )
        self._server = Path(server)
        self._folder = Path(tempfile.mkdtemp(prefix="sagas_rabbitmq_"))
        port, distribution, names = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self.used = False
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(uuid4().hex)
        cookie.chmod(0o400)
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text(f"disk_free_limit.absolute = 10MB\n{settings}\n")
        (self._folder / "rabbitmq-env.conf").write_text("")
        (self._folder / "advanced.config").write_text("[].\n")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"sagas_test_{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self._folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
        }
        # A name server of its own, so that none is left behind and none is shared with the machine's broker.
        self._names = self._popen(epmd)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections; nothing if it runs."""
        if self._process is not None:
            return
        self.used = True
        self._process = self._popen(str(self._server))
        try:
            wait_until(self._settled, f"RabbitMQ at {self.url}; see {self._folder}/output")
        except TimeoutError:
            self.kill()
            raise
        if self._process.poll() is not None:
            self._process = None
            output = (self._folder / "output").read_text(errors="replace")
            raise RuntimeError(f"RabbitMQ does not start: {output[-2000:]}")

    def stop(self) -> None:
        """Stop it properly; what is durable is there again after the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with -9."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: its connections stay open, and nothing is answered until `resume`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def reset(self) -> None:
        """Lose every queue and message, then start it again."""
        self.kill()
        shutil.rmtree(self._folder / "data", ignore_errors=True)
        self.start()

    def ctl(self, *arguments: str) -> str:
        """What rabbitmqctl says, asked of this node."""
        rabbitmqctl = self._server.with_name("rabbitmqctl")
        done = subprocess.run(
            [str(rabbitmqctl), "--quiet", *arguments],
            env=self._environment,
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=_READY_WITHIN,
        )
        return done.stdout.decode()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.kill()
        self._names.kill()
        self._names.wait(timeout=_READY_WITHIN)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _popen(self, program: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                [program],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _settled(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None or trouble_with_broker(self.url) is None

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The script hands SIGTERM on to the node; SIGKILL must reach both.
        with contextlib.suppress(ProcessLookupError):
            if how is signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
        process.wait(timeout=_READY_WITHIN)


class OwnRedis:
    """A Redis of the test's own, to be stopped and filled. It keeps nothing on disk.

    Raises:
        Missing: redis-server is not installed.
    """

    def __init__(self) -> None:
        server = shutil.which("redis-server")
        if server is None:
            raise Missing(
                "a Redis of the test's own. Looked for redis-server on PATH; install Redis (it need not run)."
            )
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="sagas_redis_"))
        [self._port] = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it takes connections; nothing if it runs."""
        if self._process is not None:
            return
        settings = ["--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._server, *settings, "--dir", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(self._answers, f"Redis on port {self._port}; see {self._folder}/output")

    def kill(self) -> None:
        """Kill it with -9; what it held is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=_READY_WITHIN)

    def configure(self, name: str, value: str) -> None:
        """Change a setting while it runs."""
        with redis.Redis.from_url(self.url) as client:
            client.config_set(name, value)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
