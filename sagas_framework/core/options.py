"""What an operator can do with a saga now: asked of the same function that will decide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel

from sagas_framework.core.decide import decide
from sagas_framework.core.events import Act, Decision, OperatorActed
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Phase, SagaInstance, StepRecord
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep

_CLOSING = frozenset({Phase.SETTLING, Phase.HANDING_OVER})
_BACKWARD = frozenset({Phase.COMPENSATING, Phase.UNDO_PAUSING, Phase.HANDING_OVER, Phase.HANDED_OVER})


@dataclass(frozen=True, slots=True)
class Option:
    """An act that would be obeyed now.

    Args:
        step: on which; None for the whole saga.
        force: it is only obeyed with force.
        consequence: what comes of it, as the end of a sentence.
        reply: the JSON schema of the reply that completing needs; for a plain task's result, of which
            nothing is known, one without a type.
    """

    act: Act
    step: str | None
    force: bool
    consequence: str
    reply: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "act": self.act.value,
            "step": self.step,
            "force": self.force,
            "consequence": self.consequence,
            "reply": self.reply,
        }


def options(saga: SagaDefinition, instance: SagaInstance, now: datetime) -> list[Option]:
    """The acts that would be obeyed now, in the order of the steps; moving moments and cancelling last."""
    if instance.status.ended:
        return []
    return [
        *_of_steps(saga, instance, now),
        *_rescheduling(saga, instance, now),
        *_cancelling(saga, instance, now),
    ]


def _of_steps(saga: SagaDefinition, instance: SagaInstance, now: datetime) -> Iterator[Option]:
    for record in instance.steps.values():
        waits = record.parked or record.phase in (Phase.PAUSING, Phase.UNDO_PAUSING, *_CLOSING)
        if not waits:
            continue
        reply = _reply_type(saga, record)
        for act in (Act.RETRY, Act.SKIP, Act.COMPLETE, Act.WITHDRAW):
            # Made without any check, as a stand-in for the reply that the operator will give.
            stand_in = reply.model_construct() if reply is not None and act is Act.COMPLETE else None
            judge = _taking_any_result(saga, record.name) if act is Act.COMPLETE else saga
            for force in (False, True):
                decision = _try(judge, instance, now, act, record.name, force, stand_in)
                if not decision.refused:
                    schema = None if stand_in is None or reply is None else reply.model_json_schema()
                    if act is Act.COMPLETE and (told := _result_of(saga, record)):
                        schema = {"description": told}
                    told = _consequence(act, record, decision, force, asked=_has_inbox(saga, record))
                    yield Option(act, record.name, force, told, schema)
                    break


def _rescheduling(saga: SagaDefinition, instance: SagaInstance, now: datetime) -> Iterator[Option]:
    moments: list[str | None] = [None] if instance.deadline is not None else []
    moments += [r.name for r in instance.steps.values() if r.phase in (Phase.WAITING, Phase.DELAYED)]
    for step in moments:
        event = OperatorActed(
            instance.id, now, Act.RESCHEDULE, by="nobody", reason="a question", step=step, until=now
        )
        if not decide(saga, instance, event).refused:
            what = "the saga's deadline" if step is None else f"the moment until which {step} waits"
            yield Option(Act.RESCHEDULE, step, force=False, consequence=f"moves {what}")


def _cancelling(saga: SagaDefinition, instance: SagaInstance, now: datetime) -> Iterator[Option]:
    for force in (False, True):
        decision = _try(saga, instance, now, Act.CANCEL, None, force)
        if not decision.refused:
            told = "undoes what was done"
            if _asks(decision):
                told = "asks the participant first whether it happened; if not, undoes what was done"
            elif force:
                told = "takes the pivot as never happened, without asking, and undoes what was done"
            yield Option(Act.CANCEL, None, force, told)
            return


def _try(
    saga: SagaDefinition,
    instance: SagaInstance,
    now: datetime,
    act: Act,
    step: str | None,
    force: bool,
    reply: BaseModel | None = None,
) -> Decision:
    """What would be decided. Nothing happens: the core is pure."""
    event = OperatorActed(
        instance.id,
        now,
        act,
        by="nobody",
        reason="a question",
        step=step,
        force=force,
        reply=cast("Mapping[str, Any] | None", reply),
    )
    return decide(saga, instance, event)


def _taking_any_result(saga: SagaDefinition, name: str) -> SagaDefinition:
    """The saga without the hook that takes a plain task's result, of which there is no stand-in."""
    index = saga.index(name)
    step = saga.steps[index]
    if not isinstance(step, CommandStep) or not step.command.answers_anything:
        return saga
    deaf = copy(step)
    deaf.on_success = None
    return replace(saga, steps=(*saga.steps[:index], deaf, *saga.steps[index + 1 :]))


def _reply_type(saga: SagaDefinition, record: StepRecord) -> type[BaseModel] | None:
    """The reply that completing the step by hand must give; None when it needs none."""
    step = saga.steps[saga.index(record.name)]
    if record.phase in _BACKWARD or record.phase is Phase.ANSWERED or not isinstance(step, CommandStep):
        return None
    wanted = step.command.reply_type()
    return wanted if issubclass(wanted, BaseModel) else None


def _result_of(saga: SagaDefinition, record: StepRecord) -> str | None:
    """What completing the step by hand should say of a plain task's result; None if nobody takes it."""
    step = saga.steps[saga.index(record.name)]
    if record.phase in _BACKWARD or not isinstance(step, CommandStep) or step.on_success is None:
        return None
    return f"what {step.command.contract.task} returned" if step.command.answers_anything else None


def _has_inbox(saga: SagaDefinition, record: StepRecord) -> bool:
    """Whether what the step does happens once, however often it is sent."""
    step = saga.steps[saga.index(record.name)]
    return not isinstance(step, CommandStep) or step.has_inbox


def _asks(decision: Decision) -> bool:
    return any(command.kind is Kind.SETTLE for command in decision.commands)


def _consequence(act: Act, record: StepRecord, decision: Decision, force: bool, *, asked: bool) -> str:
    if act is Act.RETRY:
        return _of_retry(record, asked)
    if act is Act.WITHDRAW:
        return "counts it as never happened, and undoes what was done before it"
    if act is Act.COMPLETE and record.phase is Phase.RUNNING and not asked:
        return "counts it as done: it happened, as you found out"
    backward = record.phase in _BACKWARD
    told = {
        (Act.SKIP, True): "leaves what it did as it is, and undoes the rest",
        (Act.SKIP, False): "goes on without it",
        (Act.COMPLETE, True): "counts it as undone: you undid it by hand",
        (Act.COMPLETE, False): "counts it as done: you did it by hand",
    }[act, backward]
    if not _asks(decision):
        return f"{told}, without asking its participant" if force else told
    if not backward:
        return f"asks the participant first whether it happened; if not, {told}"
    if act is Act.SKIP:
        return f"has the participant stop undoing it; then {told}"
    return "has the participant stop undoing it; what it did is then yours to undo by hand"


def _of_retry(record: StepRecord, asked: bool) -> str:
    if record.phase in _CLOSING:
        return "asks the participant again"
    if record.phase is Phase.ANSWERED:
        return "takes the reply that came once more"
    what = "to undo it" if record.phase in _BACKWARD else "it"
    but = "nothing happens twice" if asked else "if it did happen, it happens twice"
    return f"tries {what} once more now; {but}"
