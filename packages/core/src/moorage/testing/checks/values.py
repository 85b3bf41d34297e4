"""Checks of what goes in and comes out: values of each type, and rows in streams."""

from __future__ import annotations

import uuid
from datetime import UTC

import pytest
from sqlalchemy import Column, MetaData, Table, insert, select, text

from moorage.bulk import bulk_insert
from moorage.connector import OnConflict
from moorage.database import Database
from moorage.errors import DatabaseError
from moorage.testing._tables import VALUES, Owner, has_owner, owners
from moorage.testing.check import check

__all__ = ["ValueChecks"]


class ValueChecks:
    """Values that are easily spoilt, and many rows."""

    @check("the dialect's types, and the session's time zone and character set")
    @pytest.mark.parametrize("kind", VALUES)
    async def test_values_come_back_as_they_went(self, database: Database, kind: str) -> None:
        """A value that is stored is read back equal, by another connection."""
        type_, value = VALUES[kind]
        table = Table("moorage_value", MetaData(), Column("value", type_))
        async with database.engine.begin() as connection:
            await connection.run_sync(lambda below: table.drop(below, checkfirst=True))
            await connection.run_sync(table.create)
        try:
            async with database.unit_of_work() as session:
                await session.execute(insert(table).values(value=value))
            async with database.session() as session:
                found = (await session.execute(select(table.c.value))).scalar_one()
        finally:
            async with database.engine.begin() as connection:
                await connection.run_sync(table.drop)
        assert isinstance(found, type(value))
        if kind.startswith("aware") and found.tzinfo is None:
            # The column type forgets zones; what it keeps is the clock of that zone, or of UTC.
            found = found.replace(
                tzinfo=value.tzinfo if found == value.replace(tzinfo=None) else UTC
            )
        assert found == value  # of aware datetimes: the same moment

    @check("can_load and load_rows: the outcome has to be that of INSERT, errors included")
    async def test_many_rows_arrive_whole(self, database: Database) -> None:
        """A bulk insert stores each row that it is given, and none where one is refused."""
        rows = [{"id": n, "name": f"n{n}", "balance": n} for n in range(10, 510)]
        async with database.unit_of_work() as session:
            await bulk_insert(session, Owner, rows, chunk_rows=200)
        async with database.session() as session:
            stored = await session.execute(
                select(Owner.id, Owner.name, Owner.balance).where(Owner.id >= 10).order_by(Owner.id)
            )
            assert [row._asdict() for row in stored] == rows
        again = [{"id": 3, "name": "eve", "balance": 0}, rows[0]]
        with pytest.raises(DatabaseError):
            async with database.unit_of_work() as session:
                await bulk_insert(session, Owner, again)
        assert not await has_owner(database, 3)

    @check(
        "insert_on_conflict: it has to update by, or skip, the rows whose key is there",
        hook="insert_on_conflict",
    )
    async def test_rows_that_are_there_are_updated_or_skipped(self, database: Database) -> None:
        """A bulk insert overwrites a row that is there, or leaves it alone, as it was told."""
        rows = [{"id": 1, "name": "ada", "balance": 7}, {"id": 3, "name": "eve", "balance": 8}]
        expected: dict[OnConflict, int] = {"skip": 0, "update": 7}
        for on_conflict, balance in expected.items():
            async with database.unit_of_work() as session:
                await bulk_insert(session, Owner, rows, on_conflict=on_conflict)
            async with database.session() as session:
                found = {owner.id: owner.balance for owner in await owners(session)}
            assert found == {1: balance, 2: 0, 3: 8}

    @check("get_uuid7_function: empty where the server has no UUIDv7", hook="get_uuid7_function")
    async def test_keys_of_the_server_are_uuid7(self, database: Database) -> None:
        """Where the server is said to make UUIDv7, it does, and another one each time."""
        function = database.connector.get_uuid7_function(database.engine.dialect)
        if function:
            async with database.session() as session:
                keys = [await session.scalar(text(f"SELECT {function}")) for _ in range(2)]
            assert [uuid.UUID(str(key)).version for key in keys] == [7, 7]
            assert keys[0] != keys[1]

    @check("server-side cursors of the driver (execution option stream_results)")
    async def test_rows_are_streamed(self, database: Database) -> None:
        """Rows that are read a few at a time come in order, and a stream may be left half-way."""
        async with database.unit_of_work() as session:
            rows = [{"id": n, "name": f"n{n}", "balance": n} for n in range(10, 510)]
            await session.execute(insert(Owner), rows)
        statement = select(Owner.balance).where(Owner.id >= 10).order_by(Owner.id)
        for limit in (500, 20):
            seen = []
            async with database.unit_of_work() as session:
                stream = await session.stream_scalars(statement.execution_options(yield_per=50))
                async for balance in stream:
                    seen.append(balance)
                    if len(seen) == limit:
                        break
            assert seen == list(range(10, 10 + limit))
