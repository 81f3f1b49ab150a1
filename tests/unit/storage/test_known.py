"""What a process remembers of the instances that it wrote."""

from __future__ import annotations

from dataclasses import replace

from sagas_framework.core.instance import Status
from sagas_framework.storage.known import KnownInstances, Mark
from tests.contract.looking import NOON, after, an_instance


def test_an_instance_is_known_by_the_mark_that_its_row_bears() -> None:
    known = KnownInstances()
    instance = an_instance("a", updated_at=NOON)

    known.keep([instance], "77")

    assert known.get(instance.id, Mark("77", NOON)) is instance
    assert known.get(instance.id, Mark("78", NOON)) is None
    assert known.get(instance.id, Mark("77", after(1))) is None
    assert known.get("another", Mark("77", NOON)) is None


def test_what_has_ended_is_forgotten() -> None:
    known = KnownInstances()
    instance = an_instance("a", updated_at=NOON)
    known.keep([instance], "77")

    known.keep([replace(instance, status=Status.COMPLETED)], "78")

    assert known.get(instance.id, Mark("77", NOON)) is None
    assert known.get(instance.id, Mark("78", NOON)) is None


def test_of_too_many_those_are_forgotten_that_were_written_first() -> None:
    known = KnownInstances(most=2)
    first, second, third = (an_instance(name, updated_at=NOON) for name in "abc")

    known.keep([first, second], "77")
    known.keep([first, third], "78")

    assert known.get(second.id, Mark("77", NOON)) is None
    assert known.get(first.id, Mark("78", NOON)) is first
    assert known.get(third.id, Mark("78", NOON)) is third
