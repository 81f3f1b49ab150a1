"""What a service says of itself, and what it is told if that is not enough."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
import yaml
from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
    field_serializer,
)

from sagas_framework import Command, DefinitionError, Failure, Message, Participant, Reply, Service
from sagas_framework.asyncapi import check_document
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from tests.unit.asyncapi.shop import Snack, make_kitchen, make_sagas, specify


def test_yaml_and_json_say_what_the_document_says() -> None:
    specification = specify("kitchen", receives=make_kitchen())

    assert yaml.safe_load(specification.yaml()) == specification.document
    assert json.loads(specification.json()) == specification.document


def test_yaml_has_no_anchors_and_reads_in_the_documents_order() -> None:
    text = specify("kitchen", receives=make_kitchen()).yaml()

    assert "&id" not in text
    assert text.startswith("asyncapi: 3.1.0\nid: urn:service:kitchen\ninfo:\n  title: Kitchen\n")


def test_two_builds_are_byte_identical() -> None:
    one, two = (specify("kitchen", receives=make_kitchen()) for _ in range(2))

    assert one.yaml() == two.yaml()
    assert one.json() == two.json()


def test_the_document_is_made_once() -> None:
    specification = specify("kitchen", receives=make_kitchen())

    assert specification.document is specification.document


def test_the_info_is_what_was_said() -> None:
    info = specify("shop", sends=make_sagas((Snack,))).document["info"]

    assert info["contact"] == {
        "name": "Cooks",
        "url": "https://cooks.example",
        "email": "cooks@cooks.example",
    }
    assert info["license"] == {"name": "MIT", "url": "https://opensource.org/license/mit"}
    assert [tag["name"] for tag in info["tags"]] == ["command", "snack"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "describes nothing: give it receives=participant, sends=sagas, subscribes="),
        ({"receives": make_kitchen()}, "was given receives= of kitchen: each service has its own"),
        ({"sends": make_sagas((Snack,), "other")}, "was given sends= of other: each service has its own"),
        ({"sends": make_sagas((Snack,)), "version": "1.0"}, "has the version '1.0': write it like 1.0.0"),
        ({"sends": make_sagas((Snack,)), "version": "v1.0.0"}, "has the version 'v1.0.0'"),
        ({"sends": make_sagas((Snack,)), "title": " "}, "has no title: write title='...'"),
        ({"sends": make_sagas((Snack,)), "description": ""}, "has no description: write description='...'"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told.replace("(", r"\(")):
        specify("shop", **changes)


bar = Service("bar")


def serving(command: Any) -> Participant:
    """A bar that takes this command."""
    participant = Participant(bar, inbox=MemoryInbox(MemoryDatabase()))
    participant.handles(command)(lambda *_: None)
    return participant


def test_a_command_without_an_example_is_told_by_its_class() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        recipe: Annotated[str, Field(pattern="^[A-Z]{3}$")]

    with pytest.raises(DefinitionError, match=r"No example of Mix can be guessed.*Field\(examples=\[...\]\)"):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_field_with_an_alias_is_told_by_its_class() -> None:
    class Mixed(Reply):
        glass: int = Field(alias="Glass")

    class Mix(Command[Mixed], service=bar, name="mix"):
        pass

    with pytest.raises(DefinitionError, match=r"Mixed.glass travels as 'glass' and is read as 'Glass'"):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_field_with_an_alias_is_told_however_deep_it_is() -> None:
    class Ice(Message):
        cubes: int = Field(default=1, alias="Cubes")

    class Mix(Command[None], service=bar, name="mix"):
        ice: list[Ice] | None = None  # its example has none

    with pytest.raises(DefinitionError, match=r"Ice.cubes travels as 'cubes' and is read as 'Cubes'"):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_field_that_is_read_under_its_name_may_have_others() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        glass: int = Field(1, validation_alias=AliasChoices("glass", "Glass"))  # type: ignore[pydantic-alias]

    document = specify("bar", receives=serving(Mix)).document

    assert list(document["components"]["schemas"]["Mix"]["properties"]) == ["glass"]


def test_a_class_that_travels_by_its_aliases_is_told() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)
        glass: int = Field(alias="Glass")

    with pytest.raises(DefinitionError, match=r"Mix.glass travels as 'Glass'.*Leave out serialize_by_alias"):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_field_that_travels_as_another_type_is_told() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        glasses: Annotated[int, PlainSerializer(str)]  # "1", which is read back as 1

    with pytest.raises(DefinitionError, match=r"bar.mix: .*/glasses: '1' is not of type 'integer'"):
        _ = specify("bar", receives=serving(Mix)).document


def test_what_a_serializer_writes_can_be_said() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        glasses: Annotated[int, PlainSerializer(str), WithJsonSchema({"type": "string"})]

    document = specify("bar", receives=serving(Mix)).document

    assert document["components"]["schemas"]["Mix"]["properties"]["glasses"]["type"] == "string"


def test_a_pattern_that_only_some_engines_read_is_told() -> None:
    class Mix(Command[None], service=bar, name="mix"):
        recipe: str = Field(pattern=r"^\p{L}+$", examples=["sour"])

    with pytest.raises(DefinitionError, match=r"Mix has the pattern .*bad escape"):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_task_whose_name_no_document_can_hold_is_told() -> None:
    class Mix(Command[None], service=bar, name="mix/stir"):
        pass

    with pytest.raises(DefinitionError, match=r"The task 'bar.mix/stir' cannot be described"):
        _ = specify("bar", receives=serving(Mix)).document


@pytest.mark.parametrize("name", ["default", "const", "enum", "examples", "required", "properties"])
def test_a_field_named_like_a_keyword_may_have_a_class_of_its_own(name: str) -> None:
    kind = create_model("Kind", __base__=Message, strong=(bool, ...))

    mixed = create_model("Mixed", __base__=Reply, **{name: (kind, ...)})  # type: ignore[call-overload]

    class Ask(Command[mixed], service=bar, name="ask"):
        pass

    assert check_document(specify("bar", receives=serving(Ask)).document) == []


def test_a_reply_that_cannot_read_what_it_writes_is_told_by_its_class() -> None:
    class Mixed(Reply):
        glass: int = Field(examples=[1])

        @field_serializer("glass")
        def in_words(self, glass: int) -> str:
            return "one glass"

    class Mix(Command[Mixed], service=bar, name="mix"):
        pass

    with pytest.raises(DefinitionError, match=r"Mixed cannot read what it writes \(\$\.glass: "):
        _ = specify("bar", receives=serving(Mix)).document


def test_a_message_without_a_json_schema_is_told_by_its_class() -> None:
    class Ice:
        pass

    class Cube(Message, arbitrary_types_allowed=True):
        ice: Ice

    class Mix(Command[None], service=bar, name="mix"):
        cube: Cube

    with pytest.raises(DefinitionError, match="Mix has no JSON schema, so no document can describe it"):
        _ = specify("bar", receives=serving(Mix)).document


def test_two_failures_that_would_be_one_message_are_told() -> None:
    class Dry(Failure):
        wire_name = "out of gin"

    class Drier(Failure):
        wire_name = "out-of gin"

    class Driest(Failure):
        wire_name = "out_of_gin"

    class Mix(Command[None], service=bar, name="mix", failures=[Dry, Drier, Driest]):
        """Mix."""

    with pytest.raises(DefinitionError, match="out of gin and out_of_gin would both be"):
        _ = specify("bar", receives=serving(Mix)).document
