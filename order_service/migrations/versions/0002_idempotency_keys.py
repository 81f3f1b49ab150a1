"""idempotency keys of orders"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Both may be empty, so that a release that does not know them can still take orders.
    op.add_column("orders", sa.Column("idempotency_key", sa.String(200), nullable=True))
    op.add_column("orders", sa.Column("request_digest", sa.String(64), nullable=True))
    # An index, not a constraint: SQLite adds no constraint to a table that is there.
    op.create_index("orders_idempotency_key", "orders", ["idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_index("orders_idempotency_key", "orders")
    op.drop_column("orders", "request_digest")
    op.drop_column("orders", "idempotency_key")
