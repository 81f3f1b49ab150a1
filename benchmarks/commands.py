"""What a command costs its participant: ``python -m benchmarks.commands``.

The order platform's own handlers on PostgreSQL, with no broker: the CPU of the participant's thread and the
ways to the server and back, for each command. Several sizes of batches; size 1 is one by one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final
from uuid import uuid4

import psycopg
from sqlalchemy import event

from benchmarks.asked import PARTICIPANTS
from sagas_framework import Participant
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.transport import envelope
from sagas_framework.transport.envelope import WireMessage, to_wire

SERVER: Final = os.environ.get("BENCHMARK_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
_ITEMS: Final = [{"name": "Plain Pizza", "quantity": 2}]


def sent(
    task: str, payload: dict[str, Any], kind: Kind = Kind.DO, saga_id: str = "", step: str = ""
) -> WireMessage:
    """A message as the orchestrator sends it."""
    saga_id, step = saga_id or str(uuid4()), step or task
    outgoing = Outgoing(
        saga_id=saga_id,
        message_id=message_id(saga_id, step, kind, 1),
        operation_id=operation_id(saga_id, step),
        kind=kind,
        task=task,
        queue=f"{task.partition('.')[0]}.commands",
        attempt=1,
        not_after=datetime.now(UTC) + timedelta(hours=1),
        payload=payload,
    )
    return to_wire(envelope.command(outgoing, "replies"))


def participants(names: Sequence[str]) -> dict[str, Participant]:
    """The real ones, by the service's name. Their databases are named in the environment."""
    return {name: import_module(f"{name}.handlers").participant for name in names}


@contextmanager
def databases() -> Iterator[None]:
    """Databases for the services, for as long as this lasts."""
    prefix = f"bench_commands_{uuid4().hex[:8]}_"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as server:
        for name in PARTICIPANTS:
            server.execute(f"CREATE DATABASE {prefix}{name}")
        os.environ["APP_SQLALCHEMY_DATABASE_URI"] = f"{SERVER}/{prefix}{{service}}"
        try:
            yield
        finally:
            for name in PARTICIPANTS:
                server.execute(f"DROP DATABASE {prefix}{name} WITH (FORCE)")


class Counted:
    """Ways to the server and back; what goes together with a BEGIN or a COMMIT is no other."""

    def __init__(self, participant: Participant) -> None:
        self.ways = 0
        engine = participant.engine
        for name in ("before_cursor_execute", "savepoint", "release_savepoint", "rollback_savepoint"):
            event.listen(engine, name, self._one)
        for name in ("begin", "commit", "rollback"):
            event.listen(engine, name, self._one)

    def _one(self, *_: Any, **__: Any) -> None:
        self.ways += 1


def measure(
    participant: Participant,
    counted: Counted,
    name: str,
    make: Callable[[], WireMessage],
    size: int,
    rounds: int,
    expect: str = "success",
) -> list[WireMessage]:
    answered: list[WireMessage] = []
    cpu, wall, told = [], [], []
    for _ in range(rounds):
        batch = [make() for _ in range(size)]
        before, at, ways = time.thread_time(), time.perf_counter(), counted.ways
        replies = participant.receive_all(batch) if size > 1 else [participant.receive(batch[0])]
        cpu.append((time.thread_time() - before) / size)
        wall.append((time.perf_counter() - at) / size)
        told.append((counted.ways - ways) / size)
        for reply in replies:
            assert reply is not None
            assert reply.headers["saga_result"] == expect, reply
            answered.append(reply)
    cpu.sort()
    wall.sort()
    print(
        f"{name:24} {size:4} at once: CPU {cpu[len(cpu) // 2] * 1e3:6.3f} ms, "
        f"wall {wall[len(wall) // 2] * 1e3:6.3f} ms, {told[-1]:5.2f} ways to PostgreSQL"
    )
    return answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 30, 100])
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    with databases():
        there = participants(PARTICIPANTS)
        for participant in there.values():
            participant.upgrade()
        counted = {name: Counted(participant) for name, participant in there.items()}
        kitchen, books, consumers = (
            there[name] for name in ("restaurant_service", "accounting_service", "consumer_service")
        )
        for size in arguments.sizes:
            rounds = arguments.rounds if size > 1 else 100
            run(kitchen, books, consumers, counted, size, rounds)
        for participant in there.values():
            participant.engine.dispose()


def run(
    kitchen: Participant,
    books: Participant,
    consumers: Participant,
    counted: dict[str, Counted],
    size: int,
    rounds: int,
) -> None:
    import json

    def ids(replies: Sequence[WireMessage]) -> Iterator[tuple[str, int]]:
        for reply in replies:
            saga_id, payload = json.loads(reply.body)[0]
            yield saga_id, payload["ticket_id"]

    in_kitchen, in_books = counted["restaurant_service"], counted["accounting_service"]
    measure(
        consumers,
        counted["consumer_service"],
        "verify",
        lambda: sent("consumer_service.verify_consumer_details", {"consumer_id": 70}),
        size,
        rounds,
    )
    create = lambda: sent(  # noqa: E731
        "restaurant_service.create_ticket",
        {"order_id": 1, "customer_id": 70, "items": _ITEMS},
        step="create_ticket",
    )
    opened = ids(measure(kitchen, in_kitchen, "create_ticket", create, size, rounds))
    authorize = {"card_id": 3, "amount": "42.50"}
    measure(
        books,
        in_books,
        "authorize_card",
        lambda: sent("accounting_service.authorize_card", authorize),
        size,
        rounds,
    )
    refuse = {"card_id": 3, "amount": "4200.50"}
    measure(
        books,
        in_books,
        "authorize_card, refused",
        lambda: sent("accounting_service.authorize_card", refuse),
        size,
        rounds,
        "refused",
    )
    half = rounds // 2
    measure(
        kitchen,
        in_kitchen,
        "approve_ticket",
        lambda: sent("restaurant_service.approve_ticket", {"ticket_id": next(opened)[1]}),
        size,
        half,
    )

    def reject() -> WireMessage:
        saga_id, ticket_id = next(opened)
        return sent(
            "restaurant_service.reject_ticket", {"ticket_id": ticket_id}, Kind.UNDO, saga_id, "create_ticket"
        )

    measure(kitchen, in_kitchen, "reject_ticket", reject, size, rounds - half)


if __name__ == "__main__":
    main()
