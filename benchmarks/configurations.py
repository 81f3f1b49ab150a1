"""Our own ways to run the order platform, as data. Services, handlers and the saga are the real ones.

Beside them stand bare loops, which tell what the machine allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from benchmarks.systems import Group, Needs, Program, System

NAME: Final = "sagas_framework"

_WORKER: Final = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
_TIMEOUTS: Final = dict.fromkeys(("CONSUMER_TIMEOUT", "RESTAURANT_TIMEOUT", "ACCOUNTING_TIMEOUT"), "300")

_BATCHES: Final = {"COMMAND_BATCH": "200"}
_ONE_BY_ONE: Final = {"COMMAND_BATCH": "1"}
_SOLO: Final = ("--pool", "solo")


def services(
    variant: str,
    *,
    orchestrators: int = 1,
    participant: Sequence[str] = ("--pool", "prefork", "--concurrency", "2"),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> System:
    """Every service as processes of its own, on RabbitMQ and PostgreSQL.

    Args:
        orchestrators: workers of the order service.
        participant: how the workers of the other services run, as arguments of ``celery worker``.
        environment: settings of the services.
    """

    def worker(group: Group, service: str, number: int, *arguments: str) -> Program:
        node = f"{service}{number}@benchmark"
        return Program(
            group, ["-m", "celery", "-A", f"{service}.worker", "worker", "-n", node, *arguments, *_WORKER]
        )

    return System(
        name=NAME,
        variant=variant,
        programs=[
            *(
                worker(Group.ORCHESTRATOR, "order_service", number, "--pool", "solo")
                for number in range(orchestrators)
            ),
            worker(Group.CONSUMER, "consumer_service", 0, *participant),
            worker(Group.RESTAURANT, "restaurant_service", 0, *participant),
            worker(Group.ACCOUNTING, "accounting_service", 0, *participant),
        ],
        prepare=[Program(Group.DRIVER, ["-m", "app_common.migrate"])],
        driver=Program(Group.DRIVER, ["-m", "benchmarks.orders", "--orchestrators", str(orchestrators)]),
        environment={**_TIMEOUTS, **environment},
        needs=frozenset({Needs.POSTGRES, Needs.RABBITMQ}),
    )


EMBEDDED: Final = System(
    name=NAME,
    variant="one process, SQLite",
    driver=Program(Group.ALL_IN_ONE, ["-m", "benchmarks.orders", "--embedded"]),
    environment=_TIMEOUTS
    | _BATCHES
    | {
        "CELERY_BROKER": "memory://localhost",
        "APP_SQLALCHEMY_DATABASE_URI": "sqlite:///{folder}/{service}.sqlite3",
    },
)

BARE: Final = System(
    name="bare loops",
    variant="the same messages, a statement for each",
    programs=[
        Program(group, ["-m", "benchmarks.bare", group.value])
        for group in (Group.ORCHESTRATOR, Group.CONSUMER, Group.RESTAURANT, Group.ACCOUNTING)
    ],
    prepare=[Program(Group.DRIVER, ["-m", "benchmarks.bare", "schema"])],
    driver=Program(Group.DRIVER, ["-m", "benchmarks.bare", "driver"]),
    needs=frozenset({Needs.POSTGRES, Needs.RABBITMQ}),
)

CONFIGURATIONS: Final = {
    "batched": services("batched participants", participant=_SOLO, environment=_BATCHES),
    "batched-2": services(
        "batched participants, 2 orchestrators", orchestrators=2, participant=_SOLO, environment=_BATCHES
    ),
    "batched-3": services(
        "batched participants, 3 orchestrators", orchestrators=3, participant=_SOLO, environment=_BATCHES
    ),
    "one-by-one": services("participants one by one", participant=_SOLO, environment=_ONE_BY_ONE),
    "plain": services("plain participants"),
    "plain-solo": services("plain participants, solo pool", participant=_SOLO),
    "plain-2": services("plain participants, 2 orchestrators", orchestrators=2),
    "plain-3": services("plain participants, 3 orchestrators", orchestrators=3),
    "embedded": EMBEDDED,
}
"""By the name that is given on the command line."""

MEASURABLE: Final = {**CONFIGURATIONS, "bare": BARE}
"""What can be measured as ours are, the limit among it."""

MAIN: Final = "plain"
"""What is compared with peers."""
