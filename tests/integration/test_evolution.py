"""Orders begun by version 1, left at every point of their lives, and the code of later versions: PostgreSQL.

What is left is moved, goes on, and is looked at when it has ended: each effect is kept, or undone, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Final

import pytest
from pydantic import BaseModel
from sqlalchemy import select, text, update

from sagas_framework import (
    NOTHING_TO_UNDO,
    Act,
    ConfigurationError,
    DefinitionError,
    EmbeddedWorkers,
    Saga,
    SagaInstance,
    Sagas,
    SagasError,
    Status,
    Steps,
    UnknownSaga,
    orchestrator_app,
    participant_app,
)
from sagas_framework.clock import utc_now
from sagas_framework.console.story import picture
from sagas_framework.core.decide import decide
from sagas_framework.core.evolving import MIGRATED, moved, outline
from sagas_framework.core.instance import Phase, StepRecord
from sagas_framework.core.options import options
from sagas_framework.evolution import NotMovable
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Beat
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.tables import saga_declaration, saga_instance
from sagas_framework.transport.envelope import from_wire, reply_received
from sagas_framework.worker.orchestrating import check_declarations
from tests.integration.evolving_shop import (
    REPLIES,
    STORIES,
    Charge,
    Desk,
    Money,
    OrderSagaV1,
    OrderSagaV2,
    OrderSagaV3,
    OrderV1,
    OrderV2,
    Refund,
    Road,
    Shop,
    Story,
    Verify,
    wrong_effects,
    wrong_with,
)
from tests.servers import wait_until

LONGEST = 20  # steps: what goes wrong for ever has been seen from every side by then
ALIKE = 6  # steps: so far all goes well in every story
WELL = STORIES[0]


@pytest.fixture
def shop(postgres_urls: Callable[[], str]) -> Iterator[Shop]:
    shop = Shop(postgres_urls(), postgres_urls())
    yield shop
    shop.close()


@pytest.fixture
def first(shop: Shop) -> Sagas:
    """The release that declares version 1 alone; its workers have run."""
    sagas = shop.by_version(OrderSagaV1)
    check_declarations(sagas)
    return sagas


def left_everywhere(shop: Shop, sagas: Sagas, stories: Sequence[Story]) -> list[Road]:
    """An order for each point at which each story can be left before its end."""
    left = []
    for story in stories:
        for length in range(0 if story is WELL else ALIKE, LONGEST):
            road = Road(shop, sagas, story)
            came = all(road.step() for _ in range(length))
            if not road.instance.status.ended:
                left.append(road)
            if not came or road.instance.status.ended:
                break
    return left


def a_road(shop: Shop, sagas: Sagas, step: str, story: Story = WELL) -> Road:
    """An order whose step was just sent, or that is parked there if the story says so."""
    road = Road(shop, sagas, story)
    while not (
        (record := road.instance.steps.get(step))
        and record.phase is not Phase.PENDING
        and (record.parked or story is WELL)
    ):
        assert road.step()
    return road


def waits_for_a_lock(sagas: Sagas) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with reading(sagas.engine) as connection:
        return bool(connection.execute(text(waiting)).scalar_one())


def row(sagas: Sagas, saga_id: str) -> SagaInstance:
    return sagas.get(saga_id)


def entries(sagas: Sagas, saga_id: str) -> list[str]:
    return [line.recorded.entry for line in sagas.history(saga_id)]


def as_a_person_sees_it(road: Road) -> None:
    """The page, the program and JSON can tell of it, under the names that its steps have now."""
    view = road.sagas.view(road.id)
    assert view.saga is not None
    names = [step.name for step in view.saga.steps]
    assert [step["name"] for step in view.to_json()["steps"]] in (names, [])
    assert set(picture(view.instance, view.saga, view.told, view.now).steps) <= set(names)
    assert view.why
    options(view.saga, view.instance, view.now)


# ---- wherever it was left -------------------------------------------------------------------------


MAIL: Final[dict[str, Callable[[Road], None]]] = {
    "the mail is kept": lambda road: None,
    "the mail is lost": lambda road: road.post.waiting.clear(),
    "the mail comes twice": lambda road: road.post.waiting.extend(list(road.post.waiting)),
}


@pytest.mark.parametrize("mail", MAIL)
def test_wherever_version_1_left_an_order_version_2_ends_it(shop: Shop, first: Sagas, mail: str) -> None:
    roads = left_everywhere(shop, first, STORIES)
    second = shop.by_version(OrderSagaV2)
    check_declarations(second)

    plan = second.plan()
    batch = second.migrate("order", 2, by="ann", reason="one name for each thing", leave_rest=True)

    went = [road for road in roads if road.instance.version == 2]
    stayed = [road for road in roads if road.instance.version == 1]
    assert {road.id for road in went} == set(batch.moved)
    assert len(went) > 100
    # The survey is no step of version 2, so whoever has begun it ends as it began.
    assert {road.instance.steps["survey"].phase for road in stayed} == {Phase.RUNNING}
    assert [(m.why.partition(",")[0], m.count) for m in batch.left] == [("survey is sent", len(stayed))]
    assert (plan.groups[0].by_moving, plan.groups[0].stay) == (len(went), len(stayed))
    for road in went:
        MAIL[mail](road)
        road.turn_to(second)
        as_a_person_sees_it(road)
        road.to_the_end()
        assert list(wrong_with(road)) == [], road.story
        assert entries(second, road.id).count(MIGRATED) == 1
        as_a_person_sees_it(road)
    for road in stayed:
        road.to_the_end()
        assert list(wrong_with(road)) == []


@pytest.mark.parametrize(
    ("routes", "between"),
    [((3,), 0), ((2, 3), 0), ((2, 3), 1)],
    ids=["at once", "one after the other", "with a step between"],
)
def test_an_order_of_version_1_comes_to_version_3(
    shop: Shop, first: Sagas, routes: Sequence[int], between: int
) -> None:
    roads = left_everywhere(shop, first, STORIES[:7])
    later = shop.by_version(OrderSagaV1, OrderSagaV2, OrderSagaV3)
    check_declarations(later)
    for road in roads:
        road.turn_to(later)

    for to in routes:
        later.migrate("order", to, by="ann", reason="the third try", leave_rest=True)
        for road in roads:
            for _ in range(between):
                road.step()

    went = [road for road in roads if not road.instance.status.ended and "survey" not in road.instance.steps]
    assert {road.instance.version for road in went} == {3}
    assert len(went) > 40
    for road in roads:
        as_a_person_sees_it(road)
        road.to_the_end()
        assert list(wrong_with(road)) == [], road.story
        as_a_person_sees_it(road)


def test_without_the_name_under_which_its_participant_knows_it_a_step_is_done_twice(
    shop: Shop, first: Sagas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would see: so they can fail."""
    road = a_road(shop, first, "charge")
    road.step()  # it is charged, and the answer is on its way
    second = shop.by_version(OrderSagaV2)
    second.migrate("order", 2, by="ann", reason="a rename")
    road.turn_to(second)
    road.post.waiting.clear()
    monkeypatch.setattr(StepRecord, "identity", property(lambda record: record.name))
    with second.engine.begin() as connection:  # nor is what is in flight known by its former id
        steps = connection.execute(select(saga_instance.c.steps)).scalar_one()
        for step in steps:
            if "flight" in step:
                step["flight"]["message_id"] = "00000000-0000-0000-0000-000000000000"
        connection.execute(update(saga_instance).values(steps=steps))

    while shop.counter.did(road.order_id).get("charge") != 2:
        assert road.step()

    assert "charge was done 2 times" in list(wrong_with(road))


# ---- one batch ------------------------------------------------------------------------------------


def test_nothing_is_moved_if_one_of_the_batch_cannot_be(shop: Shop, first: Sagas) -> None:
    roads = [a_road(shop, first, step) for step in ("reserve", "approve", "survey")]
    before = [road.instance for road in roads]
    second = shop.by_version(OrderSagaV2)

    with pytest.raises(NotMovable) as refused:
        second.migrate("order", 2, by="ann", reason="x")

    assert [row(second, one.id) for one in before] == before
    assert not any(MIGRATED in entries(second, one.id) for one in before)
    assert str(refused.value).startswith(
        "Nothing was moved: 1 of 3 open sagas 'order' cannot be moved to version 2.\n"
        "  1: survey is sent, and version 2 has no such step: only the version that began it can bring it to "
        "its end; order-3\n"
    )


def test_a_dry_run_says_what_would_be_moved_and_moves_nothing(shop: Shop, first: Sagas) -> None:
    roads = [a_road(shop, first, step) for step in ("reserve", "approve")]
    before = [road.instance for road in roads]
    second = shop.by_version(OrderSagaV2)

    batch = second.migrate("order", 2, by="ann", reason="x", dry_run=True)

    assert set(batch.moved) == {road.id for road in roads}
    assert [row(second, one.id) for one in before] == before


def test_who_moved_it_why_and_how_is_in_its_history(shop: Shop, first: Sagas) -> None:
    road = a_road(shop, first, "charge")
    revision = road.instance.revision
    second = shop.by_version(OrderSagaV2)

    second.migrate("order", 2, by="ann", reason="one name for each thing")

    lines = [line for line in second.history(road.id) if line.revision > revision]
    assert [line.recorded.entry for line in lines] == [MIGRATED, "check_fraud.skipped"]
    assert {line.revision for line in lines} == {revision + 1}
    assert lines[0].recorded.detail == {
        "by": "ann",
        "reason": "one name for each thing",
        "from": 1,
        "to": 2,
        "renamed": {"reserve": "hold_stock", "charge": "take_money", "ship": "hand_over"},
        "added": ["check_fraud", "print_label"],
        "removed": ["survey"],
    }
    after = row(second, road.id)
    assert (after.version, after.shape, after.revision) == (2, OrderSagaV2.definition.shape, revision + 1)
    assert after.state["money"] == {"value": "9.90", "currency": "EUR"}
    assert after.waiting is not None
    assert after.waiting.what == "counter.charge"


def test_an_ended_saga_keeps_its_version(shop: Shop, first: Sagas) -> None:
    road = Road(shop, first, WELL)
    while road.step():
        pass
    second = shop.by_version(OrderSagaV2)

    batch = second.migrate("order", 2, by="ann", reason="x")

    assert batch.moved == ()
    assert road.instance.version == 1
    assert second.view(road.id).saga is None


def test_an_act_decided_on_the_former_version_is_refused(shop: Shop, first: Sagas) -> None:
    road = a_road(shop, first, "ship", Story("refused", {"ship": "refused"}))
    number = first.act(road.id, Act.SKIP, by="bob", reason="x", step="ship", revision=road.instance.revision)
    second = shop.by_version(OrderSagaV2)
    second.migrate("order", 2, by="ann", reason="x")
    road.turn_to(second)

    road.orchestrator.obey_acts()

    answer = second.act_answer(number)
    assert answer.refused
    assert "it was decided on revision" in (answer.answer or "")


@pytest.mark.parametrize(("by", "reason"), [("", "x"), ("ann", " ")])
def test_nobody_moves_anything_without_a_name_and_a_reason(shop: Shop, by: str, reason: str) -> None:
    with pytest.raises(SagasError, match="needs a name and a reason"):
        shop.by_version(OrderSagaV2).migrate("order", 2, by=by, reason=reason)


def test_a_version_that_nothing_leads_to_is_told(shop: Shop) -> None:
    sagas = shop.by_version(OrderSagaV1, OrderSagaV2)

    with pytest.raises(UnknownSaga, match="No saga named 'order' version 3"):
        sagas.migrate("order", 3, by="ann", reason="x")
    with pytest.raises(SagasError, match="No migration leads from a former version of 'order' to version 1"):
        sagas.migrate("order", 1, by="ann", reason="x")
    with pytest.raises(SagasError, match="Version 2 of 'order' is not before 2"):
        sagas.migrate("order", 2, by="ann", reason="x", from_version=2)


# ---- while others work ----------------------------------------------------------------------------


def test_what_an_orchestrator_decides_at_the_same_moment_is_moved_as_it_was_decided(
    shop: Shop, first: Sagas
) -> None:
    road = a_road(shop, first, "charge")
    road.step()
    (reply,) = road.post.waiting
    second = shop.by_version(OrderSagaV2)
    store = SqlStore(first.engine)
    done: list[object] = []
    mover = threading.Thread(
        target=lambda: done.append(second.migrate("order", 2, by="ann", reason="x")), daemon=True
    )

    with store.transaction() as tx:
        instance = tx.lock([road.id])[road.id]
        mover.start()
        wait_until(lambda: waits_for_a_lock(second), "the mover waits for the row")
        event = reply_received(from_wire(reply), road.now)
        tx.write([decide(OrderSagaV1.definition, instance, event).instance], [])
    mover.join(timeout=15)

    assert len(done) == 1
    found = row(second, road.id)
    assert (found.version, found.steps["take_money"].phase, found.steps["approve"].phase) == (
        2,
        Phase.SUCCEEDED,
        Phase.RUNNING,
    )


def test_an_orchestrator_that_waited_for_the_batch_finds_the_new_version(shop: Shop, first: Sagas) -> None:
    road = a_road(shop, first, "charge")
    road.step()
    second = shop.by_version(OrderSagaV2)
    road.turn_to(second)
    taker = threading.Thread(target=road.step, daemon=True)

    store = SqlStore(second.engine)
    with store.transaction() as tx:
        found = tx.lock_open("order", [1])
        taker.start()
        wait_until(lambda: waits_for_a_lock(second), "the orchestrator waits for the row")
        verdict = moved(
            found[0],
            OrderSagaV2.definition,
            OrderSagaV2.definition.migrations[0],
            outline(OrderSagaV1.definition),
            by="ann",
            reason="x",
            at=road.now,
        )
        assert verdict.after is not None
        tx.move([verdict.after], [])
    taker.join(timeout=15)

    assert row(second, road.id).steps["take_money"].phase is Phase.SUCCEEDED
    road.to_the_end()
    assert list(wrong_with(road)) == []


@pytest.mark.parametrize("declares", ["order version 1, order version 12", ""])
def test_nothing_is_moved_while_an_orchestrator_runs_that_does_not_know_the_version(
    shop: Shop, first: Sagas, declares: str
) -> None:
    a_road(shop, first, "charge")
    second = shop.by_version(OrderSagaV2)
    store = SqlStore(first.engine)
    old = Beat("shop@box-1", "timekeeper", shop.now, shop.now, declares)
    store.beat(old)

    with pytest.raises(SagasError, match="shop@box-1, seen 0 ms ago, does not declare order version 2"):
        second.migrate("order", 2, by="ann", reason="x")

    shop.now += timedelta(minutes=2)  # it has not been heard of since
    assert len(second.migrate("order", 2, by="ann", reason="x").moved) == 1


def test_orders_are_moved_while_workers_work_on_them(
    postgres_urls: Callable[[], str], rabbitmq_url: str
) -> None:
    sagas = Sagas("shop", postgres_urls(), sagas=[OrderSagaV1, OrderSagaV2], reply_queue=REPLIES)
    sagas.upgrade()
    desk = Desk(postgres_urls(), utc_now)
    troubles: list[dict[str, str]] = [{}, {"charge": "refused"}, {"approve": "refused"}]
    runs = []
    apps = [
        orchestrator_app(sagas, broker=rabbitmq_url),
        participant_app(desk.participant, broker=rabbitmq_url),
    ]

    with EmbeddedWorkers(apps):
        batches = []
        for order_id in range(60):
            desk.troubles[order_id] = troubles[order_id % 3]
            with sagas.engine.begin() as connection:
                runs.append(sagas.start(OrderSagaV1, OrderV1(order_id=order_id), session=connection))
            if order_id % 4 == 3:
                batches.append(
                    sagas.migrate("order", 2, by="ann", reason="in the midst of it", leave_rest=True)
                )
        ended = [sagas.wait(run, timeout=timedelta(seconds=60)) for run in runs]

    moved = {saga_id for batch in batches for saga_id in batch.moved}
    assert {instance.id for instance in ended if instance.version == 2} == moved
    assert len(moved) > 10
    for order_id, instance in enumerate(ended):
        wanted = Status.COMPENSATED if troubles[order_id % 3] else Status.COMPLETED
        assert instance.status is wanted
        assert list(wrong_effects(desk.did(order_id), instance, sagas)) == []
    sagas.engine.dispose()
    desk.engine.dispose()


# ---- versions beside each other -------------------------------------------------------------------


def test_both_versions_run_beside_each_other(shop: Shop, first: Sagas) -> None:
    old = [a_road(shop, first, step) for step in ("verify", "approve", "survey")]
    both = shop.by_version(OrderSagaV1, OrderSagaV2)
    check_declarations(both)

    with both.engine.begin() as connection:
        state = OrderV2(order_id=99, money=Money(value="1.00", currency="CHF"))
        run = both.start(OrderSagaV2, state, key="order-99", session=connection)
    for road in old:
        road.turn_to(both)
        road.to_the_end()
        assert list(wrong_with(road)) == []

    assert run.version == 2
    assert [road.instance.version for road in old] == [1, 1, 1]
    assert {(g.version, g.as_they_are, g.count) for g in both.plan().groups} == {(2, 1, 1)}
    new = old[0]
    new.id, new.order_id = run.id, 99
    assert new.to_the_end().status is Status.COMPLETED
    assert shop.counter.did(99)["check_fraud"] == 1


# ---- a changed shape without a new version --------------------------------------------------------


class Small(BaseModel):
    order_id: int


small = Steps(Small)


class SmallSaga(Saga[Small], name="small", version=1):
    verify = small.command(
        Verify, lambda state: Verify(order_id=state.order_id), compensation=NOTHING_TO_UNDO
    )
    charge = small.command(
        Charge,
        lambda state: Charge(order_id=state.order_id),
        compensation=lambda state: Refund(order_id=state.order_id),
    )


class SmallSagaChanged(Saga[Small], name="small", version=1):
    charge = small.command(
        Charge, lambda state: Charge(order_id=state.order_id), compensation=NOTHING_TO_UNDO
    )


class Bigger(BaseModel):
    order_id: int
    customer: str


bigger = Steps(Bigger)


class SmallSagaWithMore(Saga[Bigger], name="small", version=1):
    verify = bigger.command(
        Verify, lambda state: Verify(order_id=state.order_id), compensation=NOTHING_TO_UNDO
    )
    charge = bigger.command(
        Charge,
        lambda state: Charge(order_id=state.order_id),
        compensation=lambda state: Refund(order_id=state.order_id),
    )


def begin(sagas: Sagas, key: str) -> None:
    with sagas.engine.begin() as connection:
        sagas.start(SmallSaga, Small(order_id=1), key=key, session=connection)


def test_a_changed_shape_without_a_new_version_is_told_what_changed(shop: Shop) -> None:
    sagas = shop.by_version(SmallSaga)
    check_declarations(sagas)
    begin(sagas, "one")
    changed = shop.by_version(SmallSagaChanged)

    with pytest.raises(ConfigurationError) as refused:
        check_declarations(changed)

    assert str(refused.value).startswith(
        "1 open sagas 'small' version 1 were started with other steps than are declared now (verify is gone; "
        "charge was undone by counter.refund, and is by nothing now). Give the changed class version=2"
    )
    (group,) = changed.plan().groups
    assert (group.declared, group.stay) == (False, 1)
    assert "version 1 was changed since it was started (verify is gone" in group.missing[0].why


def test_a_web_process_starts_nothing_under_a_changed_shape(shop: Shop) -> None:
    sagas = shop.by_version(SmallSaga)
    check_declarations(sagas)
    begin(sagas, "one")
    changed = shop.by_version(SmallSagaChanged)

    for _ in range(2):
        with (
            changed.engine.begin() as connection,
            pytest.raises(DefinitionError, match="1 open sagas 'small' version 1 were started with other st"),
        ):
            changed.start(SmallSagaChanged, Small(order_id=2), session=connection)

    with changed.engine.begin() as connection:  # once the last one has ended it may
        connection.execute(update(saga_instance).values(status=Status.COMPLETED.value))
    with changed.engine.begin() as connection:
        assert changed.start(SmallSagaChanged, Small(order_id=2), session=connection).new
    check_declarations(changed)


def test_a_state_that_cannot_be_read_any_more_refuses_a_start(shop: Shop) -> None:
    sagas = shop.by_version(SmallSaga)
    check_declarations(sagas)
    begin(sagas, "one")
    changed = shop.by_version(SmallSagaWithMore)

    with pytest.raises(ConfigurationError) as refused:
        check_declarations(changed)

    assert str(refused.value) == (
        "1 open sagas 'small' version 1, like 'one', cannot go on: its state cannot be read by Bigger as it "
        "is now ($.customer: Field required): give what is new a default, or the class the next version and "
        "a migration with state=."
    )
    check_declarations(sagas)  # the former code still starts


def test_what_was_declared_is_noted_once_for_each_shape(shop: Shop) -> None:
    for sagas in (shop.by_version(SmallSaga), shop.by_version(SmallSagaChanged), shop.by_version(SmallSaga)):
        check_declarations(sagas)

    with reading(shop.by_version().engine) as connection:
        rows = connection.execute(select(saga_declaration.c.saga, saga_declaration.c.shape)).all()
    assert sorted(rows) == sorted(("small", saga.definition.shape) for saga in (SmallSaga, SmallSagaChanged))
