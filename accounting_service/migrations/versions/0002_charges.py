"""charges, refunds, and the provider's payments"""

import sqlalchemy as sa
from alembic import op

from app_common.columns import Moment
from app_common.money import Money

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "charges",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("operation_key", sa.String(36), nullable=False, unique=True),
        sa.Column("order_id", sa.String(100), nullable=False, index=True),
        sa.Column("customer", sa.String(200), nullable=False),
        sa.Column("amount", Money, nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    op.create_table(
        "refunds",
        sa.Column(
            "charge_id", sa.Integer, sa.ForeignKey("charges.id"), primary_key=True, autoincrement=False
        ),
        sa.Column("amount", Money, nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    op.create_table(
        "provider_payments",
        sa.Column("idempotency_key", sa.String(64), primary_key=True),
        sa.Column("customer", sa.String(200), nullable=False),
        sa.Column("amount", Money, nullable=False),
        sa.Column("refunded", Money, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("provider_payments")
    op.drop_table("refunds")
    op.drop_table("charges")
