"""``saga why`` and ``saga stuck``, for people and as JSON."""

from __future__ import annotations

from sagas_framework.core.why import QueueSeen
from tests.unit.cli.shop import NOON, Shop

TICKETS = "restaurant_service.commands"


def saw(shop: Shop, messages: int, consumers: int | None, queue: str = TICKETS) -> None:
    """An orchestrator looks at the queue now."""
    shop.orchestrator.store.note_queues([QueueSeen(queue, shop.now, messages, consumers)])


# ---- why --------------------------------------------------------------------------------------------


def test_why_says_what_a_saga_waits_for_and_what_the_broker_says(shop: Shop) -> None:
    for key in ("order-1", "order-2", "order-3"):
        shop.until("create_restaurant_ticket", key)
    saw(shop, 3, 0)
    shop.sleeps(9)

    result = shop.say("why", "order-1")

    assert result.exit_code == 0
    assert result.stdout == (
        "Waiting 9 s for restaurant_service.create_ticket (try 1); turns back in 4 min 51 s. "
        "No worker has taken from restaurant_service.commands since 12:00. "
        "3 messages wait in restaurant_service.commands. 2 more sagas wait for the same.\n"
    )


def test_why_is_the_sentence_of_the_page_and_of_show(shop: Shop) -> None:
    saga_id = shop.parked_undo()
    shop.parked_undo("order-2")

    told = shop.say("why", saga_id[:13]).stdout

    assert told == shop.sagas.view(saga_id).why + "\n"
    assert told in shop.say("show", "order-1").stdout
    assert told.endswith(
        " 1 more saga is parked at the same step. It turned back because authorize_card was "
        "refused (CardRefused: says CardRefused).\n"
    )


def test_why_of_an_ended_saga_says_how_it_ended(shop: Shop) -> None:
    shop.completed()

    assert shop.say("why", "order-1").stdout == "Completed: every effect is kept.\n"
    assert shop.json("why", "order-1")["waits"] is None


def test_why_as_json_has_what_stands_behind_the_sentence(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    saw(shop, 3, 0)
    shop.sleeps(9)

    told = shop.json("why", "order-1")

    assert told == {
        "id": saga_id,
        "saga": "deliver_order",
        "key": "order-1",
        "status": "running",
        "waits": {"cause": "answer", "for": "restaurant_service.create_ticket", "since": NOON.isoformat()},
        "why": shop.say("why", "order-1").stdout.rstrip(),
        "queue": {
            "name": TICKETS,
            "messages": 3,
            "consumers": 0,
            "unattended_since": NOON.isoformat(),
            "seen_at": NOON.isoformat(),
        },
        "same": 0,
    }


def test_why_of_a_saga_that_nobody_has_is_an_error_that_says_where_to_look(shop: Shop) -> None:
    result = shop.say("why", "order-9", "--json")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: No saga has the id or the key 'order-9' in this database; ")


def test_what_no_database_can_hold_is_no_sagas_name(shop: Shop) -> None:
    shop.start()

    result = shop.say("why", "\udcff")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No saga has the id or the key")


# ---- stuck ------------------------------------------------------------------------------------------


def test_nothing_is_stuck_while_all_move(shop: Shop) -> None:
    shop.completed("order-1")
    shop.start("order-2")
    shop.sleeps(60)

    result = shop.say("stuck")

    assert result.exit_code == 0
    assert " ".join(result.stdout.split()) == (
        "Nothing is stuck: no saga is parked, and none has waited for a service for longer than 1 min. One "
        "that waits for a signal or a moment is not stuck; `saga -A worker list --open` has it, too."
    )
    assert shop.json("stuck") == {"stuck": []}


def test_what_needs_a_person_comes_first_with_the_commands_to_look_at_it(shop: Shop) -> None:
    for key in ("order-1", "order-2"):
        shop.until("create_restaurant_ticket", key)
        shop.sleeps(1)
    saw(shop, 2, 0)
    shop.sleeps(60)
    saw(shop, 2, 0)
    shop.parked_after_pivot("order-3")

    result = shop.say("stuck")

    assert result.exit_code == 1
    assert (
        result.stdout
        == """\
1 saga needs a person at deliver_order.start_delivery since 12:01 (NoCourier: says NoCourier).
saga -A worker list --status parked --saga deliver_order --waits-for start_delivery
saga -A worker show order-3

2 sagas of deliver_order wait for restaurant_service.create_ticket since 12:00. \
No worker has taken from restaurant_service.commands since 12:00. \
2 messages wait in restaurant_service.commands.
saga -A worker list --open --saga deliver_order --waits-for restaurant_service.create_ticket
saga -A worker show order-1
"""
    )


def test_the_commands_that_are_told_list_what_was_counted(shop: Shop) -> None:
    for key in ("order-1", "order-2"):
        shop.until("create_restaurant_ticket", key)
        shop.sleeps(1)
    shop.parked_after_pivot("order-3")
    shop.until("authorize_card", "order-4")
    shop.sleeps(61)

    lines = [line for line in shop.say("stuck").stdout.splitlines() if line.startswith("saga -A worker list")]
    listed = [[one["key"] for one in shop.json(*line.split()[3:])["sagas"]] for line in lines]

    assert listed == [["order-3"], ["order-1", "order-2"], ["order-4"]]


def test_how_long_they_may_wait_can_be_said_but_not_for_who_needs_a_person(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")
    shop.parked_after_pivot("order-2")
    shop.sleeps(90)

    def causes(*arguments: str) -> list[str]:
        return [group["cause"] for group in shop.json("stuck", *arguments, exit_code=1)["stuck"]]

    assert causes() == causes("--waiting", "89s") == ["person", "answer"]
    assert causes("--waiting", "90s") == causes("--waiting", "10d") == ["person"]


def test_sagas_that_no_orchestrator_took_up_and_pausing_ones_are_told(shop: Shop) -> None:
    shop.start("order-1", taken=False)
    shop.sleeps(1)
    saga_id = shop.until("approve_restaurant_ticket", "order-2")
    shop.fails(saga_id)
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE saga_instance SET cause = 'start', waits_for = '' WHERE key = 'order-1'"
        )
    shop.sleeps(120)

    text = shop.say("stuck").stdout

    assert (
        "1 saga of deliver_order waits for an orchestrator to take it up since 12:00: is one running?\n"
        "saga -A worker list --open --saga deliver_order\n"
    ) in text
    assert (
        "1 saga pauses at deliver_order.approve_restaurant_ticket since 12:00 (KitchenBusy: says "
        "KitchenBusy); the next try comes by itself.\n"
    ) in text


def test_sagas_that_are_not_declared_here_are_told_so(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")
    shop.until("create_restaurant_ticket", "order-2")
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET version = 7 WHERE key = 'order-1'")
        connection.exec_driver_sql("UPDATE saga_instance SET shape = 'another' WHERE key = 'order-2'")
    shop.sleeps(61)

    groups = shop.json("stuck", exit_code=1)["stuck"]

    assert sorted((group["version"], group["declared"]) for group in groups) == [(1, False), (7, False)]
    assert (
        "deliver_order version 7 is not declared here, or with other steps: no worker of this service "
        "moves it."
    ) in shop.say("stuck").stdout


def test_a_broker_that_was_not_seen_lately_is_unknown(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")
    saw(shop, 0, 1)
    shop.sleeps(240)

    assert (
        "Who takes from restaurant_service.commands is unknown: no orchestrator has looked for 4 min."
    ) in shop.say("stuck").stdout


def test_what_is_stuck_as_json_has_an_example_and_its_queue(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    shop.sleeps(61)
    saw(shop, 5, 2)

    (group,) = shop.json("stuck", exit_code=1)["stuck"]

    assert (group["saga"], group["version"], group["cause"]) == ("deliver_order", 1, "answer")
    assert (group["for"], group["count"]) == ("restaurant_service.create_ticket", 1)
    assert (group["queue"]["messages"], group["queue"]["consumers"]) == (5, 2)
    assert group["example"]["id"] == saga_id
    assert group["why"].endswith("2 workers take from restaurant_service.commands.")


def test_help_says_what_the_exit_code_means(shop: Shop) -> None:
    told = " ".join(shop.say("stuck", "--help").stdout.split())

    assert "Exits with 1 if there is anything, else with 0, so that cron can tell somebody." in told
