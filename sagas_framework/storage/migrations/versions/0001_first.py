"""the tables of sagas, inboxes, acts, events, quarantine and workers"""

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

# Written out, not imported from the library: a migration stays what it was when it ran.
_json = JSON().with_variant(JSONB(), "postgresql")
_id = BigInteger().with_variant(Integer(), "sqlite")
_moment = DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "saga_instance",
        Column("id", String(36), primary_key=True),
        Column("saga", String(100), nullable=False),
        Column("version", Integer, nullable=False),
        Column("shape", String(16), nullable=False),
        Column("key", String(200), nullable=False),
        Column("status", String(16), nullable=False),
        Column("outcome", JSON, nullable=True),
        Column("outcome_kind", String(16), nullable=True),
        Column("state", JSON, nullable=False),
        Column("steps", JSON, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("started", Boolean, nullable=False),
        Column("digest", String(64), nullable=False),
        Column("created_at", _moment, nullable=False),
        Column("updated_at", _moment, nullable=False),
        Column("ended_at", _moment, nullable=True),
        Column("due_at", _moment, nullable=True),
        Column("wake_at", _moment, nullable=True),
        Column("cause", String(16), nullable=True),
        Column("waits_for", String(255), nullable=True),
        Column("waits_since", _moment, nullable=True),
        Column("stuck_for", String(255), nullable=True),
        Column("deadline", _moment, nullable=True),
        Column("late", Boolean, nullable=False),
        Column("trace", JSON, nullable=True),
        UniqueConstraint("key", "saga", name="saga_instance_key"),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "saga_instance_wakes", "saga_instance", ["wake_at"], postgresql_where=text("wake_at IS NOT NULL")
    )
    op.create_index("saga_instance_listed", "saga_instance", ["status", "id"], postgresql_include=["saga"])
    op.create_index(
        "saga_instance_outcome",
        "saga_instance",
        ["outcome_kind", "status", "id"],
        postgresql_include=["saga"],
        postgresql_where=text("outcome_kind <> 'ok'"),
        sqlite_where=text("outcome_kind <> 'ok'"),
    )
    op.create_index(
        "saga_instance_stuck",
        "saga_instance",
        ["stuck_for"],
        postgresql_where=text("status NOT IN ('completed', 'compensated')"),
        sqlite_where=text("status NOT IN ('completed', 'compensated')"),
    )
    op.create_table(
        "saga_declaration",
        Column("saga", String(100), primary_key=True),
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("shape", String(16), primary_key=True),
        Column("steps", _json, nullable=False),
        Column("state", String(16), nullable=False),
        Column("noted_at", _moment, nullable=False),
    )
    op.create_table(
        "saga_history",
        Column("seq", _id, primary_key=True, autoincrement=True),
        Column("saga_id", String(36), nullable=False),
        Column("revision", Integer, nullable=False),
        Column("at", _moment, nullable=False),
        Column("entry", String(150), nullable=False),
        Column("step", String(100), nullable=True),
        Column("detail", JSON, nullable=False),
    )
    op.create_index("saga_history_of", "saga_history", ["saga_id", "seq"])
    op.create_table(
        "saga_act",
        Column("id", _id, primary_key=True, autoincrement=True),
        Column("saga_id", String(36), nullable=False),
        Column("act", String(16), nullable=False),
        Column("by", String(100), nullable=False),
        Column("reason", Text, nullable=False),
        Column("revision", Integer, nullable=True),
        Column("step", String(100), nullable=True),
        Column("reply", _json, nullable=True),
        Column("force", Boolean, nullable=False),
        Column("until", _moment, nullable=True),
        Column("created_at", _moment, nullable=False),
        Column("handled_at", _moment, nullable=True),
        Column("refused", Boolean, nullable=False),
        Column("answer", Text, nullable=True),
    )
    op.create_index("saga_act_open", "saga_act", ["id"], postgresql_where=text("handled_at IS NULL"))
    op.create_index("saga_act_of", "saga_act", ["saga_id", "id"])
    op.create_table(
        "saga_signal",
        Column("id", _id, primary_key=True, autoincrement=True),
        Column("saga", String(100), nullable=False),
        Column("key", String(200), nullable=False),
        Column("said_id", String(100), nullable=False),
        Column("signal", String(100), nullable=False),
        Column("payload", _json, nullable=False),
        Column("by", String(100), nullable=False),
        Column("reason", Text, nullable=False),
        Column("said_at", _moment, nullable=False),
        Column("look_at", _moment, nullable=True),
        Column("became", String(16), nullable=False),
        Column("handled_at", _moment, nullable=True),
        Column("answer", Text, nullable=True),
        Column("trace", JSON, nullable=True),
        UniqueConstraint("key", "saga", "said_id", name="saga_signal_said"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "saga_signal_look", "saga_signal", ["look_at"], postgresql_where=text("look_at IS NOT NULL")
    )
    op.create_index("saga_signal_age", "saga_signal", ["said_at"])
    op.create_table(
        "saga_inbox",
        Column("key", String(64), primary_key=True),
        Column("saga_id", String(64), nullable=False),
        Column("task", String(200), nullable=False),
        Column("state", String(16), nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("claim", String(36), nullable=True),
        Column("lease_until", _moment, nullable=True),
        Column("reply", _json, nullable=True),
        Column("undo_attempt", Integer, nullable=False),
        Column("undo_reply", _json, nullable=True),
        Column("updated_at", _moment, nullable=False),
    )
    op.create_index("saga_inbox_age", "saga_inbox", ["updated_at"])
    op.create_table(
        "saga_quarantine",
        Column("id", _id, primary_key=True, autoincrement=True),
        Column("at", _moment, nullable=False),
        Column("queue", String(255), nullable=False),
        Column("task", String(255), nullable=False),
        Column("saga_id", String(64), nullable=True),
        Column("headers", _json, nullable=False),
        Column("properties", _json, nullable=False),
        Column("body", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("path", String(255), nullable=False),
        Column("replay", String(100), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "saga_outbox",
        Column("number", _id, primary_key=True, autoincrement=True),
        Column("event_id", String(36), nullable=False),
        Column("topic", String(200), nullable=False),
        Column("body", Text, nullable=False),
        Column("at", _moment, nullable=False),
        Column("sent_at", _moment, nullable=True),
        Column("trace", JSON, nullable=True),
        sqlite_autoincrement=True,
    )
    _partial_index("saga_outbox_unsent", "saga_outbox", ["number"], "sent_at IS NULL")
    _partial_index("saga_outbox_sent", "saga_outbox", ["sent_at"], "sent_at IS NOT NULL")
    op.create_table(
        "saga_event",
        Column("event_id", String(64), primary_key=True),
        Column("subscriber", String(100), primary_key=True),
        Column("topic", String(200), nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("at", _moment, nullable=False),
        Column("body", Text, nullable=True),
        Column("state", String(16), nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("due_at", _moment, nullable=True),
        Column("reason", Text, nullable=True),
        Column("received_at", _moment, nullable=False),
        Column("updated_at", _moment, nullable=False),
        Column("trace", JSON, nullable=True),
    )
    _partial_index("saga_event_due", "saga_event", ["subscriber", "due_at", "number"], "due_at IS NOT NULL")
    _partial_index("saga_event_parked", "saga_event", ["updated_at"], "state = 'parked'")
    _partial_index("saga_event_over", "saga_event", ["updated_at"], "state IN ('done', 'dropped')")
    op.create_table(
        "saga_queue",
        Column("queue", String(255), primary_key=True),
        Column("seen_at", _moment, nullable=False),
        Column("messages", Integer, nullable=False),
        Column("consumers", Integer, nullable=True),
        Column("unattended_since", _moment, nullable=True),
    )
    op.create_table(
        "saga_worker",
        Column("worker", String(255), primary_key=True),
        Column("role", String(20), primary_key=True),
        Column("started_at", _moment, nullable=False),
        Column("turned_at", _moment, nullable=False),
        Column("detail", Text, nullable=False),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=text(where), sqlite_where=text(where))


def downgrade() -> None:
    gone = ("worker", "queue", "event", "outbox", "quarantine", "inbox", "signal", "act", "history")
    for table in (*gone, "declaration", "instance"):
        op.drop_table(f"saga_{table}")
