"""shipments and maintenance mode"""

import sqlalchemy as sa
from alembic import op

from app_common.columns import Moment

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "shipments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("operation_key", sa.String(36), nullable=False, unique=True),
        sa.Column("order_id", sa.String(100), nullable=False),
        sa.Column("customer", sa.String(200), nullable=False),
        sa.Column("items", sa.JSON, nullable=False),
        sa.Column("status", sa.String(30), nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    maintenance = op.create_table(
        "maintenance",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("by", sa.String(200), nullable=True),
        sa.Column("at", Moment, nullable=True),
        sa.CheckConstraint("id = 1", name="one_maintenance"),
    )
    op.bulk_insert(maintenance, [{"id": 1, "active": False, "by": None, "at": None}])


def downgrade() -> None:
    op.drop_table("maintenance")
    op.drop_table("shipments")
