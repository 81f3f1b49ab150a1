"""Declaring a migration: what contradicts itself or the class is told when the class is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from sagas_framework import DefinitionError, Migration, Saga, Steps
from sagas_framework.migration import composed, path
from sagas_framework.saga import Definitions


class Tea(BaseModel):
    cups: int = 1


step = Steps(Tea)


def nothing(state: Tea, session: object) -> None: ...


def make(version: int, migrations: list[Migration], *names: str) -> type[Saga[Tea]]:
    """A saga of local steps with these names, and a last one."""
    body: dict[str, Any] = {name: step.local(nothing, compensation=nothing) for name in names}

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(body | {"last": step.local(nothing)})

    import types

    made: type[Saga[Tea]] = types.new_class(
        "TeaSaga", (Saga[Tea],), {"name": "tea", "version": version, "migrations": migrations}, fill
    )
    return made


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"from_version": 0}, "Migration(from_version=0): versions begin at 1."),
        ({"from_version": 2, "to_version": 2}, "it leads to a later version, never to the same"),
        ({"from_version": 1, "added": "boil"}, "added is a list of steps: write added=['boil']."),
        ({"from_version": 1, "renamed": {"a": "c", "b": "c"}}, "two steps are renamed to 'c'"),
        ({"from_version": 1, "renamed": {"a": "a"}}, "'a' is renamed to itself: leave it out"),
        (
            {"from_version": 1, "renamed": {"a": "b"}, "added": ["b"]},
            "'b' is a renamed step and an added one",
        ),
        ({"from_version": 1, "renamed": {"a": "b"}, "removed": ["a"]}, "'a' is renamed and removed"),
        ({"from_version": 1, "done_without": ["a"]}, "done_without names 'a', which is not added"),
    ],
)
def test_what_contradicts_itself_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(told)):
        Migration(**given)


@pytest.mark.parametrize(
    ("migrations", "told"),
    [
        (
            [Migration(from_version=2)],
            "TeaSaga is version 2, and Migration(from_version=2) comes from no earlier",
        ),
        (
            [Migration(from_version=1), Migration(from_version=1)],
            "two migrations from version 1 to 2: keep one",
        ),
        ([Migration(from_version=1, to_version=3)], "leads to none of its own: add Migration(from_version=3"),
        (
            [Migration(from_version=1, renamed={"a": "b"})],
            "a step is renamed to 'b', which is none of its steps",
        ),
        ([Migration(from_version=1, added=["b"])], "'b' is added, but is none of its steps (boil, last)"),
        ([Migration(from_version=1, removed=["boil"])], "'boil' is removed, but is one of its steps"),
        ([Migration(from_version=1, renamed={"boil": "last"})], "'boil' is renamed to 'last', but is one of"),
    ],
)
def test_what_contradicts_the_class_is_told_when_the_class_is_made(
    migrations: list[Migration], told: str
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(told)):
        make(2, migrations, "boil")


def test_a_migration_leads_to_the_version_of_its_class() -> None:
    made = make(3, [Migration(from_version=2), Migration(from_version=1, to_version=2)], "boil")

    assert [(m.from_version, m.to) for m in made.definition.migrations] == [(2, 3), (1, 2)]


def test_a_name_may_be_given_to_another_step() -> None:
    made = make(2, [Migration(from_version=1, renamed={"boil": "heat"}, added=["boil"])], "heat", "boil")

    assert made.definition.migrations[0].now("boil") == "heat"


def test_names_may_change_places() -> None:
    made = make(2, [Migration(from_version=1, renamed={"a": "b", "b": "a"})], "a", "b")

    assert dict(made.definition.migrations[0].renamed) == {"a": "b", "b": "a"}


# ---- ways -----------------------------------------------------------------------------------------


def test_hops_of_several_classes_make_a_way() -> None:
    one, two = make(1, [], "a"), make(2, [Migration(from_version=1, renamed={"a": "b"})], "b")
    three = make(3, [Migration(from_version=2, renamed={"b": "c"}, added=["d"])], "c", "d")

    way = Definitions([one, two, three]).migration("tea", 1, 3)

    assert way is not None
    assert (way.from_version, way.to, dict(way.renamed), way.added) == (1, 3, {"a": "c"}, ("d",))
    assert Definitions([one, three]).migration("tea", 1, 3) is None
    assert Definitions([one, two, three]).newest("tea") is three.definition
    assert Definitions([]).newest("tea") is None


def test_the_shortest_way_is_taken() -> None:
    long = [Migration(from_version=1, to_version=2, removed=["x"]), Migration(from_version=2, to_version=3)]
    direct = Migration(from_version=1, to_version=3)

    assert path([*long, direct], 1, 3) is direct
    assert path(long, 1, 3) is not None
    assert path(long, 3, 1) is None


def hop(start: int, **changes: Any) -> Migration:
    return Migration(from_version=start, to_version=start + 1, **changes)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ({"renamed": {"a": "b"}}, {"renamed": {"b": "c"}}, {"renamed": {"a": "c"}}),
        ({"renamed": {"a": "b"}}, {"renamed": {"b": "a"}}, {}),
        ({"renamed": {"a": "b"}}, {"removed": ["b"]}, {"removed": ["a"]}),
        ({"renamed": {"a": "b"}}, {"renamed": {"x": "y"}}, {"renamed": {"a": "b", "x": "y"}}),
        ({"added": ["a"]}, {"renamed": {"a": "b"}}, {"added": ["b"]}),
        (
            {"added": ["a"], "done_without": ["a"]},
            {"renamed": {"a": "b"}},
            {"added": ["b"], "done_without": ["b"]},
        ),
        ({"added": ["a"], "done_without": ["a"]}, {"removed": ["a"]}, {}),
        ({"removed": ["a"]}, {"added": ["a"]}, {"removed": ["a"], "added": ["a"]}),
        (
            {"renamed": {"a": "b"}, "added": ["a"]},
            {"renamed": {"a": "c"}},
            {"renamed": {"a": "b"}, "added": ["c"]},
        ),
        ({"renamed": {"a": "b"}, "added": ["a"]}, {"removed": ["a"]}, {"renamed": {"a": "b"}}),
        ({"renamed": {"a": "b"}, "added": ["a"]}, {"removed": ["b"]}, {"removed": ["a"], "added": ["a"]}),
    ],
)
def test_two_hops_are_one(first: dict[str, Any], second: dict[str, Any], both: dict[str, Any]) -> None:
    one = composed(hop(1, **first), hop(2, **second))

    assert one == Migration(from_version=1, to_version=3, **both)


def test_states_are_converted_one_after_the_other() -> None:
    def double(state: dict[str, Any]) -> Mapping[str, Any]:
        return {"cups": state["cups"] * 2}

    def more(state: dict[str, Any]) -> Mapping[str, Any]:
        return {"cups": state["cups"] + 1}

    both = composed(hop(1, state=double), hop(2, state=more)).state
    only = composed(hop(1), hop(2, state=more)).state

    assert both is not None
    assert both({"cups": 3}) == {"cups": 7}
    assert only is more
