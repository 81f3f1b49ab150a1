"""What happened on a path, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sagas_framework.check.findings import listed
from sagas_framework.check.paths import Happening, What
from sagas_framework.core.why import in_words, times
from sagas_framework.saga import CommandStep, LocalStep, SagaDefinition


def stories_in_words(saga: SagaDefinition, stories: Iterable[tuple[Happening, ...]]) -> list[str]:
    """What leads to one and the same end; stories that differ in a word only are told in one."""
    told: dict[tuple[str, bool], tuple[list[Happening], list[Happening]]] = {}
    for story in stories:
        if not story:
            told[("", False)] = ([], [])
            continue
        first, *rest = story
        firsts, seconds = told.setdefault((first.step, bool(rest)), ([], []))
        firsts.append(first)
        seconds += rest
    return [_told(saga, firsts, seconds) for firsts, seconds in told.values()]


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


def _verbs(step: LocalStep[Any] | CommandStep[Any], happenings: Iterable[Happening]) -> list[str]:
    whats = dict.fromkeys(happening.what for happening in happenings)
    names = dict.fromkeys(happening.name for happening in happenings if happening.name)
    words = {
        What.REFUSED: f"is refused ({listed(names, last='or')})" if names else "",
        What.FAILED: _fails(step),
        What.NO_ANSWER: f"has no answer in {in_words(step.timeout)}",
        What.CANCELLED: "is cancelled",
        What.RAISED: "raises in our own code",
    }
    return [words[what] for what in whats]


def _fails(step: LocalStep[Any] | CommandStep[Any]) -> str:
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
            case What.REFUSED:
                words[happening.name] = None
            case What.SETTLED_REFUSED:
                words["it was refused"] = None
            case What.FAILED:
                words[_fails(saga.steps[saga.index(happening.step)])] = None
            case What.RAISED:
                words["raises"] = None
            case What.SETTLED_WITHDRAWN | What.SAID_WITHDRAWN:
                words["it did not"] = None
            case What.SETTLED_DONE | What.SAID_DONE:
                words["it did"] = None
            case _:
                words[happening.what.value] = None
    return list(words)
