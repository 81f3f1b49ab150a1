"""The flowchart."""

from __future__ import annotations

from sagas_framework import Saga
from sagas_framework.check.drawing import drawing
from sagas_framework.check.walk import walk
from tests.unit.check.orders import State, authorize, charge, cook, printed
from tests.unit.check.test_outcomes import Small


def test_it_has_every_step_every_way_back_and_every_end() -> None:
    assert drawing(walk(Small.definition)).splitlines() == [
        "flowchart TD",
        '    started(["small"])',
        '    undo_mark["undo: mark<br><i>own database</i>"]',
        '    do_ticket["ticket<br><i>kitchen</i>"]',
        '    undo_ticket["undo: reject_ticket<br><i>kitchen</i>"]',
        '    do_charge{{"charge<br><i>bank</i><br><b>pivot</b>"}}',
        '    settle_charge{"its participant is asked:<br>did it happen?"}',
        '    do_close["close<br><i>own database</i>"]',
        '    completed(["completed"])',
        '    compensated(["compensated"])',
        '    parked(["parked:<br>a person decides"])',
        "    started --> do_ticket",
        "    do_ticket --> do_charge",
        "    do_charge --> do_close",
        "    do_close --> completed",
        '    do_close -.->|"raises"| parked',
        '    do_charge -.->|"Refused"| undo_ticket',
        "    undo_ticket --> undo_mark",
        "    undo_mark --> compensated",
        '    do_charge -->|"fails twice<br>no answer<br>cancelled"| settle_charge',
        '    settle_charge -.->|"it was refused<br>it did not"| undo_ticket',
        '    do_ticket -.->|"Closed"| undo_mark',
        '    do_ticket -.->|"fails 3 times<br>no answer<br>cancelled"| undo_ticket',
        '    started -.->|"cancelled"| undo_mark',
        '    settle_charge -->|"it did"| do_close',
        "    classDef undo stroke-dasharray: 4",
        "    class undo_mark,undo_ticket undo",
    ]


def test_a_step_after_the_pivot_leads_back_to_itself() -> None:
    class After(Saga[State], name="after", version=1):
        authorize = authorize()
        charge = charge()
        cook = cook()

    assert (
        '    do_cook -->|"fails 3 times<br>no answer"| do_cook'
        in drawing(walk(After.definition)).splitlines()
    )


def test_where_nobody_else_can_be_asked_a_person_is() -> None:
    class Printed(Saga[State], name="printed", version=1):
        print = printed()
        charge = charge()

    lines = drawing(walk(Printed.definition)).splitlines()

    assert '    ask_print{"a person is asked:<br>did it happen?"}' in lines
    assert '    do_print -->|"no answer"| ask_print' in lines
    assert '    ask_print -->|"it did"| do_charge' in lines
    assert '    ask_print -.->|"it did not"| compensated' in lines
