"""A service on a SQLite file, whose time is moved by hand, and what ``saga`` says of it."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sagas_framework import Sagas
from sagas_framework.cli.program import saga
from sagas_framework.core.events import ReplyReceived
from sagas_framework.core.events import Result as Answer
from sagas_framework.core.instance import Flight, SagaInstance
from sagas_framework.core.why import QueueSeen
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.ports import Beat, Quarantined
from sagas_framework.storage.sql import SqlStore
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt
from tests.unit.core.stories import NOON, REPLIES, DeliverOrderSaga, OrderState, error_of

WORKER = '''
"""The worker of order_service, with a clock that is moved by hand."""

from sagas_framework import Queue, Sagas, orchestrator_app
from tests.unit.core.stories import NOON, CreateOrderSaga, DeliverOrderSaga

time = [NOON]
sagas = Sagas(
    "order_service",
    "sqlite:///orders.sqlite3",
    sagas=[CreateOrderSaga, DeliverOrderSaga],
    reply_queue=Queue("order_service.replies"),
    clock=lambda: time[0],
)
# Nobody listens there: a command that asked the broker for anything would fail.
app = orchestrator_app(sagas, broker="amqp://guest:guest@127.0.0.1:1//")
'''

PARTICIPANT = '''
"""The worker of restaurant_service."""

from sagas_framework import Participant, participant_app
from tests.unit.core.stories import NOON, CreateTicket, RejectTicket, TicketCreated, restaurant_service

time = [NOON]
participant = Participant(restaurant_service, database="sqlite:///restaurant.sqlite3", clock=lambda: time[0])


@participant.handles(CreateTicket)
def create_ticket(command, context):
    return TicketCreated(ticket_id=7)


@participant.undoes(RejectTicket)
def reject_ticket(command, undo):
    pass


app = participant_app(participant, broker="amqp://guest:guest@127.0.0.1:1//")
'''


class NoBroker:
    """Takes every message and does nothing with it."""

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        return [Receipt.CONFIRMED for _ in messages]

    def load(self, queue: str) -> Load | None:
        return Load(0)

    def close(self) -> None:
        pass


def say(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Call ``saga`` with these arguments."""
    return CliRunner().invoke(saga, arguments, env={"SAGA_APP": None, "COLUMNS": None, **(env or {})})


def orchestrator_of(sagas: Sagas) -> Orchestrator:
    """It decides on these sagas, and sends nothing."""
    return Orchestrator(
        SqlStore(sagas.engine),
        sagas.definitions,
        NoBroker(),
        reply_to="order_service.replies",
        clock=sagas.clock,
    )


class Shop:
    """The orchestrator's side: sagas that are started, answered, and left waiting."""

    def __init__(self, folder: Path) -> None:
        (folder / "worker.py").write_text(WORKER)
        self.module: Any = importlib.import_module("worker")
        self.sagas: Sagas = self.module.sagas
        self.sagas.upgrade()
        self.orchestrator = orchestrator_of(self.sagas)

    # ---- time -------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        now: datetime = self.module.time[0]
        return now

    def after(self, seconds: float, *, lost: bool = False) -> None:
        """Time passes, and the timekeeper looks. `lost`: every queue was seen empty meanwhile."""
        self.module.time[0] += timedelta(seconds=seconds)
        queues = [queue.name for queue in self.sagas.definitions.queues]
        self.orchestrator.fire_timers(dict.fromkeys(queues, self.now) if lost else {})

    def sleeps(self, seconds: float) -> None:
        """Time passes, and nobody looks."""
        self.module.time[0] += timedelta(seconds=seconds)

    # ---- sagas ------------------------------------------------------------------------------------

    def start(self, key: str | None = "order-1", *, taken: bool = True, **state: Any) -> str:
        """Start a saga; `taken`: and let the orchestrator take it up."""
        with self.sagas.engine.begin() as connection:
            run = self.sagas.start(DeliverOrderSaga, OrderState(**state), key=key, session=connection)
        if taken:
            self.orchestrator.fire_timers({})
        return run.id

    def flight(self, saga_id: str) -> tuple[str, Flight]:
        ((record, flight),) = self.sagas.get(saga_id).in_flight()
        return record.name, flight

    def answer(
        self, saga_id: str, result: Answer, payload: Any = None, error: Mapping[str, str] | None = None
    ) -> SagaInstance:
        """The participant answers what is in flight."""
        _, flight = self.flight(saga_id)
        reply = ReplyReceived(
            saga_id, self.now, (flight.message_id,), flight.task, result, payload, error or {}
        )
        assert self.orchestrator.process([reply]) == []
        return self.sagas.get(saga_id)

    def succeeds(self, saga_id: str) -> SagaInstance:
        name, flight = self.flight(saga_id)
        return self.answer(saga_id, Answer.SUCCESS, REPLIES.get(name) if flight.kind == "do" else None)

    def fails(self, saga_id: str, error: str = "KitchenBusy") -> SagaInstance:
        return self.answer(saga_id, Answer.FAILED, error=error_of(error))

    def refuses(self, saga_id: str, error: str = "CardRefused") -> SagaInstance:
        return self.answer(saga_id, Answer.REFUSED, error=error_of(error))

    def until(self, step: str, key: str | None = "order-1", **state: Any) -> str:
        """A saga whose steps all succeed until this one's command is in flight."""
        saga_id = self.start(key, **state)
        while self.flight(saga_id)[0] != step:
            self.succeeds(saga_id)
        return saga_id

    def parked_undo(self, key: str = "order-1") -> str:
        """A saga that turned back and whose ticket could not be rejected five times."""
        saga_id = self.until("authorize_card", key)
        self.refuses(saga_id)
        for _ in range(5):
            self.fails(saga_id, "KitchenOffline")
            if not self.sagas.get(saga_id).steps["create_restaurant_ticket"].parked:
                self.after(60)
        return saga_id

    def parked_after_pivot(self, key: str = "order-1") -> str:
        """A saga whose step after the pivot was refused."""
        saga_id = self.until("start_delivery", key)
        self.refuses(saga_id, "NoCourier")
        return saga_id

    def completed(self, key: str = "order-1") -> str:
        saga_id = self.start(key)
        while not self.sagas.get(saga_id).status.ended:
            self.succeeds(saga_id)
        return saga_id

    # ---- queues -----------------------------------------------------------------------------------

    def jams(self, queue: str, messages: int, seconds: int = 60) -> None:
        """So many messages wait there, and for so long nobody has taken any."""
        for ago in range(seconds, -1, -10):
            at = self.now - timedelta(seconds=ago)
            self.orchestrator.store.note_queues([QueueSeen(queue, at, messages, 0)])

    # ---- workers ----------------------------------------------------------------------------------

    @contextmanager
    def working(self, trouble: str | None = None) -> Iterator[None]:
        """An orchestrator that obeys acts, and sends what somebody wants replayed, in a thread.

        `trouble`: why nothing can be sent.
        """
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.02):
                self.orchestrator.obey_acts()
                self.orchestrator.store.replay(lambda messages: [trouble] * len(messages))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def beat(self, role: str, seconds_ago: float, worker: str = "order_service@box-17") -> None:
        at = self.now - timedelta(seconds=seconds_ago)
        self.orchestrator.store.beat(Beat(worker, role, at - timedelta(hours=1), at))

    def set_aside(self, reason: str = "no saga has the id 4711", saga_id: str | None = "4711") -> None:
        self.orchestrator.set_aside(
            Quarantined(
                queue="order_service.replies",
                task="restaurant_service.create_ticket.response.success",
                headers={"id": "m-1", "root_id": "r-1"},
                body='[["4711", {"ticket_id": 7}], {}, null]',
                reason=reason,
                path="$[0][0]",
                at=self.now - timedelta(minutes=3),
                saga_id=saga_id,
            )
        )

    # ---- the command line ---------------------------------------------------------------------------

    def say(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Call ``saga -A worker`` with these arguments."""
        return say("-A", "worker", *arguments, env=env)

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """The same with ``--json``: what is on stdout, read."""
        result = self.say(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)


@contextmanager
def standing_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if ``saga`` were called there: the folder's modules are found, and forgotten afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_modules()
    yield
    forget_modules()


def forget_modules() -> None:
    """Modules that a test wrote are not those of the next one."""
    for name in ("worker", "kitchen", "both", "broken", "empty", "two"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


__all__ = ["NOON", "PARTICIPANT", "WORKER", "Shop", "forget_modules", "say", "standing_in"]
