"""The machine on which something was measured, so that figures can be compared with others'."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
from kombu import Connection


def describe(postgres: str, rabbitmq: str) -> dict[str, Any]:
    """Processor, memory, disk, and the versions of what is measured, as JSON.

    Args:
        postgres, rabbitmq: addresses of the servers.
    """
    with psycopg.connect(postgres) as connection:
        settings = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        }
    with Connection(rabbitmq) as connection_to_broker:
        broker: Any = connection_to_broker.connect()
        version = str(broker.server_properties.get("version", "unknown"))
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "fdatasync_ms": round(fdatasync_ms(), 3),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("celery", "sqlalchemy", "psycopg", "pydantic")},
        "postgres": {name: row[0] if row else None for name, row in settings.items()},
        "rabbitmq": version,
    }


def processor(cpuinfo: str) -> str:
    """Its name, from ``/proc/cpuinfo``; "unknown" where that does not say."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def fdatasync_ms(times: int = 200) -> float:
    """The median time, in milliseconds, to have 8 kB on disk, as a commit of PostgreSQL's has."""
    spent = []
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:
        for _ in range(times):
            os.pwrite(file.fileno(), os.urandom(8192), 0)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - begun)
    return 1000 * statistics.median(spent)


def words(machine: dict[str, Any]) -> str:
    """The same as sentences of a page."""
    postgres = machine["postgres"]
    return (
        f"Measured on {machine['cores']} cores of {machine['processor']}, {machine['memory_gb']:g} GB, "
        f"{machine['system']}; 8 kB are on disk after {machine['fdatasync_ms']:g} ms (median of fdatasync). "
        f"Python {machine['python']}, Celery {machine['celery']}, SQLAlchemy {machine['sqlalchemy']}, "
        f"psycopg {machine['psycopg']}, pydantic {machine['pydantic']}. "
        f"PostgreSQL {postgres['server_version']} with fsync={postgres['fsync']}, "
        f"synchronous_commit={postgres['synchronous_commit']}, "
        f"shared_buffers={postgres['shared_buffers']}; RabbitMQ {machine['rabbitmq']}. "
        "All of it on this one machine.\n"
    )
