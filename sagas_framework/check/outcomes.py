"""All outcomes of a saga, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from sagas_framework.check.paths import End, Happening, Walk, What
from sagas_framework.check.words import stories_in_words
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Status
from sagas_framework.core.why import in_words, times
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep


@dataclass(frozen=True)
class Outcome:
    """One way to end, or to wait for a person.

    Args:
        happens: what leads there, each in a sentence.
        does: the steps that were begun, in order.
        undoes: the compensations, in order.
        why: what a person reads who is needed; empty when nobody is.
    """

    happens: tuple[str, ...]
    does: tuple[str, ...]
    undoes: tuple[str, ...]
    status: Status
    why: str = ""

    def to_json(self) -> dict[str, object]:
        """All of it as plain JSON."""
        return {
            "happens": list(self.happens),
            "does": list(self.does),
            "undoes": list(self.undoes),
            "status": self.status.value,
            "why": self.why or None,
        }


def outcomes(walk: Walk) -> list[Outcome]:
    """All outcomes: the best first, then those that turn back the later, the sooner."""
    alike: dict[object, list[End]] = {}
    for end in walk.ends:
        why = "; ".join(why for _, why in end.parked)
        alike.setdefault((end.did(Kind.DO), end.did(Kind.UNDO), end.status, why), []).append(end)
    found = [_outcome(walk.definition, ends) for ends in alike.values()]
    return sorted(found, key=lambda outcome: (outcome.status is not Status.COMPLETED, len(outcome.does)))


def _outcome(saga: SagaDefinition, ends: list[End]) -> Outcome:
    end = ends[0]
    return Outcome(
        happens=tuple(stories_in_words(saga, [end.story for end in ends])),
        does=end.did(Kind.DO),
        undoes=tuple(undo_name(saga, step) for step in end.did(Kind.UNDO)),
        status=end.status,
        why="; ".join(why for _, why in end.parked),
    )


def undo_name(saga: SagaDefinition, name: str) -> str:
    """How a step's undoing is called: by its compensation's name, or the local step's own."""
    step = saga.steps[saga.index(name)]
    if isinstance(step, CommandStep) and step.command.compensation is not None:
        return step.command.compensation.contract.name
    return name


# ---- Markdown -------------------------------------------------------------------------------------


def table(walk: Walk) -> str:
    """The outcomes as Markdown: a table, and what holds for all of it."""
    rows = ["| what happens | is done, in order | is undone, in order | ends |", "|---|---|---|---|"]
    for outcome in outcomes(walk):
        ends = f"**{outcome.status.value}**" + (f": {outcome.why}" if outcome.why else "")
        cells = ("<br>or ".join(outcome.happens), _chain(outcome.does), _chain(outcome.undoes), ends)
        rows.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*rows, "", *_remarks(walk)])


def _chain(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _remarks(walk: Walk) -> Iterator[str]:
    saga = walk.definition
    begun = [happening for happening in walk.happened if happening.step]
    if any(goes_on_being_tried(saga, happening) for happening in begun):
        yield (
            "- After the pivot nothing turns back: a step that fails, or has no answer, is tried again until "
            "it succeeds. A person is shown it meanwhile (*parked*)."
        )
    if any(happening.what is What.SETTLED_DONE for happening in begun):
        pivot = saga.steps[saga.pivot].name
        yield (
            f"- When `{pivot}`, the pivot, was not answered, its participant is asked. If it says that it "
            "happened, the saga goes on as if it had been answered. It is asked until it answers; when that "
            "takes too long, a person is shown it (*parked*)."
        )
    tries = sorted({step.undo_retry.attempts for step in saga.steps if _undone_until_it_works(step)})
    if tries:
        often = times(tries[0]) if len(tries) == 1 else f"{tries[0]} to {tries[-1]} times"
        yield (
            f"- What undoes a step is tried again until it succeeds. Once it failed {often}, or is refused, "
            "the saga is *parked* for a person, while what is before it is undone."
        )
    if saga.deadline is not None:
        span = f" of {in_words(saga.deadline)}" if isinstance(saga.deadline, timedelta) else ""
        yield (
            f"- The saga has a deadline{span}: when it comes before the pivot, all is undone as on a cancel; "
            "a pivot in flight is asked for first; after the pivot the saga is only late."
        )
    yield (
        "- Our own code that raises, in a step or what makes its command, turns the saga back; a step whose "
        "command could not be made was not sent, and is not undone. Once the pivot has happened, the saga is "
        "*parked* for a person."
    )


def goes_on_being_tried(saga: SagaDefinition, happening: Happening) -> bool:
    """Whether a step after the pivot fails or is late, which is no end: it goes on being tried."""
    index = saga.index(happening.step)
    step = saga.steps[index]
    late = happening.what in (What.FAILED, What.NO_ANSWER)
    return late and index > saga.pivot and isinstance(step, CommandStep) and step.has_inbox


def _undone_until_it_works(step: AnyStep) -> bool:
    return step.undoable and not (isinstance(step, CommandStep) and not step.has_inbox)
