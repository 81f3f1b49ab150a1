"""Lists, counts and what is stuck, on real databases, while others write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
from sqlalchemy import event, insert

from sagas_framework import Filter, Outcome, OutcomeKind, SagaInstance, SagasError, Status
from sagas_framework.core.events import Recorded
from sagas_framework.core.instance import Cause, Waiting
from sagas_framework.sagas import new_saga_id
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Page, Stuck
from sagas_framework.storage.reads import (
    count_fitting,
    count_statuses,
    count_waiting,
    find_instances,
    newest,
    read_page,
    read_stuck,
)
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.tables import saga_history
from tests.contract.looking import NOON, InSql, an_instance, postgres_database, sqlite_database

PARKED, RUNNING, COMPENSATING = Status.PARKED, Status.RUNNING, Status.COMPENSATING
COMPLETED, COMPENSATED = Status.COMPLETED, Status.COMPENSATED
REFUSED, OK = Outcome(OutcomeKind.REFUSED, "CardRefused"), Outcome(OutcomeKind.OK)
MANY = 1000


@pytest.fixture(params=["sqlite_url", "postgres_module_url"])
def there(request: pytest.FixtureRequest) -> Iterator[InSql]:
    """An empty database."""
    url: str = request.getfixturevalue(request.param)
    with sqlite_database(url) if url.startswith("sqlite") else postgres_database(url) as there:
        yield there


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def made(minute: float, status: Status = RUNNING, **changes: Any) -> SagaInstance:
    """An instance that was started then; its id says so."""
    moment = at(minute)
    saga_id = new_saga_id(moment)
    outcome = {COMPLETED: OK, COMPENSATED: REFUSED, COMPENSATING: REFUSED}.get(status)
    values: dict[str, Any] = {
        "id": saga_id,
        "key": saga_id,
        "created_at": moment,
        "status": status,
        "outcome": outcome,
    }
    return an_instance("any", **(values | changes))


def seeded(there: InSql, *instances: SagaInstance) -> list[str]:
    there.seed(*instances)
    return [instance.id for instance in instances]


def page(there: InSql, wanted: Filter) -> Page:
    with reading(there.engine) as connection:
        return read_page(connection, wanted)


def ids(there: InSql, **wanted: Any) -> list[str]:
    """Of the first page."""
    return [instance.id for instance in page(there, Filter(**wanted)).instances]


def counted(there: InSql, most: int = MANY, **wanted: Any) -> int:
    with reading(there.engine) as connection:
        return count_fitting(connection, Filter(**wanted), most)


def becomes(there: InSql, *instances: SagaInstance) -> None:
    """They move on, as an orchestrator writes it."""
    with SqlStore(there.engine).transaction() as tx:
        tx.write(instances, [])


# ---- while others write -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"), [(RUNNING, COMPLETED), (PARKED, COMPENSATED), (PARKED, RUNNING), (RUNNING, PARKED)]
)
def test_an_instance_that_moves_on_while_it_is_looked_for_is_found(
    there: InSql, before: Status, after: Status
) -> None:
    instance = made(1, before, key="order-1")
    there.seed(instance)
    moves = iter([instance])

    def move(*_: object) -> None:
        for moved in moves:
            becomes(there, replace(moved, status=after))

    event.listen(there.engine, "after_cursor_execute", move)
    try:
        assert ids(there, key="order-1") == [instance.id]
    finally:
        event.remove(there.engine, "after_cursor_execute", move)


# ---- order ------------------------------------------------------------------------------------------


def test_what_needs_a_person_comes_first_then_the_newest(there: InSql) -> None:
    old, parked_old, ended, parked, new = seeded(
        there, made(1), made(2, PARKED), made(3, COMPLETED), made(4, PARKED), made(5)
    )

    assert ids(there) == [parked, parked_old, new, ended, old]


def test_open_ones_come_with_the_oldest_first(there: InSql) -> None:
    old, parked_old, _, parked, new, undoing = seeded(
        there, made(1), made(2, PARKED), made(3, COMPLETED), made(4, PARKED), made(5), made(6, COMPENSATING)
    )

    assert ids(there, open_only=True) == [parked_old, parked, old, new, undoing]


def test_an_empty_database_has_one_empty_page(there: InSql) -> None:
    assert page(there, Filter()) == Page([], None)
    assert page(there, Filter(open_only=True)) == Page([], None)


# ---- pages ------------------------------------------------------------------------------------------


def walk(there: InSql, wanted: Filter, between: Callable[[], None] = lambda: None) -> list[str]:
    """All pages after each other; `between` happens after each of them."""
    found: list[str] = []
    while True:
        shown = page(there, wanted)
        assert len(shown.instances) <= wanted.limit
        found += [instance.id for instance in shown.instances]
        if shown.next is None:
            return found
        wanted = replace(wanted, after=shown.next)
        between()


@pytest.mark.parametrize("open_only", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 24, 25, 100])
def test_over_all_pages_every_instance_comes_once_and_in_order(
    there: InSql, limit: int, open_only: bool
) -> None:
    statuses = cycle(Status)
    seeded(there, *(made(n, next(statuses)) for n in range(25)))
    whole = ids(there, open_only=open_only)

    assert walk(there, Filter(open_only=open_only, limit=limit)) == whole
    assert len(set(whole)) == (15 if open_only else 25)


@pytest.mark.parametrize("status", list(Status))
def test_pages_of_one_status_end_with_it(there: InSql, status: Status) -> None:
    statuses = cycle(Status)
    instances = [made(n, next(statuses)) for n in range(25)]
    seeded(there, *instances)

    found = walk(there, Filter(status=status, limit=2))

    assert found == [i.id for i in reversed(instances) if i.status is status]


def test_many_that_were_made_in_one_millisecond_come_once(there: InSql) -> None:
    everybody = seeded(there, *(made(0, status) for _ in range(10) for status in (RUNNING, PARKED)))

    assert sorted(walk(there, Filter(limit=3))) == sorted(everybody)
    assert sorted(walk(there, Filter(limit=3, open_only=True))) == sorted(everybody)


@pytest.mark.parametrize("open_only", [False, True])
def test_whoever_stands_still_comes_once_while_others_are_started_and_move(
    there: InSql, open_only: bool
) -> None:
    statuses = cycle([PARKED, RUNNING, COMPENSATING, RUNNING, COMPENSATED])
    still = [made(n, next(statuses)) for n in range(40)]
    movers = [made(n + 0.5, status) for n, status in zip(range(0, 40, 2), cycle([RUNNING, PARKED]))]
    there.seed(*still, *movers)
    moving = iter(movers)
    minute = iter(range(100, 1000))

    def between() -> None:
        there.seed(made(next(minute)), made(next(minute), PARKED), made(-next(minute), PARKED))
        for mover in (next(moving, None), next(moving, None)):
            if mover is not None:
                status = {RUNNING: PARKED, PARKED: COMPLETED}[mover.status]
                becomes(there, replace(mover, status=status, outcome=OK if status is COMPLETED else None))

    found = walk(there, Filter(open_only=open_only, limit=4), between)

    expected = [i.id for i in still if not (open_only and i.status.ended)]
    standing = {i.id for i in still}
    assert sorted(id_ for id_ in found if id_ in standing) == sorted(expected)


def test_the_last_of_a_page_may_move_on_and_the_next_page_begins_after_it(there: InSql) -> None:
    instances = [made(n, PARKED) for n in range(4)]
    there.seed(*instances)
    first = page(there, Filter(limit=2))

    becomes(there, replace(first.instances[-1], status=COMPLETED, outcome=OK))

    second = page(there, Filter(limit=1, after=first.next))
    assert [i.id for i in (*first.instances, *second.instances)] == [i.id for i in instances[:0:-1]]


def test_where_a_page_ends_just_there_the_next_one_is_told_only_if_there_is_one(there: InSql) -> None:
    seeded(there, made(1), made(2, PARKED))

    assert page(there, Filter(limit=2)).next is None
    assert page(there, Filter(limit=1)).next is not None


@pytest.mark.parametrize(
    "after", ["", "0", "1.", "2.019ca945-0a00-7aac-87e4-15127a4391c0", "0.x", "0.'--", "1.\0", "-1.a"]
)
def test_what_is_no_end_of_a_page_is_an_error_that_says_what_to_do(there: InSql, after: str) -> None:
    with pytest.raises(SagasError, match=r"There is no page after .*\. Begin with the first one"):
        page(there, Filter(after=after))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_without_room_is_an_error(there: InSql, limit: int) -> None:
    with pytest.raises(SagasError, match="Ask for at least 1"):
        page(there, Filter(limit=limit))


# ---- filters ----------------------------------------------------------------------------------------


@pytest.fixture
def mixed(there: InSql) -> dict[str, str]:
    """Name to id of instances that differ in everything."""
    waits = Waiting(Cause.ANSWER, "bank.charge", at(3))
    expired = Outcome(OutcomeKind.EXPIRED, "NoAnswer")
    instances = {
        "completed": made(1, COMPLETED),
        "refused": made(2, COMPENSATED),
        "expired": made(3, COMPENSATED, outcome=expired),
        "undoing": made(4, COMPENSATING, outcome=expired, waiting=waits),
        "running": made(5, waiting=waits, key="order-17"),
        "refund": made(6, saga="refund", key="order-17"),
        "parked": made(7, PARKED, waiting=Waiting(Cause.PERSON, "charge", at(8))),
        "parked undo": made(8, PARKED, outcome=REFUSED, waiting=Waiting(Cause.PERSON, "charge", at(9))),
    }
    there.seed(*instances.values())
    return {name: instance.id for name, instance in instances.items()}


FILTERS: list[tuple[dict[str, Any], Sequence[str]]] = [
    ({"saga": "refund"}, ["refund"]),
    ({"saga": "nobody"}, []),
    ({"key": "order-17"}, ["refund", "running"]),
    ({"key": "order-17", "saga": "create_order"}, ["running"]),
    ({"key": "order-1"}, []),
    ({"status": PARKED}, ["parked undo", "parked"]),
    ({"status": COMPLETED}, ["completed"]),
    ({"status": COMPLETED, "open_only": True}, []),
    ({"status": RUNNING, "open_only": True}, ["running", "refund"]),
    ({"outcome": OutcomeKind.OK}, ["completed"]),
    ({"outcome": OutcomeKind.OK, "status": COMPENSATED}, []),
    ({"outcome": OutcomeKind.OK, "open_only": True}, []),
    ({"outcome": OutcomeKind.REFUSED}, ["parked undo", "refused"]),
    ({"outcome": OutcomeKind.REFUSED, "status": PARKED}, ["parked undo"]),
    ({"outcome": OutcomeKind.EXPIRED}, ["undoing", "expired"]),
    ({"outcome": OutcomeKind.EXPIRED, "open_only": True}, ["undoing"]),
    ({"outcome": OutcomeKind.EXPIRED, "status": COMPLETED}, []),
    ({"outcome": OutcomeKind.CANCELLED}, []),
    ({"waits_for": "bank.charge"}, ["running", "undoing"]),
    ({"waits_for": "bank.charge", "open_only": True}, ["undoing", "running"]),
    ({"waits_for": "bank.charge", "outcome": OutcomeKind.EXPIRED}, ["undoing"]),
    ({"waits_for": "charge"}, ["parked undo", "parked"]),
    ({"waits_for": "kitchen.cook"}, []),
    ({"cause": Cause.ANSWER}, ["running", "undoing"]),
    ({"cause": Cause.ANSWER, "open_only": True, "saga": "create_order"}, ["undoing", "running"]),
    ({"cause": Cause.ANSWER, "waits_for": "charge"}, []),
    ({"cause": Cause.PERSON}, ["parked undo", "parked"]),
    ({"cause": Cause.SIGNAL}, []),
    ({"cause": Cause.PERSON, "status": COMPLETED}, []),
    ({"older_than": at(3)}, ["refused", "completed"]),
    ({"older_than": at(1)}, []),
    ({"older_than": at(8), "status": PARKED}, ["parked"]),
    ({"older_than": at(6), "open_only": True}, ["undoing", "running"]),
    ({"older_than": at(60), "saga": "refund", "open_only": True}, ["refund"]),
    ({"older_than": datetime.min.replace(tzinfo=NOON.tzinfo)}, []),
]


@pytest.mark.parametrize(("wanted", "names"), FILTERS, ids=lambda value: str(value)[:60])
def test_a_filter_lists_and_counts_what_fits(
    there: InSql, mixed: dict[str, str], wanted: dict[str, Any], names: Sequence[str]
) -> None:
    assert ids(there, **wanted) == [mixed[name] for name in names]
    assert walk(there, Filter(**wanted, limit=1)) == [mixed[name] for name in names]
    assert counted(there, **wanted) == len(names)


def test_older_than_is_exact_to_the_millisecond(there: InSql) -> None:
    early, _, late = seeded(there, made(0), made(1), made(2))
    soon = at(1) + timedelta(milliseconds=1)

    assert ids(there, older_than=at(1)) == [early]
    assert ids(there, older_than=soon)[1:] == [early]
    assert late not in ids(there, older_than=soon)


@pytest.mark.parametrize("value", ["\0", "order\0-17", "\ud800"])
def test_what_no_database_can_hold_fits_nothing(there: InSql, mixed: dict[str, str], value: str) -> None:
    wants: list[dict[str, Any]] = [{"key": value}, {"saga": value}, {"waits_for": value}]
    for wanted in wants:
        assert ids(there, **wanted) == []
        assert counted(there, **wanted) == 0
    with reading(there.engine) as connection:
        assert find_instances(connection, value) == []


# ---- counts -----------------------------------------------------------------------------------------


def test_counts_stop_one_above_their_bound(there: InSql) -> None:
    seeded(there, *(made(n) for n in range(5)), made(9, PARKED))

    assert [counted(there, most, status=RUNNING) for most in (3, 4, 5, 9)] == [4, 5, 5, 5]
    assert counted(there, 3) == 4
    with reading(there.engine) as connection:
        assert count_statuses(connection, 3) == {
            RUNNING: 4,
            PARKED: 1,
            COMPENSATING: 0,
            COMPLETED: 0,
            COMPENSATED: 0,
        }


def test_a_count_is_of_all_pages(there: InSql) -> None:
    seeded(there, *(made(n) for n in range(5)))
    last = page(there, Filter(limit=2))

    assert counted(there, limit=2, after=last.next) == 5


# ---- what they wait for -----------------------------------------------------------------------------


def waiting(minute: float, cause: Cause, what: str, since: float, **changes: Any) -> SagaInstance:
    status = PARKED if cause is Cause.PERSON else RUNNING
    return made(minute, status, waiting=Waiting(cause, what, at(since)), **changes)


def stuck(there: InSql, before: float) -> list[Stuck]:
    with reading(there.engine) as connection:
        return read_stuck(connection, at(before))


def test_what_is_stuck_is_grouped_by_what_it_waits_for(there: InSql) -> None:
    parked, first, _, _, pausing, _ = seeded(
        there,
        waiting(1, Cause.PERSON, "charge", 9.9),
        waiting(2, Cause.ANSWER, "bank.charge", 6),
        waiting(3, Cause.ANSWER, "bank.charge", 5),
        waiting(4, Cause.ANSWER, "bank.charge", 9.5),
        waiting(5, Cause.PAUSE, "cook", 7),
        made(6, COMPLETED),
    )

    assert stuck(there, 9) == [
        Stuck("create_order", 1, Cause.PERSON, "charge", 1, at(9.9), parked),
        Stuck("create_order", 1, Cause.ANSWER, "bank.charge", 2, at(5), first),
        Stuck("create_order", 1, Cause.PAUSE, "cook", 1, at(7), pausing),
    ]


def test_who_needs_a_person_is_stuck_at_once_and_others_only_after_a_while(there: InSql) -> None:
    seeded(there, waiting(1, Cause.PERSON, "charge", 5), waiting(1, Cause.ANSWER, "bank.charge", 5))

    assert [one.cause for one in stuck(there, 5)] == [Cause.PERSON]
    assert [one.cause for one in stuck(there, 5.1)] == [Cause.PERSON, Cause.ANSWER]


def test_sagas_and_versions_are_stuck_each_for_themselves_the_most_first(there: InSql) -> None:
    seeded(
        there,
        waiting(1, Cause.START, "", 1, saga="refund"),
        waiting(2, Cause.START, "", 1),
        waiting(3, Cause.START, "", 1, version=2),
        waiting(4, Cause.START, "", 1, version=2),
        waiting(5, Cause.PERSON, "charge", 1, saga="refund"),
    )

    assert [(one.saga, one.version, one.cause, one.count) for one in stuck(there, 9)] == [
        ("refund", 1, Cause.PERSON, 1),
        ("create_order", 2, Cause.START, 2),
        ("create_order", 1, Cause.START, 1),
        ("refund", 1, Cause.START, 1),
    ]


def test_nothing_is_stuck_when_all_move_or_have_ended(there: InSql) -> None:
    seeded(there, made(1, COMPLETED), made(2, COMPENSATED), waiting(3, Cause.ANSWER, "bank.charge", 9))

    assert stuck(there, 9) == []


@pytest.mark.parametrize("cause", [Cause.SIGNAL, Cause.TIME])
def test_who_waits_for_a_signal_or_a_moment_is_stuck_when_nobody_looks_at_its_time(
    there: InSql, cause: Cause
) -> None:
    seeded(
        there,
        waiting(1, cause, "in_time", 1, due_at=at(9)),
        waiting(2, cause, "forgotten", 1, due_at=at(8.9)),
        waiting(3, cause, "for_ever", 1, due_at=None),
    )

    assert [one.what for one in stuck(there, 9)] == ["forgotten"]


def others(there: InSql, instance: SagaInstance, most: int = MANY) -> int:
    with reading(there.engine) as connection:
        return count_waiting(connection, instance, most)


def test_others_that_wait_for_the_same_answer_are_counted_whatever_their_saga(there: InSql) -> None:
    one = waiting(1, Cause.ANSWER, "bank.charge", 1)
    seeded(
        there,
        one,
        waiting(2, Cause.ANSWER, "bank.charge", 2),
        waiting(3, Cause.ANSWER, "bank.charge", 3, saga="refund"),
        waiting(4, Cause.ANSWER, "bank.refund", 3),
    )

    assert others(there, one) == 2
    assert others(there, one, 1) == 2
    assert others(there, one, 0) == 1


def test_others_at_the_same_step_are_those_of_the_same_saga(there: InSql) -> None:
    one = waiting(1, Cause.PERSON, "charge", 1)
    seeded(
        there,
        one,
        waiting(2, Cause.PERSON, "charge", 2),
        waiting(3, Cause.PERSON, "charge", 2, saga="refund"),
        waiting(4, Cause.PAUSE, "charge", 2),
    )

    assert others(there, one) == 1


def test_whoever_waits_for_nothing_in_particular_is_not_compared(there: InSql) -> None:
    started, ended = waiting(1, Cause.START, "", 1), made(2, COMPLETED)
    seeded(there, started, ended, waiting(3, Cause.START, "", 1), made(4, COMPLETED))

    assert others(there, started) == others(there, ended) == 0


# ---- what changes -----------------------------------------------------------------------------------


def version(there: InSql) -> tuple[int, str]:
    with reading(there.engine) as connection:
        return newest(connection)


def a_line(seq: int | None = None) -> dict[str, Any]:
    numbered = {} if seq is None else {"seq": seq}
    return {"saga_id": "s", "revision": 1, "at": NOON, "entry": "e", "step": None, "detail": {}} | numbered


def test_whatever_happens_to_a_saga_changes_what_is_newest(there: InSql) -> None:
    versions = [version(there)]
    instance = made(1)
    there.seed(instance)
    versions.append(version(there))
    with SqlStore(there.engine).transaction() as tx:
        tx.write([], [(instance.id, 1, Recorded(NOON, "started"))])
    versions.append(version(there))
    there.seed(made(2))
    versions.append(version(there))

    assert len(set(versions)) == 4
    assert version(there) == versions[-1]


def test_a_line_that_is_committed_after_later_ones_changes_what_is_newest(there: InSql) -> None:
    with there.engine.begin() as connection:
        connection.execute(insert(saga_history), [a_line(1), a_line(3)])
    before = version(there)

    with there.engine.begin() as connection:
        connection.execute(insert(saga_history), [a_line(2)])

    assert version(there) > before
