"""The parts of the crash matrix, each by itself. First of all: that its counting is not blind."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, insert, make_url, text

from accounting_service.models import Authorization
from accounting_service.models import Base as AccountingBase
from order_service.models import Base as OrderBase
from order_service.models import Order, OrderStatus
from restaurant_service.models import Base as RestaurantBase
from restaurant_service.models import Ticket
from sagas_framework.core.ids import operation_id
from sagas_framework.core.instance import Status
from sagas_framework.points import EventPoint, Point, listen, reach
from sagas_framework.storage.sql import instance_values
from sagas_framework.storage.tables import metadata, saga_instance
from tests.servers import wait_until
from tests.stress.matrix import __main__ as program
from tests.stress.matrix.__main__ import Notes, orders_wanted
from tests.stress.matrix.counting import Count, Disagreement, Mark, count, count_told, still_open
from tests.stress.matrix.disk import Disk
from tests.stress.matrix.proxy import Proxy
from tests.stress.matrix.report import BEGIN, END, markdown, write_into
from tests.stress.matrix.running import ACTS, Column, Result, fewest_approved
from tests.stress.matrix.saboteur import HOLD, Saboteur, Trap
from tests.stress.matrix.table import CELLS, ROWS, Deed, select
from tests.unit.core.stories import CREATE_ORDER, new_instance

# ---- counting -------------------------------------------------------------------------------------

PRICES = [20, 20, 80]
SAGAS = [f"0198aaaa-0000-7000-8000-00000000000{place}" for place in range(len(PRICES))]
STRANGER = "0198aaaa-0000-7000-8000-00000000000f"


class Books:
    """The tables of all services in one database: two orders that were approved, one that was rejected."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        for tables in (metadata, OrderBase.metadata, RestaurantBase.metadata, AccountingBase.metadata):
            tables.create_all(self.engine)
        self.run("ALTER TABLE tickets DROP CONSTRAINT tickets_operation_key_key")
        self.run("ALTER TABLE authorizations DROP CONSTRAINT authorizations_operation_key_key")
        self.order(0, OrderStatus.APPROVED)  # what was there before is not counted, and may be anything
        self.ticket(STRANGER, "CREATE_PENDING")
        self.mark = Mark.now(self.query)
        for place, price in enumerate(PRICES):
            approved = price < 75
            number = self.order(place, OrderStatus.APPROVED if approved else OrderStatus.REJECTED, "cell:")
            self.saga(place, number, Status.COMPLETED if approved else Status.COMPENSATED)
            self.ticket(SAGAS[place], "APPROVED" if approved else "REJECTED")
            if approved:
                self.authorization(SAGAS[place])

    def order(self, place: int, status: OrderStatus, prefix: str = "before:") -> int:
        price, key = Decimal(PRICES[place]), f"{prefix}{place}"
        row = {"consumer_id": 1, "card_id": 1, "price": price, "idempotency_key": key}
        with self.engine.begin() as connection:
            made = connection.execute(insert(Order).values(status=status, **row).returning(Order.id))
            return int(made.scalar_one())

    def saga(self, place: int, order: int, status: Status) -> None:
        row = replace(new_instance(CREATE_ORDER), id=SAGAS[place], key=f"order-{order}", status=status)
        with self.engine.begin() as connection:
            connection.execute(insert(saga_instance).values(digest="", **instance_values(row)))

    def ticket(self, saga: str, status: str) -> None:
        key = operation_id(saga, "create_restaurant_ticket")
        row = {"operation_key": key, "order_id": 1, "customer_id": 1, "status": status, "items": []}
        with self.engine.begin() as connection:
            connection.execute(insert(Ticket).values(row))

    def authorization(self, saga: str, amount: int = 20, status: str = "AUTHORIZED") -> None:
        key = operation_id(saga, "authorize_card")
        row = {"operation_key": key, "card_id": 1, "amount": Decimal(amount), "status": status}
        with self.engine.begin() as connection:
            connection.execute(insert(Authorization).values(row))

    def run(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def query(self, service: str, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def count(self) -> Count:
        return count(self.query, self.mark, "cell:", PRICES)


@pytest.fixture
def books(postgres_url: str) -> Iterator[Books]:
    books = Books(postgres_url)
    yield books
    books.engine.dispose()


def test_books_that_agree_are_counted(books: Books) -> None:
    assert books.count() == Count(approved=2, rejected=1, money=Decimal(40))
    assert still_open(books.query, books.mark, 3) == 0


PLANTED: dict[str, tuple[Callable[[Books], None], str]] = {
    "a ticket is there twice": (lambda b: b.ticket(SAGAS[0], "APPROVED"), "tickets: 3 there, 2 due"),
    "a ticket of nobody's": (lambda b: b.ticket(STRANGER, "APPROVED"), "tickets: 3 there, 2 due"),
    "a ticket is missing": (lambda b: b.run("DELETE FROM tickets WHERE id = 2"), "tickets: 1 there, 2 due"),
    "a ticket was not taken back": (
        lambda b: b.run("UPDATE tickets SET status = 'CREATE_PENDING' WHERE id = 4"),
        "tickets: 3 there, 2 due",
    ),
    "a ticket of an approved order waits": (
        lambda b: b.run("UPDATE tickets SET status = 'CREATE_PENDING' WHERE id = 2"),
        "are not approved",
    ),
    "two tickets of one order, none of another": (
        lambda b: b.run(
            "UPDATE tickets SET operation_key = (SELECT operation_key FROM tickets WHERE id = 2) WHERE id = 3"
        ),
        "tickets: 2 there, 2 due; missing",
    ),
    "money is authorized twice": (lambda b: b.authorization(SAGAS[0]), "authorizations: 3 there, 2 due"),
    "money of a rejected order": (lambda b: b.authorization(SAGAS[2]), "authorizations: 3 there, 2 due"),
    "a ticket was made twice, and one of them taken back": (
        lambda b: b.ticket(SAGAS[0], "REJECTED"),
        "tickets: made more than once",
    ),
    "a ticket was made twice, and both of them taken back": (
        lambda b: b.ticket(SAGAS[2], "REJECTED"),
        "tickets: made more than once",
    ),
    "money was authorized twice, and one of them reversed": (
        lambda b: b.authorization(SAGAS[0], status="REVERSED"),
        "authorizations: made more than once",
    ),
    "no money was authorized": (
        lambda b: b.run("DELETE FROM authorizations WHERE id = 1"),
        "authorizations: 1 there, 2 due",
    ),
    "another amount": (
        lambda b: b.run("UPDATE authorizations SET amount = 21 WHERE id = 1"),
        "21.00 are authorized where 20.00 were due",
    ),
    "an order is missing": (lambda b: b.run("DELETE FROM orders WHERE id = 4"), "orders: 2 there, 3 due"),
    "an order of nobody's": (
        lambda b: b.run("UPDATE orders SET idempotency_key = NULL WHERE id = 4"),
        "orders: 3 there, 3 due; missing",
    ),
    "an order has no saga": (
        lambda b: b.run(f"DELETE FROM saga_instance WHERE id = '{SAGAS[0]}'"),
        "its saga None is None",
    ),
    "a saga is open": (
        lambda b: b.run(f"UPDATE saga_instance SET status = 'running' WHERE id = '{SAGAS[0]}'"),
        "is approved, its saga .* is running",
    ),
    "an order and its saga contradict each other": (
        lambda b: b.run("UPDATE orders SET status = 'rejected' WHERE id = 2"),
        "is rejected, its saga .* is completed",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_in_the_books_is_found(books: Books, planted: str) -> None:
    plant, told = PLANTED[planted]
    plant(books)

    with pytest.raises(Disagreement, match=told):
        books.count()


def test_orders_that_are_not_there_yet_are_open_and_so_are_those_whose_saga_runs(books: Books) -> None:
    books.run(f"UPDATE saga_instance SET status = 'parked' WHERE id = '{SAGAS[0]}'")

    assert still_open(books.query, books.mark, 3) == 1
    assert still_open(books.query, books.mark, 5) == 3


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        (["cell:0", "cell:1", "cell:1"], "3 there, 2 due"),
        (["cell:0"], "1 there, 2 due"),
        (["cell:0", "cell:2"], "2 there, 2 due; missing"),
    ],
    ids=["twice", "never", "of nobody's"],
)
def test_an_event_that_was_not_heard_once_is_found(heard: list[str], told: str) -> None:
    def query(service: str, statement: str, **values: Any) -> list[Any]:
        return [SimpleNamespace(order_id=order) for order in heard]

    with pytest.raises(Disagreement, match=f"events: {told}"):
        count_told(query, "cell:", 2)


class Platform:
    """Stands in for a fleet whose orders agree."""

    def __init__(self, *living: str, aside: str | None = None) -> None:
        self.living = living
        self.aside = aside

    def running(self, service: str, number: int) -> int | None:
        return 1 if f"{service}-{number}" in self.living else None

    def query(self, service: str, statement: str) -> list[Any]:
        return [SimpleNamespace(task="cook", reason="no such task")] if service == self.aside else []


def column_of(platform: Platform, *, web: bool = True) -> Column:
    column: Any = Column.__new__(Column)
    column.fleet = platform
    column._running = {("order_service", 1): None, ("restaurant_service", 1): None}
    column._web = SimpleNamespace(running=web)
    made: Column = column
    return made


def test_a_worker_that_ended_by_itself_fails_the_cell() -> None:
    column_of(Platform("order_service-1", "restaurant_service-1"))._see_who_lives()

    with pytest.raises(Disagreement, match="ended by themselves: restaurant_service-1, web"):
        column_of(Platform("order_service-1"), web=False)._see_who_lives()


def test_a_message_that_was_set_aside_fails_the_cell() -> None:
    column_of(Platform())._see_what_was_set_aside()

    with pytest.raises(Disagreement, match="accounting_service has set cook aside: no such task"):
        column_of(Platform(aside="accounting_service"))._see_what_was_set_aside()


def test_only_where_time_runs_out_or_operators_cancel_fewer_orders_may_be_approved() -> None:
    cells = {cell.name: cell for cell in CELLS}

    assert fewest_approved(cells["batch_taken:kill"], 75) == 75
    assert fewest_approved(cells["acts_decided:kill"], 75) == 75 - ACTS
    assert fewest_approved(cells["acts_decided:kill"], ACTS - 1) == 0
    assert fewest_approved(cells["batch_taken:stop"], 75) == 0


# ---- the table ------------------------------------------------------------------------------------


def test_every_point_is_a_row_and_every_row_has_every_column() -> None:
    points = [*Point, *EventPoint]
    assert sorted(row.point for row in ROWS) == sorted(points)
    assert len({cell.name for cell in CELLS}) == len(points) * len(Deed)


def test_cells_are_selected_by_patterns_in_the_order_of_the_table() -> None:
    chosen = [cell.name for cell in select(["batch_taken:*", "timers_decided:kill"])]

    assert chosen[:2] == ["timers_decided:kill", "batch_taken:kill"]
    assert len(chosen) == 1 + len(Deed)


def test_a_pattern_that_names_no_cell_is_told_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'batch:kil' names no cell.*batch_taken.*reset"):
        select(["batch_taken:kill", "batch:kil"])


@pytest.mark.parametrize("value", ["many", "-1", "0", str(program.FEWEST - 1)])
def test_too_few_orders_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=rf"CRASH_MATRIX_ORDERS is '{value}'"):
        orders_wanted({"CRASH_MATRIX_ORDERS": value})


def test_there_are_a_hundred_orders_unless_told_otherwise() -> None:
    assert (orders_wanted({}), orders_wanted({"CRASH_MATRIX_ORDERS": "500"})) == (100, 500)


# ---- results --------------------------------------------------------------------------------------


def passed(cell: str) -> Result:
    return Result(cell, None, 4.5, 75, 25, 3, 10.0)


def test_an_interrupted_run_goes_on_with_what_is_left_and_what_failed(tmp_path: Path) -> None:
    first, second, third = CELLS[:3]
    notes = Notes.read(tmp_path / "var" / "results.json", "today")
    notes.add(passed(first.name))
    notes.add(replace(passed(second.name), why="Disagreement: a ticket too many"))

    again = Notes.read(tmp_path / "var" / "results.json", "today")

    assert again.results == notes.results
    assert again.left([first, second, third]) == [second, third]
    assert not again.complete


def test_a_column_that_does_not_agree_as_a_whole_is_run_again(tmp_path: Path) -> None:
    notes = Notes.read(tmp_path / "results.json", "today")
    notes.undisturbed = 3.5
    notes.add(passed(CELLS[0].name))
    notes.add(passed(CELLS[-1].name))

    notes.drop(cell for cell in CELLS if cell.deed is CELLS[0].deed)

    again = Notes.read(tmp_path / "results.json", "today")
    assert list(again.results) == [CELLS[-1].name]
    assert again.undisturbed == 3.5


def test_results_of_other_code_or_of_fewer_orders_are_not_gone_on_with(tmp_path: Path) -> None:
    Notes.read(tmp_path / "results.json", "yesterday").add(passed(CELLS[0].name))

    assert Notes.read(tmp_path / "results.json", "today").results == {}


def test_a_result_is_not_noted_when_the_code_has_changed_since_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = CELLS[:3]
    states = iter(["as it was", "as it was too", "not seen"])
    bench = SimpleNamespace(
        run=lambda cell: passed(cell.name), undisturbed=lambda: 3.5, close=lambda: None, troubles=[]
    )
    monkeypatch.setattr(program, "Bench", lambda *_: bench)
    monkeypatch.setattr(program, "code_digest", lambda: next(states))
    notes = Notes.read(tmp_path / "results.json", "as it was with 100 orders")
    servers: Any = None

    failed = program._run([first, second, third], servers, tmp_path, 100, notes, "as it was")

    assert failed == 1
    assert list(notes.results) == [first.name]
    assert "the code has changed since the run began" in capsys.readouterr().out


def test_the_page_shows_each_cell_the_sums_and_the_machine() -> None:
    good, bad, *_ = (cell.name for cell in CELLS)
    results = {good: passed(good), bad: replace(passed(bad), why="Disagreement: a | b\nc <d>")}

    page = markdown(results, orders=100, undisturbed=3.5, day="2026-01-01", machine="A computer")
    lines = page.splitlines()

    assert lines[0] == "| point | process | " + " | ".join(deed.value for deed in Deed) + " |"
    assert lines[2].startswith("| saga written | `web process` | 4.5 s (75 + 25) | not run | ")
    assert lines[3].startswith("| timers decided | `order_service` | **failed** | ")
    told = "\n".join(lines[2 + len(ROWS) :])
    assert f"1 of {len(CELLS)} cells passed, with 100 orders each: 75 approved and 25 rejected" in told
    assert "When nothing is broken, 100 orders take 3.5 s." in told
    assert "A computer." in told
    assert f"- `{bad}`: Disagreement: a \\| b c \\<d\\>" in told


def test_a_page_keeps_what_is_around_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nend\n")

    write_into(page, "new")

    assert page.read_text() == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nend\n"
    page.write_text("# no place\n")
    with pytest.raises(ValueError, match="to write between"):
        write_into(page, "new")


def test_the_page_of_the_documentation_has_a_place_for_the_table() -> None:
    page = program.PAGE.read_text()

    assert page.index(BEGIN) < page.index(END)


# ---- the saboteur ---------------------------------------------------------------------------------


@pytest.fixture
def trapped(tmp_path: Path) -> Iterator[Path]:
    """A folder for traps; this process is the one that walks into them."""
    listen(Saboteur(tmp_path))
    yield tmp_path
    listen(None)


def test_who_gets_there_for_the_third_time_is_held_until_released(trapped: Path) -> None:
    trap = Trap.set(trapped, Point.BATCH_TAKEN, 3, HOLD)
    for _ in range(2):
        reach(Point.BATCH_TAKEN)
        reach(Point.BATCH_DECIDED)
    before = trap.victim()

    third = threading.Thread(target=reach, args=[Point.BATCH_TAKEN])
    third.start()
    wait_until(lambda: trap.victim() is not None, "the third time", within=10)
    victim, passed_early = trap.victim(), trap.passed()
    trap.release()
    third.join(timeout=10)
    reach(Point.BATCH_TAKEN)  # nobody is caught twice

    assert before is None
    assert victim is not None
    assert victim.pid == os.getpid()
    assert not passed_early
    assert trap.passed()


def test_a_trap_that_was_removed_catches_nobody(trapped: Path) -> None:
    trap = Trap.set(trapped, Point.BATCH_TAKEN, 1, HOLD)
    trap.remove()

    reach(Point.BATCH_TAKEN)

    assert trap.victim() is None


# ---- network and disk -----------------------------------------------------------------------------


def echo(server: socket.socket, heard: list[bytes]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            try:
                while data := connection.recv(100):
                    heard.append(data)
                    connection.sendall(data)
            except OSError:
                pass


@pytest.fixture
def heard_through() -> Iterator[tuple[Proxy, list[bytes]]]:
    """A proxy before a server that says what it hears."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=echo, args=[server, heard], daemon=True)
        thread.start()
        proxy = Proxy(server.getsockname()[1])
        yield proxy, heard
        proxy.close()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def test_in_a_cut_what_is_sent_arrives_and_no_answer_comes_until_all_is_reset(
    heard_through: tuple[Proxy, list[bytes]],
) -> None:
    proxy, heard = heard_through
    with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=10)) as client:
        client.sendall(b"one")
        answered = client.recv(100)
        proxy.silence()
        client.sendall(b"two")
        wait_until(lambda: b"two" in heard, "what was sent", within=10)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        client.settimeout(10)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=10)) as client:
        client.sendall(b"three")
        again = client.recv(100)

    assert (answered, again) == (b"one", b"three")
    assert proxy.silenced == 1


def test_a_full_disk_refuses_statements_and_commits_until_it_is_freed(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as setup:
        setup.execute("CREATE TABLE things (id int)")
    disk = Disk(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO things VALUES (1)")
        disk.fill()
        with pytest.raises(psycopg.errors.DiskFull):
            connection.commit()  # the statement had found room
        with pytest.raises(psycopg.errors.DiskFull):
            connection.execute("INSERT INTO things VALUES (2)")
        connection.rollback()
        refused = disk.refusals
        disk.free()
        connection.execute("INSERT INTO things VALUES (3)")
        connection.commit()

        left = connection.execute("SELECT id FROM things").fetchall()
    counted = disk.refusals
    disk.close()
    with psycopg.connect(postgres_url) as connection:
        connection.execute("INSERT INTO things VALUES (4)")

    assert refused == counted == 2
    assert left == [(3,)]
