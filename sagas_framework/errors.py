"""Every error the library raises on purpose, each saying what to do about it."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Final


class SagasError(Exception):
    """Root of every error raised on purpose."""


class DefinitionError(SagasError):
    """A saga or a contract cannot run as declared. Raised at import, before any order is taken."""


class ConfigurationError(SagasError):
    """A setting is wrong: an address that cannot be read or is refused, a schema that is old, ..."""


NEWER: Final = "A newer release has upgraded it: deploy that one here, too."


class SchemaOutdated(ConfigurationError):
    """The database is not at the schema of this release.

    Args:
        what: where it is instead.
        how: the command that brings it there; None if it is the release that is older.
    """

    def __init__(self, what: str, how: str | None) -> None:
        super().__init__(f"{what} Run: {how}" if how else f"{what} {NEWER}")
        self.what = what
        self.how = how


class UnknownSaga(SagasError):
    """A saga that this process has no declaration of."""

    def __init__(self, name: str, version: int | None, known: Collection[str]) -> None:
        wanted = f"{name!r}" if version is None else f"{name!r} version {version}"
        super().__init__(
            f"No saga named {wanted}; known: {', '.join(sorted(known)) or 'none'}. "
            "Give its class to Sagas(...) in the worker's module and restart the worker."
        )
        self.name = name
        self.version = version


class UnknownRun(SagasError):
    """No saga instance has this id."""

    def __init__(self, saga_id: str) -> None:
        super().__init__(
            f"No saga has the id {saga_id!r} in this database; `saga list` shows those there are."
        )
        self.saga_id = saga_id


class KeyConflict(SagasError):
    """A business key was used again, with another state. Nothing was started."""

    def __init__(self, saga: str, key: str, first_id: str) -> None:
        super().__init__(
            f"The saga {saga!r} was already started with the key {key!r} (as {first_id}) and another state. "
            "Use a key of its own for each transaction, or start it with the state of the first time."
        )
        self.saga = saga
        self.key = key
        self.first_id = first_id


class UnknownSignal(SagasError):
    """No step of the saga waits for this signal. Nothing was stored."""

    def __init__(self, saga: str, signal: str, known: Collection[str]) -> None:
        super().__init__(
            f"No step of the saga {saga!r} waits for the signal {signal!r}; "
            f"it waits for: {', '.join(known) or 'none'}."
        )
        self.saga = saga
        self.signal = signal


class InvalidSignal(SagasError):
    """A signal does not fit its class, or cannot be stored. Nothing was stored."""


class SignalConflict(SagasError):
    """The id of a signal was used again, for another one. Nothing was stored."""

    def __init__(self, saga: str, key: str, said_id: str, signal: str) -> None:
        super().__init__(
            f"The saga {saga!r} with the key {key!r} was told {signal!r} under the id {said_id!r} before, "
            "and now something else. Use an id of its own for each signal."
        )
        self.said_id = said_id


class SagaNotEnded(SagasError, TimeoutError):
    """`Sagas.wait` gave up waiting; the saga goes on."""


class Unavailable(SagasError):
    """A handler cannot work now: something that it needs is away.

    Raised by a handler, it costs no attempt and sends no reply: nothing is stored, and the
    orchestrator sends the command again until the step's timeout. A lock or a connection error of
    the participant's own database is treated like this without being raised.
    """


class Failure(SagasError):
    """A participant says no for a business reason: an answer, not a fault; it is never retried.

    Subclass it for each reason and list the subclasses in the command's ``failures``. `wire_name` is
    what replies carry as ``type``: the class's name unless the class says ``wire_name = "..."``, which
    keeps a renamed class readable to those who have not been deployed again.
    """

    wire_name: ClassVar[str] = "Failure"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "wire_name" not in cls.__dict__:
            cls.wire_name = cls.__name__
