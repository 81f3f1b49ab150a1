"""The documents of the order platform by our own checks, and side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from sagas_framework.asyncapi import check_document, check_together
from tests.asyncapi.reading import Document, resolved, said

Documents = dict[str, Document]


def test_our_own_checks_find_nothing(documents: Documents) -> None:
    assert {service: check_document(document) for service, document in documents.items()} == {
        service: [] for service in documents
    }
    assert check_together(documents.values()) == []


UNASKED: Final = {
    "receive_consumer_service.verify_consumer_details_settle",
    "receive_delivery_service.cancel_shipment",
    "receive_process_order.signal.approval",
}
"""A participant answers how any command of it stands, and undoes it. No saga here asks how that stands which
needs no undoing, and a parcel is its pivot: it is not called back. Approvers say an approval over HTTP."""


def test_what_is_said_by_one_service_is_heard_by_exactly_one_other_and_is_the_same(
    documents: Documents,
) -> None:
    places = [
        (service, message)
        for service, document in documents.items()
        for message in said(document)
        if message.operation not in UNASKED
    ]
    says = [place for place in places if place[1].says]
    hears = [place for place in places if not place[1].says]

    for service, message in says:
        (receiver,) = [place for place in hears if place[1].name == message.name]
        assert receiver[0] != service
        assert _whole(documents[service], message.message) == _whole(
            documents[receiver[0]], receiver[1].message
        )

    assert len(says) == len(hears) > 0


def _whole(document: Document, part: Any) -> Any:
    """What is there once all references are followed. No message of the platform contains itself."""
    if isinstance(part, list):
        return [_whole(document, inner) for inner in part]
    if not isinstance(part, dict):
        return part
    return {key: _whole(document, inner) for key, inner in resolved(document, part).items()}


# ---- the controls ---------------------------------------------------------------------------------

TASK: Final = "restaurant_service.create_ticket"


def _message(documents: Documents, name: str = TASK) -> Document:
    found: Document = documents["restaurant_service"]["components"]["messages"][name]
    return found


def _example_without_a_field(documents: Documents) -> None:
    del _message(documents)["examples"][0]["payload"][0][1]["items"]


def _example_with_a_header_of_another_type(documents: Documents) -> None:
    _message(documents)["examples"][0]["headers"]["saga_attempt"] = "first"


def _no_example(documents: Documents) -> None:
    del _message(documents)["examples"]


def _reply_of_another_channel(documents: Documents) -> None:
    other = "restaurant_service.approve_ticket"
    reference = {"$ref": f"#/channels/{other}.replies/messages/{other}.response.success"}
    documents["restaurant_service"]["operations"][f"receive_{TASK}"]["reply"]["messages"][0] = reference


def _component_that_nobody_uses(documents: Documents) -> None:
    documents["restaurant_service"]["components"]["schemas"]["Menu"] = {"type": "object"}


def _keyword_that_came_after_draft_07(documents: Documents) -> None:
    documents["restaurant_service"]["components"]["schemas"]["OrderItem"]["prefixItems"] = []


def _no_licence(documents: Documents) -> None:
    del documents["restaurant_service"]["info"]["license"]


def _title_that_generators_do_not_find(documents: Documents) -> None:
    _message(documents)["payload"]["title"] = "Ticket"


def _credentials(documents: Documents) -> None:
    documents["restaurant_service"]["servers"]["rabbitmq"]["host"] = "ann:secret@broker"


ALONE: Final[dict[Callable[[Documents], None], str]] = {
    _example_without_a_field: "'items' is a required property",
    _example_with_a_header_of_another_type: "'first' is not of type 'integer'",
    _no_example: f"messages.{TASK} has no example",
    _reply_of_another_channel: "is not of its reply channel",
    _component_that_nobody_uses: "components.schemas.Menu is not used",
    _keyword_that_came_after_draft_07: "prefixItems is not of draft-07",
    _no_licence: "info.license is missing",
    _title_that_generators_do_not_find: "its payload's title is not RestaurantServiceCreateTicket",
    _credentials: "credentials do not belong into a document",
}


@pytest.mark.parametrize("spoil", ALONE, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_document_that_is_wrong_is_told(documents: Documents, spoil: Callable[[Documents], None]) -> None:
    spoil(documents)

    told = check_document(documents["restaurant_service"])
    assert any(ALONE[spoil] in problem for problem in told), told
    assert check_document(documents["accounting_service"]) == []


def _nobody_receives(documents: Documents) -> None:
    del documents["restaurant_service"]["operations"][f"receive_{TASK}"]


def _two_receive(documents: Documents) -> None:
    documents["another_restaurant"] = documents["restaurant_service"]


def _another_queue(documents: Documents) -> None:
    documents["restaurant_service"]["channels"][TASK]["address"] = "kitchen.commands"


def _another_type(documents: Documents) -> None:
    schemas = documents["restaurant_service"]["components"]["schemas"]
    schemas["OrderItem"]["properties"]["quantity"] = {"type": "number"}


def _a_failure_is_missing(documents: Documents) -> None:
    documents["restaurant_service"]["operations"][f"receive_{TASK}"]["reply"]["messages"].pop()


def _another_header(documents: Documents) -> None:
    trait = documents["restaurant_service"]["components"]["messageTraits"]["command"]
    trait["headers"]["required"].append("saga_table")


TOGETHER: Final[dict[Callable[[Documents], None], str]] = {
    _nobody_receives: "nobody receives it",
    _two_receive: "2 services receive it",
    _another_queue: "queue is not as in the document of",
    _another_type: f"payload of {TASK} is not as in the document of",
    _a_failure_is_missing: f"payload of {TASK}.response.failure is not as in the document of",
    _another_header: f"headers of {TASK} is not as in the document of",
}


@pytest.mark.parametrize("spoil", TOGETHER, ids=lambda spoil: spoil.__name__.strip("_"))
def test_documents_that_do_not_fit_are_told(documents: Documents, spoil: Callable[[Documents], None]) -> None:
    spoil(documents)

    told = check_together(documents.values())
    assert any(f"send_{TASK}: " in problem and TOGETHER[spoil] in problem for problem in told), told
