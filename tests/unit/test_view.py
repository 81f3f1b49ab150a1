"""One saga, and sagas that wait for the same, as a person looks at them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.instance import Cause
from sagas_framework.core.why import QueueSeen
from sagas_framework.saga import SagaDefinition
from sagas_framework.storage.ports import ActRow, HistoryLine, Stuck
from sagas_framework.view import SagaView, StuckView, needs_reply
from tests.unit.core.stories import DELIVER_ORDER, NOON, SAGA_ID, Run, new_instance, seconds

TICKETS = "restaurant_service.commands"
LATER = NOON + seconds(5)


def view_of(run: Run, **more: Any) -> SagaView:
    return SagaView(run.instance, run.saga, run.now, **more)


def parked() -> Run:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")
    return run


# ---- one saga ---------------------------------------------------------------------------------------


def test_the_view_finds_the_queue_that_its_saga_waits_for() -> None:
    queue = QueueSeen(TICKETS, NOON, 3, 0, NOON)
    queues = {TICKETS: queue, "order_service.replies": QueueSeen("order_service.replies", NOON, 0, 1)}

    view = view_of(Run().until("create_restaurant_ticket"), queues=queues, same=2)

    assert view.queue == queue
    assert view.why.endswith(
        "No worker has taken from restaurant_service.commands since 12:00. "
        "3 messages wait in restaurant_service.commands. 2 more sagas wait for the same."
    )
    assert view.why_in_json() == {"why": view.why, "queue": queue.to_json(), "same": 2}


def test_a_saga_that_waits_for_no_queue_has_none() -> None:
    view = view_of(parked(), queues={TICKETS: QueueSeen(TICKETS, NOON, 3, 0, NOON)})

    assert view.queue is None
    assert view.why_in_json()["queue"] is None


def test_the_view_as_json_is_plain_and_complete() -> None:
    run = parked()
    line = HistoryLine(SAGA_ID, 1, 4, Recorded(NOON, "parked", None, {"why": "because"}))
    asked = ActRow(7, SAGA_ID, Act.RETRY, "ann", "now", NOON, handled_at=NOON, refused=True, answer="no")

    shown = view_of(run, history=[line], acts=[asked]).to_json()

    assert json.loads(json.dumps(shown)) == shown
    assert shown["waits"] == {"cause": "person", "for": "start_delivery", "since": NOON.isoformat()}
    assert shown["why"].startswith("start_delivery needs a person")
    assert (shown["same"], shown["queue"], shown["declared"]) == (0, None, True)
    assert shown["history"] == [
        {"at": NOON.isoformat(), "entry": "parked", "step": None, "detail": {"why": "because"}, "revision": 4}
    ]
    assert [(act["number"], act["became"], act["answer"]) for act in shown["acts"]] == [(7, "refused", "no")]
    assert {can["act"] for can in shown["can_do"]} == {"skip", "complete"}


def test_every_step_as_json_has_its_phase_its_counts_and_its_effect() -> None:
    steps = view_of(parked()).to_json()["steps"]

    told = {step["name"]: (step["phase"], step["attempts"], step["tries"], step["effect"]) for step in steps}
    assert list(told) == [step.name for step in DELIVER_ORDER.steps]
    assert told["verify_consumer_details"] == ("succeeded", 1, 0, "no effect")
    assert told["create_restaurant_ticket"] == ("succeeded", 1, 0, "there")
    assert told["start_delivery"] == ("refused", 1, 0, "never happened")
    assert told["send_receipt"] == ("pending", 0, 0, "never happened")


def test_an_ended_saga_waits_for_nothing() -> None:
    shown = view_of(Run().start().until_end()).to_json()

    assert shown["waits"] is None
    assert shown["ended_at"] == NOON.isoformat()
    assert shown["can_do"] == []


def test_a_saga_that_is_not_declared_here_is_shown_and_offers_nothing() -> None:
    run = parked()

    shown = SagaView(run.instance, None, run.now).to_json()

    assert shown["declared"] is False
    assert shown["can_do"] == []
    assert len(shown["steps"]) == len(DELIVER_ORDER.steps)


def with_other_steps() -> SagaDefinition:
    """What deliver_order became after somebody took a step out, under the same version."""
    return replace(DELIVER_ORDER, steps=DELIVER_ORDER.steps[:2], shape="another")


@pytest.mark.parametrize("ended", [False, True])
def test_a_declaration_with_other_steps_than_the_saga_has_is_not_its_own(ended: bool) -> None:
    run = parked()
    if ended:
        run.operator(Act.SKIP)
        run.until_end()

    view = SagaView(run.instance, with_other_steps(), run.now)

    assert view.saga is None
    assert view.why == SagaView(run.instance, None, run.now).why
    assert view.to_json()["declared"] is False


def test_a_step_that_needs_a_reply_to_be_completed_is_told_from_others() -> None:
    view = view_of(parked())

    assert needs_reply(view, Act.COMPLETE, "start_delivery")
    assert needs_reply(view, Act.COMPLETE, None)
    assert not needs_reply(view, Act.SKIP, "start_delivery")
    assert not needs_reply(view, Act.COMPLETE, "send_receipt")


# ---- what waits for the same ------------------------------------------------------------------------


def stuck(cause: Cause, what: str = "", count: int = 12) -> Stuck:
    return Stuck("deliver_order", 1, cause, what, count, NOON, SAGA_ID)


def told(stuck: Stuck, example: SagaView | None = None, *, declared: bool = True) -> str:
    return StuckView(stuck, declared, example, LATER).why


def test_sagas_whose_time_is_over_ask_for_an_orchestrator() -> None:
    assert told(stuck(Cause.SIGNAL, "approval")) == (
        "12 sagas of deliver_order wait at approval for a signal since 12:00, and their time is over: "
        "is an orchestrator running?"
    )
    assert told(stuck(Cause.TIME, "cool_down", 1)) == (
        "1 saga of deliver_order waits at cool_down since 12:00, and its time is over: "
        "is an orchestrator running?"
    )


def test_sagas_that_need_a_person_say_where_since_when_and_why() -> None:
    group = stuck(Cause.PERSON, "start_delivery")

    assert told(group, view_of(parked())) == (
        "12 sagas need a person at deliver_order.start_delivery since 12:00 (NoCourier: says NoCourier)."
    )
    assert (
        told(replace(group, count=1)) == "1 saga needs a person at deliver_order.start_delivery since 12:00."
    )


def test_a_person_who_is_needed_for_silence_is_told_so() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(timedelta(minutes=5))

    assert told(stuck(Cause.PERSON, "start_delivery", 1), view_of(run)) == (
        "1 saga needs a person at deliver_order.start_delivery since 12:00 "
        "(delivery_service.start_delivery: no answer in 300 s; it goes on being sent)."
    )


def waiting_for_a_ticket(*queues: QueueSeen) -> tuple[Stuck, SagaView]:
    run = Run(DELIVER_ORDER).until("create_restaurant_ticket")
    group = stuck(Cause.ANSWER, "restaurant_service.create_ticket", 1204)
    return group, view_of(run, queues={queue.queue: queue for queue in queues})


WAITING = "1,204 sagas of deliver_order wait for restaurant_service.create_ticket since 12:00. "


@pytest.mark.parametrize(
    ("queue", "rest"),
    [
        (
            QueueSeen(TICKETS, LATER, 1210, 0, NOON),
            f"No worker has taken from {TICKETS} since 12:00. 1,210 messages wait in {TICKETS}.",
        ),
        (QueueSeen(TICKETS, LATER, 0, 3), "3 workers take from restaurant_service.commands."),
        (
            QueueSeen(TICKETS, LATER, 7, 1),
            f"7 messages wait in {TICKETS}. 1 worker takes from {TICKETS}.",
        ),
        (
            QueueSeen(TICKETS, LATER - timedelta(minutes=4), 7, 1),
            "Who takes from restaurant_service.commands is unknown: no orchestrator has looked for 4 min.",
        ),
    ],
)
def test_sagas_that_wait_for_an_answer_say_what_the_broker_says(queue: QueueSeen, rest: str) -> None:
    assert told(*waiting_for_a_ticket(queue)) == WAITING + rest


def test_a_queue_that_was_never_seen_is_unknown() -> None:
    assert told(*waiting_for_a_ticket()) == (
        f"{WAITING}Who takes from restaurant_service.commands is unknown: no orchestrator has looked yet."
    )


def test_sagas_that_pause_say_what_failed() -> None:
    run = Run(DELIVER_ORDER).until("create_restaurant_ticket")
    run.fails(error="KitchenBusy")

    assert told(stuck(Cause.PAUSE, "create_restaurant_ticket", 1), view_of(run)) == (
        "1 saga pauses at deliver_order.create_restaurant_ticket since 12:00 "
        "(KitchenBusy: says KitchenBusy); the next try comes by itself."
    )


def test_sagas_that_no_orchestrator_looks_at_ask_for_one() -> None:
    assert told(stuck(Cause.START)) == (
        "12 sagas of deliver_order wait for an orchestrator to take them up since 12:00: is one running?"
    )
    assert told(stuck(Cause.START, count=1)) == (
        "1 saga of deliver_order waits for an orchestrator to take it up since 12:00: is one running?"
    )
    assert told(stuck(Cause.TURN, count=1)) == (
        "1 saga of deliver_order waits for an orchestrator's next look since 12:00: is one running?"
    )


def test_sagas_that_are_not_declared_here_are_moved_by_nobody() -> None:
    group = replace(stuck(Cause.START), version=7)

    assert told(group, declared=False).endswith(
        ": is one running? deliver_order version 7 is not declared here, or with other steps: "
        "no worker of this service moves them."
    )


def test_a_group_as_json_has_its_queue_and_an_example() -> None:
    group, example = waiting_for_a_ticket(QueueSeen(TICKETS, LATER, 0, 3))

    shown = StuckView(group, True, example, LATER).to_json()

    assert json.loads(json.dumps(shown)) == shown
    assert (shown["saga"], shown["version"], shown["count"]) == ("deliver_order", 1, 1204)
    assert (shown["cause"], shown["for"]) == ("answer", "restaurant_service.create_ticket")
    assert (shown["since"], shown["declared"]) == (NOON.isoformat(), True)
    assert shown["queue"]["consumers"] == 3
    assert shown["example"]["id"] == SAGA_ID
    assert shown["why"].startswith(WAITING)


def test_a_group_whose_example_has_moved_on_has_none() -> None:
    shown = StuckView(stuck(Cause.ANSWER, "restaurant_service.create_ticket"), True, None, LATER).to_json()

    assert shown["queue"] is shown["example"] is None
    assert shown["why"] == "12 sagas of deliver_order wait for restaurant_service.create_ticket since 12:00."


def test_a_saga_that_was_just_started_shows_the_steps_before_it() -> None:
    view = SagaView(new_instance(DELIVER_ORDER), DELIVER_ORDER, NOON)

    assert [step["effect"] for step in view.to_json()["steps"]] == ["never happened"] * 8
