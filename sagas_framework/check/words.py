"""What happened on a path, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sagas_framework.check.findings import listed
from sagas_framework.check.paths import BRANCHES, Happening, What
from sagas_framework.core.why import in_words, times
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep, EndStep


def stories_in_words(saga: SagaDefinition, stories: Iterable[tuple[Happening, ...]]) -> list[str]:
    """What leads to one and the same end; stories that differ in a word only are told in one."""
    told: dict[tuple[object, str, bool], tuple[list[Happening], list[Happening]]] = {}
    for story in stories:
        branches = tuple(happening for happening in story if happening.what in BRANCHES)
        turn = [happening for happening in story if happening.what not in BRANCHES]
        name = turn[0].step or "-" if turn else ""
        firsts, seconds = told.setdefault((branches, name, len(turn) > 1), ([], []))
        firsts += turn[:1]
        seconds += turn[1:]
    return [_in_words(saga, key[0], firsts, seconds) for key, (firsts, seconds) in told.items()]


def _in_words(
    saga: SagaDefinition, branches: object, firsts: Sequence[Happening], seconds: Sequence[Happening]
) -> str:
    assert isinstance(branches, tuple)
    parts = [_branch(saga, happening) for happening in branches]
    if firsts or not parts:
        parts.append(_told(saga, firsts, seconds))
    return "; ".join(parts)


def _branch(saga: SagaDefinition, happening: Happening) -> str:
    match happening.what:
        case What.SIGNALLED:
            return f"`{happening.step}` gets {happening.name}"
        case What.DEADLINE:
            return f"`{happening.step}` has no signal by its deadline"
        case What.LEFT_OUT:
            return f"`{happening.step}` is left out"
        case _:
            step = saga.steps[saga.index(happening.step)]
            because = step.because if isinstance(step, EndStep) else ""
            return f"`{happening.step}` ends it early ({because})"


def _told(saga: SagaDefinition, firsts: Sequence[Happening], seconds: Sequence[Happening]) -> str:
    if not firsts:
        return "every step succeeds"
    if not firsts[0].step:
        return "it is cancelled before its first step"
    step = saga.steps[saga.index(firsts[0].step)]
    text = f"`{step.name}` {listed(_verbs(step, firsts), last='or')}"
    if seconds:
        asked = "a person" if seconds[0].what is What.SAID_WITHDRAWN else "its participant, asked,"
        text += f"; {asked} says that it {listed(_answers(seconds), last='or')}"
    return text


def _verbs(step: AnyStep, happenings: Iterable[Happening]) -> list[str]:
    whats = dict.fromkeys(happening.what for happening in happenings)
    names = dict.fromkeys(happening.name for happening in happenings if happening.name)
    words = {
        What.REFUSED: f"is refused ({listed(names, last='or')})" if names else "",
        What.FAILED: _fails(step),
        What.NO_ANSWER: f"has no answer in {in_words(step.timeout)}",
        What.CANCELLED: "is cancelled",
        What.RAISED: "raises in our own code",
        What.TOLD_NO: f"is told no ({listed(names, last='or')})" if names else "",
        What.EXPIRED: "has no signal by its deadline",
    }
    return [words[what] for what in whats]


def _fails(step: AnyStep) -> str:
    without_inbox = isinstance(step, CommandStep) and not step.has_inbox
    return "fails" if without_inbox else f"fails {times(step.retry.attempts)}"


def _answers(happenings: Iterable[Happening]) -> list[str]:
    words = {
        f"was refused ({happening.name})"
        if happening.what is What.SETTLED_REFUSED
        else "did not happen": None
        for happening in happenings
    }
    return list(words)


def why_in_short(saga: SagaDefinition, happenings: Iterable[Happening]) -> list[str]:
    """The same for an arrow's label: refusals by their names, the rest in a word or two."""
    words: dict[str, None] = {}
    for happening in happenings:
        match happening.what:
            case What.REFUSED | What.TOLD_NO | What.SIGNALLED:
                words[happening.name] = None
            case What.SETTLED_REFUSED:
                words["it was refused"] = None
            case What.FAILED:
                words[_fails(saga.steps[saga.index(happening.step)])] = None
            case What.RAISED:
                words["raises"] = None
            case What.EXPIRED | What.DEADLINE:
                words["deadline"] = None
            case What.SETTLED_WITHDRAWN | What.SAID_WITHDRAWN:
                words["it did not"] = None
            case What.SETTLED_DONE | What.SAID_DONE:
                words["it did"] = None
            case _:
                words[happening.what.value] = None
    return list(words)
