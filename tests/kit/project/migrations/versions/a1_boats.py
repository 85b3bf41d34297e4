"""boats"""

import sqlalchemy as sa
from alembic import op

import moorage.models

revision = "a1"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "boats",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_boats")),
        sa.UniqueConstraint("name", name=op.f("uq_boats_name")),
    )
    op.create_table(
        "trips",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("boat_id", sa.BigInteger(), nullable=False),
        sa.Column("left_at", moorage.models.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["boat_id"], ["boats.id"], name=op.f("fk_trips_boat_id_boats")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trips")),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("trips")
    op.drop_table("boats")
