"""A saga as a Mermaid flowchart: steps from top to bottom, and what leads back up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from sagas_framework.check.outcomes import goes_on_being_tried, undo_name
from sagas_framework.check.paths import End, Happening, Walk, What
from sagas_framework.check.words import why_in_short
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Status
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep, DelayStep, EndStep, LocalStep, WaitStep

_STARTED = "started"
_ASKED = frozenset({What.SETTLED_DONE, What.SETTLED_REFUSED, What.SETTLED_WITHDRAWN})
_SAID = frozenset({What.SAID_DONE, What.SAID_WITHDRAWN})


def drawing(walk: Walk) -> str:
    """The flowchart. Every arrow is a way that the walk took."""
    saga = walk.definition
    arrows = _Arrows()
    for first, second in _straight(saga):
        arrows.add(first, second)
    for end in walk.ends:
        _turn(end, arrows)
    for happening in sorted(walk.happened, key=str):
        _heal(saga, happening, arrows)
    lines = ["flowchart TD", *_nodes(saga, arrows), *arrows.lines(saga)]
    if undone := [f"undo_{step.name}" for step in saga.steps if arrows.touch(f"undo_{step.name}")]:
        lines += ["classDef undo stroke-dasharray: 4", f"class {','.join(undone)} undo"]
    return "\n    ".join(lines)


class _Arrows:
    """Arrows between nodes, each with all that leads along it."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, str], dict[Happening, None]] = {}

    def add(self, start: str, end: str, why: Happening | None = None) -> None:
        labels = self._labels.setdefault((start, end), {})
        if why is not None:
            labels[why] = None

    def touch(self, node: str) -> bool:
        return any(node in pair for pair in self._labels)

    def lines(self, saga: SagaDefinition) -> Iterator[str]:
        for (start, end), why in self._labels.items():
            words = why_in_short(saga, why)
            label = "<br>".join(words)
            back = end.startswith("undo_") or end in ("compensated", "parked")
            line = "-.->" if back and not start.startswith("undo_") else "-->"
            yield f'{start} {line}|"{label}"| {end}' if label else f"{start} {line} {end}"


def _straight(saga: SagaDefinition) -> Iterator[tuple[str, str]]:
    nodes = [_STARTED, *(f"do_{step.name}" for step in saga.steps if _does(step)), "completed"]
    yield from pairwise(nodes)


def _does(step: AnyStep) -> bool:
    return not isinstance(step, LocalStep) or step.action is not None


def _turn(end: End, arrows: _Arrows) -> None:
    """The arrows of a path that does not go straight on."""
    if not end.turn:
        return  # it goes on to the end; or it could not be walked further, which the findings tell
    first, *rest = end.turn
    here = f"do_{first.step}" if first.step else _STARTED
    why: Happening | None = first
    for answer in rest:
        arrows.add(here, _asks(answer), why)
        here, why = _asks(answer), answer
    last = "parked" if end.status is Status.PARKED else end.status.value
    for node in [*(f"undo_{step}" for step in end.did(Kind.UNDO)), last]:
        arrows.add(here, node, why)
        here, why = node, None


def _asks(happening: Happening) -> str:
    return f"{'settle' if happening.what in _ASKED else 'ask'}_{happening.step}"


def _heal(saga: SagaDefinition, happening: Happening, arrows: _Arrows) -> None:
    """The arrows back to the straight way, which no end tells of."""
    name = happening.step
    if not name:
        return
    index = saga.index(name)
    later = [f"do_{one.name}" for one in saga.steps[index + 1 :] if _does(one)]
    follows = next(iter(later), "completed")
    if happening.what in (What.SIGNALLED, What.DEADLINE):
        arrows.add(f"do_{name}", follows, happening)
    if happening.what is What.LEFT_OUT and _does(saga.steps[index]):
        before = [f"do_{one.name}" for one in saga.steps[:index] if _does(one)]
        arrows.add(before[-1] if before else _STARTED, follows, happening)
    if happening.what is What.ENDED:
        arrows.add(f"do_{name}", "completed", happening)
    if happening.what in (What.SETTLED_DONE, What.SAID_DONE):
        arrows.add(_asks(happening), follows, happening)
        arrows.add(f"do_{name}", _asks(happening))
    if goes_on_being_tried(saga, happening):
        arrows.add(f"do_{name}", f"do_{name}", happening)


def _nodes(saga: SagaDefinition, arrows: _Arrows) -> Iterator[str]:
    yield f'{_STARTED}(["{saga.name}"])'
    for index, step in enumerate(saga.steps):
        if _does(step):
            text = f"{step.name}<br><i>{_who(step)}</i>"
            if isinstance(step, EndStep):
                yield f'do_{step.name}{{"{text}"}}'
            elif isinstance(step, WaitStep | DelayStep):
                yield f'do_{step.name}[/"{text}"/]'
            elif index == saga.pivot:
                yield f'do_{step.name}{{{{"{text}<br><b>pivot</b>"}}}}'
            else:
                yield f'do_{step.name}["{text}"]'
        if arrows.touch(f"settle_{step.name}"):
            yield f'settle_{step.name}{{"its participant is asked:<br>did it happen?"}}'
        if arrows.touch(f"ask_{step.name}"):
            yield f'ask_{step.name}{{"a person is asked:<br>did it happen?"}}'
        if arrows.touch(f"undo_{step.name}"):
            yield f'undo_{step.name}["undo: {undo_name(saga, step.name)}<br><i>{_who(step)}</i>"]'
    for status in (Status.COMPLETED, Status.COMPENSATED):
        if arrows.touch(status.value):
            yield f'{status.value}(["{status.value}"])'
    if arrows.touch("parked"):
        yield 'parked(["parked:<br>a person decides"])'


def _who(step: AnyStep) -> str:
    match step:
        case CommandStep():
            return step.command.contract.service.name
        case WaitStep():
            return f"waits for {' or '.join(step.names)}"
        case DelayStep():
            return "waits for its time"
        case EndStep():
            return f"may end here: {step.because}"
        case _:
            return "own database"
