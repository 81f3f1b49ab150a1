"""JSON schemas of message classes, in the dialect of AsyncAPI: draft-07.

pydantic writes JSON Schema 2020-12, and of some types two forms, of which only one travels here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
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
    """Describes what `Message.to_json` writes and a receiver takes."""

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
