"""Sessions that work on somebody's behalf: who sees what, what is refused, and what is left."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Uuid, event, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import (
    ADMIN,
    Admin,
    Database,
    DatabaseSettings,
    Identity,
    IdentityError,
    IdentityRequiredError,
    PermissionDeniedError,
    ReadOnlyError,
    SettingsError,
    StatementTimeoutError,
    bind_identity,
    bulk_insert,
)
from moorage_postgres import PostgresConnector
from moorage_postgres.testing import assert_isolated, create_supabase_stand_in
from tests.fix_database import DatabaseFactory

ADA, BOB = uuid.UUID(int=1), uuid.UUID(int=2)
ROLES = {"identity_roles": "anon,authenticated", "admin_role": "service_role"}


class Base(DeclarativeBase):
    """A registry of its own."""


class Note(Base):
    """A row that belongs to one user."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[uuid.UUID] = mapped_column(Uuid)
    body: Mapped[str]


RULES = (
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON notes TO authenticated USING (owner = (SELECT auth.uid()))",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated, service_role",
)


def user(key: uuid.UUID) -> Identity:
    """Return the identity of a user who has logged in."""
    return Identity.from_claims({"sub": str(key), "role": "authenticated"})


@pytest.fixture
async def prepared(make_database: DatabaseFactory, service_login: dict[str, str]) -> Database:
    """Return the administrator's database, with notes of two users and rules about them."""
    owner = make_database()
    async with owner.engine.begin() as connection:
        await create_supabase_stand_in(connection, service_login["user"])
        await connection.run_sync(Base.metadata.create_all)
        for rule in RULES:
            await connection.execute(text(rule))
    async with owner.unit_of_work() as session:
        session.add_all(
            Note(id=n, owner=ADA if n % 2 else BOB, body=f"note {n}") for n in range(1, 5)
        )
    return owner


Service = Callable[..., Database]


@pytest.fixture
def service(
    prepared: Database, make_database: DatabaseFactory, service_login: dict[str, str]
) -> Service:
    """Return a function that makes the service's own database, which demands identities."""

    def make(**options: Any) -> Database:
        return make_database(
            **service_login, connector_options={**ROLES, "require_identity": True, **options}
        )

    return make


async def owners(session: AsyncSession) -> set[uuid.UUID]:
    """Return whose notes a session sees."""
    return set(await session.scalars(select(Note.owner)))


async def test_each_sees_their_own(service: Service) -> None:
    """Sessions, units of work and read sessions see the rows of the one they work for."""
    database = service()
    for key in (ADA, BOB):
        async with database.session(identity=user(key)) as session:
            assert await owners(session) == {key}
        async with database.unit_of_work(identity=user(key)) as session:
            assert await owners(session) == {key}
        async with database.read_session(identity=user(key)) as session:
            assert await owners(session) == {key}
            with pytest.raises(ReadOnlyError):
                await session.execute(text("DELETE FROM notes"))


async def test_the_user_of_the_service_alone_sees_nothing(service: Service) -> None:
    """Past our sessions the service may nothing: the server says so."""
    async with service().engine.connect() as connection:
        with pytest.raises(PermissionDeniedError):
            await connection.execute(select(Note.id))


async def test_a_commit_in_the_middle_keeps_the_identity(service: Service) -> None:
    """Each transaction of a session is told again, after commits, rollbacks and errors."""
    async with service().session(identity=user(ADA)) as session:
        for end in (session.commit, session.rollback, session.commit):
            assert await owners(session) == {ADA}
            await end()
        with pytest.raises(Exception, match="zero"):
            await session.execute(text("SELECT 1 / 0"))
        await session.rollback()
        assert await owners(session) == {ADA}
        async with session.begin_nested() as savepoint:
            await savepoint.rollback()
        assert await owners(session) == {ADA}


async def test_naively_it_is_lost_with_the_commit(prepared: Database) -> None:
    """Negative control: what was told by hand is lost with the COMMIT, and all rows are seen."""
    async with prepared.session() as session:
        claims = text(
            "SELECT set_config('role', 'authenticated', true),"
            " set_config('request.jwt.claims', :claims, true)"
        )
        await session.execute(claims, {"claims": user(ADA).claims_json})
        assert await owners(session) == {ADA}
        await session.commit()
        assert await owners(session) == {ADA, BOB}


async def asked(database: Database, open_session: Callable[[], Awaitable[object]]) -> list[str]:
    """Return the statements that were sent while an attempt failed."""
    sent: list[str] = []
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2])
    )
    with pytest.raises(IdentityError):
        await open_session()
    return sent


async def test_without_an_identity_nothing_is_sent(service: Service) -> None:
    """A session without an identity is refused before any SQL, however it was made."""
    database = service()
    await database.ping()

    async def work(session: AsyncSession) -> None:
        async with session:
            await session.execute(text("SELECT 1"))

    for session in (database.session, database.sessionmaker, database.read_session):
        assert await asked(database, lambda make=session: work(make())) == []
    with pytest.raises(IdentityRequiredError) as caught:
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1"))
    assert "identity=ADMIN" in caught.value.hint


async def test_a_role_that_is_not_allowed(service: Service) -> None:
    """A role outside of the list is refused before anything is sent, whatever a token says."""
    database = service()
    for role in ("service_role", "postgres", "AUTHENTICATED", ""):

        async def work(role: str = role) -> None:
            async with database.unit_of_work(identity=Identity.from_claims({"role": role})):
                pass

        assert await asked(database, work) == []
    with pytest.raises(IdentityError, match="DB_POSTGRES_IDENTITY_ROLES"):
        database.session(identity=Identity("service_role"))


async def test_the_door_of_the_administrator(service: Service) -> None:
    """ADMIN works in the role that the settings name, and it is the only way to it."""
    database = service()
    async with database.unit_of_work(identity=ADMIN) as session:
        assert await owners(session) == {ADA, BOB}
        assert await session.scalar(text("SELECT current_user")) == "service_role"
    async with service(admin_role=None).session(identity=ADMIN) as session:
        with pytest.raises(PermissionDeniedError):
            await owners(session)


async def test_denials_have_three_shapes(service: Service) -> None:
    """Fewer rows, no row hit, and an error: what the rules deny differs by verb."""
    database = service()
    async with database.session(identity=user(ADA)) as session:
        result: Any = await session.execute(update(Note).values(body="mine"))
        assert result.rowcount == 2
        with pytest.raises(PermissionDeniedError, match="row-level security"):
            session.add(Note(id=9, owner=BOB, body="not mine"))
            await session.flush()
    async with database.session(identity=Identity("anon")) as session:
        with pytest.raises(PermissionDeniedError, match="permission denied"):
            await owners(session)


async def test_many_rows_at_once_obey_the_rules(service: Service) -> None:
    """Loading many rows is bound to the rules like every INSERT, though COPY knows none."""
    database = service()
    mine = [{"id": n, "owner": ADA, "body": "mine"} for n in range(100, 400)]
    async with database.unit_of_work(identity=user(ADA)) as session:
        await bulk_insert(session, Note, mine)
    async with database.session(identity=user(BOB)) as session:
        assert await owners(session) == {BOB}
    not_mine = [{"id": n, "owner": BOB, "body": "not mine"} for n in range(500, 800)]
    with pytest.raises(PermissionDeniedError):
        async with database.unit_of_work(identity=user(ADA)) as session:
            await bulk_insert(session, Note, not_mine)


async def test_isolation_can_be_asserted(service: Service, prepared: Database) -> None:
    """`assert_isolated` accepts the rule, and notices each hole in it."""
    database = service()
    await assert_isolated(database, Note, user(ADA), user(BOB))
    holes = {
        "FOR SELECT TO authenticated USING (true)": "both see",
        "FOR INSERT TO authenticated WITH CHECK (true)": "can insert",
        "FOR UPDATE TO authenticated USING (true)": "can update 2 row",
        "FOR DELETE TO authenticated USING (true)": "can delete 2 row",
    }
    for hole, message in holes.items():
        async with prepared.engine.begin() as connection:
            await connection.execute(text(f"CREATE POLICY hole ON notes {hole}"))
        with pytest.raises(AssertionError, match=message):
            await assert_isolated(database, Note, user(ADA), user(BOB))
        async with prepared.engine.begin() as connection:
            await connection.execute(text("DROP POLICY hole ON notes"))
    async with prepared.engine.begin() as connection:
        await connection.execute(text("UPDATE notes SET owner = :ada"), {"ada": ADA})
    with pytest.raises(AssertionError, match="nothing would be tested"):
        await assert_isolated(database, Note, user(ADA), user(BOB))


async def test_claims_reach_the_rules(service: Service) -> None:
    """Claims arrive as they were when the identity was made, whatever is in them."""
    claims = {"sub": str(ADA), "role": "authenticated", "motto": 'it\'s "fine" \\ ø', "n": [1]}
    identity = Identity.from_claims(claims)
    claims["sub"] = str(BOB)
    async with service().session(identity=identity) as session:
        assert await owners(session) == {ADA}
        found = await session.scalar(text("SELECT auth.jwt()"))
        assert found == {**claims, "sub": str(ADA)}


async def test_a_limit_by_role(service: Service) -> None:
    """A statement on a role's behalf has that role's time-out, and a unit's own one counts more."""
    database = service(role_statement_timeouts="anon=0.05,authenticated=8")
    with pytest.raises(StatementTimeoutError):
        async with database.session(identity=Identity("anon")) as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    shown = text("SHOW statement_timeout")
    async with database.session(identity=user(ADA)) as session:
        assert await session.scalar(shown) == "8s"
    unit = database.unit_of_work(identity=user(ADA), statement_timeout_seconds=2)
    async with unit as session:
        assert await session.scalar(shown) == "2s"
    async with database.session(identity=ADMIN) as session:
        assert await session.scalar(shown) == "30s"


async def test_one_identity_for_a_session(service: Service) -> None:
    """A session keeps its identity, and gets none once it has begun."""
    database = service()
    async with database.session(identity=user(ADA)) as session:
        bind_identity(session, user(ADA))
        with pytest.raises(IdentityError, match="already"):
            bind_identity(session, user(BOB))
    open_to_all = service(require_identity=False)
    async with open_to_all.session() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(IdentityError, match="has begun"):
            bind_identity(session, user(ADA))


async def test_a_session_of_others_that_was_used_before(service: Service) -> None:
    """A session of SQLAlchemy's own class is told as well, though it was used before."""
    database = service(require_identity=False)
    async with AsyncSession(database.engine) as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(IdentityError, match="has begun"):
            bind_identity(session, user(ADA))
        await session.rollback()
        bind_identity(session, user(ADA))
        for _ in range(2):
            assert await owners(session) == {ADA}
            await session.commit()


async def test_autocommit_is_refused(service: Service) -> None:
    """In autocommit nothing lasts until the next statement: such a session is refused."""
    database = service(require_identity=False)
    session = AsyncSession(database.engine.execution_options(isolation_level="AUTOCOMMIT"))
    bind_identity(session, user(ADA))
    async with session:
        with pytest.raises(IdentityError, match="autocommit"):
            await owners(session)


async def test_a_transaction_of_others_does_not_keep_an_identity(prepared: Database) -> None:
    """Sessions that take part in one outer transaction do not inherit each other's identity."""
    options = {"identity_roles": "authenticated"}
    settings = prepared.settings.replaced("", connector_options=options)
    async with (
        Database(connector=PostgresConnector(settings)) as database,
        database.engine.connect() as connection,
        connection.begin(),
    ):
        make = database.sessionmaker
        join = {"bind": connection, "join_transaction_mode": "create_savepoint"}
        session = make(**join)
        bind_identity(session, user(ADA))
        async with session:
            assert await owners(session) == {ADA}
            await session.commit()
        async with make(**join) as session:
            assert await owners(session) == {ADA, BOB}


async def test_it_costs_one_round_trip(service: Service) -> None:
    """An identity is one statement per transaction, and none for savepoints."""
    database = service()
    sent: list[str] = []
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2])
    )
    async with database.unit_of_work(identity=user(ADA)) as session, session.begin_nested():
        await session.scalar(select(func.count()).select_from(Note))
    assert [statement.partition("(")[0] for statement in sent] == [
        "SELECT set_config",
        "SAVEPOINT sa_savepoint_1",
        "SELECT count",
        "RELEASE SAVEPOINT sa_savepoint_1",
    ]


def test_identities_are_plain_data() -> None:
    """An identity is a value; what it says of a person is not shown."""
    identity = user(ADA)
    assert identity == user(ADA) != user(BOB)
    assert str(ADA) not in repr(identity)
    assert repr(ADMIN) == "ADMIN"
    assert isinstance(ADMIN, Admin)
    for claims in (
        {"role": 1},
        {},
        {"role": "anon", "x": object()},
        {"role": "a", "x": float("nan")},
    ):
        with pytest.raises(IdentityError) as caught:
            Identity.from_claims(claims)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"require_identity": True}, "there is no role on whose behalf"),
        ({"role_statement_timeouts": "anon=soon"}, "role=seconds"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], message: str) -> None:
    """Options that let nobody in, or say nothing, are refused."""
    with pytest.raises(SettingsError, match=message):
        PostgresConnector(DatabaseSettings(connector_options=options, _env_file=None))
