"""What the kit keeps apart, and a connection that is shared without it does not."""

from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from moorage import Database

items = Table("items", MetaData(), Column("id", Integer, primary_key=True))


async def test_savepoints_of_two_sessions_undo_each_other(database: Database) -> None:
    """Negative control: of two sessions with open savepoints, one loses what it committed."""
    async with database.engine.begin() as connection:
        await connection.run_sync(items.create)
    async with database.engine.connect() as connection:
        outer = await connection.begin()
        mode = {"bind": connection, "join_transaction_mode": "create_savepoint"}
        first, second = AsyncSession(**mode), AsyncSession(**mode)
        await first.execute(insert(items).values(id=1))
        await second.execute(insert(items).values(id=2))
        try:
            await first.rollback()  # also undoes the savepoint of the second, which is inside
            await second.commit()
            left = (await connection.execute(select(items.c.id))).scalars().all()
        except Exception:  # noqa: BLE001 (some backends say that the savepoint is gone)
            left = []
        assert 2 not in left
        await outer.rollback()
