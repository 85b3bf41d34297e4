"""Checks of what only some connectors can do, one or two for each ability."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    TextClause,
    insert,
    select,
    text,
    update,
)

from moorage.abilities import (
    BindsIdentities,
    ExaminesServer,
    LintsMigrations,
    LocksMigrations,
    ManagesStorage,
    ShapesMigrations,
    SuspendsForeignKeys,
    TellsWrites,
)
from moorage.database import Database
from moorage.errors import DatabaseError, IdentityError
from moorage.identity import ADMIN, Identity
from moorage.registry import get_connector
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Item, Owner, make_tables, names
from moorage.testing.check import check

__all__ = ["AbilityChecks"]


class AbilityChecks:
    """A connector has an ability by having its methods; then they must do what they say."""

    identity: ClassVar[Identity | None]
    identity_query: ClassVar[str]

    @check(
        "create_database and drop_database; may the user of the tests create databases?",
        ability=ManagesStorage,
    )
    async def test_databases_come_and_go(self, settings: DatabaseSettings) -> None:
        """A database is created once, can be used, and is dropped, whether it is there or not."""
        named = settings.replaced("the suite", name=f"{settings.name}_new")
        storage = _storage(named)
        await storage.drop_database()
        try:
            assert not await storage.database_exists()
            await storage.create_database()
            assert await storage.database_exists()
            with pytest.raises(DatabaseError):
                await storage.create_database()
            async with Database(named) as database:
                await make_tables(database, "ada")
                assert await names(database) == ["ada"]
            await storage.drop_database()
            assert not await storage.database_exists()
        finally:
            await storage.drop_database()

    @check("create_database(template=…)", capability="template_databases", ability=ManagesStorage)
    async def test_databases_are_copied(self, settings: DatabaseSettings) -> None:
        """A copy of a database has its tables and rows, and is a database of its own."""
        original = settings.replaced("the suite", name=f"{settings.name}_template")
        copied = settings.replaced("the suite", name=f"{settings.name}_copy")
        await _storage(original).drop_database()
        await _storage(copied).drop_database()
        try:
            await _storage(original).create_database()
            async with Database(original) as database:
                await make_tables(database, "ada")
            await _storage(copied).create_database(template=original.name)
            async with Database(copied) as database:
                assert await names(database) == ["ada"]
                await make_tables(database, "eve")
            async with Database(original) as database:
                assert await names(database) == ["ada"]
        finally:
            await _storage(copied).drop_database()
            await _storage(original).drop_database()

    @check(
        "try_lock_migrations: the lock belongs to a connection, and ends with it",
        ability=LocksMigrations,
    )
    async def test_one_at_a_time_migrates(self, database: Database) -> None:
        """One connection has the lock for migrations, until it unlocks or is closed."""
        connector = database.connector
        assert isinstance(connector, LocksMigrations)
        async with database.engine.connect() as first, database.engine.connect() as second:
            assert await connector.try_lock_migrations(first)
            assert not first.in_transaction()
            assert not await connector.try_lock_migrations(second)
            async with first.begin():
                await first.execute(select(1))
            assert not await connector.try_lock_migrations(second), "it ended with a transaction"
            await connector.unlock_migrations(first)
            assert await connector.try_lock_migrations(second)
            await second.invalidate()
            while not await connector.try_lock_migrations(first):  # the server has to notice
                await asyncio.sleep(0.01)
            await connector.unlock_migrations(first)

    @check(
        "suspend_foreign_keys, find_orphans and restore_foreign_keys: are they on again?",
        ability=SuspendsForeignKeys,
    )
    async def test_foreign_keys_are_suspended_for_a_while(self, database: Database) -> None:
        """Suspended foreign keys refuse nothing, orphans are found, and restored ones refuse."""
        connector = database.connector
        assert isinstance(connector, SuspendsForeignKeys)
        orphan = insert(Item).values(id=1, owner_id=99)
        async with database.engine.connect() as connection:
            await connector.suspend_foreign_keys(connection)
            assert not connection.in_transaction()
            await connection.execute(orphan)
            assert len(await connection.run_sync(connector.find_orphans)) == 1
            await connection.rollback()
            assert list(await connection.run_sync(connector.find_orphans)) == []
            await connection.rollback()
            await connector.restore_foreign_keys(connection)
            assert not connection.in_transaction()
            with pytest.raises(DatabaseError):
                await connection.execute(orphan)

    @check("has_written: it must see what was written, and only that", ability=TellsWrites)
    async def test_writes_are_told(self, database: Database) -> None:
        """Whether a transaction has written is known, however the statement was sent."""
        connector = database.connector
        assert isinstance(connector, TellsWrites)
        async with database.engine.connect() as connection:
            await connection.execute(select(Owner.name))
            assert not await connector.has_written(connection)
            await connection.execute(update(Owner).values(balance=1))
            assert await connector.has_written(connection)

    @check(
        "bind_identity: what is told must end with the transaction, however that ends",
        ability=BindsIdentities,
    )
    async def test_an_identity_ends_with_its_transaction(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """Each transaction of a session works for its identity, and nobody's next one does."""
        identity, role = self._told()
        one_connection = settings.model_copy(update={"pool_size": 1, "max_overflow": 0})
        async with Database(one_connection) as other:
            connector = other.connector
            assert isinstance(connector, BindsIdentities)
            nobody = ADMIN if connector.requires_identity() else None
            async with other.session(identity=nobody) as session:
                usual = await session.scalar(role)
            assert usual != identity.role, "the suite's identity is the user of the settings"
            async with other.session(identity=identity) as session:
                for _ in range(2):
                    assert await session.scalar(role) == identity.role
                    await session.commit()
            async with other.session(identity=nobody) as session:
                assert await session.scalar(role) == usual
            with pytest.raises(LookupError):
                async with other.unit_of_work(identity=identity) as session:
                    assert await session.scalar(role) == identity.role
                    raise LookupError
            async with other.session(identity=nobody) as session:
                assert await session.scalar(role) == usual

    @check(
        "check_identity, and bind_identity where there is no transaction: IdentityError",
        ability=BindsIdentities,
    )
    async def test_an_identity_that_cannot_be_bound_is_refused(self, database: Database) -> None:
        """A role that the settings do not allow is refused, and so is a session in autocommit."""
        identity, role = self._told()
        with pytest.raises(IdentityError):
            database.session(identity=Identity("moorage_nobody"))
        async with database.session(identity=identity) as session:
            with pytest.raises(IdentityError):
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        async with database.session(identity=identity) as session:
            assert await session.scalar(role) == identity.role

    @check(
        "lint_migrations: a dropped table is a danger, and what is found has a name and a safe way",
        ability=LintsMigrations,
    )
    async def test_dangerous_migrations_are_found(self, settings: DatabaseSettings) -> None:
        """Of two scripts the one that drops a table is dangerous, which needs no connection."""
        connector = get_connector(settings)
        assert isinstance(connector, LintsMigrations)
        scripts = {"looks": "SELECT 1;\n", "drops": "DROP TABLE boats;\n"}
        found = await asyncio.to_thread(connector.lint_migrations, scripts)
        assert {one.script for one in found if one.is_dangerous} == {"drops"}
        for one in found:
            assert one.rule, one
            assert one.problem, one
            assert one.safe_way, one

    @check(
        "get_migration_options: may migrations see all tables of the user's, and do without a"
        " connection?",
        ability=ShapesMigrations,
    )
    async def test_migrations_see_the_users_tables(self, database: Database) -> None:
        """Autogenerate finds a table that came and one that went; SQL is written unconnected."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from moorage.migrations.shaping import shaped

        connector = database.connector
        assert isinstance(connector, ShapesMigrations)
        models = MetaData()
        Owner.metadata.tables[Owner.__tablename__].to_metadata(models)
        Table("moorage_new", models, Column("id", Integer, primary_key=True))

        def look(connection: Connection) -> set[tuple[str, str]]:
            options = {"target_metadata": models, **shaped({}, connector, connection)}
            context = MigrationContext.configure(connection, opts=options)
            found = [one for one in compare_metadata(context, models) if isinstance(one, tuple)]
            tables = {(one[0], one[1].name) for one in found if one[0].endswith("_table")}
            return {one for one in tables if one[1].startswith("moorage_")}

        async with database.engine.connect() as connection:
            came, went = ("add_table", "moorage_new"), ("remove_table", Item.__tablename__)
            assert await connection.run_sync(look) == {came, went}
        connector.get_migration_options({}, None)  # as where SQL is only written

    @check(
        "examine_server: what it tells, and that it gives each connection back",
        ability=ExaminesServer,
    )
    async def test_the_server_is_examined(self, database: Database) -> None:
        """What a server is, is told without the password, and no connection is kept."""
        connector = database.connector
        assert isinstance(connector, ExaminesServer)
        facts = await connector.examine_server(database.engine)
        assert facts.product
        assert facts.release >= facts.oldest_release
        assert facts.connection_limit is None or facts.limited_by
        for fault in facts.faults:
            # One of `moorage doctor`'s own codes brings these along.
            assert re.fullmatch(r"C\d{3}", fault.code) or (fault.why and fault.fix)
        password = connector.settings.password
        secret = "" if password is None else password.get_secret_value()
        assert not secret or secret not in repr(facts), "what it tells is printed"
        assert database.pool_statistics().in_use == 0

    def _told(self) -> tuple[Identity, TextClause]:
        if self.identity is None or not self.identity_query:
            pytest.fail(
                "the connector binds identities: give the suite `identity`, whose role the settings"
                " allow, and `identity_query`, SQL that returns the role of the transaction"
            )
        return self.identity, text(self.identity_query)


def _storage(settings: DatabaseSettings) -> ManagesStorage:
    connector = get_connector(settings)
    assert isinstance(connector, ManagesStorage)
    return connector
