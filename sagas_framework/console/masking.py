"""What nobody should read over an operator's shoulder: shown as ``***``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretBytes, SecretStr

MASK: Final = "***"
SECRETS: Final = ("password", "secret", "token", "cvv", "pan")
"""Names that give a field away. Another list is an argument of `console`."""

DEEPEST: Final = 100
"""Levels of a value that are shown; of what is deeper only that it is there."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SHORT: Final = 4


class Masking:
    """Replaces values in what is shown: those of fields with a telling name, or of a secret type.

    Args:
        names: of such fields, in any case. One of up to 4 letters must be a word of the field's name
            (``pan`` is in ``card_pan`` and ``cardPan``, not in ``company``); a longer one any part of it.
    """

    def __init__(self, names: Collection[str] = SECRETS) -> None:
        known = [name.lower() for name in names if name]
        self._words = frozenset(name for name in known if len(name) <= _SHORT)
        self._parts = tuple(name for name in known if len(name) > _SHORT)

    def hides(self, name: str) -> bool:
        """Whether the field's name alone says that its value is secret."""
        whole = name.lower()
        if any(part in whole for part in self._parts):
            return True
        return not self._words.isdisjoint({whole, *(word.lower() for word in _WORD.findall(name))})

    def __call__(self, value: Any, model: type[BaseModel] | None = None) -> Any:
        """The JSON value without its secrets, and without what is nested deeper than `DEEPEST`.

        Args:
            model: that it is the JSON of, if known: what it declares as `SecretStr` or `SecretBytes`
                is hidden whatever its name.
        """
        return self._masked(value, [model] if model is not None else [], DEEPEST)

    def _masked(self, value: Any, types: list[Any], levels: int) -> Any:
        if any(_is_secret(its) for its in types):
            return None if value is None else MASK
        match value:
            case Mapping() | list() | tuple() if not levels:
                return "…" if value else value
            case Mapping():
                return {name: self._field(name, inner, types, levels - 1) for name, inner in value.items()}
            case list() | tuple():
                inside = [argument for its in types for argument in _arguments(its)]
                return [self._masked(inner, inside, levels - 1) for inner in value]
            case _:
                return value

    def _field(self, name: Any, value: Any, types: list[Any], levels: int) -> Any:
        if self.hides(str(name)):
            return None if value is None else MASK
        return self._masked(value, [inner for its in types for inner in _types_of(its, name)], levels)


def _is_secret(its: Any) -> bool:
    return isinstance(its, type) and issubclass(its, (SecretStr, SecretBytes))


def _types_of(its: Any, name: Any) -> Iterator[Any]:
    """What a field of the model, or a value of the mapping, may be."""
    if isinstance(its, type) and issubclass(its, BaseModel):
        for own, field in its.model_fields.items():
            if name in (own, field.alias, field.serialization_alias):
                yield from _flat(field.annotation)
    else:
        yield from _arguments(its)


def _arguments(its: Any) -> Iterator[Any]:
    """What is inside ``list[X]``, ``dict[str, X]``, ..."""
    for argument in get_args(its):
        yield from _flat(argument)


def _flat(annotation: Any) -> Iterator[Any]:
    """The types of a union or an ``Annotated``, and the type itself."""
    yield annotation
    for argument in get_args(annotation):
        yield from _flat(argument)
