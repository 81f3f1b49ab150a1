"""The form of our messages on the wire: what plain Celery makes of ours, and we of anybody's."""

from __future__ import annotations

import json
import queue as queues
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from sagas_framework.core.events import Outgoing, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import Stored
from sagas_framework.messages import Command, Queue, QueueType, Reply, Service, WireProtocol
from sagas_framework.transport.envelope import (
    LINKED_FAILURE_SUFFIX,
    LINKED_SUCCESS_SUFFIX,
    Envelope,
    UnreadableError,
    WireMessage,
    command,
    from_wire,
    reply,
    reply_received,
    to_wire,
)
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Receipt
from sagas_framework.worker.embedded import EmbeddedWorkers
from tests.contract.looking import BOUNDED, NOON, after
from tests.contract.test_publisher import Broker

kitchen = Service("kitchen")


class Booked(Reply):
    at: datetime


class Book(Command[Booked], service=kitchen, name="book"):
    """A command with everything in it that JSON has no type for."""

    amount: Decimal
    at: datetime
    on: date
    id: UUID
    note: str


A_COMMAND = Outgoing(
    saga_id="01890a5d-ac96-774b-bcce-b302099a8057",
    message_id="7c9e6679-7425-40de-944b-e07fc1f90ae7",
    operation_id="5f0c1a52-1111-5222-8333-444455556666",
    kind=Kind.DO,
    task=Book.contract.task,
    queue="kitchen.commands",
    attempt=2,
    not_after=after(86400),
    payload=Book(
        amount=Decimal("10.50"),
        at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        on=date(2026, 3, 2),
        id=UUID(int=7),
        note="for Ada Lovelace",
    ).to_json(),
)


def wire(body: bytes, **headers: Any) -> WireMessage:
    return WireMessage("kitchen.commands", {"task": "kitchen.book", "id": "m1", **headers}, {}, body)


# ---- there and back -------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=20).filter(str.isprintable)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
# What a plain worker sends about its task has its arguments the other way round, and is never written by us.
tasks = names.filter(lambda name: not name.endswith((LINKED_SUCCESS_SUFFIX, LINKED_FAILURE_SUFFIX)))
envelopes = st.builds(
    Envelope,
    queue=names,
    task=tasks,
    message_id=names,
    saga_id=names,
    payload=values,
    root_id=names,
    parent_id=st.none() | names,
    reply_to=st.none() | names,
    headers=st.dictionaries(
        names.map("saga_{}".format), st.none() | st.text() | st.integers() | st.booleans(), max_size=4
    ),
)


@given(envelopes)
def test_what_is_written_is_read_back_as_it_was(envelope: Envelope) -> None:
    assert from_wire(to_wire(envelope)) == envelope


@given(envelopes)
def test_a_message_that_answers_nothing_is_its_own_root(envelope: Envelope) -> None:
    read = from_wire(to_wire(replace(envelope, root_id=None)))

    assert read == replace(envelope, root_id=envelope.message_id)


# ---- what there is on the wire --------------------------------------------------------------------


def test_a_command_is_a_celery_message_with_saga_id_and_payload_as_its_arguments() -> None:
    message = to_wire(command(A_COMMAND, reply_to="order_service.replies"))

    assert message.queue == "kitchen.commands"
    assert json.loads(message.body) == [
        [A_COMMAND.saga_id, A_COMMAND.payload],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    assert message.properties == {
        "correlation_id": A_COMMAND.message_id,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "reply_to": "order_service.replies",
    }
    assert {name: message.headers[name] for name in ("task", "id", "root_id", "parent_id")} == {
        "task": "kitchen.book",
        "id": A_COMMAND.message_id,
        "root_id": A_COMMAND.message_id,
        "parent_id": None,
    }
    assert {name: value for name, value in message.headers.items() if name.startswith("saga_")} == {
        "saga_operation_id": A_COMMAND.operation_id,
        "saga_attempt": 2,
        "saga_not_after": "2026-03-02T12:00:00+00:00",
    }


def test_headers_are_those_that_the_protocol_demands_and_those_that_say_something() -> None:
    """Each costs both ends time. Workers of Celery take what is missing for what it would be."""
    message = to_wire(command(A_COMMAND, reply_to="r"))

    assert [name for name in message.headers if not name.startswith("saga_")] == [
        "lang",
        "task",
        "id",
        "root_id",
        "parent_id",
        "group",
        "ignore_result",
        "argsrepr",
        "kwargsrepr",
        "origin",
    ]


def test_bodies_are_plain_json_without_types_of_kombu() -> None:
    message = to_wire(command(A_COMMAND, reply_to="r"))

    assert b"__type__" not in message.body
    assert json.loads(message.body)[0][1] == {
        "amount": "10.50",
        "at": "2026-03-01T12:30:00Z",
        "on": "2026-03-02",
        "id": "00000000-0000-0000-0000-000000000007",
        "note": "for Ada Lovelace",
    }


def test_headers_tell_nothing_of_the_payload() -> None:
    # Celery would write the arguments there, and its workers into their logs.
    message = to_wire(command(A_COMMAND, reply_to="r"))

    assert "Lovelace" not in str(message.headers)
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("[...]", "{}")


@pytest.mark.parametrize(("known", "said"), [(True, "succeeded"), (False, "unknown")])
@pytest.mark.parametrize("kind", [Kind.UNDO, Kind.SETTLE])
def test_compensations_and_settlings_say_what_the_saga_knows(kind: Kind, known: bool, said: str) -> None:
    plain = to_wire(command(replace(A_COMMAND, kind=kind, known=known), reply_to="r"))
    handing_over = to_wire(command(replace(A_COMMAND, kind=kind, known=known, hand_over=True), reply_to="r"))

    assert plain.headers["saga_known"] == said
    assert "saga_hand_over" not in plain.headers
    assert handing_over.headers["saga_hand_over"] is True


# ---- replies --------------------------------------------------------------------------------------


def test_answering_twice_makes_the_same_message_twice() -> None:
    asked = command(A_COMMAND, reply_to="order_service.replies")
    stored = Stored(Result.SUCCESS, {"at": "2026-03-01T12:30:00Z"})

    assert to_wire(reply(asked, stored)) == to_wire(reply(asked, stored))
    assert to_wire(reply(asked, stored)) != to_wire(reply(asked, Stored(Result.FAILED, {})))


@given(names, st.sampled_from(Result))
def test_the_id_of_an_answer_is_the_uuid_5_of_what_is_answered_and_the_result(
    asked: str, result: Result
) -> None:
    answered = replace(command(A_COMMAND, reply_to="r"), message_id=asked)

    assert reply(answered, Stored(result, {})).message_id == str(
        uuid5(NAMESPACE_OID, f"{asked}|{result.value}")
    )


@pytest.mark.parametrize("result", list(Result))
def test_a_reply_names_the_message_that_it_answers(result: Result) -> None:
    asked = from_wire(to_wire(command(A_COMMAND, reply_to="order_service.replies")))
    said = {"type": "Closed", "message": "on Mondays", "module": "kitchen"}

    answer = from_wire(to_wire(reply(asked, Stored(result, said))))

    event = reply_received(answer, NOON)
    assert answer.queue == "order_service.replies"
    assert event.saga_id == A_COMMAND.saga_id
    assert event.refs == (A_COMMAND.message_id,)
    assert event.task == "kitchen.book"
    assert event.result is result
    assert (event.payload if result is Result.SUCCESS else dict(event.error)) == said


def test_a_failure_without_our_header_comes_from_an_old_participant_and_is_transient() -> None:
    said = {"type": "KeyError", "message": "'x'", "module": "builtins", "traceback": "..."}
    body = json.dumps([["17", said], {}, None]).encode()

    event = reply_received(from_wire(wire(body, task="kitchen.book.response.failure")), NOON)

    assert event.result is Result.FAILED
    assert dict(event.error) == {"type": "KeyError", "message": "'x'", "module": "builtins"}


@pytest.mark.parametrize("payload", ["a\0b", {"message": "\ud800"}, [float("nan")]])
@pytest.mark.parametrize("task", ["kitchen.book.response.success", "kitchen.book.linked.success"])
def test_an_answer_that_no_database_keeps_is_unreadable(task: str, payload: Any) -> None:
    arguments = ["17", payload] if "response" in task else [payload, "17"]
    body = json.dumps([arguments, {}, None]).encode()

    with pytest.raises(UnreadableError, match="no database keeps this answer") as raised:
        reply_received(from_wire(wire(body, task=task)), NOON)

    assert raised.value.path == "$[0]"


# ---- plain tasks ----------------------------------------------------------------------------------

A_CALL = replace(
    A_COMMAND, protocol=WireProtocol.CELERY, task="shop.reserve", payload={"sku": "a", "count": 2}
)


def test_a_plain_task_is_called_with_its_keyword_arguments() -> None:
    message = to_wire(command(A_CALL, reply_to="order_service.replies"))

    args, kwargs, embedded = json.loads(message.body)
    assert (args, kwargs) == ([], {"sku": "a", "count": 2})
    assert embedded["chain"] is None
    assert message.headers["expires"] == A_CALL.not_after.isoformat()
    assert "reply_to" not in message.properties  # or a result backend would send its results there


def test_a_plain_tasks_worker_is_told_where_results_go() -> None:
    """By the name of the queue, which it must not declare: it would declare a classic one."""
    message = to_wire(command(A_CALL, reply_to="order_service.replies"))

    _, _, embedded = json.loads(message.body)
    ((done,), (failed,)) = embedded["callbacks"], embedded["errbacks"]
    assert [done["task"], failed["task"]] == ["shop.reserve.linked.success", "shop.reserve.linked.failure"]
    for callback in (done, failed):
        options = callback["options"]
        assert callback["args"] == [A_CALL.saga_id]
        assert (options["exchange"], options["routing_key"]) == ("", "order_service.replies")
        assert "queue" not in options
        assert options["exchange_type"] != "direct"


@pytest.mark.parametrize("kind", [Kind.DO, Kind.UNDO])
def test_what_an_old_participant_is_sent_does_not_expire(kind: Kind) -> None:
    """Its Celery may be too old to retry a task that does."""
    old = replace(A_COMMAND, kind=kind, protocol=WireProtocol.DEMO)

    message = to_wire(command(old, reply_to="order_service.replies"))

    assert "expires" not in message.headers
    assert json.loads(message.body)[0] == [A_COMMAND.saga_id, A_COMMAND.payload]


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_only_what_an_inbox_recognises_may_be_published_again(protocol: WireProtocol) -> None:
    message = to_wire(command(replace(A_CALL, protocol=protocol), reply_to="order_service.replies"))

    assert message.once is (protocol is not WireProtocol.INBOX)


@pytest.mark.parametrize("result", [None, 7, "text", ["17", 2], {"a": 1}])
def test_a_plain_tasks_result_comes_before_the_sagas_id(result: Any) -> None:
    body = json.dumps([[result, "saga-1"], {}, None]).encode()

    event = reply_received(from_wire(wire(body, task="shop.reserve.linked.success", root_id="m9")), NOON)

    assert (event.saga_id, event.task, event.refs) == ("saga-1", "shop.reserve", ("m9",))
    assert (event.result, event.payload) == (Result.SUCCESS, result)


def test_a_plain_tasks_failure_says_where_to_look() -> None:
    body = json.dumps([["m9", "saga-1"], {}, None]).encode()

    event = reply_received(from_wire(wire(body, task="shop.reserve.linked.failure", root_id="m9")), NOON)

    assert (event.saga_id, event.task, event.result) == ("saga-1", "shop.reserve", Result.FAILED)
    assert dict(event.error) == {
        "type": "TaskFailed",
        "message": "its worker's log says why, under the task id m9",
        "module": "celery",
    }


def test_what_celery_wraps_in_its_json_is_plain_again() -> None:
    wrapped = {
        "day": {"__type__": "date", "__value__": "2026-03-01"},
        "id": {"__type__": "uuid", "__value__": {"hex": UUID(int=7).hex}},
        "ours": {"__type__": "of bread", "grams": 500},
    }
    body = json.dumps([[wrapped, "saga-1"], {}, None]).encode()

    read = from_wire(wire(body, task="shop.reserve.linked.success"))

    assert read.payload == {"day": "2026-03-01", "id": str(UUID(int=7)), "ours": wrapped["ours"]}


@pytest.mark.parametrize("inner", [{}, 7, None, {"hex": 7}, {"hex": "no"}])
def test_what_celery_would_not_have_wrapped_so_is_unreadable(inner: Any) -> None:
    body = json.dumps([["saga-1", {"__type__": "uuid", "__value__": inner}], {}, None]).encode()

    with pytest.raises(UnreadableError):
        from_wire(wire(body, task="shop.reserve.response.success"))


@pytest.mark.parametrize("arguments", [[7], [7, None], [7, "saga-1", 8], "no"])
def test_a_linked_result_without_its_saga_is_unreadable(arguments: Any) -> None:
    body = json.dumps([arguments, {}, None]).encode()

    with pytest.raises(UnreadableError):
        from_wire(wire(body, task="shop.reserve.linked.success"))


def test_a_reply_that_is_its_own_root_names_nothing() -> None:
    body = json.dumps([["17", None], {}, None]).encode()

    event = reply_received(from_wire(wire(body, task="kitchen.book.response.success", root_id="m1")), NOON)

    assert event.refs == ()


@pytest.mark.parametrize(
    ("task", "payload", "headers", "reason", "path"),
    [
        ("kitchen.book", {}, {}, "is no reply", "$"),
        ("kitchen.book.response.failure", "no", {}, "an object with type, message and module", "$[0][1]"),
        ("kitchen.book.response.failure", {}, {"saga_result": "maybe"}, "saga_result is 'maybe'", "$"),
        ("kitchen.book.response.failure", {}, {"saga_result": "success"}, "says success", "$"),
        ("kitchen.book.response.failure", {}, {"saga_result": [1]}, "saga_result is", "$"),
    ],
)
def test_a_reply_that_makes_no_sense_is_unreadable(
    task: str, payload: Any, headers: dict[str, Any], reason: str, path: str
) -> None:
    body = json.dumps([["17", payload], {}, None]).encode()

    with pytest.raises(UnreadableError, match=reason) as raised:
        reply_received(from_wire(wire(body, task=task, **headers)), NOON)

    assert raised.value.path == path


# ---- garbage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason", "path"),
    [
        (wire(b""), "not JSON", "$"),
        (wire(b"\xff\xfe\x00"), "not JSON", "$"),
        (wire(b"\x80\x04\x95pickle"), "not JSON", "$"),
        (wire(b"[" * 100_000), "nested", "$"),
        (wire(b"null"), r"\[saga_id, payload\]", "$[0]"),
        (wire(b"{}"), r"\[saga_id, payload\]", "$[0]"),
        (wire(b"[]"), r"\[saga_id, payload\]", "$[0]"),
        (wire(b"[[], {}, null]"), r"\[saga_id, payload\]", "$[0]"),
        (wire(b'[["s"], {}, null]'), r"\[saga_id, payload\]", "$[0]"),
        (wire(b'[["s", 1, 2], {}, null]'), r"\[saga_id, payload\]", "$[0]"),
        (wire(b"[[null, {}], {}, null]"), "saga's id is None", "$[0][0]"),
        (wire(b"[[true, {}], {}, null]"), "saga's id is True", "$[0][0]"),
        (wire(b'[[{"id": 1}, {}], {}, null]'), "saga's id is", "$[0][0]"),
        (wire(b'[["%s", {}], {}, null]' % (b"s" * 65)), "saga's id is .* not 1 to 64", "$[0][0]"),
        (wire(b'[["\\u0000", {}], {}, null]'), "saga's id is .* printable", "$[0][0]"),
        (wire(b'[["s", {}], {}, null]', saga_operation_id=7), "saga_operation_id is 7", "$"),
        (wire(b'[["s", {}], {}, null]', id="m" * 65), "task's id is", "$"),
        (wire(b'[["s", {}], {}, null]', task="t" * 201), "task's name is", "$"),
        (wire(b'[["s", {}], {}, null]', root_id=[1]), r"root_id is \[1\]", "$"),
        (wire(b'[["s", {}], {}, null]', task=None), "no task and id", "$"),
        (wire(b'[["s", {}], {}, null]', id=7), "no task and id", "$"),
        (WireMessage("q", {}, {}, b"hello"), "no task and id", "$"),
    ],
)
def test_garbage_is_unreadable_and_says_where(message: WireMessage, reason: str, path: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as raised:
        from_wire(message)

    assert raised.value.path == path


@pytest.mark.parametrize("attempt", [0, -1, 2**31, 10**30, "1", 1.0, True, None])
def test_an_attempt_that_no_row_can_hold_is_unreadable(attempt: object) -> None:
    message = wire(b'[["s", {}], {}, null]', saga_attempt=attempt)

    with pytest.raises(UnreadableError, match=r"saga_attempt is .*, not a number from 1 to 2147483647"):
        from_wire(message)


anything = st.text() | values | st.binary(max_size=5)


@settings(max_examples=300)
@given(
    st.binary(max_size=60)
    | values.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.text() | values, values).map(lambda args: json.dumps([args, {}, None]).encode()),
    st.fixed_dictionaries(
        {"task": names | anything, "id": names | anything},
        optional=dict.fromkeys(
            ("root_id", "parent_id", "saga_operation_id", "saga_attempt", "saga_result"), anything
        ),
    ),
    st.fixed_dictionaries({}, optional={"reply_to": anything, "correlation_id": anything}),
)
def test_whatever_comes_is_read_or_unreadable(
    body: bytes, headers: dict[str, Any], properties: dict[str, Any]
) -> None:
    with suppress(UnreadableError):
        envelope = from_wire(WireMessage("q", headers, properties, body))

        key = envelope.headers.get("saga_operation_id", envelope.message_id)
        attempt = envelope.headers.get("saga_attempt", 1)
        assert isinstance(attempt, int)
        assert 0 < attempt < 2**31
        for name in (envelope.task, envelope.saga_id, key):  # what an inbox row is made of
            assert len(name.encode()) > 0
            assert name.isprintable()
        for optional in (envelope.root_id, envelope.parent_id, envelope.reply_to):
            assert optional is None or isinstance(optional, str)
        reply_received(envelope, NOON)


# ---- with plain Celery at the other end -----------------------------------------------------------


@pytest.fixture(params=["memory", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    url: str = request.getfixturevalue("rabbitmq_module_url")
    return url


@pytest.fixture
def queue() -> Queue:
    return Queue(f"test.{uuid4().hex[:12]}", QueueType.CLASSIC)  # as a plain Celery app declares it


@pytest.fixture
def app(broker_url: str, queue: Queue) -> Iterator[Celery]:
    """An app that knows nothing of sagas."""
    app = Celery("plain", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue.name,
        broker_transport_options={"polling_interval": 0.01} if broker_url.startswith("memory") else {},
        worker_enable_remote_control=False,
        task_ignore_result=True,
    )
    with closing(app):
        yield app


def test_a_plain_celery_task_receives_our_command(app: Celery, broker_url: str, queue: Queue) -> None:
    received: queues.SimpleQueue[tuple[Any, ...]] = queues.SimpleQueue()

    @app.task(bind=True, name="kitchen.book", shared=False)
    def book(self: Any, *args: Any, **kwargs: Any) -> None:
        request = self.request
        received.put(
            (args, kwargs, request.id, request.root_id, request.reply_to, dict(request.headers or {}))
        )

    envelope = replace(command(A_COMMAND, reply_to="order_service.replies"), queue=queue.name)
    with (
        closing(make_publisher(broker_url, [queue])) as publisher,
        EmbeddedWorkers([app]),
    ):
        assert publisher.publish([to_wire(envelope)]) == [Receipt.CONFIRMED]
        args, kwargs, task_id, root_id, reply_to, headers = received.get(timeout=BOUNDED)

    assert args == (A_COMMAND.saga_id, A_COMMAND.payload)
    assert kwargs == {}
    assert task_id == root_id == A_COMMAND.message_id
    assert reply_to == "order_service.replies"
    assert headers["saga_operation_id"] == A_COMMAND.operation_id
    assert headers["saga_attempt"] == 2


def test_we_read_what_plain_celery_sends(app: Celery, broker_url: str, queue: Queue) -> None:
    payload = {"amount": "10.50", "note": "naïve \U0001f355"}

    app.send_task("kitchen.book", args=["17", payload], task_id="m1", reply_to="replies", queue=queue.name)

    (message,) = Broker(broker_url).take(queue)
    assert from_wire(message) == Envelope(
        queue=queue.name,
        task="kitchen.book",
        message_id="m1",
        saga_id="17",
        payload=payload,
        root_id="m1",
        reply_to="replies",
    )


def test_arguments_that_plain_celery_sends_by_name_are_unreadable(
    app: Celery, broker_url: str, queue: Queue
) -> None:
    app.send_task("kitchen.book", kwargs={"saga_id": "17", "payload": {}}, queue=queue.name)

    (message,) = Broker(broker_url).take(queue)
    with pytest.raises(UnreadableError) as raised:
        from_wire(message)
    assert raised.value.path == "$[0]"
