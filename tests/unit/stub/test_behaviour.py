"""What the options make of a document, and what is said of options that do not fit it."""

from __future__ import annotations

from datetime import timedelta
from math import inf
from typing import Any

import pytest

from sagas_framework.stub.behaviour import Behaviour, Options, WrongOption, behaviours
from tests.unit.stub.documents import RESERVATION, TASK, UNDO, changed, message, read, shop

SUCCESS = f"channels/{TASK}.replies/messages/{TASK}.response.success"


def told(options: Options) -> dict[str, str]:
    return {task: behaviour.told for task, behaviour in behaviours(read(shop()), options).items()}


def test_without_options_every_command_succeeds() -> None:
    assert told(Options()) == {TASK: 'answers {"number": 17}', UNDO: "answers null"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (Options(answer=[("reserve", '{"number": 8}')]), 'answers {"number": 8}'),
        (Options(answer=[(TASK, '{"number": 8}')]), 'answers {"number": 8}'),
        (Options(refuse=[("reserve", "SoldOut")]), "refuses: SoldOut"),
        (Options(fail=[("reserve", inf)]), "fails"),
        (Options(fail=[("reserve", 1)]), 'fails once, then answers {"number": 17}'),
        (Options(fail=[("reserve", 2)]), 'fails 2 times, then answers {"number": 17}'),
        (Options(silent=["reserve"]), "is silent"),
        (Options(delay=[("reserve", timedelta(seconds=3))]), 'answers {"number": 17}, after 3 s'),
        (
            Options(refuse=[("reserve", "SoldOut")], delay=[("reserve", timedelta(seconds=3))]),
            "refuses: SoldOut, after 3 s",
        ),
    ],
)
def test_an_option_changes_the_command_that_it_names(options: Options, wanted: str) -> None:
    assert told(options) == {TASK: wanted, UNDO: "answers null"}


def test_settling_can_be_silent_or_late() -> None:
    found = behaviours(read(shop()), Options(silent=["reserve.settle"]))

    assert found[f"{TASK}.settle"] == Behaviour(silent=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            Options(silent=["pay"]),
            r"--silent: shop.yaml receives no command 'pay'; it receives reserve, release",
        ),
        (Options(silent=[""]), "no command ''"),
        (Options(refuse=[("reserve", "Closed")]), r"no failure 'Closed' .* it declares: SoldOut, NoSuchSku"),
        (Options(refuse=[("release", "Closed")]), r"it declares: none\. .*--fail release"),
        (Options(refuse=[("reserve.settle", "Closed")]), "is settling"),
        (Options(refuse=[("reserve", "SoldOut"), (TASK, "NoSuchSku")]), "2 times"),
        (Options(refuse=[("reserve", "SoldOut")], fail=[("reserve", inf)]), "--fail and --refuse contradict"),
        (Options(silent=["reserve"], fail=[("reserve", inf)]), "--fail and --silent contradict"),
        (Options(silent=["reserve"], delay=[("reserve", timedelta(1))]), "--delay and --silent contradict"),
        (Options(answer=[("reserve", "17")]), r"17 is no success of shop.reserve: \$: 17 is not of type"),
        (Options(answer=[("reserve", '{"number": 1}')]), r"\$\.number: 1 is less .*'\{\"number\": 17\}'"),
        (Options(answer=[("reserve", "{number}")]), "is no JSON"),
    ],
)
def test_an_option_that_does_not_fit_is_told_with_what_there_is(options: Options, told: str) -> None:
    with pytest.raises(WrongOption, match=told):
        behaviours(read(shop()), options)


def test_a_name_that_may_be_two_commands_must_be_written_out() -> None:
    document = shop()
    for part, value in (
        (f"channels/{TASK}", "other.reserve"),
        (f"channels/{TASK}.replies", "other.reserve.replies"),
    ):
        changed(document, f"channels/{value}", _renamed(document["channels"][part.removeprefix("channels/")]))
    operation: dict[str, Any] = _renamed(document["operations"]["reserve"])
    changed(document, "operations/other", operation)

    with pytest.raises(WrongOption, match=r"'reserve' may be shop\.reserve or other\.reserve"):
        behaviours(read(document), Options(silent=["reserve"]))


def _renamed(node: Any) -> Any:
    """The same of another task."""
    if isinstance(node, dict):
        return {_renamed(name): _renamed(inner) for name, inner in node.items()}
    if isinstance(node, list):
        return [_renamed(inner) for inner in node]
    return node.replace(TASK, "other.reserve") if isinstance(node, str) else node


def test_where_no_answer_can_be_found_it_asks_for_one() -> None:
    number = {"type": "string", "pattern": "^R-"}
    reservation = RESERVATION | {"properties": {"number": number}}
    document = read(changed(shop(), SUCCESS, message(reservation)))

    with pytest.raises(WrongOption, match="--answer reserve="):
        behaviours(document)

    given = behaviours(document, Options(answer=[("reserve", '{"number": "R-1"}')]))
    assert given[TASK].answer == {"number": "R-1"}
    assert behaviours(document, Options(silent=["reserve"]))[TASK].silent
