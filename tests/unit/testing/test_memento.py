"""A moment of some objects, to come back to."""

from __future__ import annotations

from collections import Counter, defaultdict

from sagas_framework.testing.memento import Memento


class Broker:
    def __init__(self) -> None:
        self.queues: dict[str, list[str]] = defaultdict(list)
        self.seen: set[str] = set()
        self.times: Counter[str] = Counter()
        self.up = True
        self.child: Broker | None = None


def changed(broker: Broker) -> None:
    broker.queues["stock"].append("two")
    broker.queues["money"].append("three")
    broker.seen.add("two")
    broker.times["two"] += 1
    broker.up = False


def test_everything_is_as_it_was_however_often_it_is_recalled() -> None:
    broker = Broker()
    broker.queues["stock"].append("one")
    memento = Memento([broker])

    for _ in range(2):
        changed(broker)
        memento.recall()

        assert (dict(broker.queues), broker.seen, broker.times, broker.up) == (
            {"stock": ["one"]},
            set(),
            {},
            True,
        )
        assert broker.queues["new"] == []  # still a defaultdict
        assert broker.times["none"] == 0
        memento.recall()


def test_what_it_refers_to_is_the_same_object() -> None:
    broker, child = Broker(), Broker()
    broker.child = child
    memento = Memento([broker, child])

    changed(child)
    broker.child = Broker()
    memento.recall()

    assert (broker.child, child.up) == (child, True)
