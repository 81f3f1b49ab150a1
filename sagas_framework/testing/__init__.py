"""For the tests of your own sagas: a `scenario` in a few lines, and a `Simulation` under faults."""

from sagas_framework.examples import example
from sagas_framework.testing.choices import Choices, Schedule, Scripted, Sown
from sagas_framework.testing.effects import BrokenPromise, Provider
from sagas_framework.testing.exploring import Explored
from sagas_framework.testing.invariants import ALWAYS, AT_THE_END, Invariant, View
from sagas_framework.testing.run import Run
from sagas_framework.testing.scenario import Expected, Scenario, Settling, scenario
from sagas_framework.testing.simulation import POLICY, Simulation

__all__ = [
    "ALWAYS",
    "AT_THE_END",
    "POLICY",
    "BrokenPromise",
    "Choices",
    "Expected",
    "Explored",
    "Invariant",
    "Provider",
    "Run",
    "Scenario",
    "Schedule",
    "Scripted",
    "Settling",
    "Simulation",
    "Sown",
    "View",
    "example",
    "scenario",
]
