"""What an examination finds, and how grave it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

ACCEPT_VARIABLE: Final = "SAGA_DOCTOR_ACCEPT"
"""Environment variable with the rules that somebody accepts as they are, with commas between."""


class Severity(StrEnum):
    """How grave a finding is, gravest first."""

    LOSES = "loses"
    """An order can be lost, be done twice, or never end: no worker starts."""
    WRONG = "wrong"
    """It works, and badly: a worker starts and says so."""
    NOTE = "note"
    """Good to know; sound installations have it, too."""
    UNKNOWN = "not examined"
    """Nobody can tell from here, which is not the same as being in order."""


class Area(StrEnum):
    """Where a finding was made."""

    SETTINGS = "settings"
    BROKER = "broker"
    DATABASE = "database"
    RESULTS = "results"


class Rule(StrEnum):
    """The name of each rule, for programs and for `ACCEPT_VARIABLE`."""

    # settings
    POOL = "pool"
    CONSUMER = "consumer"
    TWO_BROKERS = "two-brokers"
    TASK_QUEUES = "task-queues"
    QUEUE_BINDING = "queue-binding"
    ROUTES = "routes"
    ACKS = "acks"
    WORKER_LOST = "worker-lost"
    CONNECTION_LOST = "connection-lost"
    PREFETCH = "prefetch"
    GLOBAL_QOS = "global-qos"
    CONFIRMS = "confirms"
    TIMEOUTS = "timeouts"
    RECONNECT = "reconnect"
    HEARTBEAT = "heartbeat"
    MISSING_QUEUES = "missing-queues"
    SERIALIZER = "serializer"
    EAGER = "eager"
    EVENTS = "events"
    LEASE = "lease"
    CONSUMER_TIMEOUT = "consumer-timeout"
    RETENTION = "retention"
    NO_APP = "no-app"
    ACCEPTED = "accepted"
    EXAMINATION = "examination"
    # broker
    BROKER = "broker"
    QUEUE = "queue"
    PERMISSIONS = "permissions"
    ALARM = "alarm"
    NODE_NAME = "node-name"
    DELAYED_DELIVERY = "delayed-delivery"
    DELIVERY_LIMIT = "delivery-limit"
    TRANSIENT_QUEUES = "transient-queues"
    # database
    DATABASE = "database"
    SCHEMA = "schema"
    DURABILITY = "durability"
    READ_ONLY = "read-only"
    ISOLATION = "isolation"
    CONNECTIONS = "connections"
    CLOCK = "clock"
    SHARED = "shared"
    # results
    INBOX = "inbox"
    EVICTION = "eviction"
    PERSISTENCE = "persistence"
    RESULT_BACKEND = "result-backend"


NEEDED: Final = frozenset({Rule.POOL, Rule.SCHEMA})
"""What a worker looks at before it examines anything: it would not start if somebody accepted it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or cannot be seen.

    Args:
        what: is so; a sentence.
        why: what that loses; a sentence.
        setting: its name.
        write: what to set it to, or to do.
    """

    rule: Rule
    severity: Severity
    what: str
    why: str
    setting: str
    write: str

    @property
    def told(self) -> str:
        """All of it in one line, as a log has it."""
        return f"{self.what} {self.why} {self.setting}: {self.write}"

    def to_json(self) -> dict[str, str]:
        return {
            "rule": self.rule.value,
            "severity": self.severity.value,
            "what": self.what,
            "why": self.why,
            "setting": self.setting,
            "write": self.write,
        }


@dataclass
class Examination:
    """What was looked at in one place.

    Args:
        subject: which broker, which database; no password.
        in_order: what was found to be as it should, a phrase each.
    """

    area: Area
    subject: str
    in_order: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> bool:
        """Take these findings; whether there were none but notes."""
        found = list(findings)
        self.findings += found
        return all(finding.severity is Severity.NOTE for finding in found)

    def look(self, findings: Iterable[Finding], in_order: str) -> None:
        """Take these findings; if there are none but notes, `in_order` is."""
        if self.add(findings):
            self.in_order.append(in_order)

    def to_json(self) -> dict[str, Any]:
        return {
            "area": self.area.value,
            "subject": self.subject,
            "findings": [finding.to_json() for finding in self.findings],
            "in_order": self.in_order,
        }


@dataclass
class Report:
    """All that was found of one service."""

    service: str
    kind: str
    examinations: list[Examination] = field(default_factory=list)

    def __iter__(self) -> Iterator[Finding]:
        for examination in self.examinations:
            yield from examination.findings

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of this severity, in the order in which they were made."""
        return [finding for finding in self if finding.severity is severity]

    def sound(self, *, strict: bool = False) -> bool:
        """Whether nothing loses an order and nothing is wrong; if `strict`, there is no note either."""
        bad = {Severity.LOSES, Severity.WRONG} | ({Severity.NOTE} if strict else set())
        return not any(finding.severity in bad for finding in self)

    def accept(self, names: Collection[str]) -> None:
        """Make notes of the findings under these rules, but for what is `NEEDED`: somebody wants them so."""
        acceptable = set(names) - {rule.value for rule in NEEDED}

        def accepted(finding: Finding) -> Finding:
            if finding.rule.value not in acceptable or finding.severity not in (
                Severity.LOSES,
                Severity.WRONG,
            ):
                return finding
            what = f"{finding.what} ({ACCEPT_VARIABLE} accepts it.)"
            return replace(finding, severity=Severity.NOTE, what=what)

        for examination in self.examinations:
            examination.findings = [accepted(finding) for finding in examination.findings]

    def to_json(self) -> dict[str, Any]:
        """What ``saga doctor --json`` says of a service."""
        return {
            "service": self.service,
            "kind": self.kind,
            "sound": self.sound(),
            "counts": {severity.value: len(self.of(severity)) for severity in Severity},
            "examined": [examination.to_json() for examination in self.examinations],
        }


def accepted_rules(value: str | None, note: Callable[[Finding], None]) -> set[str]:
    """The rules that `ACCEPT_VARIABLE` names; a name that is no rule's, or cannot be accepted, is told."""
    names = {name.strip() for name in (value or "").split(",") if name.strip()}
    if needed := sorted(names & {rule.value for rule in NEEDED}):
        note(
            Finding(
                Rule.ACCEPTED,
                Severity.WRONG,
                f"{ACCEPT_VARIABLE} names {', '.join(map(repr, needed))}.",
                "No worker starts without that, whoever accepts it.",
                ACCEPT_VARIABLE,
                "leave it out, and mend what is found",
            )
        )
    if unknown := sorted(names - {rule.value for rule in Rule}):
        note(
            Finding(
                Rule.ACCEPTED,
                Severity.WRONG,
                f"{ACCEPT_VARIABLE} names {', '.join(map(repr, unknown))}, which is no rule.",
                "What was meant is not accepted.",
                ACCEPT_VARIABLE,
                f"rules with commas between, of: {', '.join(rule.value for rule in Rule)}",
            )
        )
    return names
