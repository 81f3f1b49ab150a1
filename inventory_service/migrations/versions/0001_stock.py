"""stock and reservations"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

FIRST = ("milk", "bread", "apples", "oranges", "iPhone")


def upgrade() -> None:
    stock = op.create_table(
        "stock",
        sa.Column("item", sa.String(200), primary_key=True),
        sa.Column("available", sa.Integer, nullable=False),
        sa.Column("received", sa.Integer, nullable=False),
        sa.CheckConstraint("available >= 0", name="stock_never_negative"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("operation_key", sa.String(36), nullable=False, unique=True),
        sa.Column("order_id", sa.String(100), nullable=False),
        sa.Column("status", sa.String(30), nullable=False),
    )
    op.create_table(
        "reservation_lines",
        sa.Column("reservation_id", sa.Integer, sa.ForeignKey("reservations.id"), primary_key=True),
        sa.Column("item", sa.String(200), sa.ForeignKey("stock.item"), primary_key=True),
        sa.Column("quantity", sa.Integer, nullable=False),
    )
    # The catalogue that the platform opens with.
    op.bulk_insert(stock, [{"item": item, "available": 10, "received": 10} for item in FIRST])


def downgrade() -> None:
    op.drop_table("reservation_lines")
    op.drop_table("reservations")
    op.drop_table("stock")
