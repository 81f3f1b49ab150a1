"""Valid examples of states and replies, made from their fields: what a saga is tried on before it runs."""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from sagas_framework.errors import DefinitionError
from sagas_framework.messages import readable

M = TypeVar("M", bound=BaseModel)

_PLAIN: Final[Mapping[object, Any]] = {
    bool: True,
    int: 1,
    float: 1.0,
    str: "text",
    bytes: b"text",
    Decimal: Decimal("1.00"),
    datetime: datetime(2026, 3, 1, 12, tzinfo=UTC),
    date: date(2026, 3, 1),
    time: time(12),
    timedelta: timedelta(minutes=1),
    UUID: UUID(int=1),
    Any: "text",
    object: "text",
    type(None): None,
}


class NoExample(DefinitionError):
    """The plain values do not fit a model. `why` without what to write instead."""

    def __init__(self, model: type[BaseModel], why: str) -> None:
        super().__init__(
            f"No example of {model.__name__} can be guessed ({why}). Give one: "
            f"examples=[{model.__name__}(...)], or Field(examples=[...]) in the contract."
        )
        self.model = model
        self.why = why


def example(model: type[M]) -> M:
    """A valid instance: defaults are kept; others get the first of their ``examples``, or a plain value.

    Raises:
        NoExample: the plain values do not validate, with what to write instead.
    """
    try:
        made = {name: _of_field(field) for name, field in model.model_fields.items() if field.is_required()}
        if issubclass(model, RootModel):  # it is its one field, which may have a default
            return model.model_validate(made["root"]) if made else model()
        return model.model_validate(made)
    except NoExample:
        raise
    except ValidationError as error:
        raise NoExample(model, readable(error)) from None
    except RecursionError:
        raise NoExample(model, "it contains itself") from None
    except Exception as error:  # a kind of field that is not known here, or what a validator raises
        raise NoExample(model, str(error) or type(error).__name__) from None


def _of_field(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    return _of(field.annotation, _least(field))


def _least(field: FieldInfo) -> Any:
    """A number that fits the field's bounds, if it has some."""
    for bound in field.metadata:
        for name, step in (("ge", 0), ("gt", 1), ("le", 0), ("lt", -1)):
            value = getattr(bound, name, None)
            if value is not None:
                return value + step
    return None


def _of(annotation: Any, least: Any = None) -> Any:
    if annotation in _PLAIN:
        plain = _PLAIN[annotation]
        return plain if least is None else type(plain)(least)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return _of(next(kind for kind in arguments if kind is not type(None)))
    if origin in (list, set, frozenset):
        return [_of(arguments[0])]
    if origin is tuple:
        return [_of(kind) for kind in arguments if kind is not Ellipsis]
    if origin is dict or annotation in (dict, list, set, tuple):
        return {} if origin is dict or annotation is dict else []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return example(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    raise NotImplementedError(f"a value for {annotation!r}")
