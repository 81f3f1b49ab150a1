"""What sagas have cost in messages, bytes and rows: counted from the rows of those that have ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from amqp.serialization import dumps
from sqlalchemy import Connection, func, literal_column, select

from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.inbox import Stored
from sagas_framework.core.instance import SagaInstance, StepRecord
from sagas_framework.errors import SagasError
from sagas_framework.messages import WireProtocol
from sagas_framework.saga import SagaDefinition
from sagas_framework.sagas import Sagas
from sagas_framework.steps import CommandStep
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Filter, HistoryLine
from sagas_framework.storage.reads import read_history, read_page
from sagas_framework.storage.retiring import ENDED
from sagas_framework.storage.tables import saga_history, saga_instance
from sagas_framework.transport.envelope import (
    ATTEMPT,
    NOT_AFTER,
    OPERATION_ID,
    Envelope,
    WireMessage,
    reply,
    to_wire,
)

_SENT: Final = ("running", "sent_again", "compensating", "settling")
"""Entries of a step that a message goes with."""
_ANSWERED: Final = (
    "succeeded",
    "failed",
    "attempt_failed",
    "compensated",
    "compensation_failed",
    "handed_over",
)
_FRAME: Final = 8  # bytes of AMQP around each frame
_LARGEST: Final = 131_072  # bytes in a frame


@dataclass(frozen=True)
class Counted:
    """Means over ended sagas of one name.

    Args:
        sagas: how many were looked at.
        completed: the share of those whose effects were kept.
        commands, replies: messages of one saga; retries, undoing and what was sent again among them.
        wire_bytes: of all messages of one saga, as they are published; each is delivered once more.
        history: lines.
        operations: rows in the inboxes of participants.
        row_bytes: of instance and history in their tables, without indexes; None on SQLite.
        p50, p99: seconds from start to end.
        per_second: how many ended while those that were looked at did; 0 if that cannot be told.
    """

    saga: str
    sagas: int
    completed: float
    commands: float
    replies: float
    wire_bytes: float
    history: float
    operations: float
    row_bytes: float | None
    p50: float
    p99: float
    per_second: float

    @property
    def messages(self) -> float:
        """Of one saga."""
        return self.commands + self.replies

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def count(sagas: Sagas, saga: str, sample: int) -> Counted:
    """Look at the sagas of this name that ended last, so many at most.

    Raises:
        UnknownSaga: it is not declared here.
        SagasError: none has ended.
    """
    newest = sagas.definitions.newest(saga)
    if newest is None:
        names = ", ".join(sorted({definition.name for definition in sagas.definitions}))
        raise SagasError(f"No saga named {saga!r} is declared here; declared are: {names}.")
    with reading(sagas.engine) as connection:
        ended = _ended(connection, saga, sample)
        if not ended:
            raise SagasError(f"No saga {saga!r} has ended in this database yet: what it costs is not known.")
        told = [_Told(one, sagas, read_history(connection, one.id)) for one in ended]
        row_bytes = _row_bytes(connection, [one.id for one in ended])
    spans = sorted((one.ended_at - one.created_at).total_seconds() for one in ended if one.ended_at)
    ends = [one.ended_at for one in ended if one.ended_at is not None]
    number = len(ended)
    commands = sum(one.commands for one in told) / number
    replies = sum(one.replies for one in told) / number
    sizes = [size for one in told for size in one.sizes()]
    return Counted(
        saga=saga,
        sagas=number,
        completed=sum(one.status.value == "completed" for one in ended) / number,
        commands=commands,
        replies=replies,
        wire_bytes=(commands + replies) * sum(sizes) / len(sizes) if sizes else 0.0,
        history=sum(one.lines for one in told) / number,
        operations=sum(one.operations for one in told) / number,
        row_bytes=row_bytes,
        p50=_percentile(spans, 50),
        p99=_percentile(spans, 99),
        per_second=_rate(ends),
    )


class _Told:
    """What the history of one saga says of its messages."""

    def __init__(self, instance: SagaInstance, sagas: Sagas, history: Sequence[HistoryLine]) -> None:
        self._instance = instance
        self._reply_to = sagas.reply_queue.name
        definition = sagas.definitions.find(instance.saga, instance.version)
        self._remote = _remote(definition)
        self.lines = len(history)
        self.commands = self.replies = 0
        for line in history:
            step, entry = line.recorded.step, line.recorded.entry.rpartition(".")[2]
            if line.recorded.entry == "reply_ignored":
                self.replies += 1
            elif step in self._remote:
                undoes_nothing = entry == "compensating" and not self._remote[step].undoable
                self.commands += entry in _SENT and not undoes_nothing
                self.replies += entry in _ANSWERED and _was_answered(line)
        self.operations = sum(
            record.name in self._remote and record.first_sent_at is not None
            for record in instance.steps.values()
        )

    def sizes(self) -> Iterator[int]:
        """Bytes of each command that went forward and of its answer."""
        for record in self._instance.steps.values():
            step = self._remote.get(record.name)
            if step is not None and record.first_sent_at is not None:
                yield from _sizes(self._instance, record, step, self._reply_to)


def _ended(connection: Connection, saga: str, sample: int) -> list[SagaInstance]:
    found = [
        instance
        for status in ENDED
        for instance in read_page(connection, Filter(saga=saga, status=status, limit=sample)).instances
    ]
    return sorted(found, key=lambda instance: instance.id)[-sample:]


def _remote(definition: SagaDefinition | None) -> dict[str | None, CommandStep[Any]]:
    if definition is None:
        return {}
    return {step.name: step for step in definition.steps if isinstance(step, CommandStep)}


def _was_answered(line: HistoryLine) -> bool:
    detail = line.recorded.detail
    return not any(detail.get(why) for why in ("nothing_to_undo", "by_hand", "forced"))


def _sizes(
    instance: SagaInstance, record: StepRecord, step: CommandStep[Any], reply_to: str
) -> Iterator[int]:
    contract = step.command.contract
    sent = Envelope(
        queue=contract.service.queue.name,
        task=contract.task,
        message_id=message_id(instance.id, record.identity, Kind.DO, 1),
        saga_id=instance.id,
        payload=record.request,
        root_id=message_id(instance.id, record.identity, Kind.DO, 1),
        reply_to=reply_to,
        headers={
            OPERATION_ID: operation_id(instance.id, record.identity),
            ATTEMPT: 1,
            NOT_AFTER: instance.updated_at.isoformat(),
        },
        protocol=WireProtocol(contract.service.protocol),
    )
    yield wire_bytes(to_wire(sent))
    if sent.protocol is WireProtocol.INBOX:
        yield wire_bytes(to_wire(reply(sent, Stored(Result.SUCCESS, record.reply))))


def wire_bytes(message: WireMessage) -> int:
    """What publishing the message to a queue by its name takes on AMQP 0-9-1."""
    method = 4 + 2 + 1 + 1 + len(message.queue) + 1
    texts = sum(1 + len(value) for value in message.properties.values() if isinstance(value, str))
    header = 14 + len(dumps("F", (dict(message.headers),))) + texts + 1
    body = len(message.body)
    frames = 2 + math.ceil(body / _LARGEST)
    return method + header + body + _FRAME * frames


def _row_bytes(connection: Connection, ids: Sequence[str]) -> float | None:
    """Of one instance and its history, as they are in their tables; None where that cannot be asked."""
    if connection.dialect.name != "postgresql":
        return None
    rows = 0
    for table, key in ((saga_instance, saga_instance.c.id), (saga_history, saga_history.c.saga_id)):
        size = func.coalesce(func.sum(func.pg_column_size(literal_column(f"{table.name}.*"))), 0)
        rows += connection.execute(select(size).select_from(table).where(key.in_(ids))).scalar_one()
    return rows / len(ids)


def _rate(ends: Sequence[datetime]) -> float:
    span = (max(ends) - min(ends)).total_seconds() if ends else 0.0
    return (len(ends) - 1) / span if span > 0 else 0.0


def _percentile(values: Sequence[float], percent: float) -> float:
    return values[max(math.ceil(percent / 100 * len(values)), 1) - 1] if values else 0.0
