"""The operations on row level security in revisions, and what they are good for."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, MetaData, create_engine, select, text

from moorage import Database, Identity, MigrationError, PermissionDeniedError, migrations
from moorage_postgres.testing import assert_isolated, create_supabase_stand_in
from tests.fix_database import DatabaseFactory
from tests.policies.harbour import Harbour
from tests.policies.revisions import Revision, classes, migrate, models, protection, rights, within

BOATS = "op.create_table('boats', sa.Column('id', sa.Integer, primary_key=True))"
FORTH_AND_BACK = [
    ("op.enable_rls('boats')", "op.disable_rls('boats')"),
    ("op.force_rls('boats', schema='public')", "op.no_force_rls('boats', schema='public')"),
    (
        "op.create_policy('own', 'boats', to=['anon', 'public'], using='true', check='id > 0')",
        "op.drop_policy('own', 'boats')",
    ),
    (
        "op.grant(['select', 'insert'], 'boats', to='anon')",
        "op.revoke(['select', 'insert'], 'boats', from_='anon')",
    ),
    (
        "op.grant('usage', 'boats_id_seq', to='anon', kind='sequence')",
        "op.revoke('usage', 'boats_id_seq', from_='anon', kind='sequence')",
    ),
    ("op.reload_api()", "op.reload_api()"),
]


async def test_each_operation_is_undone_by_another(project: Database) -> None:
    """Every operation can be written by hand, and its inverse leads back to where it began."""

    def work(connection: Connection) -> None:
        revision = Revision(connection, models(""))
        revision.run(BOATS)
        for forth, back in FORTH_AND_BACK:
            before = protection(connection)
            revision.run(forth)
            assert (protection(connection) != before) is ("reload" not in forth), forth
            revision.run(back)
            assert protection(connection) == before, back
        revision.run("op.execute('CREATE SCHEMA api')")
        revision.run("op.execute('CREATE FUNCTION api.f(int) RETURNS int RETURN 1')")
        for given in (
            "op.grant('usage', 'api', to='anon', kind='schema')",
            "op.revoke('execute', 'f(int)', from_='public', kind='function', schema='api')",
        ):
            revision.run(given)
        may = text(
            "SELECT has_schema_privilege('anon', 'api', 'USAGE'),"
            " has_function_privilege('anon', 'api.f(int)', 'EXECUTE')"
        )
        assert connection.execute(may).one() == (True, False)

    await within(project, work)


def test_other_backends_refuse_them() -> None:
    """A revision that runs elsewhere is told whose operation it is, before anything is executed."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        op: Any = Operations(MigrationContext.configure(connection))
        with pytest.raises(MigrationError, match="speaks sqlite") as caught:
            op.enable_rls("boats")
    engine.dispose()
    assert "dialect.name" in caught.value.hint


async def test_the_api_is_told_once_and_only_of_what_happened(
    project: Database, tmp_path: Path, fresh_database: dict[str, Any]
) -> None:
    """PostgREST hears of a revision once, when it is committed, and never of one that failed."""
    harbour = Harbour(tmp_path / "harbour", fresh_database)
    harbour.declare("")
    told = f"{BOATS}\nop.reload_api()\nop.reload_api()"
    path = harbour.revision("a1", f"{told}\nop.execute('SELECT 1 / 0')")
    address = {"database": fresh_database["name"]}
    address |= {key: fresh_database[key] for key in ("host", "port", "user", "password")}
    listener = await asyncpg.connect(**address)
    heard: list[str] = []
    done = asyncio.Event()

    def hear(_: object, __: int, ___: str, payload: str) -> None:
        heard.append(payload)
        if payload == "end":
            done.set()

    try:
        await listener.add_listener("pgrst", hear)
        with pytest.raises(Exception, match="zero"):
            await migrations.upgrade(config=harbour.config)
        path.write_text(path.read_text().replace("1 / 0", "1"))
        await migrations.upgrade(config=harbour.config)
        async with project.engine.begin() as connection:
            await connection.execute(text("NOTIFY pgrst, 'end'"))
        await done.wait()
        assert heard == ["reload schema", "end"]
    finally:
        await listener.close()


NOTES = """
class Note(IntegerKey, Base):
    __tablename__ = "notes"
    __table_args__ = (
        own_rows("owner"),
        Grant("select", "insert", "update", "delete", to="authenticated"),
    )
    owner: Mapped[uuid.UUID]
"""


TEAMS = """
class Team(IntegerKey, Base):
    __tablename__ = "teams"
    __table_args__ = (RowLevelSecurity(force=True),)
"""


def plan(connection: Connection) -> str:
    """Return how the server reads the notes of one user."""
    claims = Identity.from_claims(
        {"sub": str(uuid.UUID(int=1)), "role": "authenticated"}
    ).claims_json
    with connection.begin_nested() as savepoint:
        connection.execute(text("SELECT set_config('request.jwt.claims', :c, true)"), {"c": claims})
        connection.execute(text("SET LOCAL ROLE authenticated"))
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = "\n".join(connection.scalars(text("EXPLAIN SELECT * FROM notes")))
        savepoint.rollback()
    return found


async def test_the_fast_shape_is_planned_fast(
    project: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The server asks once who the user is, and finds their rows by the index.

    Negative control: the same policy with a bare call asks within the scan, for each row.
    """

    def work(connection: Connection) -> None:
        revision = Revision(connection, models(NOTES))
        revision.run()
        fast = plan(connection)
        assert "InitPlan" in fast
        assert "ix_notes_owner" in fast
        revision.run("op.drop_policy('own_rows', 'notes')")
        revision.run(
            "op.create_policy('own_rows', 'notes', to='authenticated', using='owner = auth.uid()')"
        )
        assert "InitPlan" not in plan(connection)

    await within(project, work)
    assert "(select auth.uid(…))" in caplog.text


async def test_users_have_their_own_rows(
    database: Database, make_database: DatabaseFactory, service_login: dict[str, str]
) -> None:
    """With the policy of `own_rows` users work on their rows through a service, and on no other."""
    async with database.engine.begin() as connection:
        await create_supabase_stand_in(connection, service_login["user"])
    code = NOTES.replace("own_rows(", 'Grant("all", to="service_role"), own_rows(')
    await within(database, lambda connection: migrate(connection, code))
    note = classes(code)["Note"]
    roles = {"admin_role": "service_role"}
    service = make_database(type="supabase", **service_login, connector_options=roles)
    people = [
        Identity.from_claims({"sub": str(uuid.UUID(int=n)), "role": "authenticated"})
        for n in (1, 2)
    ]
    for number, identity in enumerate(people, 1):
        async with service.unit_of_work(identity=identity) as session:
            session.add(note(owner=uuid.UUID(int=number)))
    await assert_isolated(service, note, *people)
    async with service.session(identity=Identity("anon")) as session:
        with pytest.raises(PermissionDeniedError):
            await session.scalars(select(note))


async def test_tables_that_are_made_without_migrations(project: Database) -> None:
    """`metadata.create_all` protects its tables as a revision does, and `drop_all` drops them."""
    crews = "Policy('crews', to='anon', using='id in (select id from teams)'), own_rows("
    code = NOTES.replace("own_rows(", crews) + TEAMS
    metadata = models(code)

    def work(connection: Connection) -> None:
        for kind in ("TABLES", "SEQUENCES"):
            connection.execute(
                text(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {kind} TO anon")
            )
        metadata.create_all(connection)
        made = protection(connection)
        assert made["switches"] == [("notes", True, False), ("teams", True, True)]
        assert rights(connection) == {
            ("notes", "authenticated"): {"SELECT", "INSERT", "UPDATE", "DELETE", "USAGE COUNTER"}
        }
        assert Revision(connection, metadata).differences == []
        # A copy has no policies, and is shut.
        connection.execute(text("CREATE SCHEMA tenant"))
        metadata.tables["notes"].to_metadata(MetaData(), schema="tenant").create(connection)
        is_on = "SELECT relrowsecurity FROM pg_class WHERE oid = 'tenant.notes'::regclass"
        assert connection.scalar(text(is_on)) is True
        metadata.drop_all(connection)
        assert protection(connection)["switches"] == []

    await within(project, work)
