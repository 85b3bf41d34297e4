"""What is in a project's database beside the user's own tables is left alone."""

import logging
import secrets
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from moorage import Database, migrations
from tests.policies.harbour import Harbour
from tests.policies.revisions import Revision, models, supabase_options, within

OWNED = """
class Boat(UUIDKey, Base):
    __tablename__ = "boats"
    owner: Mapped[uuid.UUID] = mapped_column(ForeignKey(auth_users.c.id, ondelete="CASCADE"))
"""
# As most projects write it: the users of Supabase among the tables of one's own.
DECLARED = """
from sqlalchemy import Column, Uuid

Table("users", Base.metadata, Column("id", Uuid, primary_key=True), schema="auth")


class Boat(UUIDKey, Base):
    __tablename__ = "boats"
    owner: Mapped[uuid.UUID] = mapped_column(ForeignKey("auth.users.id", ondelete="CASCADE"))
"""


def users(connection: Connection) -> list[Any]:
    """Return the columns of Supabase's table of users."""
    return list(
        connection.execute(
            text(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = 'auth' AND table_name = 'users' ORDER BY 1"
            )
        )
    )


@pytest.mark.parametrize("code", [OWNED, DECLARED], ids=["auth_users", "in the catalogue"])
@pytest.mark.parametrize("include_schemas", [False, True])
async def test_a_foreign_key_to_the_users(
    project: Database, code: str, include_schemas: bool
) -> None:
    """A foreign key to `auth.users` is made, found again, and touches nothing in `auth`."""

    def work(connection: Connection) -> None:
        connection.execute(text("CREATE SCHEMA storage"))
        connection.execute(text("CREATE TABLE storage.objects (id uuid PRIMARY KEY)"))
        before = users(connection)
        options = supabase_options(connection, include_schemas=include_schemas)
        revision = Revision(connection, models(code), options)
        assert revision.differences == ["table boats: in the models only"]
        revision.run()
        assert Revision(connection, models(code), options).differences == []
        revision.run(revision.downgrade)
        assert users(connection) == before

    await within(project, work)


@pytest.mark.parametrize(
    ("code", "include_schemas", "difference"),
    [
        (DECLARED, False, "table users: in the models only"),
        (DECLARED, True, "column users.email: in the database only"),
        (OWNED, True, "table users: in the database only"),
    ],
)
async def test_naively_the_users_are_made_or_dropped(
    project: Database, code: str, include_schemas: bool, difference: str
) -> None:
    """Negative control: Alembic alone would make `auth.users` again, change it or drop it."""
    options = {"include_schemas": include_schemas}
    revision = await within(project, lambda connection: Revision(connection, models(code), options))
    assert difference in revision.differences


ODD = """
class Note(IntegerKey, Base):
    __tablename__ = "Odd Notes"
    __table_args__ = (
        own_rows("Owner"),
        Policy("it's odd", to="Odd Role", using="body <> '%s' and \\"Owner\\" is not null"),
        Grant("select", "insert", to=("Odd Role", "authenticated")),
        {"schema": "Odd Schema"},
    )
    owner: Mapped[uuid.UUID] = mapped_column("Owner")
    body: Mapped[str]
"""


async def test_names_that_need_quotes_in_another_schema(project: Database) -> None:
    """Tables in a schema of one's own are protected too, whatever they are called."""
    role = f"Odd {secrets.token_hex(4)}"  # roles belong to the server, not to the database
    code = ODD.replace("Odd Role", role)

    def work(connection: Connection) -> None:
        connection.execute(text('CREATE SCHEMA "Odd Schema"'))
        connection.execute(text(f'CREATE ROLE "{role}"'))
        options = supabase_options(connection, include_schemas=True)
        revision = Revision(connection, models(code), options)
        revision.run()
        assert Revision(connection, models(code), options).differences == []
        may = text(
            "SELECT has_sequence_privilege(:role, oid, 'USAGE') FROM pg_class"
            " WHERE relkind = 'S' AND relnamespace = '\"Odd Schema\"'::regnamespace"
        )
        assert connection.scalars(may, {"role": role}).all() == [True]
        away = Revision(connection, models(""), options)
        away.run()
        away.run(away.downgrade)
        assert Revision(connection, models(code), options).differences == []
        away.run()
        connection.execute(text(f'DROP ROLE "{role}"'))

    await within(project, work)


async def place_of_version_table(database: Database) -> list[str]:
    """Return the schemas that have a version table."""
    async with database.engine.connect() as connection:
        rows = await connection.scalars(
            text("SELECT schemaname FROM pg_tables WHERE tablename = 'alembic_version'")
        )
        return list(rows)


async def test_the_version_table_is_where_no_api_looks(
    project: Database, tmp_path: Path, fresh_database: dict[str, Any]
) -> None:
    """
    A project of Supabase has its version table in a schema of its own, which others cannot use.

    What `env.py` leaves out is left out as well as the schemas of Supabase.
    """
    async with project.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE spatial_ref_sys (id int)"))
    filters = "include_schemas=True, include_name=lambda name, *_: name != 'spatial_ref_sys'"
    harbour = Harbour(tmp_path / "harbour", fresh_database, filters)
    harbour.declare(OWNED)
    written = await harbour.migrate()
    assert written.count("op.create_table(") == 1
    assert written.count("op.drop_table(") == 1
    assert await place_of_version_table(project) == ["moorage"]
    assert await harbour.differences() == ()
    async with project.engine.connect() as connection:
        question = "SELECT has_schema_privilege('authenticated', 'moorage', 'USAGE')"
        assert await connection.scalar(text(question)) is False
    statements = await migrations.sql(config=harbour.config)
    assert statements.startswith("CREATE SCHEMA IF NOT EXISTS moorage;")
    assert (await migrations.current(config=harbour.config)).is_at_head


async def test_a_version_table_that_is_elsewhere_stays(
    project: Database,
    tmp_path: Path,
    fresh_database: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where `public` has it already it is used there, until somebody moves it as the log says."""
    older = Harbour(tmp_path / "older", fresh_database, "version_table_schema=None")
    older.declare(OWNED)
    await older.migrate()
    assert await place_of_version_table(project) == ["public"]
    newer = Harbour(tmp_path / "newer", fresh_database)
    for path in older.versions.glob("*.py"):
        (newer.versions / path.name).write_text(path.read_text())
    newer.declare(OWNED)
    with caplog.at_level(logging.WARNING, "moorage.postgres"):
        assert (await migrations.current(config=newer.config)).is_at_head
        assert await migrations.upgrade(config=newer.config) == []
    advice = caplog.records[-1].getMessage()
    async with project.engine.begin() as connection:
        for statement in advice.partition("runs: ")[2].split(";"):
            await connection.execute(text(statement))
    assert await place_of_version_table(project) == ["moorage"]
    caplog.clear()
    assert (await migrations.current(config=newer.config)).is_at_head
    assert not caplog.records
