"""The peers, as data: what each is made of and where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.systems import BUILD, Group, Needs, Program, System

PARTICIPANTS: Final = (Group.CONSUMER, Group.RESTAURANT, Group.ACCOUNTING)
_PACKAGE: Final = "benchmarks.peers"
_BOTH: Final = frozenset({Needs.POSTGRES, Needs.RABBITMQ})

_INGRESS, _ADMIN, _NODE = 18080, 19070, 15122
_PORTS: Final[Mapping[str, int]] = {
    "order": 19081,
    "consumer": 19082,
    "restaurant": 19083,
    "accounting": 19084,
}


def environment(name: str) -> Path:
    """The folder of a peer's virtual environment."""
    return BUILD / name / "venv"


def python(name: str) -> Path:
    """The Python of a peer's environment."""
    return environment(name) / "bin" / "python"


RESTATE_PACKAGES: Final = BUILD / "restate" / "npm"


def restate_server() -> Path | None:
    """The program of Restate's server; None if npm brought none for this machine."""
    found = RESTATE_PACKAGES.glob("node_modules/@restatedev/restate-server-*/bin/restate-server")
    return next(iter(sorted(found)), None)


# ---- Celery ---------------------------------------------------------------------------------------


def _celery(app: str, role: str, number: int = 0) -> list[str]:
    node = f"{role}{number}@benchmark"
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "CRITICAL")
    worker = ["-m", "celery", "-A", f"{_PACKAGE}.{app}:{role}", "worker", "-n", node]
    return [*worker, "--pool", "solo", *quiet]


def saga_framework(orchestrators: int = 2) -> System:
    """saga-framework 0.1, as fast as it was found to run: solo pool, a prefetch of 64."""
    orchestrates = {"BENCHMARK_ORCHESTRATES": "yes"}
    return System(
        name="saga-framework 0.1",
        variant=f"{orchestrators} orchestrators",
        programs=[
            *(
                Program(
                    Group.ORCHESTRATOR, _celery("saga_framework_app", "orchestrator", number), orchestrates
                )
                for number in range(orchestrators)
            ),
            *(Program(group, _celery("saga_framework_app", group.value)) for group in PARTICIPANTS),
        ],
        driver=Program(
            Group.DRIVER,
            ["-m", f"{_PACKAGE}.saga_framework_driver", "--orchestrators", str(orchestrators)],
        ),
        needs=_BOTH,
        python=python("saga_framework"),
    )


def celery() -> System:
    """Commands and replies of bare Celery, which keeps nothing."""
    roles = {Group.ORCHESTRATOR: "orchestrator", **{group: group.value for group in PARTICIPANTS}}
    return System(
        name="Celery ping-pong",
        variant="no state",
        programs=[Program(group, _celery("celery_app", role)) for group, role in roles.items()],
        driver=Program(Group.DRIVER, ["-m", f"{_PACKAGE}.celery_driver"]),
        needs=frozenset({Needs.RABBITMQ}),
        python=python("saga_framework"),
    )


# ---- DBOS -----------------------------------------------------------------------------------------


def dbos(*, local: bool) -> System:
    """DBOS with its participants in processes of their own, or with all in one."""
    roles = {Group.ORCHESTRATOR: "orders", **{group: group.value for group in PARTICIPANTS}}
    driver = [f"{_PACKAGE}.dbos_driver", *(["--local"] if local else [])]
    return System(
        name="DBOS",
        variant="one process" if local else "services",
        programs=[]
        if local
        else [
            Program(group, ["-m", f"{_PACKAGE}.dbos_app"], {"BENCHMARK_ROLE": role})
            for group, role in roles.items()
        ],
        prepare=[Program(Group.DRIVER, ["-m", *driver, "--prepare"])],
        driver=Program(Group.ALL_IN_ONE if local else Group.DRIVER, ["-m", *driver]),
        environment={"BENCHMARK_ROLE": "driver"},
        needs=frozenset({Needs.POSTGRES}),
        python=python("dbos"),
    )


# ---- Restate --------------------------------------------------------------------------------------


def restate(*, local: bool) -> System:
    """Restate with four services, or with one that does all. Its server keeps its log in the run's folder.

    Raises:
        FileNotFoundError: its server is not installed.
    """
    server = restate_server()
    if server is None:
        raise FileNotFoundError(f"no restate-server under {RESTATE_PACKAGES}")
    ports = {"order": _PORTS["order"]} if local else _PORTS
    return System(
        name="Restate",
        variant="one service" if local else "services",
        programs=[
            Program(Group.SERVER, [], _restate_settings(), binary=server),
            *(_restate_service(role, port) for role, port in ports.items()),
        ],
        driver=Program(Group.DRIVER, ["-m", f"{_PACKAGE}.restate_driver", *_restate_driver(ports, local)]),
        python=python("restate"),
    )


def _restate_settings() -> dict[str, str]:
    return {
        "RESTATE_BASE_DIR": "{folder}/restate",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{_INGRESS}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{_ADMIN}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{_NODE}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{_NODE}",
        "RESTATE_METADATA_CLIENT__ADDRESSES": f"[http://127.0.0.1:{_NODE}]",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_NODE_NAME": "benchmark",
        "RESTATE_LOG_FILTER": "warn",
        # Of its own 24 partitions most are idle on a small machine; with 2 it was found to be faster.
        "RESTATE_DEFAULT_NUM_PARTITIONS": "2",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def _restate_service(role: str, port: int) -> Program:
    group = Group.ORCHESTRATOR if role == "order" else Group(role)
    listens = ["--host", "127.0.0.1", "--port", str(port), "--http", "2"]
    quiet = ["--no-access-log", "--log-level", "error"]
    return Program(
        group,
        [f"{_PACKAGE}.restate_app:app", "--interface", "asgi", "--loop", "uvloop", *listens, *quiet],
        {"BENCHMARK_ROLE": role},
        binary=environment("restate") / "bin" / "granian",
    )


def _restate_driver(ports: Mapping[str, int], local: bool) -> Sequence[str]:
    path = "/CreateOrderLocal/run" if local else "/CreateOrder/run"
    servers = ["--ingress", str(_INGRESS), "--admin", str(_ADMIN), "--path", path]
    return [*servers, "--services", *map(str, ports.values())]
