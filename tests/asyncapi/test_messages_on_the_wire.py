"""Real messages, delivered by RabbitMQ while every saga ran, are what the documents say; and the reverse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from app_common.running import SERVICES
from sagas_framework.asyncapi import Specification
from sagas_framework.transport.event_wire import EVENT_AT
from tests.acceptance.application import Application
from tests.asyncapi.conversation import APPROVER, OPERATOR, TOKEN, Conversation
from tests.asyncapi.reading import Said, correlation, misfits, said
from tests.asyncapi.tap import Delivered, Tap
from tests.servers import Missing, PostgresServer, skip_or_fail

# The sagas run for the first of these tests: a minute, of which most is pauses between attempts.
pytestmark = pytest.mark.timeout(600)

_ONLY_OUTSIDE: Final = "of a pivot, only a handler outside its transaction may not know how its command went"
_A_PIVOT: Final = "a parcel on its way is the pivot of the only saga that ships, and is not called back"
_NOBODY_ASKS: Final = "participants answer for whatever they handle; no saga settles what it need not undo"

_ONLY_APPROVERS: Final = "approvers say it to the order service over HTTP, and no service over the broker"

UNSEEN: Final = {
    "process_order.signal.approval": _ONLY_APPROVERS,
    "consumer_service.verify_consumer_details.settle": _NOBODY_ASKS,
    "consumer_service.verify_consumer_details.settle.response.success": _NOBODY_ASKS,
    "consumer_service.verify_consumer_details.settle.response.failure": _NOBODY_ASKS,
    "restaurant_service.approve_ticket.settle.response.failure": _ONLY_OUTSIDE,
    "delivery_service.ship_order.settle.response.failure": _ONLY_OUTSIDE,
    "delivery_service.cancel_shipment": _A_PIVOT,
    "delivery_service.cancel_shipment.response.success": _A_PIVOT,
    "delivery_service.cancel_shipment.response.failure": _A_PIVOT,
}
"""Messages that a participant knows and that no saga of the platform can bring about, and why."""


@pytest.fixture(scope="module")
def delivered(
    rabbitmq_module_url: str,
    postgres_server: PostgresServer | Missing,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Delivered]:
    """Every message that RabbitMQ delivered while the whole application ran, each service a process."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    tap = Tap(rabbitmq_module_url)
    with postgres_server.not_made_yet(SERVICES) as databases:
        environment = {
            "APP_SQLALCHEMY_DATABASE_URI": databases,
            "CELERY_BROKER": tap.url,
            "CELERY_RESULT_BACKEND": "",
            "CONSUMER_TIMEOUT": "60",  # the workers start as slowly as the machine is busy
            "RESTAURANT_TIMEOUT": "10",
            "ACCOUNTING_TIMEOUT": "60",
            "APPROVER_TOKENS": f"{APPROVER}:{TOKEN}",
            "OPERATOR_TOKENS": f"{OPERATOR}:{TOKEN}",
        }
        application = Application(
            "app_common.local", databases, environment, tmp_path_factory.mktemp("conversation")
        )
        try:
            application.start()
            Conversation(application).run()
        finally:
            application.close()
            tap.close()
    return tap.delivered()


Place = tuple[str, Said]
"""A message of a document, with the service whose document it is."""


@pytest.fixture(scope="module")
def places(published: dict[str, Specification]) -> list[Place]:
    """Every message of every document."""
    return [
        (service, message)
        for service, specification in published.items()
        for message in said(specification.document)
    ]


@pytest.fixture(scope="module")
def documented(published: dict[str, Specification], places: list[Place]) -> Documented:
    return Documented({service: one.document for service, one in published.items()}, places)


class Documented:
    """Finds a real message in the documents."""

    def __init__(self, documents: dict[str, dict[str, Any]], places: list[Place]) -> None:
        self.documents = documents
        self._places = places

    def places(self, message: Delivered, *, says: bool) -> list[Place]:
        """Where a document says that its service sends, or receives, just this."""
        return [
            (service, one)
            for service, one in self._places
            if one.says is says and not misfits(self.documents[service], one, message)
        ]

    def why_not(self, message: Delivered, *, says: bool) -> dict[str, list[str]]:
        """What speaks against each message of its task."""
        return {
            f"{service}: {one.name}": misfits(self.documents[service], one, message)
            for service, one in self._places
            if one.says is says and one.name.startswith(message.task)
        }


def test_every_message_is_in_the_documents_of_its_sender_and_of_its_receiver_once(
    delivered: list[Delivered], documented: Documented
) -> None:
    for message in delivered:
        (sender, sent), (receiver, received) = (
            _only(documented, message, says=True),
            _only(documented, message, says=False),
        )
        assert sender != receiver
        assert sent.name == received.name

    assert len(delivered) > 100


def _only(documented: Documented, message: Delivered, *, says: bool) -> Place:
    found = documented.places(message, says=says)
    assert len(found) == 1, (message, found, documented.why_not(message, says=says))
    return found[0]


def test_every_documented_message_was_seen_or_there_is_a_reason_why_not(
    delivered: list[Delivered], documented: Documented, places: list[Place]
) -> None:
    seen = {
        (service, one.says, one.name)
        for message in delivered
        for says in (True, False)
        for service, one in documented.places(message, says=says)
    }

    unseen = {(service, one.says, one.name) for service, one in places} - seen
    assert {name for _, _, name in unseen} == set(UNSEEN)


def test_every_reply_names_the_message_that_it_answers_where_its_document_says(
    delivered: list[Delivered], documented: Documented
) -> None:
    asked, answered = Counter[Any](), Counter[Any]()
    for message in delivered:
        service, one = _only(documented, message, says=False)
        if EVENT_AT in message.headers:
            continue  # nobody answers it
        is_reply = ".response." in message.task
        (answered if is_reply else asked)[correlation(documented.documents[service], one, message)] += 1

    assert answered
    assert set(answered) <= set(asked)


def test_a_command_names_the_queue_on_which_its_document_says_that_it_is_answered(
    delivered: list[Delivered], places: list[Place]
) -> None:
    answers = {one.address for service, one in places if service == "order_service" and not one.says}
    asked = {
        message.properties.get("reply_to")
        for message in delivered
        if ".response." not in message.task and EVENT_AT not in message.headers
    }

    assert asked == answers == {"create_order_saga_responses"}


# ---- the controls ---------------------------------------------------------------------------------


def _headers(message: Delivered, **changes: Any) -> Delivered:
    kept = {name: value for name, value in {**message.headers, **changes}.items() if value is not Ellipsis}
    return replace(message, headers=kept)


def _body(message: Delivered, change: Callable[[list[Any]], object]) -> Delivered:
    body = json.loads(message.body)
    change(body)
    return replace(message, body=json.dumps(body).encode())


def _spoilt(message: Delivered) -> Iterator[tuple[str, Delivered]]:
    yield "an argument too many", _body(message, lambda body: body[0].append(1))
    yield "an argument too few", _body(message, lambda body: body[0].pop())
    yield "a wrong type", _body(message, lambda body: body[0][1].update(order_id="one"))
    yield "a field is missing", _body(message, lambda body: body[0][1].pop("items"))
    yield "an item is wrong", _body(message, lambda body: body[0][1]["items"][0].pop("quantity"))
    yield "the saga's id is none", _body(message, lambda body: body[0].__setitem__(0, "17"))
    yield "keyword arguments", _body(message, lambda body: body[1].update(order_id=1))
    yield "protocol 1", replace(_headers(message, **dict.fromkeys(message.headers, Ellipsis)), body=b"{}")
    yield "no JSON", replace(message, body=b"\x80\x04.")
    yield "another task", _headers(message, task="restaurant_service.close")
    yield "a task of the same service", _headers(message, task="restaurant_service.approve_ticket")
    yield "no operation id", _headers(message, saga_operation_id=...)
    yield "an operation id that is none", _headers(message, saga_operation_id="17")
    yield "attempt 0", _headers(message, saga_attempt=0)
    yield "no not-after", _headers(message, saga_not_after=...)
    yield "a not-after of no zone", _headers(message, saga_not_after="2026-03-08T12:00:00")
    yield "another queue", replace(message, queue="accounting_service.commands")
    yield (
        "pickled",
        replace(message, properties={**message.properties, "content_type": "application/x-pickle"}),
    )
    yield "correlated otherwise", replace(message, properties={**message.properties, "correlation_id": "17"})


def test_a_message_that_is_changed_is_in_no_document_any_more(
    delivered: list[Delivered], documented: Documented
) -> None:
    message = next(message for message in delivered if message.task == "restaurant_service.create_ticket")
    assert documented.places(message, says=True)

    still_found = [
        (what, says)
        for what, changed in _spoilt(message)
        for says in (True, False)
        if documented.places(changed, says=says)
    ]

    assert still_found == []
