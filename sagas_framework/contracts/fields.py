"""Which fields of a message its receiver would refuse, and why.

Both schemas are walked side by side, in the direction in which the message travels. What is in question is
always the same: would the receiver take everything that the sender may send? `jsonsubschema` is asked about
limits and patterns, and about the whole at the end; each of the two sees what the other one misses (the
library ignores formats, and keywords that it does not know; it takes a boolean for the constant ``true``).
What neither can tell is told as a break.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.documents import Document
from sagas_framework.contracts.errors import needed
from sagas_framework.contracts.schemas import (
    ANYTHING,
    COMPARED,
    NOTHING,
    OF_TYPE,
    TYPES,
    Schema,
    bare,
    can_be_written_out,
    definitions,
    is_plain,
    key_of,
    literal,
    patterns,
    together,
    whole,
)

Path = tuple[str | int, ...]
"""The way to a value: a field's name, a position in a list, or `EACH`."""

EACH: Final = "[]"
ANY_FIELD: Final = "*"

_COMPARISONS: Final = 50_000
"""Of two places with each other; a message of a few dozen fields takes some hundred."""

_WIDER: Final = {"uuid1": "uuid", "uuid3": "uuid", "uuid4": "uuid", "uuid5": "uuid", "email": "idn-email"}
"""Formats whose values are all of another format as well."""


class Why(StrEnum):
    """What is wrong with a field."""

    MISSING = "field-missing"  # required there, and never sent
    MAY_BE_MISSING = "field-may-be-missing"  # required there, and not always sent
    UNKNOWN = "field-unknown"  # sent, and fields that are not known are refused
    TYPE = "type"
    VALUES = "values"  # one of a list there, and others are sent
    LIMITS = "limits"
    FORMAT = "format"
    UNDECIDED = "undecided"  # nobody can tell


@dataclass(frozen=True)
class Break:
    """A field that may be refused.

    Args:
        path: of the field.
        sent: the schema of what is sent there.
        taken: the schema of what is taken there.
        detail: of `VALUES` the values that are refused; of `UNDECIDED` what cannot be compared.
    """

    why: Why
    path: Path
    sent: Schema = field(default_factory=dict, compare=False)
    taken: Schema = field(default_factory=dict, compare=False)
    detail: str = ""


@dataclass(frozen=True)
class Side:
    """A schema and the document in which its references lead somewhere."""

    schema: Any
    document: Document


def breaks(sent: Side, taken: Side, containing: Containing, *, closed: bool = False) -> list[Break]:
    """What of *sent* would be refused by *taken*, in the order of the sender's fields.

    Args:
        closed: *sent* is an object with no fields but those that it names, even where it says that there may
            be others. Headers are: the others are not the sender's.
    """
    walk = _Walk(sent, taken, containing)
    try:
        found = list(dict.fromkeys(walk.compare(sent.schema, taken.schema, (), closed)))
    except (_TooLongError, RecursionError):
        return [Break(Why.UNDECIDED, (), detail="its models refer to each other in too many ways")]
    sides = (sent, taken)
    if found or not all(can_be_written_out(side.schema, side.document) for side in sides):
        return found
    whole_sent = whole(sent.schema, sent.document, sent=True)
    whole_taken = whole(taken.schema, taken.document, sent=False)
    if closed and isinstance(whole_sent, dict):
        whole_sent["additionalProperties"] = False
    if whole_sent == whole(taken.schema, taken.document, sent=True):
        return []
    if containing.contains(whole_taken, whole_sent) is False:
        return [Break(Why.UNDECIDED, (), detail="jsonsubschema finds that not all of it is taken")]
    return []


class _TooLongError(Exception):
    """The comparison would not end in good time."""


class _Walk:
    """One comparison of two schemas."""

    def __init__(self, sent: Side, taken: Side, containing: Containing) -> None:
        self._sent = sent.document
        self._taken = taken.document
        self._containing = containing
        self._left = _COMPARISONS
        self._alike: dict[str, bool] = {}
        # Pairs of references that are being compared further up. What recurs breaks where it is first met.
        self._open: set[tuple[str, str]] = set()

    def compare(self, sent: Any, taken: Any, path: Path, closed: bool = False) -> Iterator[Break]:
        """The breaks at *path* and below.

        Raises:
            _TooLongError: so many places have been compared that there may be no end.
        """
        self._left -= 1
        if self._left < 0:
            raise _TooLongError
        sent_schema, sent_at = self._followed(sent, self._sent)
        taken_schema, taken_at = self._followed(taken, self._taken)
        if sent_at and sent_at == taken_at and self._is_alike(sent_at):
            return
        pair = (sent_at, taken_at)
        # A reference against a schema that stands in its place: the place's path is of no end, so the pair
        # is of what they are.
        if sent_at or taken_at:
            pair = (sent_at or repr(sent_schema), taken_at or repr(taken_schema))
            if pair in self._open:
                return
            self._open.add(pair)
        try:
            yield from self._compare(sent_schema, taken_schema, path, closed)
        finally:
            if sent_at or taken_at:
                self._open.discard(pair)

    def _means_the_same(self, sent: Any, taken: Any) -> bool:
        """Whether both say the same, with everything that they refer to."""
        return bool(sent == taken) and definitions(sent, self._sent) == definitions(taken, self._taken)

    def _is_alike(self, reference: str) -> bool:
        """Whether it means the same on both sides, with everything that it refers to."""
        if reference not in self._alike:
            meant = {"$ref": f"#{reference}"}
            self._alike[reference] = self._means_the_same(meant, meant)
        return self._alike[reference]

    def _followed(self, schema: Any, document: Document) -> tuple[Schema, str]:
        """What is meant, and the last reference on the way to it."""
        at = ""
        schema = bare(schema)
        while "$ref" in schema:
            followed, at = document.followed(schema)
            schema = bare(followed)
        return schema, at

    def _compare(self, sent: Schema, taken: Schema, path: Path, closed: bool) -> Iterator[Break]:
        if taken == ANYTHING or sent == NOTHING:
            return
        if taken == NOTHING:
            yield Break(Why.UNKNOWN, path, sent, taken)
            return
        if "allOf" in taken:
            rest = {key: part for key, part in taken.items() if key != "allOf"}
            for part in (*taken["allOf"], rest):
                yield from self.compare(sent, part, path, closed)
            return
        if "allOf" in sent:
            yield from self._all_of(sent, taken, path, closed)
            return
        if "enum" in sent:
            yield from self._values(sent, sent["enum"], taken, path)
            return
        if sent == ANYTHING:
            yield Break(Why.TYPE, path, sent, taken)
            return
        ways = list(self._ways(sent, self._sent))
        if len(ways) == 1 and ways[0] == sent:
            yield from self._one(sent, taken, path, closed)
            return
        for way in ways:
            yield from self.compare(way, taken, path, closed)

    def _one(self, sent: Schema, taken: Schema, path: Path, closed: bool) -> Iterator[Break]:
        """What is sent is of one type; it may be taken in several ways."""
        kind = sent["type"]
        if kind in ("boolean", "null") and "enum" in taken:
            yield from self._values(sent, [None] if kind == "null" else [True, False], taken, path)
            return
        ways = list(self._ways(taken, self._taken))
        if len(ways) == 1 and ways[0] == taken:
            yield from self._plain(sent, taken, path, closed)
            return
        tried: list[list[Break]] = []
        for way in ways:
            found = list(self.compare(sent, way, path, closed))
            if not found:
                return
            tried.append(found)
        fits = {key_of(kind)} | ({"number"} if kind == "integer" else set())
        near = [
            found
            for way, found in zip(ways, tried, strict=True)
            if key_of(str(self._followed(way, self._taken)[0].get("type"))) in fits
        ]
        # Formats and unknown keywords mean nothing to `jsonsubschema`, so ways with these are not among them.
        limited = [
            way for way, found in zip(ways, tried, strict=True) if {one.why for one in found} == {Why.LIMITS}
        ]
        if (
            kind in ("integer", "number", "string")
            and len(limited) > 1
            and self._contains({"anyOf": limited}, sent)
        ):
            return  # all of them together take it
        if not near:
            yield Break(Why.TYPE, path, sent, taken)
        else:
            # A constant tells the alternatives of a union apart: one with another constant is not meant.
            below = len(path) + 1
            yield from min(
                near,
                key=lambda found: (
                    any(one.why is Why.VALUES and len(one.path) == below for one in found),
                    len(found),
                ),
            )

    def _ways(self, schema: Schema, document: Document) -> Iterator[Schema]:
        """The alternatives of a schema; itself, if it is of one type."""
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = {key: part for key, part in schema.items() if key != keyword}
                for part in schema[keyword]:
                    yield bare({"allOf": [part, rest]}) if rest else bare(part)
                return
        if "enum" in schema:
            yield schema
            return
        kinds = schema.get("type", TYPES)
        if isinstance(kinds, str):
            yield schema
            return
        for kind in kinds:
            if kind == "integer" and "number" in kinds:
                continue
            others = frozenset().union(*OF_TYPE.values()) - OF_TYPE.get(key_of(kind), frozenset())
            without = {key: part for key, part in schema.items() if key not in others | {"type"}}
            if kind != "string":
                without.pop("format", None)
            yield {**without, "type": kind}

    # ---- one type -----------------------------------------------------------------------------------

    def _plain(self, sent: Schema, taken: Schema, path: Path, closed: bool) -> Iterator[Break]:
        kind, wanted = sent["type"], taken.get("type")
        if "enum" in taken:
            yield Break(Why.VALUES, path, sent, taken)
            return
        if kind != wanted and not (kind == "integer" and wanted == "number"):
            yield Break(Why.TYPE, path, sent, taken)
            return
        for keyword in sorted(taken.keys() - COMPARED - {"propertyNames"} | taken.keys() & {"not"}):
            if keyword == "not" and self._sends_none_of(sent, taken["not"]):
                continue
            if not self._means_the_same(sent.get(keyword), taken[keyword]):
                yield Break(Why.UNDECIDED, path, sent, taken, f"the keyword {keyword}")
        if kind == "object":
            yield from self._object(sent, taken, path, closed)
        elif kind == "array":
            yield from self._array(sent, taken, path)
        else:
            yield from self._scalar(sent, taken, path)

    def _scalar(self, sent: Schema, taken: Schema, path: Path) -> Iterator[Break]:
        wanted, given = taken.get("format"), sent.get("format")
        if wanted is not None and given != wanted and _WIDER.get(str(given)) != wanted:
            yield Break(Why.FORMAT, path, sent, taken)
        keywords = OF_TYPE.get(key_of(sent["type"]), frozenset())
        limits = {key: taken[key] for key in sorted(taken.keys() & keywords) if sent.get(key) != taken[key]}
        if not limits:
            return
        answer = self._contains({"type": taken["type"], **limits}, sent)
        if answer is None:
            yield Break(Why.UNDECIDED, path, sent, taken, f"the keyword {' and '.join(limits)}")
        elif not answer:
            yield Break(Why.LIMITS, path, sent, taken)

    def _contains(self, taken: Schema, sent: Schema) -> bool | None:
        """Of texts and numbers."""
        if not (can_be_written_out(taken, self._taken) and can_be_written_out(sent, self._sent)):
            return None
        whole_taken, whole_sent = (
            whole(taken, self._taken, sent=False),
            whole(sent, self._sent, sent=True),
        )
        if not all(map(is_plain, patterns(whole_taken))):
            return None
        if is_plain(whole_sent.get("pattern", ".")):
            return self._containing.contains(whole_taken, whole_sent)
        del whole_sent["pattern"]  # without it more may be sent, so only a yes counts
        return self._containing.contains(whole_taken, whole_sent) or None

    def _values(self, sent: Schema, values: Sequence[Any], taken: Schema, path: Path) -> Iterator[Break]:
        """Each of a list of values is looked at by itself."""
        validator = _validator(taken, self._taken)
        try:
            refused = [value for value in values if not validator.is_valid(value)]
        except re.error:
            yield Break(Why.UNDECIDED, path, sent, taken, "the keyword pattern")
            return
        if refused:
            yield Break(Why.VALUES, path, sent, taken, ", ".join(literal(value) for value in refused))

    def _sends_none_of(self, sent: Schema, refused: Any) -> bool:
        """Whether what is refused is a list of values, none of which is sent."""
        values = self._followed(refused, self._taken)[0].get("enum")
        validator = _validator(sent, self._sent)
        try:
            return values is not None and not any(validator.is_valid(value) for value in values)
        except re.error:
            return False

    def _all_of(self, sent: Schema, taken: Schema, path: Path, closed: bool) -> Iterator[Break]:
        """What is sent is all of several schemas at once: one object, if they are objects."""
        rest = {key: part for key, part in sent.items() if key != "allOf"}
        parts = [self._followed(part, self._sent)[0] for part in sent["allOf"]] + ([rest] if rest else [])
        one = together([part for part in parts if part != ANYTHING])
        if one is not None:
            yield from self.compare(one, taken, path, closed)
            return
        least: list[Break] | None = None
        for part in parts:
            found = list(self.compare(part, taken, path, closed))
            if not found:
                return
            least = found if least is None or len(found) < len(least) else least
        yield from (replace(found, why=Why.UNDECIDED, detail="the keyword allOf") for found in least or ())

    # ---- objects and lists --------------------------------------------------------------------------

    def _object(self, sent: Schema, taken: Schema, path: Path, closed: bool) -> Iterator[Break]:
        fields: Mapping[str, Any] = sent.get("properties", {})
        required = set(sent.get("required", ()))
        known: Mapping[str, Any] = taken.get("properties", {})
        others = taken.get("additionalProperties", True)
        more = (
            False
            if closed or sent.get("maxProperties") == 0
            else sent.get("additionalProperties", "properties" not in sent)
        )
        for name in taken.get("required", ()):
            if name not in required:
                maybe = name in fields or more is not False
                why = Why.MAY_BE_MISSING if maybe else Why.MISSING
                yield Break(why, (*path, name), fields.get(name, {}), known.get(name, {}))
        for name, schema in fields.items():
            yield from self.compare(schema, known.get(name, others), (*path, name))
        if more is not False:
            yield from self.compare(more, others, (*path, ANY_FIELD))
            for name in known.keys() - fields.keys():
                yield from self.compare(more, known[name], (*path, name))
        most = sent.get("maxProperties", len(fields) if more is False else None)
        for pattern, schema in sent.get("patternProperties", {}).items():
            if pattern not in taken.get("patternProperties", {}):
                yield from self.compare(schema, others, (*path, ANY_FIELD))
            for name in known.keys() - fields.keys():
                if _may_match(pattern, name):
                    yield from self.compare(schema, known[name], (*path, name))
        if "propertyNames" in taken:
            if fields:
                yield from self.compare({"enum": list(fields)}, taken["propertyNames"], path)
            if more is not False or "patternProperties" in sent:
                names, _ = self._followed(sent.get("propertyNames", {}), self._sent)
                names = names if "enum" in names else {**names, "type": "string"}
                yield from self.compare(names, taken["propertyNames"], path)
        least = max(sent.get("minProperties", 0), len(required))
        if not _within(least, most, taken.get("minProperties", 0), taken.get("maxProperties")):
            yield Break(Why.LIMITS, path, sent, taken)

    def _array(self, sent: Schema, taken: Schema, path: Path) -> Iterator[Break]:
        if taken.get("uniqueItems") and not sent.get("uniqueItems"):
            yield Break(Why.LIMITS, path, sent, taken)
        sent_first, sent_rest = _items(sent)
        taken_first, taken_rest = _items(taken)
        most, room = _longest(sent), _longest(taken)
        if not _within(sent.get("minItems", 0), most, taken.get("minItems", 0), room):
            yield Break(Why.LIMITS, path, sent, taken)
        places = max(len(sent_first), len(taken_first))
        for number in range(places):
            if (most is not None and number >= most) or (room is not None and number >= room):
                break
            there = sent_first[number] if number < len(sent_first) else sent_rest
            here = taken_first[number] if number < len(taken_first) else taken_rest
            yield from self.compare(there, here, (*path, number))
        if (most is None or most > places) and (room is None or room > places):
            yield from self.compare(sent_rest, taken_rest, (*path, EACH))


def _may_match(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True  # one of JavaScript's that Python has not


def _validator(schema: Schema, document: Document) -> Any:
    # In the document, so that references lead somewhere.
    within = {**document.content, "allOf": [dict(schema)]}
    return needed("jsonschema").Draft7Validator(within, format_checker=_formats())


def _formats() -> Any:
    """Checks the formats of values. A text of a format that cannot be checked is not taken for one of it."""
    library = needed("jsonschema")
    checker = library.FormatChecker()

    class Formats(library.FormatChecker):  # type: ignore[misc, name-defined]
        def check(self, instance: object, format: str) -> None:
            if isinstance(instance, str) and format not in checker.checkers:
                raise library.exceptions.FormatError(f"{instance!r} may be no {format}")
            checker.check(instance, format)

    return Formats()


def _items(schema: Schema) -> tuple[Sequence[Any], Any]:
    """The schemas of a list's first items, and that of all after them."""
    items = schema.get("items", {})
    if isinstance(items, list):
        return items, schema.get("additionalItems", {})
    return (), items


def _longest(schema: Schema) -> int | None:
    """How many items a list may have; None if any number."""
    first, rest = _items(schema)
    most: int | None = schema.get("maxItems")
    if first and bare(rest) == NOTHING:
        return len(first) if most is None else min(most, len(first))
    return most


def _within(least: int, most: int | None, lowest: int, highest: int | None) -> bool:
    return least >= lowest and (highest is None or (most is not None and most <= highest))
