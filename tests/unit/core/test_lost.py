"""Which messages are presumed lost: those sent before everything that has left their queue."""

from __future__ import annotations

from datetime import timedelta

from sagas_framework.core.lost import Horizons
from tests.unit.core.stories import NOON, seconds

QUEUE = "restaurant_service.commands"
GRACE = timedelta(seconds=4)


def test_an_observation_counts_once_it_is_old_and_no_reply_is_waiting() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_empty(QUEUE, NOON)

    horizons.saw_no_replies_waiting(NOON + seconds(1))
    too_early = dict(horizons.ripe())
    horizons.saw_no_replies_waiting(NOON + seconds(5))

    assert too_early == {}
    assert horizons.ripe() == {QUEUE: NOON}


def test_a_second_look_within_the_grace_does_not_ripen() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_empty(QUEUE, NOON)
    horizons.saw_no_replies_waiting(NOON)

    horizons.saw_no_replies_waiting(NOON + seconds(3.999))

    assert horizons.ripe() == {}


def test_while_replies_are_waiting_nothing_ripens() -> None:
    """The answer may be among them."""
    horizons = Horizons(GRACE)
    horizons.saw_no_replies_waiting(NOON)

    horizons.saw_empty(QUEUE, NOON + seconds(1))

    assert horizons.ripe() == {}


def test_an_observation_made_while_others_ripen_waits_a_grace_of_its_own() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_empty(QUEUE, NOON)
    horizons.saw_no_replies_waiting(NOON)
    horizons.saw_empty(QUEUE, NOON + seconds(3))

    horizons.saw_no_replies_waiting(NOON + seconds(4))
    first = dict(horizons.ripe())
    horizons.saw_no_replies_waiting(NOON + seconds(8))

    assert first == {QUEUE: NOON}
    assert horizons.ripe() == {QUEUE: NOON + seconds(3)}


def test_an_answer_moves_the_horizon_to_when_its_command_was_sent() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_answer(QUEUE, NOON - seconds(7))

    horizons.saw_no_replies_waiting(NOON)
    horizons.saw_no_replies_waiting(NOON + GRACE)

    assert horizons.ripe() == {QUEUE: NOON - seconds(7)}


def test_a_horizon_never_moves_back() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_empty(QUEUE, NOON)
    horizons.saw_answer(QUEUE, NOON - seconds(7))
    for look in range(3):
        horizons.saw_no_replies_waiting(NOON + look * GRACE)

    horizons.saw_answer(QUEUE, NOON - seconds(3))
    for look in range(3, 6):
        horizons.saw_no_replies_waiting(NOON + look * GRACE)

    assert horizons.ripe() == {QUEUE: NOON}


def test_each_queue_has_its_own_horizon() -> None:
    horizons = Horizons(GRACE)
    horizons.saw_empty(QUEUE, NOON)
    horizons.saw_answer("accounting_service.commands", NOON - seconds(9))

    horizons.saw_no_replies_waiting(NOON)
    horizons.saw_no_replies_waiting(NOON + GRACE)

    assert horizons.ripe() == {QUEUE: NOON, "accounting_service.commands": NOON - seconds(9)}
