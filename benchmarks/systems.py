"""A system that is measured, as data: its processes, who drives it, which servers it needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build" / "bench"


class Group(StrEnum):
    """What a process is for. CPU is told by it."""

    DRIVER = "driver"
    ORCHESTRATOR = "orchestrator"
    CONSUMER = "consumer"
    RESTAURANT = "restaurant"
    ACCOUNTING = "accounting"
    ALL_IN_ONE = "one process"
    SERVER = "server"


class Needs(StrEnum):
    """A server that the run makes a place of its own on."""

    POSTGRES = "postgres"
    RABBITMQ = "rabbitmq"


@dataclass(frozen=True)
class Program:
    """A process to start: arguments of the system's Python, or with `binary` of another program.

    In arguments and values of the environment ``{folder}`` is the run's own folder.
    """

    group: Group
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    binary: Path | None = None


@dataclass(frozen=True)
class System:
    """One column of the comparison.

    Args:
        name, variant: what it is called in tables.
        driver: serves `benchmarks.driving`; started last, and ready when everything is.
        environment: variables of all its processes.
        prepare: programs that run first, one after the other, until they end.
        python: of the environment in which it is installed.
    """

    name: str
    variant: str
    driver: Program
    programs: Sequence[Program] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Sequence[Program] = ()
    needs: frozenset[Needs] = frozenset()
    python: Path = Path(sys.executable)

    @property
    def title(self) -> str:
        """Name and variant, as a person reads them."""
        return f"{self.name}, {self.variant}"
