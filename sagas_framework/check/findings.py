"""What is wrong with a declaration, said so that it can be mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sagas_framework.saga import SagaDefinition


class Severity(StrEnum):
    """How much it matters."""

    ERROR = "error"  # sagas will park, or messages go astray
    WARNING = "warning"  # probably not what is meant, or it could not be checked
    NOTE = "note"  # as declared, and not guaranteed


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        code: stable; what a test or a script may look for.
        what: what is wrong, and what would come of it.
        instead: what to write instead.
        saga: name of the saga; empty when it is about the program as a whole.
        step: empty when it is not about one step.
    """

    code: str
    severity: Severity
    what: str
    instead: str
    saga: str = ""
    version: int = 0
    step: str = ""

    def __str__(self) -> str:
        step = f".{self.step}" if self.step else ""
        at = f" at {self.saga}{step}" if self.saga else ""
        return f"{self.severity.value} {self.code}{at}: {self.what} {self.instead}"

    def to_json(self) -> dict[str, str | int | None]:
        """All of it; `saga`, `version` and `step` are null where it is about none."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "saga": self.saga or None,
            "version": self.version or None,
            "step": self.step or None,
            "what": self.what,
            "instead": self.instead,
        }


def found(
    saga: SagaDefinition, severity: Severity, code: str, what: str, instead: str, *, step: str = ""
) -> Finding:
    """A finding about this saga."""
    return Finding(code, severity, what, instead, saga.name, saga.version, step)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; else as they came."""
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def listed(names: Iterable[str], *, last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *before, end = names
    return f"{', '.join(before)} {last} {end}" if before else end
