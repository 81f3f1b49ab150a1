"""The table of all outcomes."""

from __future__ import annotations

from sagas_framework import Retry, Saga, Status
from sagas_framework.check.outcomes import outcomes, table
from sagas_framework.check.walk import walk
from tests.unit.check.orders import (
    Authorize,
    Release,
    State,
    authorize,
    charge,
    cook,
    nothing,
    printed,
    step,
    ticket,
)

SILENT = "has no answer in 5 min or is cancelled"
ASKED = "its participant, asked, says"


class Small(Saga[State], name="small", version=1):
    mark = step.local(compensation=nothing)
    ticket = ticket()
    charge = charge(retry=Retry(2))
    close = step.local(nothing)


def test_every_outcome_is_told_once_and_what_ends_alike_together() -> None:
    undone = ("reject_ticket", "mark")

    assert [(o.happens, o.does, o.undoes, o.status) for o in outcomes(walk(Small.definition))] == [
        (("every step succeeds",), ("ticket", "charge", "close"), (), Status.COMPLETED),
        # `mark` stands for what was committed together with the saga, so it is undone then, too.
        (("it is cancelled before its first step",), (), ("mark",), Status.COMPENSATED),
        (("`ticket` is refused (Closed)",), ("ticket",), ("mark",), Status.COMPENSATED),
        (
            (f"`ticket` fails 3 times, {SILENT}",),
            ("ticket",),
            undone,
            Status.COMPENSATED,
        ),
        (
            (
                "`charge` is refused (Refused)",
                f"`charge` fails twice, {SILENT}; {ASKED} that it was refused (Refused) or did not happen",
            ),
            ("ticket", "charge"),
            undone,
            Status.COMPENSATED,
        ),
        (("`close` raises in our own code",), ("ticket", "charge", "close"), (), Status.PARKED),
    ]


def test_the_table_is_markdown() -> None:
    lines = table(walk(Small.definition)).splitlines()

    assert lines[:4] == [
        "| what happens | is done, in order | is undone, in order | ends |",
        "|---|---|---|---|",
        "| every step succeeds | `ticket`, `charge`, `close` | nothing | **completed** |",
        "| it is cancelled before its first step | nothing | `mark` | **compensated** |",
    ]
    assert "`charge` is refused (Refused)<br>or `charge` fails twice" in lines[6]
    assert lines[7].endswith(
        "| **parked**: our own code raised after the pivot (Exception); repair it, then retry |"
    )
    assert lines[8] == ""
    assert [line.split(",")[0] for line in lines[9:]] == [
        "- When `charge`",
        "- What undoes a step is tried again until it succeeds. Once it failed 5 times",
        "- Our own code that raises",
    ]


def test_a_person_who_is_asked_is_told_of() -> None:
    class Printed(Saga[State], name="printed", version=1):
        print = printed()
        charge = charge()

    said = {outcome.happens: outcome for outcome in outcomes(walk(Printed.definition))}
    parked = said[("`print` has no answer in 5 min",)]
    refused = said[
        (
            "`print` is refused (Closed) or fails",
            "`print` has no answer in 5 min; a person says that it did not happen",
        )
    ]

    assert "complete it if it happened, withdraw it if it did not" in parked.why
    assert parked.to_json()["status"] == "parked"
    assert refused.status.value == "compensated"
    assert refused.undoes == ()


def test_what_is_said_of_our_own_code_is_what_the_walk_finds() -> None:
    def no_request(state: State) -> Authorize:
        raise LookupError("no card")

    class Raises(Saga[State], name="raises", version=1):
        ticket = ticket()
        authorize = step.command(Authorize, no_request, compensation=lambda s: Release(order_id=1))
        charge = charge()
        close = step.local(nothing)

    walked = walk(Raises.definition)

    (raised,) = [outcome for outcome in outcomes(walked) if "raises in our own code" in str(outcome.happens)]
    assert (raised.undoes, raised.status) == (("reject_ticket",), Status.COMPENSATED)
    assert "a step whose command could not be made was not sent, and is not undone" in table(walked)


def test_what_goes_on_being_tried_after_the_pivot_is_said_once() -> None:
    class After(Saga[State], name="after", version=1):
        authorize = authorize()
        charge = charge()
        cook = cook()

    text = table(walk(After.definition))

    assert "After the pivot nothing turns back" in text
    assert "`cook` fails" not in text
    assert "After the pivot" not in table(walk(Small.definition))
