"""What every store and every inbox promises of messages that somebody wants sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from sagas_framework.storage.ports import Inbox, Quarantined, Store
from tests.contract.looking import BOUNDED, Looking, in_thread, messages
from tests.servers import wait_until


class Died(BaseException):
    """The process ends here. (No `Exception`: nothing on the way may catch it.)"""


class Sender:
    """Sends messages again. `trouble`: why it cannot; `meanwhile` is called when the broker has them."""

    def __init__(self, trouble: str | None = None, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.trouble = trouble
        self.meanwhile = meanwhile
        self.batches: list[list[Quarantined]] = []

    def __call__(self, messages: Sequence[Quarantined]) -> list[str | None]:
        self.batches.append(list(messages))
        self.meanwhile()
        return [self.trouble] * len(messages)

    @property
    def numbers(self) -> list[list[int]]:
        """Of the messages in each batch."""
        return [[message.id for message in batch] for batch in self.batches]


class ReplayContract:
    """Mix it in where there are fixtures `keeper`, the store or inbox, and `there`, a look behind it."""

    def test_messages_are_sent_again_oldest_first_and_then_leave_the_quarantine(
        self, keeper: Store | Inbox, there: Looking
    ) -> None:
        _set_aside(keeper, there, 4, asked=(4, 2, 1))
        sender = Sender()

        for _ in range(3):
            keeper.replay(sender, 2)

        assert sender.numbers == [[1, 2], [4]]  # and nobody was bothered with nothing
        assert sender.batches[0][0] == replace(messages(1)[0], id=1, replay="ada")
        assert [message.id for message in there.quarantined()] == [3]

    def test_a_message_is_still_there_while_it_is_sent(self, keeper: Store | Inbox, there: Looking) -> None:
        _set_aside(keeper, there, 1, asked=(1,))
        seen: list[list[Quarantined]] = []

        keeper.replay(Sender(meanwhile=lambda: seen.append(there.quarantined())))

        assert [message.replay for (message,) in seen] == ["ada"]

    def test_what_was_not_sent_stays_and_says_why_until_somebody_asks_anew(
        self, keeper: Store | Inbox, there: Looking
    ) -> None:
        first, second = messages(2)
        _set_aside(keeper, there, 2, asked=(1, 2))
        reason = first.reason

        keeper.replay(lambda asked: ["unroutable" if message.id == 1 else None for message in asked])

        noted = replace(first, id=1, reason=f"{reason} (not sent again: unroutable)")
        assert there.quarantined() == [noted]
        keeper.replay(_nobody)

        there.ask_replay(1, "bob")
        keeper.replay(Sender("unsent"))
        assert there.quarantined() == [replace(noted, reason=f"{reason} (not sent again: unsent)")]

        there.ask_replay(1, "bob")
        keeper.replay(Sender())
        assert there.quarantined() == []
        assert second.reason == reason

    def test_a_process_that_dies_after_it_has_sent_a_message_loses_nothing(
        self, keeper: Store | Inbox, there: Looking
    ) -> None:
        _set_aside(keeper, there, 2, asked=(1, 2))
        before = there.quarantined()

        def die() -> None:
            raise Died

        with pytest.raises(Died):
            keeper.replay(Sender(meanwhile=die))

        assert there.quarantined() == before
        sender = Sender()
        keeper.replay(sender)
        assert sender.numbers == [[1, 2]]
        assert there.quarantined() == []

    def test_a_sender_that_raises_loses_nothing(self, keeper: Store | Inbox, there: Looking) -> None:
        _set_aside(keeper, there, 1, asked=(1,))

        def stumble() -> None:
            raise RuntimeError("stumbled")

        with pytest.raises(RuntimeError, match="stumbled"):
            keeper.replay(Sender(meanwhile=stumble))

        assert [message.replay for message in there.quarantined()] == ["ada"]

    def test_who_asks_anew_while_a_message_cannot_be_sent_is_heard(
        self, keeper: Store | Inbox, there: Looking
    ) -> None:
        _set_aside(keeper, there, 1, asked=(1,))
        asking: list[Future[None]] = []

        def ask() -> None:
            asking.append(in_thread(lambda: there.ask_replay(1, "bob")))
            _ends_alone(asking[0])  # where the row is locked, it ends later

        keeper.replay(Sender("unsent", meanwhile=ask))

        asking[0].result(BOUNDED)
        assert [message.replay for message in there.quarantined()] == ["bob"]
        sender = Sender()
        keeper.replay(sender)
        assert sender.numbers == [[1]]

    def test_workers_that_look_at_once_leave_no_message_behind(
        self, keeper: Store | Inbox, there: Looking
    ) -> None:
        _set_aside(keeper, there, 20, asked=range(1, 21))
        gate = threading.Barrier(3)
        senders = [Sender() for _ in range(3)]

        def work(sender: Sender) -> None:
            gate.wait(BOUNDED)
            while there.quarantined():
                keeper.replay(sender, 3)

        running = [in_thread(lambda s=sender: work(s)) for sender in senders]  # type: ignore[misc]

        for one in running:
            one.result(BOUNDED)
        sent = {number for sender in senders for batch in sender.numbers for number in batch}
        assert sent == set(range(1, 21))

    def test_a_number_is_never_given_again(self, keeper: Store | Inbox, there: Looking) -> None:
        # A worker that is slow would delete another message than it has sent.
        _set_aside(keeper, there, 2, asked=(1, 2))
        keeper.replay(Sender())

        keeper.quarantine(messages(1)[0])

        assert [message.id for message in there.quarantined()] == [3]


def _set_aside(keeper: Store | Inbox, there: Looking, count: int, asked: Sequence[int]) -> None:
    for message in messages(count):
        keeper.quarantine(message)
    for number in asked:
        there.ask_replay(number, "ada")


def _nobody(asked: Sequence[Quarantined]) -> list[str | None]:
    raise AssertionError(f"nobody has asked for {[message.id for message in asked]}")


def _ends_alone(one: Future[None]) -> None:
    """Wait a moment for its end, which may depend on us."""
    try:
        wait_until(one.done, "", within=0.5)
    except TimeoutError:
        pass
