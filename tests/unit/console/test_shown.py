"""What the page of one saga says, told from real histories."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sagas_framework.console.masking import Masking
from sagas_framework.console.shown import Shown, masked_json, shown
from sagas_framework.console.steps import Said, StepRow
from sagas_framework.core.instance import Status
from sagas_framework.view import SagaView
from tests.unit.console.tales import (
    CARD,
    DELIVERY,
    PIVOT,
    TALES,
    TICKET,
    Tale,
    answered,
    blocked,
    cancelled_in_a_pause,
    completed,
    completed_by_hand,
    freed,
    handed_over,
    handing_over,
    late,
    left_as_it_is,
    lines,
    parked_undo,
    refused,
    retried_pivot,
    settling,
    skipped,
    unanswered,
    undone_by_hand,
    withdrawn,
)


def view(tale: Tale, *, alone: bool = False, same: int = 0) -> SagaView:
    return SagaView(
        tale.instance, None if alone else tale.saga, tale.now, history=lines(tale.history), same=same
    )


def page(tale: Tale, *, alone: bool = False, same: int = 0) -> Shown:
    return shown(view(tale, alone=alone, same=same), Masking())


def row(tale: Tale, step: str) -> StepRow:
    return next(its for its in page(tale).steps if its.name == step)


def words(said: Said | None) -> str:
    return "" if said is None else "; ".join((said.text, *said.below))


FORWARD: list[tuple[Callable[[], Tale], str, str]] = [
    (completed, CARD, "done in 30 ms"),
    (refused, CARD, "refused after 31 ms; CardRefused: says CardRefused"),
    (unanswered, CARD, "no answer in 300 s"),
    (late, CARD, "no answer in 300 s; late success at +5 min 01 s: changed nothing"),
    (retried_pivot, PIVOT, "sent 3 s ago; try 3; 3 tries"),
    (settling, PIVOT, "asked how it stands"),
    (withdrawn, PIVOT, "never happened; "),
    (skipped, DELIVERY, "skipped; by ann"),
    (completed_by_hand, DELIVERY, "done by hand; by ann"),
    (blocked, DELIVERY, "blocked, but our own code failed; KeyError: "),
    (answered, PIVOT, "answered, but our own code failed; KeyError: "),
    (cancelled_in_a_pause, CARD, "failed"),
]
UNDO: list[tuple[Callable[[], Tale], str, str]] = [
    (completed, CARD, ""),
    (refused, TICKET, "undone in 25 ms"),
    (refused, "verify_consumer_details", "nothing to undo"),
    (refused, CARD, "nothing to undo"),
    (parked_undo, TICKET, "failed 8 times, last 0 ms ago; KitchenOffline: says KitchenOffline; try 9 in "),
    (freed, TICKET, "undone in "),
    (handing_over, TICKET, "being handed over to you"),
    (handed_over, TICKET, "yours to undo by hand"),
    (undone_by_hand, TICKET, "undone by hand; by ann"),
    (left_as_it_is, TICKET, "skipped: left as it is"),
]
EFFECTS: list[tuple[Callable[[], Tale], str, tuple[str, str, str]]] = [
    (completed, CARD, ("kept", "kept", "transaction_id t-9")),
    (refused, TICKET, ("undone", "undone", "ticket_id 7")),
    (refused, CARD, ("never happened", "none", "")),
    (parked_undo, TICKET, ("still there", "open", "ticket_id 7")),
    (handed_over, TICKET, ("still there", "open", "undoing it is a person's")),
    (retried_pivot, PIVOT, ("unknown", "awaited", "nobody has said yet")),
    (settling, PIVOT, ("unknown", "unknown", "nobody has said yet")),
    (retried_pivot, CARD, ("there", "there", "transaction_id t-9")),
    (completed, "verify_consumer_details", ("no effect", "none", "it leaves nothing behind")),
]


@pytest.mark.parametrize(("tale", "step", "told"), FORWARD, ids=lambda its: getattr(its, "__name__", None))
def test_how_a_step_went(tale: Callable[[], Tale], step: str, told: str) -> None:
    assert words(row(tale(), step).forward).startswith(told)


@pytest.mark.parametrize(("tale", "step", "told"), UNDO, ids=lambda its: getattr(its, "__name__", None))
def test_how_it_was_undone(tale: Callable[[], Tale], step: str, told: str) -> None:
    said = words(row(tale(), step).undo)

    assert said.startswith(told)
    assert bool(said) == bool(told)


@pytest.mark.parametrize(("tale", "step", "told"), EFFECTS, ids=lambda its: getattr(its, "__name__", None))
def test_what_of_it_is_there_now(tale: Callable[[], Tale], step: str, told: tuple[str, str, str]) -> None:
    its = row(tale(), step)

    assert (its.effect, its.tone, its.of_effect) == told


@pytest.mark.parametrize("name", TALES)
@pytest.mark.parametrize("alone", [False, True], ids=["declared", "undeclared"])
def test_every_story_has_a_page(name: str, alone: bool) -> None:
    tale = TALES[name]()

    its = page(tale, alone=alone)

    assert [step.name for step in its.steps] == [record.name for record in its.view.records]
    assert "<svg" in its.svg
    assert bool(its.undeclared) == alone
    assert not (alone and its.choices)
    assert masked_json(its.view, Masking())["why"] == its.view.why


@pytest.mark.parametrize("name", TALES)
def test_the_parts_of_the_sentence_are_the_sentence(name: str) -> None:
    seen = view(TALES[name](), same=3)

    why = shown(seen, Masking()).why

    lead = why.lead.striptags()
    rest = f"{why.before}{why.others}{why.after}"
    assert " ".join((lead, rest)).split() == " ".join(seen.why.split()).split()


def test_of_an_ended_saga_how_long_it_took_is_told() -> None:
    assert [(fact.name, fact.text) for fact in page(refused()).facts] == [
        ("Ended", "12:00:00.120"),
        ("Took", "120 ms"),
        ("Revision", str(refused().instance.revision)),
    ]


def test_of_a_parked_one_since_when() -> None:
    tale = parked_undo()
    tale.waits(60)

    first = page(tale).facts[0]

    assert first.name == "Parked"
    assert first.text.endswith("ago, after 5 min 15 s")
    assert tale.status is Status.PARKED


def test_an_undo_that_is_no_longer_kept_is_built_anew_and_says_so() -> None:
    undo = [its for its in row(refused(), TICKET).payloads if its.what == "Undo"]

    assert [(its.name, its.note) for its in undo] == [
        ("restaurant_service.reject_ticket", "as the state makes it now")
    ]


def test_messages_carry_the_ids_that_travel() -> None:
    tale = retried_pivot()

    first, *_ = row(tale, PIVOT).payloads

    assert first.what == "Command, try 3"
    assert first.message_id == tale.flight(PIVOT).message_id


def test_the_first_retry_stands_out_and_turning_back_warns() -> None:
    tale = retried_pivot()
    parked = page(parked_undo()).choices

    assert [(its.act, its.look) for its in parked] == [("retry", "main"), ("skip", ""), ("complete", "")]
    assert [(its.value, its.look) for its in page(tale).choices] == [("cancel", "danger")]
