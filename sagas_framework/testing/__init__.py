"""For the tests of your own sagas: a `scenario` in a few lines, and a `Simulation` under faults."""

from sagas_framework.testing.choices import Choices, Schedule, Scripted, Seeded
from sagas_framework.testing.effects import BrokenPromise, Provider
from sagas_framework.testing.examples import example
from sagas_framework.testing.invariants import ALWAYS, AT_THE_END, Invariant, View
from sagas_framework.testing.scenario import Expected, Scenario, Settling, scenario
from sagas_framework.testing.simulation import POLICY, Run, Simulation

__all__ = [
    "ALWAYS",
    "AT_THE_END",
    "POLICY",
    "BrokenPromise",
    "Choices",
    "Expected",
    "Invariant",
    "Provider",
    "Run",
    "Scenario",
    "Schedule",
    "Scripted",
    "Seeded",
    "Settling",
    "Simulation",
    "View",
    "example",
    "scenario",
]
