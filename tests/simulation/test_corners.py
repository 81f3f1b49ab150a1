"""Corners between two things that happen at nearly the same moment, beside those of ``test_scenarios.py``.

The same corners on real servers are in ``tests/integration/test_corners.py`` and
``tests/stress/test_backlog.py``. A message takes 0.01 s, a step's timeout is 60 s.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from sagas_framework import Act, Saga, Status
from sagas_framework.core.instance import Phase
from sagas_framework.testing import POLICY, Run, Simulation
from tests.simulation.shapes import SHAPES, Order, PivotRetriable, Release, Reserve, Ship, step

COMP: Final = SHAPES["comp"]
PIVOT_RETRIABLE: Final = SHAPES["pivot,retriable"]


class Patient(Saga[Order], name="patient", version=1):
    """One step, and half an hour for it."""

    reserve = step.command(
        Reserve,
        lambda state: Reserve(order=state.order),
        compensation=lambda state: Release(reservation=state.reservation),
        timeout=timedelta(minutes=30),
    )


def lost(point: str, *numbers: int) -> dict[str, str]:
    """Faults: this message is lost each of these times that it is sent."""
    return {point if number == 1 else f"{point} #{number}": "lost" for number in numbers}


# ---- cancel while a command is in flight ------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", [0.001, 0.015], ids=["before the command arrives", "while the answer is on its way"]
)
def test_a_cancel_while_a_command_is_in_flight_leaves_no_effect(moment: float) -> None:
    run = COMP.replay({}, meanwhile={moment: lambda run: run.operator(Act.CANCEL)})

    assert run.step("reserve").phase is Phase.COMPENSATED
    assert run.executions("reserve") == run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a_cancel_that_comes_after_the_answer_is_refused_when_nothing_is_left() -> None:
    acts: list[int] = []
    run = COMP.replay({}, meanwhile={0.025: lambda run: acts.append(run.operator(Act.CANCEL))})

    assert run.answer(acts[0]).refused
    assert run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- an operator retries a parked step while its late answer arrives ----------------------------------


def retried(at: float) -> tuple[Run[Order], bool]:
    """``ship 1`` is parked at 60 s, and answered at 100.02 s. An operator looks at 90 s, and retries at
    this moment. The run, and whether she was refused."""
    acts: list[int] = []
    seen: list[int] = []

    def looks(run: Run[Order]) -> None:
        assert run.step("ship").parked
        seen.append(run.instance.revision)

    def retries(run: Run[Order]) -> None:
        acts.append(run.operator(Act.RETRY, "ship", revision=seen[0]))

    run = PIVOT_RETRIABLE.replay(
        {"sending answer to ship 1": "late 99.98 s"} | lost("sending answer to ship 1", 2, 3, 4),
        meanwhile={90.0: looks, at: retries},
    )
    assert run.executions("ship") == run.count("ship") == 1
    assert run.words.count("ship.succeeded") == 1
    assert run.status is Status.COMPLETED
    return run, run.answer(acts[0]).refused


def test_the_retry_is_committed_first_and_the_late_answer_ends_the_step() -> None:
    run, refused = retried(at=100.015)

    assert not refused
    assert run.words.index("operator.retry") < run.words.index("ship.succeeded")
    assert run.step("ship").attempts == 2
    assert run.sent.count("ship 2") == 1


def test_the_late_answer_is_committed_first_and_the_retry_is_refused() -> None:
    run, refused = retried(at=100.1)

    assert refused
    assert "operator.retry" not in run.words
    assert "ship 2" not in run.sent


# ---- a backlog ----------------------------------------------------------------------------------------


def waiting(run: Run[Order], moments: list[int]) -> None:
    """Note how many messages wait for the stock service."""
    moments.append(run.network.waiting("stock_service.commands"))


@pytest.mark.parametrize(
    ("stopped", "most"),
    [(50, 1), (300, 2)],
    ids=["the timeout is longer than the stop", "the timeout is shorter than the stop"],
)
def test_a_backlog_at_a_stopped_participant_holds_a_command_and_a_compensation_of_a_saga(
    stopped: int, most: int
) -> None:
    """The timeout is 60 s. Nothing is sent again: the queue was never seen empty."""
    counted: list[int] = []
    moments = {float(second): lambda run: waiting(run, counted) for second in range(1, stopped, 5)}

    run = COMP.replay({"stock_service is stopped": f"after 0 s for {stopped} s"}, meanwhile=moments)

    assert max(counted) == counted[-1] == most
    assert counted == sorted(counted)
    assert "reserve.sent_again" not in run.words
    assert run.status is (Status.COMPLETED if most == 1 else Status.COMPENSATED)


def test_a_backlog_grows_by_one_copy_after_the_cap_and_no_sooner() -> None:
    """Rule 21: after ten looks, 490 s, the message goes again anyway."""
    counted: list[int] = []
    moments = {float(second): lambda run: waiting(run, counted) for second in range(1, 900, 10)}

    run = Simulation(Patient, Order()).replay(
        {"stock_service is stopped": "after 0 s for 900 s"}, meanwhile=moments
    )

    first = counted.index(2)
    assert counted[:first] == [1] * first
    assert first == pytest.approx(490 / 10, abs=1)
    assert max(counted) == 2
    assert run.executions("reserve") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- a handler that takes long ------------------------------------------------------------------------


@pytest.mark.parametrize("outside", [False, True], ids=["in its transaction", "outside"])
def test_a_long_handler_that_is_sent_again_and_again_is_begun_once(outside: bool) -> None:
    """Every copy of ``ship 1`` finds the key busy, or the claim live."""
    eager = replace(POLICY, resend_first=timedelta(seconds=5), resend_ceiling=timedelta(seconds=9))
    simulation = Simulation(
        PivotRetriable,
        Order(),
        policy=eager,
        outside=[Ship] if outside else [],
        lease=timedelta(minutes=10),  # the handler's process is not killed before it ends
    )

    run = simulation.replay({"handling ship 1": "takes 180 s"})

    dropped = run.trace().count("ship 1 is not answered") + run.trace().count("ship 1 finds its key busy")
    assert run.sent.count("ship 1") > 15
    assert dropped >= run.sent.count("ship 1") - 2
    assert run.executions("ship") == run.count("ship") == 1
    assert run.status is Status.COMPLETED
