"""The participant's inbox in Redis, for a service without a database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.errors import ConfigurationError
from sagas_framework.storage.engine import masked
from sagas_framework.storage.ports import Beat, LostRace, Quarantined, SendAgain, StoreUnavailable
from sagas_framework.storage.sql import FORGOTTEN, YOUNG

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

# What a server says, with no class of its own, that cannot write now: its disk fails, its replicas are gone.
_CANNOT_NOW: Final = ("MISCONF", "NOREPLICAS")


class RedisInboxTurn:
    """See `sagas_framework.storage.ports.InboxTurn`. There is no work of a session to finish or undo."""

    def __init__(self, row: InboxRow | None) -> None:
        self.row = row
        self.saved = False
        self.guarded = True

    def session(self) -> None:
        return None

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        if then is not None:
            then()

    def undo_work(self) -> None:
        pass

    def save(self, row: InboxRow) -> None:
        self.row = row
        self.saved = True


class RedisInbox:
    """See `sagas_framework.storage.ports.Inbox`.

    What it guarantees: a row is written only if it is still as it was read (otherwise `LostRace`), so
    of two messages for one operation one decides on what the other has written. A live claim keeps
    duplicates of a command out while its handler works.

    What it does not: Redis and the handler's work are two things, so every handler is `outside`: one
    that dies between its work and its row is run again, with the same key, and so is an undo handler,
    which may also run for two copies of a compensation at once. Rows are as durable as the Redis is.
    Run it with ``appendonly yes``, ``appendfsync always`` and ``maxmemory-policy noeviction``: with
    ``everysec`` a crash forgets what was handled in its last second, after a failover to a replica
    what the replica had not received, and with eviction anything at any time. What is forgotten is
    executed again if its message comes again, also after it was withdrawn. It is for one server (6.2
    or newer) and its replicas, not for a Redis Cluster.

    Args:
        url: ``redis://:password@host:6379/0``.
        prefix: of every key, one for each service that shares the Redis database.
        retention: rows go by themselves so long after their last change; at least as long as the
            orchestrators believe (rule 10), and the participant's own `retention`.

    Raises:
        ConfigurationError: redis-py is not installed, or the address cannot be read; the message masks
            the password.
    """

    transactional = False

    def __init__(
        self, url: str, *, prefix: str = "saga_inbox:", retention: timedelta = timedelta(days=30)
    ) -> None:
        try:
            import redis
        except ImportError:
            raise ConfigurationError(
                "RedisInbox needs redis-py: pip install 'sagas-framework[redis]'."
            ) from None
        try:
            self._redis: Redis = redis.Redis.from_url(
                url, socket_connect_timeout=5, socket_timeout=10, decode_responses=True
            )
        except ValueError as error:
            raise ConfigurationError(
                f"The Redis address {masked(url)} cannot be used: {error}. "
                "Write it like redis://:password@host:6379/0."
            ) from None
        self._prefix = prefix
        self._retention = retention
        self._ages = f"{prefix}ages"
        self._quarantine = f"{prefix}quarantine"
        self._replays = f"{prefix}replays"
        self._beats = f"{prefix}beats"

    def __str__(self) -> str:
        kwargs = self._redis.get_connection_kwargs()
        return f"redis://{kwargs.get('host')}:{kwargs.get('port')}/{kwargs.get('db', 0)}"

    @property
    def server(self) -> Redis:
        """The server, to be asked about itself; rows are read and written by the methods below."""
        return self._redis

    @property
    def retention(self) -> timedelta:
        """How long rows are kept after their last change."""
        return self._retention

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    # ---- rows -------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[RedisInboxTurn]:
        # Optimistic, and nothing is held meanwhile: a connection that waits on a WATCH while a handler
        # works could be made anew without it. What was read is compared instead, in the short
        # transaction at the end.
        name = self._name(key)
        with _translated():
            found = self._redis.get(name)
        turn = RedisInboxTurn(None if found is None else _row(found))
        yield turn
        if turn.saved and turn.row is not None:
            self._write(name, found, turn.row, now)

    def _write(self, name: str, found: Any, row: InboxRow, now: datetime) -> None:
        value = json.dumps(_row_values(row))

        def write(pipe: Pipeline) -> None:
            if pipe.get(name) != found:
                raise LostRace(row.key)
            pipe.multi()
            pipe.set(name, value, px=self._retention)
            pipe.zadd(self._ages, {row.key: now.timestamp()})

        with _translated():
            # Not done may also mean that the answer to it was lost; then the row says so.
            if not self._done(write, name) and self._redis.get(name) != value:
                raise LostRace(row.key)

    def read_row(self, key: str) -> InboxRow | None:
        """The row of one operation."""
        with _translated():
            found: Any = self._redis.get(self._name(key))
        return None if found is None else _row(found)

    def forget(self, before: datetime, limit: int = 1000) -> int:
        # Redis deletes rows by itself; what it leaves behind is their place in the order of ages.
        moment = before.timestamp()
        forgotten: list[str] = []

        def delete(pipe: Pipeline) -> None:
            # Watched now: one that was written since it was found is not old any more.
            scores: Any = pipe.zmscore(self._ages, keys)
            forgotten[:] = [k for k, at in zip(keys, scores, strict=True) if at is not None and at < moment]
            pipe.multi()
            if forgotten:
                pipe.delete(*(self._name(key) for key in forgotten))
                pipe.zrem(self._ages, *forgotten)

        with _translated():
            while True:
                keys: Any = self._redis.zrange(
                    self._ages, "-inf", f"({moment!r}", byscore=True, offset=0, num=limit
                )
                if not keys:
                    return 0
                if self._done(delete, *(self._name(key) for key in keys)):
                    return len(forgotten)

    # ---- quarantine -------------------------------------------------------------------------------

    def quarantine(self, message: Quarantined) -> None:
        with _translated():
            number = int(self._redis.incr(f"{self._quarantine}:last"))
            self._redis.hset(self._quarantine, str(number), json.dumps(_aside_values(message.storable())))

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        with _translated():
            numbers: Any = self._redis.zrange(self._replays, 0, limit - 1)
            found: Any = self._redis.hmget(self._quarantine, numbers) if numbers else []
        asked = {n: _quarantined(n, value) for n, value in zip(numbers, found, strict=True) if value}
        sent = send(list(asked.values())) if asked else []
        troubles = dict(zip(asked, sent, strict=True))

        def end(pipe: Pipeline) -> None:
            now: Any = pipe.hmget(self._quarantine, numbers)
            pipe.multi()
            for number, value in zip(numbers, now, strict=True):
                trouble = troubles.get(number)
                if value is None or trouble is None:  # dropped by somebody, or sent
                    pipe.hdel(self._quarantine, number)
                else:
                    message = _quarantined(number, value)
                    if message.replay != asked[number].replay:
                        continue  # somebody has asked anew meanwhile
                    noted = message.not_sent(trouble)
                    pipe.hset(self._quarantine, number, json.dumps(_aside_values(noted)))
                pipe.zrem(self._replays, number)

        with _translated():
            while numbers and not self._done(end, self._quarantine):
                pass

    def read_quarantine(self, limit: int = 100, message_id: int | None = None) -> list[Quarantined]:
        """Messages set aside, newest first."""
        with _translated():
            if message_id is None:
                found: Any = self._redis.hgetall(self._quarantine)
            else:
                found = {message_id: self._redis.hget(self._quarantine, str(message_id))}
        messages = [_quarantined(number, value) for number, value in found.items() if value]
        return sorted(messages, key=lambda message: -message.id)[:limit]

    def ask_replay(self, message_id: int, by: str) -> bool:
        """Have a worker send the message again to its queue; whether there is such a message."""
        number = str(message_id)
        there = False

        def ask(pipe: Pipeline) -> None:
            nonlocal there
            found: Any = pipe.hget(self._quarantine, number)
            there = found is not None
            pipe.multi()
            if there:
                pipe.hset(self._quarantine, number, json.dumps(json.loads(found) | {"replay": by}))
                pipe.zadd(self._replays, {number: message_id})

        with _translated():
            while not self._done(ask, self._quarantine):
                pass
        return there

    def drop_quarantined(self, message_id: int) -> bool:
        """Delete the message for good; whether there was one."""
        with _translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(self._quarantine, str(message_id))
            pipe.zrem(self._replays, str(message_id))
            return bool(pipe.execute()[0])

    # ---- beats ------------------------------------------------------------------------------------

    def beat(self, beat: Beat) -> None:
        value = {
            "worker": beat.worker,
            "role": beat.role,
            "started_at": beat.started_at.isoformat(),
            "turned_at": beat.turned_at.isoformat(),
            "detail": beat.detail,
        }
        with _translated():
            self._redis.hset(self._beats, f"{beat.worker}|{beat.role}", json.dumps(value))
            if beat.turned_at - beat.started_at < YOUNG:  # a new process: a good moment to forget old ones
                old = [b for b in self.read_beats() if b.turned_at < beat.turned_at - FORGOTTEN]
                if old:
                    self._redis.hdel(self._beats, *(f"{b.worker}|{b.role}" for b in old))

    def read_beats(self) -> list[Beat]:
        """The last turns of every loop that ever beat, by worker."""
        with _translated():
            found: Any = self._redis.hgetall(self._beats)
        values = [json.loads(value) for _, value in sorted(found.items())]
        return [Beat(**(value | _moments(value, "started_at", "turned_at"))) for value in values]

    # ---- keys and transactions ----------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return f"{self._prefix}row:{key}"

    def _done(self, act: Callable[[Pipeline], None], *watched: str) -> bool:
        """Have `act` read and queue commands; whether they were done, nothing watched having changed."""
        from redis import WatchError

        with self._redis.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(*watched)  # type: ignore[no-untyped-call]
                act(pipe)
                pipe.execute()
            except WatchError:
                return False
            return True


@contextmanager
def _translated() -> Iterator[None]:
    """Raise `StoreUnavailable` for errors that a repetition may mend; others pass."""
    from redis import exceptions

    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise StoreUnavailable(str(error)) from error
    except (
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.ClusterDownError,
        exceptions.TryAgainError,
    ) as error:
        raise StoreUnavailable(str(error)) from error
    except exceptions.ResponseError as error:
        # A pipeline's error names its command first.
        if str(error).rpartition(" caused error: ")[2].startswith(_CANNOT_NOW):
            raise StoreUnavailable(str(error)) from error
        raise


def _moments(value: Mapping[str, Any], *names: str) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(value[name]) for name in names if value[name] is not None}


def _row_values(row: InboxRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "saga_id": row.saga_id,
        "task": row.task,
        "state": row.state.value,
        "attempt": row.attempt,
        "claim": row.claim,
        "lease_until": row.lease_until and row.lease_until.isoformat(),
        "reply": row.reply and row.reply.to_json(),
        "undo_attempt": row.undo_attempt,
        "undo_reply": row.undo_reply and row.undo_reply.to_json(),
    }


def _row(value: Any) -> InboxRow:
    row = json.loads(value)
    row |= _moments(row, "lease_until")
    row |= {name: Stored.from_json(row[name]) for name in ("reply", "undo_reply")}
    return InboxRow(**(row | {"state": RowState(row["state"])}))


def _aside_values(message: Quarantined) -> dict[str, Any]:
    return {
        "queue": message.queue,
        "task": message.task,
        "headers": dict(message.headers),
        "body": message.body,
        "reason": message.reason,
        "at": message.at.isoformat(),
        "path": message.path,
        "saga_id": message.saga_id,
        "properties": dict(message.properties),
        "replay": None,
    }


def _quarantined(number: Any, value: Any) -> Quarantined:
    found = json.loads(value)
    return Quarantined(**(found | _moments(found, "at") | {"id": int(number)}))
