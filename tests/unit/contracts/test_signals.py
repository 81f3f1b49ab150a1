"""What a change of a signal does to those of the last release who send it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from sagas_framework import NO_DEADLINE, Queue, Saga, Sagas, Signal, Steps, on
from sagas_framework.asyncapi import Contact, License, Specification
from sagas_framework.contracts import Change, Document, document
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.judging import Judge, LastRelease


class Wish(BaseModel):
    pass


class Word(Signal, name="word"):
    who: str


class Demanding(Signal, name="word"):
    who: str
    reason: str


class Generous(Signal, name="word"):
    who: str
    reason: str = ""


class Stop(Signal, name="stop"):
    pass


def waits_for(*signals: type[Signal], queue: str = "wishes.replies") -> Document:
    """The document of a service whose saga waits for these."""
    step = Steps(Wish)

    class WishSaga(Saga[Wish], name="released_wish", version=1):
        asked = step.wait(*map(on, signals), deadline=NO_DEADLINE)

    made: dict[str, Any] = Specification(
        "released_wishes",
        title="released_wishes",
        version="1.0.0",
        description="Of a test.",
        contact=Contact("us", "https://example.com", "us@example.com"),
        license=License("MIT", "https://example.com/mit"),
        broker="amqp://guest:guest@localhost//",
        sends=Sagas("released_wishes", "sqlite://", sagas=[WishSaga], reply_queue=Queue(queue)),
    ).document
    return document(made, "released_wishes.yaml")


def judged(containing: Containing, before: Document, after: Document) -> list[Change]:
    return list(Judge(before, after, containing, LastRelease([before])).changes())


def test_no_change_is_no_change(containing: Containing) -> None:
    assert judged(containing, waits_for(Word), waits_for(Word)) == []


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (waits_for(Demanding), None),
        (waits_for(Stop), "receive-removed"),
        (waits_for(Word, queue="other.replies"), "queue-moved"),
    ],
    ids=["a field more is required", "it is gone", "it is taken from elsewhere"],
)
def test_what_the_last_release_says_must_be_taken(
    containing: Containing, after: Document, code: str | None
) -> None:
    breaking = [one for one in judged(containing, waits_for(Word), after) if one.breaking]

    assert len(breaking) == 1
    assert code in (None, breaking[0].code)
    assert "released_wish.signal.word" in (breaking[0].message or breaking[0].what)


@pytest.mark.parametrize("after", [waits_for(Generous), waits_for(Word, Stop)], ids=["a default", "one more"])
def test_what_takes_more_breaks_nobody(containing: Containing, after: Document) -> None:
    assert not any(one.breaking for one in judged(containing, waits_for(Word), after))
