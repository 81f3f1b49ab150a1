"""JSON schemas of message classes, in the dialect of AsyncAPI: draft-07.

pydantic writes JSON Schema 2020-12, and of some types two forms, of which only one travels here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import AliasChoices, BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import override

from sagas_framework.errors import DefinitionError

Schema = dict[str, Any]

REFERENCE: Final = "#/components/schemas/"
NEWER: Final = frozenset(
    {
        "$anchor",
        "$defs",
        "$dynamicAnchor",
        "$dynamicRef",
        "$vocabulary",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "prefixItems",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that came after draft-07, whose validators ignore them."""

# Below these keys stand names or values, not schemas.
NAMED: Final = ("properties", "patternProperties", "definitions", "dependencies")
VALUES: Final = ("default", "const", "enum", "examples", "required")


class _OnTheWire(GenerateJsonSchema):
    """Describes what `Message.to_json` writes and a receiver takes.

    Raises:
        DefinitionError: the class, or one in it, has a field that is written under another name than it is
            read.
    """

    @override
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        _see_that_nothing_is_renamed(schema["cls"])
        return super().model_schema(schema)

    @override
    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        # pydantic's engine takes more than what JSON Schema calls a pattern, such as `\p{L}`.
        re.compile(schema.get("pattern", ""))
        return super().str_schema(schema)

    @override
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        # pydantic would take numbers, too, but nobody sends them: a float does not hold every cent.
        described = super().decimal_schema(schema)
        return next((form for form in described.get("anyOf", ()) if form.get("type") == "string"), described)

    @override
    def get_decimal_pattern(self, schema: core_schema.DecimalSchema) -> str:
        """As Python writes a `Decimal`, and without the lookaheads that few tools know."""
        lowest, places = max(schema.get("ge", -1), schema.get("gt", -1)), schema.get("decimal_places")
        sign = "" if lowest >= 0 else "-?"
        fraction = r"\d+" if places is None else rf"\d{{1,{places}}}0*" if places else "0+"
        return rf"^{sign}\d+(\.{fraction})?([eE][+-]?\d+)?$"


def schemas_of(
    models: Iterable[type[BaseModel]], reserved: Iterable[str] = ()
) -> tuple[dict[type[BaseModel], Schema], dict[str, Schema]]:
    """A schema for each class, and the named schemas that they refer to, sorted by name.

    Always those of what is *read*: a field with a default need not be sent, so its receiver can have it
    before its sender does; and sender and receiver then describe a message alike.

    Args:
        reserved: names that no schema may have; one that would is called ``<name>Payload``.

    Raises:
        DefinitionError: a class has no JSON schema.
    """
    asked = list(dict.fromkeys(models))
    for model in asked:
        _see_that_it_has_one(model)
    found, shared = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in asked],
        ref_template=REFERENCE + "{model}",
        schema_generator=_OnTheWire,
        by_alias=False,  # as `Message.to_json` writes them
    )
    named: Mapping[str, Schema] = shared.get("$defs", {})
    taken = frozenset(reserved)
    renamed = {name: f"{name}Payload" for name in named if name in taken}
    components = {}
    for name, schema in named.items():
        name = renamed.get(name, name)
        # Code generators name classes by titles. Two classes of one name differ in their schemas' names.
        components[name] = to_draft7(_referring(schema, renamed)) | {"title": name}
    return (
        {model: to_draft7(_referring(found[model, "validation"], renamed)) for model in asked},
        dict(sorted(components.items())),
    )


def _see_that_it_has_one(model: type[BaseModel]) -> None:
    try:
        model.model_json_schema(schema_generator=_OnTheWire)
    except (PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation, PydanticUserError) as error:
        raise DefinitionError(
            f"{model.__module__}.{model.__qualname__} has no JSON schema, so no document can describe it: "
            f"{error.message.splitlines()[0]} Use a type that JSON has, or give the field "
            "Annotated[..., WithJsonSchema({...})]."
        ) from None
    except re.error as error:
        raise DefinitionError(
            f"{model.__module__}.{model.__qualname__} has the pattern {error.pattern!r}, which validators of "
            f"JSON schemas cannot read ({error.msg}). Write it without what only some engines know."
        ) from None


def _see_that_nothing_is_renamed(model: type[BaseModel]) -> None:
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, its_field in model.model_fields.items():
        where = f"{model.__module__}.{model.__qualname__}.{name}"
        written, read = its_field.serialization_alias, its_field.validation_alias
        if config.get("serialize_by_alias") and written not in (None, name):
            raise DefinitionError(
                f"{where} travels as {written!r}; a document names it as the class does. Leave out "
                "serialize_by_alias, or the alias."
            )
        choices = read.choices if isinstance(read, AliasChoices) else [read]
        if read is not None and not by_name and name not in choices:
            raise DefinitionError(
                f"{where} travels as {name!r} and is read as {read!r}. Leave out the alias, or let the class "
                "read both: class ...(..., populate_by_name=True)."
            )


def _referring(schema: Any, renamed: Mapping[str, str]) -> Any:
    """The schema with its references following new names."""
    if isinstance(schema, list):
        return [_referring(part, renamed) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: REFERENCE + renamed.get(name, name)
        if key == "$ref" and isinstance(part, str) and (name := part.removeprefix(REFERENCE))
        else _referring(part, renamed)
        for key, part in schema.items()
    }


def to_draft7(schema: Any) -> Any:
    """A schema of 2020-12, as pydantic writes it, in the words of draft-07."""
    if isinstance(schema, list):
        return [to_draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    new: Schema = {
        key: part
        if key in VALUES
        else {name: to_draft7(inner) for name, inner in part.items()}
        if key in NAMED and isinstance(part, dict)
        else to_draft7(part)
        for key, part in schema.items()
    }
    if "prefixItems" in new:  # a tuple
        rest = new.pop("items", None)
        new["items"] = new.pop("prefixItems")
        if rest is not None:
            new["additionalItems"] = rest
        elif new.get("maxItems") == len(new["items"]):
            new["additionalItems"] = False
    # OpenAPI's form; the `const` of each alternative tells them apart as well.
    if isinstance(new.get("discriminator"), dict):
        del new["discriminator"]
    if "$ref" in new and len(new) > 1:  # what stands beside a reference is ignored
        new["allOf"] = [{"$ref": new.pop("$ref")}, *new.get("allOf", [])]
    return new
