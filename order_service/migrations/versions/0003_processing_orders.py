"""orders of items from the stock"""

import sqlalchemy as sa
from alembic import op

from app_common.columns import Moment
from app_common.money import Money

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "processing_orders",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("customer", sa.String(200), nullable=False),
        sa.Column("items", sa.JSON, nullable=False),
        sa.Column("total", Money, nullable=False),
        sa.Column("taken_at", Moment, nullable=False),
        sa.Column("idempotency_key", sa.String(200), nullable=True),
        sa.Column("request_digest", sa.String(64), nullable=True),
    )
    op.create_index(
        "processing_orders_idempotency_key", "processing_orders", ["idempotency_key"], unique=True
    )


def downgrade() -> None:
    op.drop_index("processing_orders_idempotency_key", "processing_orders")
    op.drop_table("processing_orders")
