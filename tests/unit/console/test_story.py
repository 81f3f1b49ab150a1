"""From a saga's row and history to its picture: which bars and marks are there, and what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas_framework.console.story import picture, pips
from sagas_framework.console.timeline import Lane, Look, Mark, Picture, Shape, Span, draw
from sagas_framework.core.events import Recorded, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import SagaInstance
from sagas_framework.storage.ports import HistoryLine
from sagas_framework.testing import Run
from tests.simulation.shapes import SHAPES, Order, sown
from tests.unit.console import tales
from tests.unit.console.tales import CARD, DELIVERY, PIVOT, TALES, TICKET, Tale, lines
from tests.unit.core.stories import CREATE_ORDER, DELIVER_ORDER, NOON, OrderState, new_instance

FWD, UNDO = Lane.FORWARD, Lane.UNDO
DONE, FAILED, FLIGHT, WAIT, AHEAD, PAUSE = (
    Look.DONE,
    Look.FAILED,
    Look.FLIGHT,
    Look.WAIT,
    Look.AHEAD,
    Look.PAUSE,
)


def spans(drawn: Picture, step: str) -> list[Span]:
    row = drawn.steps.index(step)
    return [span for span in drawn.spans if span.row == row]


def bars(drawn: Picture, step: str) -> list[tuple[Lane, Look]]:
    return [(span.lane, span.look) for span in spans(drawn, step)]


def texts(drawn: Picture, step: str) -> list[str]:
    return [span.text for span in spans(drawn, step) if span.text]


def marks(drawn: Picture, step: str) -> list[Mark]:
    row = drawn.steps.index(step)
    return [mark for mark in drawn.marks if mark.row == row]


def shapes(drawn: Picture, step: str) -> list[Shape]:
    return [mark.shape for mark in sorted(marks(drawn, step), key=lambda mark: mark.at)]


# ---- going forward --------------------------------------------------------------------------------


def test_a_saga_that_nobody_has_taken_up_is_empty_up_to_now() -> None:
    drawn = tales.not_started().picture()

    assert drawn.steps == tuple(step.name for step in CREATE_ORDER.steps)
    assert (drawn.spans, drawn.marks, drawn.now) == ((), (), 3.0)
    assert drawn.far == set(drawn.steps)
    assert drawn.summary == "Not started yet: no orchestrator has taken it up."


def test_a_saga_that_went_well_is_a_staircase_of_done_bars() -> None:
    drawn = tales.completed().picture()

    assert [(span.row, span.look) for span in drawn.spans] == [(row, DONE) for row in range(8)]
    assert [span.text for span in drawn.spans] == ["", *["30 ms"] * 6, ""]
    for earlier, later in zip(drawn.spans, drawn.spans[1:], strict=False):
        assert earlier.start < earlier.end <= later.start
    assert (drawn.now, drawn.turned, drawn.pivot) == (None, None, 4)
    assert drawn.summary == "All 8 steps done in 184 ms."


def test_a_refusal_turns_the_saga_back_and_the_undo_climbs_up() -> None:
    drawn = tales.refused().picture()

    assert bars(drawn, CARD) == [(FWD, FAILED)]
    assert texts(drawn, CARD) == ["refused"]
    assert spans(drawn, CARD)[0].title == (
        "authorize_card: refused: CardRefused: says CardRefused after 31 ms"
    )
    assert shapes(drawn, CARD) == [Shape.NOTHING]
    assert bars(drawn, TICKET) == [(FWD, DONE), (UNDO, DONE)]
    assert texts(drawn, TICKET) == ["30 ms", "undone in 25 ms"]
    assert (bars(drawn, "verify_consumer_details"), shapes(drawn, "verify_consumer_details")) == (
        [(FWD, DONE)],
        [Shape.NOTHING],
    )
    assert bars(drawn, "reject_order") == [(FWD, DONE), (UNDO, DONE)]
    undone = sorted((span for span in drawn.spans if span.lane is UNDO), key=lambda span: span.start)
    assert [span.row for span in undone] == [2, 0]
    assert drawn.turned is not None
    assert drawn.turned.text == "turned back: authorize_card was refused"
    assert spans(drawn, CARD)[0].end <= drawn.turned.at < undone[0].start
    assert drawn.summary == "3 steps done, then authorize_card was refused; everything undone in 25 ms."


def test_what_is_undone_in_the_moment_in_which_it_failed_is_undone_at_once() -> None:
    tale = Tale(state=OrderState(broken="open_ticket")).comes_to("verify_consumer_details").goes_on()

    assert tale.picture().summary == (
        "2 steps done, then create_restaurant_ticket failed; everything undone at once."
    )


def test_no_answer_is_hatched_until_the_saga_turned_back_with_what_was_sent_again() -> None:
    drawn = tales.unanswered().picture()

    assert texts(drawn, CARD)[0] == "no answer in 5 min"
    assert spans(drawn, CARD)[0].title == "authorize_card: no answer in 5 min"
    assert Counter(shapes(drawn, CARD)) == {Shape.RESEND: 3, Shape.FLAG: 1}
    assert drawn.turned is not None
    assert drawn.turned.text == "turned back: no answer in 5 min"
    assert drawn.turned.at == pytest.approx(300.064, abs=0.001)


def test_a_late_success_is_a_mark_and_moves_nothing() -> None:
    drawn = tales.late().picture()

    assert bars(drawn, CARD) == [(FWD, FAILED), (UNDO, DONE)]
    (late,) = (mark for mark in marks(drawn, CARD) if mark.shape is Shape.LATE)
    assert late.lane is FWD
    assert late.title == (
        "authorize_card: late success of accounting_service.authorize_card: "
        "recorded, changes nothing (authorize_card is compensated)"
    )
    assert drawn.now is None


def test_tries_have_pauses_between_them_and_the_last_is_in_flight_up_to_now() -> None:
    drawn = tales.retried_pivot().picture()

    assert bars(drawn, PIVOT) == [
        (FWD, FAILED),
        (FWD, PAUSE),
        (FWD, FAILED),
        (FWD, PAUSE),
        (FWD, FLIGHT),
        (FWD, AHEAD),
    ]
    assert texts(drawn, PIVOT) == ["try 1", "try 2", "try 3, sent 3 s ago", "4 min 41 s left"]
    *_, flight, left = spans(drawn, PIVOT)
    assert flight.end == left.start == drawn.now
    assert shapes(drawn, PIVOT) == [Shape.FLAG]
    assert marks(drawn, PIVOT)[0].at == left.end
    assert drawn.summary == "4 steps done; approve_restaurant_ticket is sent, try 3."


def test_a_pause_goes_on_up_to_now_and_says_when_the_next_try_comes() -> None:
    tale = Tale().comes_to(PIVOT)
    tale.waits(0.03).fails(error="KitchenBusy")
    tale.waits(1)

    drawn = tale.picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, PAUSE), (FWD, AHEAD)]
    assert texts(drawn, PIVOT) == ["failed", "next try in 4 s"]
    assert shapes(drawn, PIVOT) == []
    assert drawn.summary == "4 steps done; approve_restaurant_ticket pauses after a failed try."


def test_a_late_success_in_a_pause_ends_it() -> None:
    tale = Tale().comes_to(PIVOT)
    tale.waits(0.03).fails(error="KitchenBusy")
    tale.waits(1)
    tale.happens(tale.reply_of(PIVOT, Kind.DO, 1, Result.SUCCESS))

    drawn = tale.picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, PAUSE), (FWD, DONE)]


def test_a_message_without_a_queue_has_a_mark() -> None:
    tale = Tale().comes_to(TICKET)
    tale.history += [Recorded(tale.now, f"{TICKET}.unroutable", TICKET, {"queue": "restaurant.commands"})]

    (mark,) = marks(tale.picture(), TICKET)[:1]

    assert mark.shape is Shape.NO_QUEUE
    assert mark.title.endswith("the broker had no queue restaurant.commands")


# ---- settling -------------------------------------------------------------------------------------


def test_settling_waits_for_the_participants_word() -> None:
    drawn = tales.settling().picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, WAIT), (FWD, AHEAD)]
    assert texts(drawn, PIVOT) == ["no answer in 5 min", "asked how it stands, 20 s ago", "4 min 40 s left"]
    assert drawn.turned is None
    assert drawn.summary == ("4 steps done; its participant is asked how approve_restaurant_ticket stands.")


def test_what_turns_out_never_to_happen_gets_a_tombstone() -> None:
    drawn = tales.withdrawn().picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, WAIT)]
    assert shapes(drawn, PIVOT) == [Shape.TOMB]
    assert drawn.turned is not None
    assert marks(drawn, PIVOT)[0].at < drawn.turned.at


def test_what_turns_out_done_is_done() -> None:
    tale = tales.settling()
    tale.settles("done")

    drawn = tale.picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, WAIT), (FWD, DONE)]


def test_an_answer_without_sense_ends_the_waiting_and_parks() -> None:
    tale = tales.settling()
    tale.settles("perhaps")
    tale.waits(60)

    drawn = tale.picture()

    assert bars(drawn, PIVOT) == [(FWD, FAILED), (FWD, WAIT)]
    assert spans(drawn, PIVOT)[1].end < (drawn.now or 0) - 59
    assert shapes(drawn, PIVOT) == [Shape.STOP]


# ---- undoing --------------------------------------------------------------------------------------


def test_of_many_tries_the_first_two_one_band_and_the_last_are_drawn() -> None:
    drawn = tales.parked_undo().picture()

    undo = [span for span in spans(drawn, TICKET) if span.lane is UNDO]
    assert [span.look for span in undo] == [
        FAILED,
        PAUSE,
        FAILED,
        PAUSE,
        Look.MANY,
        PAUSE,
        FAILED,
        PAUSE,
        AHEAD,
    ]
    assert [span.text for span in undo if span.look in (FAILED, Look.MANY)] == [
        "try 1",
        "try 2",
        "tries 3 to 7",
        "try 8",
    ]
    assert undo[4].title.startswith(
        "create_restaurant_ticket, tries 3 to 7: KitchenOffline: says KitchenOffline"
    )
    assert undo[-1].text == "next try in 2 min 8 s"


def test_what_is_parked_and_goes_on_being_tried_is_parked_once() -> None:
    drawn = tales.parked_undo().picture()

    (stop,) = marks(drawn, TICKET)
    assert (stop.shape, stop.lane, stop.text) == (Shape.STOP, UNDO, "needs a person")
    assert "failed 8 times" in stop.title
    assert drawn.summary == (
        "3 steps done, then authorize_card gave no answer in 5 min; 2 of 3 effects undone; "
        "create_restaurant_ticket needs a person."
    )


def test_what_was_freed_again_was_parked() -> None:
    drawn = tales.freed().picture()

    assert shapes(drawn, TICKET) == [Shape.FREED, Shape.HAND]
    assert "was parked for " in marks(drawn, TICKET)[0].title
    assert bars(drawn, TICKET)[-1] == (UNDO, DONE)
    assert texts(drawn, TICKET)[-1] == "try 9, undone in 50 ms"


def test_an_operator_who_takes_over_waits_for_the_participants_word() -> None:
    drawn = tales.handing_over().picture()

    undo = [span for span in spans(drawn, TICKET) if span.lane is UNDO]
    assert [(span.look, span.text) for span in undo] == [
        (FAILED, "failed"),
        (WAIT, "asked how it stands, 2 s ago"),
        (AHEAD, "4 min 58 s left"),
    ]
    assert shapes(drawn, TICKET) == [Shape.FREED, Shape.HAND, Shape.FLAG]


def test_what_was_handed_over_is_parked_again() -> None:
    drawn = tales.handed_over().picture()

    assert bars(drawn, TICKET) == [(FWD, DONE), (UNDO, FAILED), (UNDO, WAIT)]
    assert shapes(drawn, TICKET) == [Shape.FREED, Shape.HAND, Shape.STOP]


def test_what_a_person_undid_is_undone() -> None:
    drawn = tales.undone_by_hand().picture()

    last = spans(drawn, TICKET)[-1]
    assert (last.lane, last.look, last.text) == (UNDO, DONE, "undone by hand")
    assert last.title == 'create_restaurant_ticket: undone by hand, by ann: "I know why"'
    assert shapes(drawn, TICKET).count(Shape.HAND) == 2


def test_what_a_person_left_as_it_is_says_so() -> None:
    drawn = tales.left_as_it_is().picture()

    (skip,) = (mark for mark in marks(drawn, TICKET) if mark.shape is Shape.SKIP)
    assert (skip.lane, skip.text) == (UNDO, "left as it is")
    assert skip.title.endswith('left as it is, by ann: "I know why": its effect stays')
    assert drawn.summary == "3 steps done, then authorize_card was refused; 1 of 2 effects undone."


@pytest.mark.parametrize("tale", [tales.cancelled_in_a_pause, tales.cancelled_in_flight])
def test_a_cancelled_saga_says_so_where_it_turned_back(tale: Callable[[], Tale]) -> None:
    drawn = tale().picture()

    assert drawn.turned is not None
    assert (drawn.turned.text, drawn.turned.title) == (
        "turned back: cancelled",
        "it was cancelled (I know why)",
    )
    assert Shape.HAND in shapes(drawn, CARD)
    assert bars(drawn, CARD)[-1] == (UNDO, DONE)


def test_cancelled_in_a_pause_the_pause_ends_and_cancelled_in_flight_there_is_no_answer() -> None:
    assert bars(tales.cancelled_in_a_pause().picture(), CARD)[:2] == [(FWD, FAILED), (FWD, PAUSE)]
    assert texts(tales.cancelled_in_flight().picture(), CARD)[0] == "cancelled"


# ---- after the pivot ------------------------------------------------------------------------------


def test_a_step_that_a_person_skipped_was_refused_before() -> None:
    drawn = tales.skipped().picture()

    assert (bars(drawn, DELIVERY), texts(drawn, DELIVERY)) == ([(FWD, FAILED)], ["refused"])
    assert shapes(drawn, DELIVERY) == [Shape.FREED, Shape.HAND, Shape.SKIP]
    assert drawn.turned is None
    assert drawn.summary == "7 of 8 steps done in 1 min 30 s, 1 skipped by hand."


def test_a_step_that_a_person_completed_is_done() -> None:
    drawn = tales.completed_by_hand().picture()

    assert bars(drawn, DELIVERY) == [(FWD, FAILED), (FWD, DONE)]
    assert texts(drawn, DELIVERY) == ["refused", "done by hand"]


def test_our_own_code_that_raises_after_the_pivot_blocks() -> None:
    drawn = tales.blocked().picture()

    assert (bars(drawn, DELIVERY), texts(drawn, DELIVERY)) == ([(FWD, FAILED)], ["our code failed"])
    assert shapes(drawn, DELIVERY) == [Shape.STOP]


def test_our_own_code_that_cannot_take_a_reply_does_not_make_the_step_undone() -> None:
    drawn = tales.answered().picture()

    assert (bars(drawn, PIVOT), texts(drawn, PIVOT)) == ([(FWD, DONE)], ["done, our code failed"])
    assert shapes(drawn, PIVOT) == [Shape.STOP]


def test_our_own_code_that_cannot_decide_is_marked_where_the_saga_stood() -> None:
    tale = Tale().comes_to(TICKET)
    tale.history += [Recorded(tale.now, "stumbled", None, {"type": "KeyError", "message": "x"})]

    (mark,) = (mark for mark in marks(tale.picture(), TICKET) if mark.shape is Shape.STUMBLE)

    assert mark.title.endswith("our own code could not decide: KeyError: x")


# ---- what stays small -----------------------------------------------------------------------------


@pytest.mark.parametrize("tale", [tales.sent_again_for_days, tales.undo_tried_for_days])
def test_a_history_of_hundreds_of_lines_stays_a_small_picture(tale: Callable[[], Tale]) -> None:
    told = tale()

    drawn = told.picture()

    assert len(told.history) > 400
    assert len(drawn.spans) + len(drawn.marks) < 30
    assert len(draw(drawn)) < 10_000


def test_of_what_was_sent_again_for_days_the_first_two_and_the_last_are_marked() -> None:
    drawn = tales.sent_again_for_days().picture()

    again = [mark for mark in marks(drawn, DELIVERY) if mark.shape is Shape.RESEND]
    assert len(again) == 3
    assert again[-1].title.endswith("(400 in all)")
    assert texts(drawn, DELIVERY)[-1] == "sent 401 times, first 3 d ago"


# ---- what is not known ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TALES)
def test_without_the_declaration_the_same_is_drawn_but_for_the_pivot(name: str) -> None:
    tale = TALES[name]()

    known, alone = tale.picture(), tale.picture(alone=True)

    assert alone.pivot is None
    assert alone.spans == known.spans
    assert [mark.shape for mark in alone.marks] == [mark.shape for mark in known.marks]
    if tale.history:
        assert alone.steps == known.steps


def test_with_another_versions_declaration_no_pivot_is_drawn() -> None:
    drawn = tales.completed().picture(CREATE_ORDER)

    assert drawn.pivot is None
    assert len(drawn.steps) == len(DELIVER_ORDER.steps)


def test_words_and_steps_that_nobody_knows_are_left_out_or_added() -> None:
    tale = Tale().comes_to(TICKET)
    tale.history += [
        Recorded(tale.now, "hibernated", None, {"until": "spring"}),
        Recorded(tale.now, f"{TICKET}.hibernated", TICKET),
        Recorded(tale.now, "garnish.running", "garnish"),
        Recorded(tale.now, "reply_ignored", None, {"task": "x.y", "result": "success", "why": "matches no"}),
    ]

    drawn = tale.picture()

    assert drawn.steps[-1] == "garnish"
    assert bars(drawn, "garnish") == [(FWD, FAILED)]
    assert Shape.LATE in {mark.shape for mark in drawn.marks}


def test_what_a_failure_says_is_short_and_in_one_line() -> None:
    tale = Tale().comes_to(CARD)
    message = "<b>\n" + "no " * 5000
    tale.happens(tale.reply_of(CARD, Kind.DO, 1, Result.REFUSED, error={"type": "X", "message": message}))

    title = spans(tale.picture(), CARD)[0].title

    assert "\n" not in title
    assert len(title) < 300


# ---- clocks ---------------------------------------------------------------------------------------


def test_a_clock_that_is_behind_stands_still_until_it_catches_up() -> None:
    tale = tales.refused()
    behind = [replace(line, at=line.at - timedelta(seconds=3)) for line in tale.history[5:]]
    tale.history[5:] = behind

    drawn = tale.picture()

    assert bars(drawn, TICKET) == [(FWD, DONE), (UNDO, DONE)]
    assert all(span.start <= span.end for span in drawn.spans)
    assert drawn.now is None


def test_now_is_never_before_what_has_happened() -> None:
    tale = tales.retried_pivot()
    tale.now = NOON - timedelta(seconds=5)

    drawn = tale.picture()

    assert drawn.now is not None
    assert drawn.now >= max(span.end for span in drawn.spans if span.look is not AHEAD)


# ---- any history ----------------------------------------------------------------------------------


def assert_is_drawn(drawn: Picture) -> None:
    """Well-formed, within its place, and no bar ends before it begins."""
    root = ElementTree.fromstring(draw(drawn))
    for element in root.iter():
        for name, value in element.attrib.items():
            if value.endswith("%"):
                assert 0 <= float(value[:-1]) <= 100, (name, value)
    for span in drawn.spans:
        assert 0 <= span.start <= span.end
    for mark in drawn.marks:
        assert mark.at >= 0
    assert drawn.summary.endswith(".")


@pytest.mark.parametrize("name", TALES)
def test_every_tale_is_drawn(name: str) -> None:
    tale = TALES[name]()

    assert_is_drawn(tale.picture())
    ElementTree.fromstring(pips(tale.instance, tale.saga))


Snapshot = tuple[SagaInstance, list[HistoryLine], datetime]


def snapshots(shape: str, seed: int, moments: list[float]) -> tuple[Run[Order], list[Snapshot]]:
    """The first saga of a run with random faults, at these moments and at its end."""
    found: list[Snapshot] = []

    def look(run: Run[Any]) -> None:
        kept = [line for line in run.database.history if line.saga_id == run.ids[0]]
        found.append((run.instance, kept, run.world.now))

    run = SHAPES[shape].replay(SHAPES[shape].run(sown(seed)).schedule, meanwhile=dict.fromkeys(moments, look))
    look(run)
    return run, found


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(0, 10_000),
    st.lists(st.floats(0, 600) | st.floats(0, 0.2), max_size=4, unique=True),
    st.booleans(),
)
def test_whatever_fails_it_can_be_drawn_at_any_moment(
    shape: str, seed: int, moments: list[float], declared: bool
) -> None:
    run, found = snapshots(shape, seed, moments)

    for instance, history, now in found:
        definition = run.definition if declared else None
        assert_is_drawn(picture(instance, definition, history, now))
        ElementTree.fromstring(pips(instance, definition))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_history_that_is_cut_or_told_by_skewed_clocks_can_be_drawn(data: st.DataObject) -> None:
    tale = TALES[data.draw(st.sampled_from(sorted(TALES)))]()
    kept = data.draw(st.integers(0, len(tale.history)))
    skews = st.floats(-5, 5).map(lambda seconds: timedelta(seconds=seconds))
    history = [
        replace(line, at=line.at + skew)
        for line, skew in zip(
            tale.history[:kept],
            data.draw(st.lists(skews, min_size=kept, max_size=kept)) if kept < 60 else [timedelta(0)] * kept,
            strict=True,
        )
    ]

    assert_is_drawn(picture(tale.instance, tale.saga, lines(history), tale.now))


# ---- the small picture ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tale", "label"),
    [
        (tales.not_started, "0 of 6 steps done"),
        (tales.completed, "8 of 8 steps done"),
        (tales.refused, "3 of 6 steps done, 1 failed, 2 undone"),
        (tales.retried_pivot, "4 of 6 steps done, 1 under way"),
        (tales.parked_undo, "3 of 6 steps done, 1 failed, 2 undone, 1 not undone: needs a person"),
        (tales.unanswered, "3 of 6 steps done, 1 failed, 1 being undone"),
        (tales.skipped, "7 of 8 steps done"),
        (tales.blocked, "5 of 8 steps done, 1 failed"),
        (tales.settling, "4 of 6 steps done, 1 under way"),
    ],
)
def test_the_small_picture_says_in_words_what_it_shows(tale: Callable[[], Tale], label: str) -> None:
    told = tale()

    root = ElementTree.fromstring(pips(told.instance, told.saga))

    assert root.get("aria-label") == label


def test_without_a_declaration_a_saga_that_has_not_started_has_no_cells() -> None:
    root = ElementTree.fromstring(pips(new_instance(CREATE_ORDER), None))

    assert list(root) == []
    assert picture(new_instance(CREATE_ORDER), None, [], NOON).steps == ()
