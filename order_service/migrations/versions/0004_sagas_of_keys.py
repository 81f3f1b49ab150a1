"""the saga that an idempotency key started, for when it has gone to the archive"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_KEYS = {
    "orders": ("create_order", "'order-' || orders.id"),
    "processing_orders": ("process_order", "processing_orders.id"),
}


def upgrade() -> None:
    for table, (saga, key) in _KEYS.items():
        # May be empty, so that a release that does not know it can still take orders.
        op.add_column(table, sa.Column("saga_id", sa.String(36), nullable=True))
        its = f"SELECT id FROM saga_instance WHERE saga = '{saga}' AND key = {key}"
        op.execute(f"UPDATE {table} SET saga_id = ({its}) WHERE idempotency_key IS NOT NULL")


def downgrade() -> None:
    for table in _KEYS:
        op.drop_column(table, "saga_id")
