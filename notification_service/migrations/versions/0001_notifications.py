"""notifications"""

import sqlalchemy as sa
from alembic import op

from app_common.columns import Moment

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("event_id", sa.String(64), nullable=False, unique=True),
        sa.Column("audience", sa.String(30), nullable=False),
        sa.Column("order_id", sa.String(100)),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    op.create_index("notifications_newest", "notifications", ["at", "id"])
    op.create_index("notifications_of_order", "notifications", ["order_id", "at", "id"])
    op.create_index("notifications_for", "notifications", ["audience", "at", "id"])


def downgrade() -> None:
    op.drop_table("notifications")
