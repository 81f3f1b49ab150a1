"""`jsonsubschema` in its child: it answers, or is given up."""

from __future__ import annotations

import time

from sagas_framework.contracts.containing import Containing

NARROW = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
ENDLESS = {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}


def test_it_answers_yes_and_no(containing: Containing) -> None:
    assert containing.contains({"type": "number"}, {"type": "integer"}) is True
    assert containing.contains({"type": "integer"}, {"type": "number"}) is False


def test_what_the_library_cannot_do_has_no_answer(containing: Containing) -> None:
    assert containing.contains({"type": "string", "pattern": "(?!a)"}, {"type": "string"}) is None
    assert containing.contains({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer"}) is None


def test_a_question_that_takes_for_ever_is_given_up_and_the_next_one_is_answered() -> None:
    with Containing(patience=1.0) as containing:
        began = time.monotonic()

        assert containing.contains(ENDLESS, NARROW) is None
        assert containing.contains(ENDLESS, NARROW) is None  # it is not asked again
        assert time.monotonic() - began < 5
        assert containing.contains({"type": "string"}, NARROW) is True
