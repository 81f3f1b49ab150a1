"""Form fields made from a reply's JSON schema, and the reply read back from what was typed into them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Any, Final, NoReturn

from pydantic import BaseModel, ValidationError

from sagas_framework.console.problem import Problem

DEEPEST: Final = 100
"""Levels of JSON that somebody may send. What is deeper, not every program that reads it later can read."""


class Kind(StrEnum):
    """How a field is typed."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    CHECKBOX = "checkbox"
    YES_OR_NO = "yes or no"  # a checkbox that nobody may forget
    MOMENT = "moment"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Input:
    """A field of a form.

    Args:
        name: the property's; empty for a reply that is one value, of which nothing is known.
        hint: what the schema says of it.
        typed: what stands in it.
        error: what is wrong with that.
        secret: whether the schema says that nobody may read it.
    """

    name: str
    kind: Kind
    required: bool
    hint: str = ""
    typed: str = ""
    error: str = ""
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What was typed. `reply` counts only if no input has an error, and there is no other `trouble`."""

    reply: Any
    inputs: Sequence[Input]
    trouble: str = ""

    @property
    def ok(self) -> bool:
        return not self.trouble and not any(field.error for field in self.inputs)


def inputs_of(schema: Mapping[str, Any]) -> list[Input]:
    """The fields that a reply of this schema needs; one for any JSON where the schema has no fields."""
    if "properties" not in schema:
        return [Input("", Kind.JSON, required=True, hint=str(schema.get("description", "")))]
    needed = schema.get("required", ())
    return [
        Input(name, _kind(its), name in needed, _hint(its), secret=_is_secret(its))
        for name, its in schema["properties"].items()
    ]


def read(inputs: Sequence[Input], typed: Mapping[str, str], model: type[BaseModel] | None) -> Read:
    """The reply that somebody typed, checked by its model.

    Args:
        typed: by the inputs' names; a checkbox that is not ticked is not there.
        model: of the reply; None where it may be any JSON.
    """
    told = [replace(field, typed=typed.get(field.name, "")) for field in inputs]
    values: dict[str, Any] = {}
    checked = []
    for field in told:
        error = ""
        try:
            if field.kind is Kind.CHECKBOX or field.typed.strip():
                values[field.name] = _value(field)
            elif field.required:
                error = "Fill this in."
        except ValueError as wrong:
            error = str(wrong)
        checked.append(replace(field, error=error))
    reply = values.get("") if [field.name for field in inputs] == [""] else values
    result = Read(reply, checked)
    return result if model is None or not result.ok else _validated(result, model)


def check(reply: Any, inputs: Sequence[Input], model: type[BaseModel] | None) -> Read:
    """The same for a reply that came as JSON."""
    if model is None:
        return Read(reply, inputs)
    if not isinstance(reply, dict):
        return Read(reply, inputs, 'The reply must be a JSON object, like {"ticket_id": 7}.')
    return _validated(Read(reply, inputs), model)


def parse(text: str | bytes) -> Any:
    """JSON as it is typed, or as it was sent.

    Raises:
        ValueError: it is none, or none that can be kept; the message says where.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, parse_constant=_no_json, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except UnicodeDecodeError:
        raise ValueError("This is no JSON: it is not in UTF-8.") from None
    except json.JSONDecodeError as wrong:
        raise ValueError(
            f"This is no JSON: {wrong.msg} in line {wrong.lineno}, column {wrong.colno}."
        ) from None
    if _is_deeper(value, DEEPEST):
        raise ValueError(_TOO_DEEP)
    return value


def moment(text: object) -> datetime:
    """A moment as it is typed or sent. Without a time zone it is UTC.

    Raises:
        ValueError: it is none, or none that can be kept; the message says what one looks like.
    """
    try:
        read = datetime.fromisoformat(text.strip() if isinstance(text, str) else "")
        return (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # a time zone can lead out of the years there are
        raise ValueError("This is no moment. Write it like 2026-03-02T18:00+01:00.") from None


def parse_object(body: bytes, like: str) -> dict[str, Any]:
    """The JSON object that a request brought.

    Args:
        like: what it should look like, for whoever sent another thing.

    Raises:
        Problem: 400; it is none, or cannot be read.
    """
    try:
        value = parse(body)
    except ValueError as error:
        raise Problem(400, f"The body cannot be read. {error}".rstrip("."), like) from None
    if not isinstance(value, dict):
        raise Problem(400, "The body is no JSON object", like)
    return value


# ---- parts ----------------------------------------------------------------------------------------


_TOO_DEEP: Final = f"This is nested too deeply: {DEEPEST} levels at most are taken."


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"This is no JSON: {constant} is no number.")


def _finite(digits: str) -> float:
    """JSON knows no infinity, but 1e999 is one when it has been read."""
    if not isfinite(number := float(digits)):
        raise ValueError(f"The number {digits[:20]} is too large to be kept.")
    return number


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own bound
        raise ValueError(f"A number of {len(digits):,} digits is too large to be kept.") from None


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether more lists and objects than `levels` are nested in each other."""
    level = [value]
    for _ in range(levels):  # no recursion, for which it may be too deep
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(inner, (dict, list)) for inner in level)


def _inside(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _variants(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a value may be, beside null."""
    anyof = schema.get("anyOf", [schema])
    return [its for its in anyof if its.get("type") != "null"]


def _kind(schema: Mapping[str, Any]) -> Kind:
    variants = _variants(schema)
    types = {its.get("type") for its in variants}
    nullable = len(variants) < len(schema.get("anyOf", variants))
    if types == {"integer"}:
        return Kind.INTEGER
    if types == {"number"}:
        return Kind.NUMBER
    if types == {"boolean"} and not nullable:
        return Kind.CHECKBOX
    if "string" in types and types <= {"string", "number", "integer"}:  # a decimal may be either
        return Kind.TEXT
    return Kind.JSON


def _is_secret(schema: Mapping[str, Any]) -> bool:
    return any(its.get("format") == "password" for its in _variants(schema))


def _hint(schema: Mapping[str, Any]) -> str:
    told = [str(schema["description"])] if schema.get("description") else []
    for its in _variants(schema):
        if "enum" in its:
            told.append("one of: " + ", ".join(map(str, its["enum"])))
        elif "format" in its and its["format"] != "password":
            told.append(str(its["format"]))
    kinds = {Kind.INTEGER: "a whole number", Kind.NUMBER: "a number", Kind.JSON: "JSON"}
    kind = _kind(schema)
    return "; ".join(told or ([kinds[kind]] if kind in kinds else []))


def _value(field: Input) -> Any:
    match field.kind:
        case Kind.CHECKBOX:
            return bool(field.typed)
        case Kind.YES_OR_NO:
            if field.typed not in ("true", "false"):
                raise ValueError("Choose yes or no.")
            return field.typed == "true"
        case Kind.MOMENT:
            return moment(field.typed)
        case Kind.INTEGER:
            try:
                return int(field.typed)
            except ValueError:
                raise ValueError("This must be a whole number, like 7.") from None
        case Kind.NUMBER:
            try:
                number = float(field.typed)
            except ValueError:
                number = float("nan")
            if not isfinite(number):
                raise ValueError("This must be a number, like 7.5.")
            return number
        case Kind.JSON:
            return parse(field.typed)
        case Kind.TEXT:
            return field.typed


def _validated(read: Read, model: type[BaseModel]) -> Read:
    try:
        model.model_validate(read.reply)
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for its in error.errors(include_url=False, include_context=False, include_input=False):
            name, *inside = map(str, its["loc"] or ("",))
            where = ".".join(inside)
            wrong.setdefault(name, []).append(f"{where}: {its['msg']}." if where else f"{its['msg']}.")
        inputs = [replace(field, error=" ".join(wrong.pop(field.name, []))) for field in read.inputs]
        left = [f"{name}: {text}" if name else text for name, texts in wrong.items() for text in texts]
        return replace(read, inputs=inputs, trouble=" ".join(left))
    return read
