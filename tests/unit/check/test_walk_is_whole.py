"""The walk against the real core under dice: it misses no way to end, and invents none."""

from __future__ import annotations

import random
from typing import Final

import pytest

from sagas_framework.check.walk import walk
from sagas_framework.core.events import Act, Outgoing
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.instance import Phase, Status
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep
from tests.unit.core.stories import CREATE_ORDER, REPLIES, SAGA_ID, DeliverOrderSaga, Run

Ending = tuple[Status, tuple[str, ...], tuple[str, ...]]
"""Status, and the commands and compensations that were sent, in order."""

STORIES: Final = 300
PATIENCE: Final = 400
"""Events after which a story is given up."""


def told(run: Run) -> Ending:
    names = {operation_id(SAGA_ID, step.name): step.name for step in run.saga.steps}

    def sent(kind: Kind) -> tuple[str, ...]:
        of_kind: list[Outgoing] = [out for out in run.sent if out.kind is kind]
        return tuple(dict.fromkeys(names[out.operation_id] for out in of_kind))

    return run.status, sent(Kind.DO), sent(Kind.UNDO)


def story(saga: SagaDefinition, seed: int) -> Ending | None:
    """One saga, to which anything happens at any time; None if it needs a person, or too much time."""
    dice = random.Random(seed)
    run = Run(saga)
    if dice.random() < 0.02:
        run.operator(Act.CANCEL)
    run.start()
    # Some stories are mostly lucky, or nobody would ever hear of the last steps.
    trouble = dice.choice([0.03, 0.3])
    for _ in range(PATIENCE):
        if run.status.ended:
            return told(run)
        flights = [record for record, _ in run.instance.in_flight()]
        if not flights or dice.random() < trouble:
            if run.instance.due_at is None:
                return None
            happens = dice.choice(["time", "time", "cancel"])
            if happens == "cancel":
                run.operator(Act.CANCEL)
            elif dice.random() < 0.5:  # nobody answers
                moments = [r.deadline or r.resume_at for r in run.instance.steps.values()]
                run.at(min((m for m in moments if m), default=run.instance.due_at))
            else:
                run.at(max(run.instance.due_at, run.now))
        else:
            answer(run, dice.choice(flights).name, dice, trouble)
    return None


def answer(run: Run, name: str, dice: random.Random, trouble: float) -> None:
    step = run.saga.steps[run.saga.index(name)]
    assert isinstance(step, CommandStep)
    settling = run.phase(name) is Phase.SETTLING
    refusals = [failure.wire_name for failure in step.command.failures]
    if settling:
        verdict = dice.choice(["done", "withdrawn"])
        run.settles(verdict, name, reply=REPLIES.get(name))
    elif dice.random() >= trouble or run.phase(name) is Phase.COMPENSATING:
        run.succeeds(name)
    elif refusals and dice.random() < 0.3:
        run.refuses(dice.choice(refusals), name)
    else:
        run.fails(name)


@pytest.mark.parametrize("saga", [CREATE_ORDER, DeliverOrderSaga.definition], ids=lambda saga: str(saga.name))
def test_what_happens_under_dice_is_what_was_walked(saga: SagaDefinition) -> None:
    commands = {step.name for step in saga.steps if isinstance(step, CommandStep)}
    walked = {
        (
            end.status,
            tuple(name for name in end.did(Kind.DO) if name in commands),
            tuple(name for name in end.did(Kind.UNDO) if name in commands),
        )
        for end in walk(saga).ends
        if end.status.ended
    }

    happened = {ending for seed in range(STORIES) if (ending := story(saga, seed)) is not None}

    assert happened - walked == set()
    assert walked - happened == set()
