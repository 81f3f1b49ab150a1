"""authorizations"""

import sqlalchemy as sa
from alembic import op

from app_common.money import Money

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "authorizations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("operation_key", sa.String(36), nullable=False, unique=True),
        sa.Column("card_id", sa.Integer, nullable=False),
        sa.Column("amount", Money, nullable=False),
        sa.Column("status", sa.String(30), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("authorizations")
