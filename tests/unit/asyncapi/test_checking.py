"""What is checked beyond the official parser: each check notices what it is for."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from sagas_framework.asyncapi import check_document, check_together
from tests.unit.asyncapi.shop import Snack, of_the_kitchen, of_the_shop

Document = dict[str, Any]
COOK = "kitchen.cook"


@pytest.fixture(scope="module")
def built() -> tuple[Document, Document]:
    return of_the_shop(Snack), of_the_kitchen()


@pytest.fixture
def shop(built: tuple[Document, Document]) -> Document:
    return copy.deepcopy(built[0])


@pytest.fixture
def kitchen(built: tuple[Document, Document]) -> Document:
    return copy.deepcopy(built[1])


def message(document: Document, key: str = COOK) -> Document:
    found: Document = document["components"]["messages"][key]
    return found


def _break_example(document: Document) -> None:
    message(document)["examples"][0]["payload"][0][1]["dishes"] = "soup"


def _break_header(document: Document) -> None:
    message(document)["examples"][0]["headers"]["saga_attempt"] = 0


def _drop_example(document: Document) -> None:
    message(document)["examples"] = []


def _foreign_reply(document: Document) -> None:
    reply = document["operations"]["receive_kitchen.cook"]["reply"]
    reply["messages"][0]["$ref"] = "#/channels/kitchen.bill.replies/messages/kitchen.bill.response.success"


def _unnamed_reply(document: Document) -> None:
    document["operations"]["receive_kitchen.cook"]["reply"]["messages"].pop()


def _no_reply_address(document: Document) -> None:
    del document["operations"]["receive_kitchen.cook"]["reply"]["address"]


def _unused(document: Document) -> None:
    document["components"]["schemas"]["Spoon"] = {"type": "object"}


def _newer_keyword(document: Document) -> None:
    document["components"]["schemas"]["Cook"]["properties"]["dishes"]["prefixItems"] = []


def _beside_reference(document: Document) -> None:
    document["components"]["schemas"]["Cook"]["properties"]["dishes"]["items"]["minProperties"] = 1


def _no_schema(document: Document) -> None:
    document["components"]["schemas"]["Cook"]["properties"]["guest"] = {"type": "person"}


def _no_contact(document: Document) -> None:
    del document["info"]["contact"]["email"]


def _no_licence(document: Document) -> None:
    del document["info"]["license"]


def _credentials(document: Document) -> None:
    document["servers"]["rabbitmq"]["host"] = "guest:guest@localhost:5672"


def _dangling(document: Document) -> None:
    document["channels"][COOK]["messages"][COOK]["$ref"] = "#/components/messages/boil"


def _unknown_tag(document: Document) -> None:
    document["operations"]["receive_kitchen.cook"]["tags"] = [{"name": "odd"}]


def _title(document: Document) -> None:
    message(document)["payload"]["title"] = "Cooking"


def _class_taken(document: Document) -> None:
    schemas = document["components"]["schemas"]
    schemas["KitchenCook"] = schemas["Dish"]
    schemas["Cook"]["properties"]["dishes"]["items"]["$ref"] = "#/components/schemas/KitchenCook"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            _break_example,
            "messages.kitchen.cook: example 0, payload/0/1/dishes: 'soup' is not of type 'array'",
        ),
        (_break_header, "messages.kitchen.cook: example 0, headers/saga_attempt: 0 is less than the minimum"),
        (_drop_example, "messages.kitchen.cook has no example"),
        (_foreign_reply, "kitchen.bill.response.success is not of its reply channel"),
        (_unnamed_reply, "its reply channel also has kitchen.cook.response.failure"),
        (_no_reply_address, "the reply's address is said once"),
        (_unused, "components.schemas.Spoon is not used"),
        (_newer_keyword, "schemas.Cook/properties/dishes: prefixItems is not of draft-07"),
        (_beside_reference, "schemas.Cook/properties/dishes/items: what stands beside $ref is ignored"),
        (_no_schema, "schemas.Cook: 'person' is not valid under any of the given schemas"),
        (_no_contact, "info.contact.email is missing"),
        (_no_licence, "info.license is missing"),
        (_credentials, "servers.rabbitmq: credentials do not belong into a document"),
        (
            _dangling,
            "/channels/kitchen.cook/messages/kitchen.cook: the reference '#/components/messages/boil'",
        ),
        (_unknown_tag, "the tag 'odd' is not in info.tags"),
        (_title, "messages.kitchen.cook: its payload's title is not KitchenCook"),
        (_class_taken, "code generators would take components.schemas.KitchenCook for it"),
    ],
)
def test_one_document(kitchen: Document, change: Callable[[Document], None], told: str) -> None:
    assert check_document(kitchen) == []

    change(kitchen)

    assert [problem for problem in check_document(kitchen) if told in problem]


# ---- several documents ----------------------------------------------------------------------------


def test_what_nobody_receives(shop: Document, kitchen: Document) -> None:
    del kitchen["operations"]["receive_kitchen.cook"]

    assert check_together([shop, kitchen]) == ["Shop: operations.send_kitchen.cook: nobody receives it"]


def test_what_two_receive(shop: Document, kitchen: Document) -> None:
    second = copy.deepcopy(kitchen)
    second["info"]["title"] = "Second"

    told = check_together([shop, kitchen, second])

    assert told[0] == "Shop: operations.send_kitchen.cook: 2 services receive it: Kitchen, Second"


def _queue(document: Document) -> None:
    document["channels"][COOK]["address"] = "elsewhere"


def _field(document: Document) -> None:
    document["components"]["schemas"]["Dish"]["required"].append("size")


def _header(document: Document) -> None:
    document["components"]["messageTraits"]["command"]["headers"]["required"].append("tracestate")


def _reply(document: Document) -> None:
    document["components"]["schemas"]["Cooked"]["properties"]["table"]["type"] = "string"


def _failure(document: Document) -> None:
    document["operations"]["receive_kitchen.cook"]["reply"]["messages"].pop(1)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (_queue, "queue"),
        (_field, "payload of kitchen.cook"),
        (_header, "headers of kitchen.cook"),
        (_reply, "payload of kitchen.cook.response.success"),
        (_failure, "payload of kitchen.cook.response.failure.Closed"),
    ],
)
def test_a_difference_is_told_by_its_part(
    shop: Document, kitchen: Document, change: Callable[[Document], None], part: str
) -> None:
    assert check_together([shop, kitchen]) == []

    change(kitchen)

    told = f"Shop: operations.send_kitchen.cook: {part} is not as in the document of Kitchen"
    assert told in check_together([shop, kitchen])


def test_words_for_people_and_names_of_schemas_may_differ(shop: Document, kitchen: Document) -> None:
    schemas = kitchen["components"]["schemas"]
    schemas["Cook"]["description"] = "Cook them."
    schemas["Plate"] = schemas.pop("Dish")
    schemas["Cook"]["properties"]["dishes"]["items"]["$ref"] = "#/components/schemas/Plate"

    assert check_together([shop, kitchen]) == []


def test_schemas_that_contain_themselves_are_compared(shop: Document, kitchen: Document) -> None:
    for document, name in ((shop, "Dish"), (kitchen, "Plate")):
        schemas = document["components"]["schemas"]
        schemas[name] = schemas.pop("Dish")
        reference = {"$ref": f"#/components/schemas/{name}"}
        schemas[name]["properties"]["beside"] = reference
        schemas["Cook"]["properties"]["dishes"]["items"] = reference

    assert check_together([shop, kitchen]) == []
    kitchen["components"]["schemas"]["Plate"]["properties"]["beside"] = {"type": "object"}
    told = check_together([shop, kitchen])
    assert [problem for problem in told if re.search("payload of kitchen.cook is not", problem)]
