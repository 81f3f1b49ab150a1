"""The tables, alike in every service's database. Migrations make them; queries are written with these."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. SQLite has no time zones: there it is kept as UTC without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (
            value if dialect.name == "postgresql" else value.astimezone(UTC).replace(tzinfo=None)
        )

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# none_as_null: a missing value is SQL's NULL, never the JSON text "null".
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# Read and written whole, by every turn: PostgreSQL's JSON is kept as the text that came, its JSONB is taken
# apart and put together again.
JsonText = JSON(none_as_null=True)
BigId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers only INTEGER keys by itself

IS_OPEN = text("status NOT IN ('completed', 'compensated')")
"""A condition on `saga_instance`, in the words of its index."""

saga_instance = Table(
    "saga_instance",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("saga", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("shape", String(16), nullable=False),
    Column("key", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("outcome", JsonText, nullable=True),
    Column("outcome_kind", String(16), nullable=True),  # of `outcome`, to be looked for
    Column("state", JsonText, nullable=False),
    Column("steps", JsonText, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("started", Boolean, nullable=False),
    Column("digest", String(64), nullable=False),  # of the state it was started with
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("due_at", UtcDateTime, nullable=True),
    # When the timekeeper looks: never after `due_at`, often before. It is moved seldom, because it is
    # indexed: PostgreSQL leaves all indexes alone only if no indexed column changes.
    Column("wake_at", UtcDateTime, nullable=True),
    Column("cause", String(16), nullable=True),  # what it waits for: see `Waiting`
    Column("waits_for", String(255), nullable=True),
    Column("waits_since", UtcDateTime, nullable=True),
    # The same as `waits_for`, but empty for what began a moment ago; for the same reason.
    Column("stuck_for", String(255), nullable=True),
    Column("deadline", UtcDateTime, nullable=True),
    Column("late", Boolean, nullable=False),
    Column("trace", JsonText, nullable=True),  # the context of its start: W3C's traceparent and tracestate
    UniqueConstraint("key", "saga", name="saga_instance_key"),  # a key is looked for without its saga, too
    Index("saga_instance_wakes", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    # Ids grow with time: pages are read in this order. Counts by saga need nothing but the index.
    Index("saga_instance_listed", "status", "id", postgresql_include=["saga"]),
    # Only of those that turned back: whoever completes pays nothing for it.
    Index(
        "saga_instance_outcome",
        "outcome_kind",
        "status",
        "id",
        postgresql_include=["saga"],
        postgresql_where=text("outcome_kind <> 'ok'"),
        sqlite_where=text("outcome_kind <> 'ok'"),
    ),
    Index("saga_instance_stuck", "stuck_for", postgresql_where=IS_OPEN, sqlite_where=IS_OPEN),
    postgresql_with={"fillfactor": 70},  # room for the next version of a row on its page
)

saga_declaration = Table(
    "saga_declaration",  # what an orchestrator was declared with, for when its class is gone
    metadata,
    Column("saga", String(100), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("shape", String(16), primary_key=True),
    Column("steps", Json, nullable=False),
    Column("state", String(16), nullable=False),  # hash over the state's fields
    Column("noted_at", UtcDateTime, nullable=False),
)

saga_history = Table(
    "saga_history",
    metadata,
    Column("seq", BigId, primary_key=True, autoincrement=True),
    Column("saga_id", String(36), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("entry", String(150), nullable=False),
    Column("step", String(100), nullable=True),
    Column("detail", JsonText, nullable=False),
    Index("saga_history_of", "saga_id", "seq"),
)

saga_act = Table(
    "saga_act",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("saga_id", String(36), nullable=False),
    Column("act", String(16), nullable=False),
    Column("by", String(100), nullable=False),
    Column("reason", Text, nullable=False),
    Column("revision", Integer, nullable=True),
    Column("step", String(100), nullable=True),
    Column("reply", Json, nullable=True),
    Column("force", Boolean, nullable=False),
    Column("until", UtcDateTime, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("handled_at", UtcDateTime, nullable=True),
    Column("refused", Boolean, nullable=False),
    Column("answer", Text, nullable=True),
    Index("saga_act_open", "id", postgresql_where=text("handled_at IS NULL")),
    Index("saga_act_of", "saga_id", "id"),
)

saga_signal = Table(
    "saga_signal",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("saga", String(100), nullable=False),
    Column("key", String(200), nullable=False),
    Column("said_id", String(100), nullable=False),  # the sender's: what comes again is the same signal
    Column("signal", String(100), nullable=False),
    Column("payload", Json, nullable=False),
    Column("by", String(100), nullable=False),
    Column("reason", Text, nullable=False),
    Column("said_at", UtcDateTime, nullable=False),
    Column("look_at", UtcDateTime, nullable=True),  # None: it was looked at, and is kept or answered
    Column("became", String(16), nullable=False),
    Column("handled_at", UtcDateTime, nullable=True),
    Column("answer", Text, nullable=True),
    Column("trace", JsonText, nullable=True),
    # Of one saga and key they are read along it, too: they are few.
    UniqueConstraint("key", "saga", "said_id", name="saga_signal_said"),
    Index("saga_signal_look", "look_at", postgresql_where=text("look_at IS NOT NULL")),
    Index("saga_signal_age", "said_at"),
    sqlite_autoincrement=True,  # a number is never given again: its sender may still ask for the answer
)

saga_inbox = Table(
    "saga_inbox",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("saga_id", String(64), nullable=False),
    Column("task", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("claim", String(36), nullable=True),
    Column("lease_until", UtcDateTime, nullable=True),
    Column("reply", Json, nullable=True),
    Column("undo_attempt", Integer, nullable=False),
    Column("undo_reply", Json, nullable=True),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("saga_inbox_age", "updated_at"),
)

saga_quarantine = Table(
    "saga_quarantine",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("queue", String(255), nullable=False),
    Column("task", String(255), nullable=False),
    Column("saga_id", String(64), nullable=True),
    Column("headers", Json, nullable=False),
    Column("properties", Json, nullable=False),
    Column("body", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("path", String(255), nullable=False),
    Column("replay", String(100), nullable=True),
    sqlite_autoincrement=True,  # a number is never given again: a person may still have it on screen
)

saga_outbox = Table(
    "saga_outbox",  # events, written with what they tell of, on their way to the broker and a while after
    metadata,
    Column("number", BigId, primary_key=True, autoincrement=True),
    Column("event_id", String(36), nullable=False),
    Column("topic", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime, nullable=True),
    Column("trace", JsonText, nullable=True),
    Index(
        "saga_outbox_unsent",
        "number",
        postgresql_where=text("sent_at IS NULL"),
        sqlite_where=text("sent_at IS NULL"),
    ),
    Index(
        "saga_outbox_sent",
        "sent_at",
        postgresql_where=text("sent_at IS NOT NULL"),
        sqlite_where=text("sent_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,  # a number is never given again: subscribers compare them
)

saga_event = Table(
    "saga_event",  # a subscriber's inbox: a row for each event and each of its subscribers here
    metadata,
    Column("event_id", String(64), primary_key=True),
    Column("subscriber", String(100), primary_key=True),
    Column("topic", String(200), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("body", Text, nullable=True),  # not of what is done
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=True),
    Column("reason", Text, nullable=True),
    Column("received_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("trace", JsonText, nullable=True),
    Index(
        "saga_event_due",
        "subscriber",
        "due_at",
        "number",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "saga_event_parked",
        "updated_at",
        postgresql_where=text("state = 'parked'"),
        sqlite_where=text("state = 'parked'"),
    ),
    Index(
        "saga_event_over",
        "updated_at",
        postgresql_where=text("state IN ('done', 'dropped')"),
        sqlite_where=text("state IN ('done', 'dropped')"),
    ),
)

saga_queue = Table(
    "saga_queue",
    metadata,
    Column("queue", String(255), primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("messages", Integer, nullable=False),
    Column("consumers", Integer, nullable=True),
    Column("unattended_since", UtcDateTime, nullable=True),
)

saga_worker = Table(
    "saga_worker",
    metadata,
    Column("worker", String(255), primary_key=True),
    Column("role", String(20), primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("turned_at", UtcDateTime, nullable=False),
    Column("detail", Text, nullable=False),
)
