"""What must hold in every run."""

from __future__ import annotations

from sagas_framework.core.events import Recorded
from sagas_framework.testing import ALWAYS, Choices, Run, View
from sagas_framework.testing.invariants import no_failure_is_invented
from sagas_framework.testing.world import BEGINNING
from tests.simulation.shapes import SHAPES, Order


def test_a_failure_that_nobody_answered_is_seen_at_once() -> None:
    """At the end it would be too late: by then a run in which the step has worked may stand for this one."""
    run: Run[Order] = Run(SHAPES["comp"], Choices())
    line = Recorded(BEGINNING, "reserve.attempt_failed", "reserve", {"attempt": 1})
    view = View(run.instance, run.definition, [line], run.effects, {})

    assert list(no_failure_is_invented(view)) == [
        "the history says that reserve failed in attempt 1: it did not"
    ]
    assert no_failure_is_invented in ALWAYS

    run.effects.failures_answered[run.key("reserve")].add(1)
    assert not list(no_failure_is_invented(view))
