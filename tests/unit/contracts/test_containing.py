"""`jsonsubschema` in its child: it answers, or is given up."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sagas_framework.contracts.containing import Containing

NARROW = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
ENDLESS = {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}


def test_it_answers_yes_and_no(containing: Containing) -> None:
    assert containing.contains({"type": "number"}, {"type": "integer"}) is True
    assert containing.contains({"type": "integer"}, {"type": "number"}) is False


def test_what_the_library_cannot_do_has_no_answer(containing: Containing) -> None:
    assert containing.contains({"type": "string", "pattern": "(?!a)"}, {"type": "string"}) is None
    assert containing.contains({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer"}) is None


def test_a_question_that_takes_for_ever_is_given_up_and_the_next_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    children: list[Any] = []
    begin = subprocess.Popen

    def counted(*args: Any, **options: Any) -> Any:
        children.append(begin(*args, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)

    with Containing(patience=1.0) as containing:
        assert containing.contains(ENDLESS, NARROW) is None
        assert containing.contains(ENDLESS, NARROW) is None
        assert len(children) == 1  # it is not asked again
        assert containing.contains({"type": "string"}, NARROW) is True


def test_the_time_that_the_library_takes_to_be_imported_is_not_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import time\ntime.sleep(2)\n\ndef isSubschema(sent, taken):\n    return sent == taken\n"
    (tmp_path / "jsonsubschema.py").write_text(slow)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with Containing(patience=1.0) as containing:
        assert containing.contains(NARROW, NARROW) is True
