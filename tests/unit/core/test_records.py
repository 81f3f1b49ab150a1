from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from sagas_framework.core import events, inbox, instance
from sagas_framework.core.records import copied, made_of, replace


@dataclass(frozen=True)
class Order:
    number: int
    city: str = "Ghent"


def test_a_record_with_some_fields_changed_is_a_record_of_its_own() -> None:
    first = Order(1)

    second = replace(first, city="Bruges")

    assert (first, second) == (Order(1, "Ghent"), Order(1, "Bruges"))


def test_what_was_made_is_as_frozen() -> None:
    made = replace(Order(1), number=2)

    with pytest.raises(FrozenInstanceError):
        made.number = 3  # type: ignore[misc]


@pytest.mark.parametrize("module", [events, inbox, instance])
def test_the_records_of_the_core_keep_their_fields_where_they_are_copied_from(module: object) -> None:
    records = [kind for kind in vars(module).values() if hasattr(kind, "__dataclass_fields__")]

    assert records
    assert not [kind for kind in records if "__slots__" in vars(kind)]


def test_a_record_can_be_made_of_the_values_of_its_fields() -> None:
    assert made_of(Order, {"number": 1, "city": "Bruges"}) == Order(1, "Bruges")


def test_copied_json_shares_nothing_that_could_be_changed() -> None:
    value: dict[str, Any] = {
        "list": [1, {"deep": ["x"]}],
        "dict": {"a": None},
        "set": {1},
        "text": "é",
        "number": 1.5,
    }

    made = copied(value)

    assert made == value
    made["list"][1]["deep"].append("y")
    made["dict"]["a"] = 1
    made["set"].add(2)
    assert value == {
        "list": [1, {"deep": ["x"]}],
        "dict": {"a": None},
        "set": {1},
        "text": "é",
        "number": 1.5,
    }
