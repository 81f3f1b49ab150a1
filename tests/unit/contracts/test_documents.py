"""Documents as they are read: references, traits, and what cannot be compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas_framework.contracts import CannotCompare, document, read
from sagas_framework.contracts.errors import needed
from tests.unit.contracts.releases import CREATE, last_release


def content(**parts: Any) -> dict[str, Any]:
    return {"asyncapi": "3.1.0", "info": {"title": "Kitchen", "version": "1.2.0"}, **parts}


def with_operation(**operation: Any) -> dict[str, Any]:
    channels = {
        "cook": {"address": "kitchen", "messages": {"cook": {"payload": {"type": "string"}}}, "bindings": {}}
    }
    return content(channels=channels, operations={"cook": {"action": "receive", **operation}})


THE_CHANNEL = {"$ref": "#/channels/cook"}


def test_a_service_is_named_by_its_id_or_else_by_its_title() -> None:
    assert document(content(id="urn:service:restaurant_service"), "d").service == "restaurant_service"
    assert document(content(id="https://example.com/kitchen/"), "d").service == "kitchen"
    assert document(content(), "d").service == "Kitchen"


def test_the_major_version() -> None:
    assert document(content(), "d").major == 1
    odd = document(content() | {"info": {"title": "Kitchen", "version": "next"}}, "d")
    with pytest.raises(CannotCompare, match=r"'next', which has no major version"):
        _ = odd.major


def test_a_message_has_what_its_traits_add() -> None:
    restaurant = last_release()["restaurant_service"]
    (create,) = (one for one in restaurant.operations if one.tasks == (CREATE,))

    (message,) = create.messages

    assert {"task", "saga_operation_id"} <= set(message.headers["required"])
    assert message.headers["properties"]["task"]["const"] == CREATE
    assert message.headers["properties"]["id"]["format"] == "uuid"
    assert message.correlation == "$message.header#/id"
    assert message.form["content type"] == "application/json"


def test_the_message_is_right_where_its_trait_says_otherwise() -> None:
    parts = with_operation(channel=THE_CHANNEL)
    parts["components"] = {"messageTraits": {"t": {"headers": {"$ref": "#/components/schemas/H"}}}}
    parts["components"]["schemas"] = {"H": {"type": "object", "properties": {"a": {"type": "string"}}}}
    parts["channels"]["cook"]["messages"]["cook"] = {
        "traits": [{"$ref": "#/components/messageTraits/t"}, {"contentType": "text/plain"}],
        "headers": {"properties": {"a": {"const": "x"}}},
        "contentType": "application/json",
    }

    (operation,) = document(parts, "d").operations

    assert operation.messages[0].headers == {
        "type": "object",
        "properties": {"a": {"type": "string", "const": "x"}},
    }
    assert operation.messages[0].form["content type"] == "application/json"


def test_an_operation_without_messages_has_all_of_its_channel() -> None:
    (operation,) = document(with_operation(channel=THE_CHANNEL), "d").operations

    assert operation.tasks == ("cook",)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([], "is no AsyncAPI document"),
        ({"openapi": "3.1.0"}, "is no AsyncAPI document"),
        ({"asyncapi": "2.6.0"}, "is an AsyncAPI 2.6.0 document; only 3.x"),
        ({"asyncapi": "3.0.0"}, "info needs a title and a version"),
        (content(id=float("nan"), x={1, 2}), "has something that is not JSON"),
    ],
)
def test_what_is_no_document_is_refused(wrong: Any, told: str) -> None:
    with pytest.raises(CannotCompare, match=told):
        document(wrong, "d.yaml")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (with_operation(), "names no channel"),
        (with_operation(channel=THE_CHANNEL, action="publish"), "should be send or receive"),
        (with_operation(channel={"$ref": "#/channels/bake"}), "'#/channels/bake' leads nowhere"),
        (with_operation(channel={"$ref": "other.yaml#/channels/cook"}), "leads out of the document"),
        (with_operation(channel=THE_CHANNEL, messages="cook"), "messages of an operation should be a list"),
        (with_operation(channel={"bindings": {"amqp": "queue"}}), "is not as AsyncAPI 3 has it"),
        (content(operations=[]) | {"operations": ["cook"]}, "operations should be an object"),
        (
            content(
                channels={"a": {"$ref": "#/channels/a"}},
                operations={"o": {"action": "send", "channel": {"$ref": "#/channels/a"}}},
            ),
            "leads back to itself",
        ),
    ],
)
def test_what_is_wrong_in_an_operation_is_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(CannotCompare, match=told):
        _ = document(wrong, "d.yaml").operations


def test_a_payload_that_is_no_schema_is_told() -> None:
    parts = with_operation(channel=THE_CHANNEL)
    parts["channels"]["cook"]["messages"]["cook"] = {"payload": {"type": "text"}}

    with pytest.raises(
        CannotCompare, match=r"/channels/cook/messages/cook/payload is no JSON schema: 'text'"
    ):
        document(parts, "d.yaml").see_that_schemas_are_schemas()


# ---- files ----------------------------------------------------------------------------------------


def test_schemas_that_are_no_object_are_told() -> None:
    info = {"title": "Shop", "version": "1.0.0"}
    one = document({"asyncapi": "3.1.0", "info": info, "components": {"schemas": [1]}}, "shop.yaml")

    with pytest.raises(CannotCompare, match=r"shop\.yaml: /components/schemas should be an object"):
        one.see_that_schemas_are_schemas()


def test_a_folder_has_its_documents_by_service(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(content(id="urn:a")))
    (tmp_path / "a.yaml").write_text("asyncapi: 3.1.0\ninfo: {title: B, version: 2.0.0}\n")
    (tmp_path / "README.md").write_text("not a document")
    (tmp_path / "older").mkdir()

    assert [(one.service, one.version) for one in read(tmp_path)] == [("B", "2.0.0"), ("a", "1.2.0")]


def test_one_document_as_yaml_and_as_json_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content()))
    (tmp_path / "a.yaml").write_text("asyncapi: 3.1.0\ninfo: {title: Kitchen, version: 1.2.0}\n")
    assert len(read(tmp_path)) == 1

    (tmp_path / "a.yaml").write_text("asyncapi: 3.1.0\ninfo: {title: Kitchen, version: 1.3.0}\n")
    with pytest.raises(CannotCompare, match="are both the service Kitchen, and are not alike"):
        read(tmp_path)


def test_what_looks_like_a_date_is_text(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("asyncapi: 3.1.0\ninfo: {title: A, version: 1.0.0}\nx-day: 2026-03-01\n")

    assert read(file)[0].content["x-day"] == "2026-03-01"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "a: [", "a.yaml is no YAML"),
        ("a.json", "{", "a.json is no JSON"),
        ("a.yaml", "\udcff", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(CannotCompare, match=told):
        read(tmp_path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match="There is no file or folder"):
        read(tmp_path / "gone")


@pytest.mark.parametrize("library", ["yaml", "jsonschema", "jsonsubschema"])
def test_without_the_extra_it_says_how_to_install_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(
        CannotCompare, match=rf"needs {library}, .* pip install 'sagas-framework\[contracts\]'"
    ):
        needed(library)
