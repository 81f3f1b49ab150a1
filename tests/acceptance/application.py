"""The whole application as processes of its own, used through its front door."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from sqlalchemy import NullPool, create_engine, make_url, text

from app_common.running import PAGED, SERVICES
from app_common.settings import docs_port_variable, port_variable
from tests.servers import free_ports, wait_until

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """What the web said. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].startswith("application/json"), self.body
        return json.loads(self.body)


@dataclass
class Application:
    """One run after the other of ``app_common.demo`` or ``app_common.local``, on the same data and ports.

    Args:
        module: what to run.
        databases: address of the services' databases, with ``{service}`` in it.
        environment: settings, beside those of this process.
        folder: for what it prints.
    """

    module: str
    databases: str
    environment: Mapping[str, str]
    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(len(PAGED) + len(SERVICES)))

    @property
    def port(self) -> int:
        """Of the homepage."""
        return self.ports[0]

    @property
    def docs(self) -> dict[str, int]:
        """The ports of the docs sites, by service."""
        return dict(zip(SERVICES, self.ports[len(PAGED) :], strict=True))

    @property
    def pages(self) -> dict[str, int]:
        """The ports of the services' own pages, by service."""
        return dict(zip(PAGED, self.ports, strict=False))

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output = self.folder / "output"

    # ---- the process ------------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def printed(self) -> str:
        """What it has printed since its last start, errors included."""
        return self._output.read_text()

    def begin(self) -> None:
        """Start the process."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start the process and return when it answers on its port."""
        self.begin()
        wait_until(lambda: self._answers() or self.process.poll() is not None, f"{self.module} on its port")
        assert self.process.poll() is None, self.printed

    def end(self, how: signal.Signals, within: float) -> int:
        """Send it a signal; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(within)

    def close(self) -> None:
        """End it if it runs, with all the processes that it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        if children := self.children():
            self._process.terminate()  # so that it stops them
            try:
                self._process.wait(45)
            except subprocess.TimeoutExpired:
                for pid in children:
                    os.killpg(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def children(self) -> dict[int, str]:
        """The processes that it has started: number and command line."""
        listed = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        processes = [line.split(None, 2) for line in listed.splitlines()]
        return {int(pid): line for pid, parent, line in processes if int(parent) == self.process.pid}

    def _env(self) -> dict[str, str]:
        own = {"NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
        own |= {port_variable(service): str(port) for service, port in self.pages.items()}
        docs = {docs_port_variable(service): str(port) for service, port in self.docs.items()}
        return {**os.environ, **own, **docs, **self.environment}

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/ping").status == 200
        except (OSError, HTTPException):
            return False

    # ---- the web ----------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        accept: str = "application/json",
        more: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> Answer:
        """One request, to the homepage's port unless told otherwise. A body is sent as JSON.

        A redirect is an answer like others.
        """
        headers = {"Accept": accept} | ({} if body is None else {"Content-Type": "application/json"})
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            connection.request(method, path, body, {**headers, **(more or {})})
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read().decode())
        finally:
            connection.close()

    def saga(self, saga_id: str) -> Any:
        """What ``GET /sagas/<id>`` says."""
        answer = self.ask("GET", f"/sagas/{saga_id}")
        assert answer.status == 200, answer.body
        return answer.json

    def entries(self, saga_id: str) -> list[str]:
        """What the saga's history says, oldest first."""
        return [line["entry"] for line in self.saga(saga_id)["history"]]

    def ended(self, saga_id: str, within: float = 60) -> Any:
        """What ``GET /sagas/<id>`` says once the saga has ended."""
        until = time.monotonic() + within
        while (saga := self.saga(saga_id))["ended_at"] is None:
            assert time.monotonic() < until, f"not ended within {within:g} s: {saga}"
            time.sleep(0.1)
        return saga

    # ---- the command line and the databases ---------------------------------------------------------

    def say(self, line: str) -> Any:
        """Run a line in the shell, as a person would, in the project's folder; what it prints, as JSON."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env=self._env(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command_line(self, *arguments: str) -> Any:
        """What ``saga`` prints as JSON, called with the line that the demo prints for trying it."""
        (line,) = [line for line in self.printed.splitlines() if "saga -A" in line]
        assert line.endswith(" list")
        return self.say(f"{line.removesuffix(' list')} --json {shlex.join(arguments)}")

    def query(self, service: str, statement: str, **values: Any) -> list[Any]:
        """Rows of a service's database."""
        url = make_url(self.databases.replace("{service}", service))
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            return list(connection.execute(text(statement), values))


def demo(folder: Path) -> Application:
    """The demo with its data in the folder; not started yet."""
    data = folder / "data"
    return Application(
        "app_common.demo", f"sqlite:///{data}/{{service}}.sqlite3", {"DEMO_DATA": str(data)}, folder
    )
