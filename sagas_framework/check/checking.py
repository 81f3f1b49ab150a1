"""All rules over some sagas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sagas_framework.check.contracts import between_contracts, of_contracts
from sagas_framework.check.findings import Finding, Severity, in_order
from sagas_framework.check.paths import Walk
from sagas_framework.check.queues import Setup, of_queues
from sagas_framework.check.timing import of_times
from sagas_framework.check.walk import walk
from sagas_framework.check.walked import of_walk
from sagas_framework.core.decide import DEFAULT_POLICY
from sagas_framework.core.events import Policy
from sagas_framework.saga import Saga, SagaDefinition


@dataclass(frozen=True)
class Checked:
    """What was found in one saga, errors first, and all its paths."""

    walk: Walk
    findings: tuple[Finding, ...]

    @property
    def saga(self) -> SagaDefinition:
        return self.walk.definition


def check_saga(saga: SagaDefinition, policy: Policy) -> Checked:
    """Walk one saga, and look at it by itself."""
    walked = walk(saga)
    rules = (of_walk(walked), of_times(saga, policy), of_contracts(saga))
    return Checked(walked, tuple(in_order(finding for rule in rules for finding in rule)))


def check_program(sagas: Sequence[SagaDefinition], setup: Setup) -> list[Finding]:
    """What is wrong between these sagas, and around them; errors first."""

    def rules() -> Iterator[Finding]:
        yield from _policy(setup.policy)
        yield from between_contracts(sagas)
        yield from of_queues(sagas, setup)

    return in_order(rules())


def check(*sagas: type[Saga[Any]], policy: Policy = DEFAULT_POLICY, notes: bool = False) -> list[Finding]:
    """What is wrong with these sagas; an empty list if nothing is. For a test of your own::

        assert check(CreateOrderSaga) == []

    Nothing is needed and nothing is sent: every path is walked in memory. Give all sagas of a program
    together, so that their contracts are compared.

    Args:
        policy: that of the program's `Sagas`, if it has one of its own.
        notes: also what is as declared, and not guaranteed.
    """
    definitions = [saga.definition for saga in sagas]
    findings = check_program(definitions, Setup(policy))
    findings += [found for saga in definitions for found in check_saga(saga, policy).findings]
    return [finding for finding in findings if notes or finding.severity is not Severity.NOTE]


def _policy(policy: Policy) -> Iterator[Finding]:
    if policy.sendable_for <= timedelta(0):
        yield Finding(
            "nothing-may-be-sent",
            Severity.ERROR,
            "The Policy's inbox_retention is not longer than message_lifetime and clock_skew together: no "
            "command may be sent, and every saga parks.",
            "Give Policy(inbox_retention=...) more, as long as the participants keep their rows.",
        )
