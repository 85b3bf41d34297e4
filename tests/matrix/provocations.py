"""
One way to bring about each error of a database, on each backend that has it.

An act gets an engine whose database holds the tables below, and makes the error happen.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from moorage import (
    AuthenticationError,
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DeadlockError,
    ExclusionViolationError,
    ForeignKeyViolationError,
    IdleInTransactionTimeoutError,
    InsecureConnectionError,
    LockTimeoutError,
    NotNullViolationError,
    PermissionDeniedError,
    PoolExhaustedError,
    ReadOnlyError,
    SerializationError,
    StalePlanError,
    StatementCancelledError,
    StatementSyntaxError,
    StatementTimeoutError,
    TooManyConnectionsError,
    TransactionAbortedError,
    UndefinedObjectError,
    UniqueViolationError,
)

Act = Callable[[AsyncEngine], Awaitable[None]]

metadata = MetaData()
parent = Table(
    "parent",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("code", String(5), nullable=False),
    Column("amount", Integer, nullable=False, server_default="0"),
    UniqueConstraint("code", name="uq_parent_code"),
    CheckConstraint("amount >= 0", name="ck_parent_amount"),
)
child = Table(
    "child",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("parent_id", Integer, nullable=False),
    ForeignKeyConstraint(["parent_id"], ["parent.id"], name="fk_child_parent"),
)
ROWS = [{"id": 1, "code": "one"}, {"id": 2, "code": "two"}]


@dataclass(frozen=True)
class Provocation:
    """
    A way to bring about one class of error.

    Attributes:
        kind: The class.
        acts: What to do, by backend.
        settings: Settings that the act needs, in place of the usual ones.
        constraint: What the error says was broken, by backend; likewise `table` and `columns`.
            "mysql" is MariaDB where "MySQL" says something else.
        user: Log in as a new user, made with these extra words, by backend.
    """

    kind: type[DatabaseError]
    acts: Mapping[str, Act]
    settings: Mapping[str, Any] = field(default_factory=dict)
    constraint: Mapping[str, str] = field(default_factory=dict)
    table: Mapping[str, str | None] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    user: Mapping[str, str] = field(default_factory=dict)


def _everywhere(act: Act) -> dict[str, Act]:
    return {"sqlite": act, "postgres": act, "mysql": act}


def _on_servers(act: Act) -> dict[str, Act]:
    return {"postgres": act, "mysql": act}


def _runs(statement: Any) -> Act:
    async def act(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(statement) if isinstance(statement, str) else statement)

    return act


async def _connects(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass


async def _writes_where_only_reads_are_possible(engine: AsyncEngine) -> None:
    words = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
    async with engine.connect() as connection:
        await connection.execute(
            text(words.get(engine.dialect.name, "START TRANSACTION READ ONLY"))
        )
        try:
            await connection.execute(insert(parent).values(id=9, code="nine"))
        finally:
            if engine.dialect.name == "sqlite":
                await connection.execute(text("PRAGMA query_only = OFF"))


async def _overlaps(engine: AsyncEngine) -> None:
    rule = "CONSTRAINT ex_stay EXCLUDE USING gist (during WITH &&)"
    await _runs(f"CREATE TABLE stay (during int4range, {rule})")(engine)
    for _ in range(2):
        await _runs("INSERT INTO stay VALUES (int4range(1, 5))")(engine)


async def _two_wait_for_each_other(engine: AsyncEngine, *, swallow: bool = False) -> None:
    both_hold_one = asyncio.Barrier(2)

    async def take(first: int, second: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(update(parent).where(parent.c.id == first).values(amount=1))
            await both_hold_one.wait()
            change = update(parent).where(parent.c.id == second).values(amount=1)
            try:
                await connection.execute(change)
            except DeadlockError:
                if not swallow:
                    raise
                await connection.execute(select(parent))

    outcomes = await asyncio.gather(take(1, 2), take(2, 1), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


async def _writes_what_another_one_changed(engine: AsyncEngine) -> None:
    change = update(parent).where(parent.c.id == 1).values(amount=parent.c.amount + 1)
    async with engine.connect() as reader:
        if engine.dialect.name == "postgresql":
            await reader.execution_options(isolation_level="REPEATABLE READ")
        elif engine.dialect.name == "mysql":
            await reader.execution_options(isolation_level="REPEATABLE READ")
            if not engine.dialect.is_mariadb:  # type: ignore[attr-defined]  # of this dialect
                # It has the error, and no storage engine that would raise it.
                await reader.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1020"))
            await reader.execute(text("SET SESSION innodb_snapshot_isolation = ON"))
            await reader.commit()
        await reader.execute(select(parent))
        async with engine.begin() as writer:
            await writer.execute(change)
        try:
            await reader.execute(change)
        finally:
            if engine.dialect.name == "mysql":
                await reader.rollback()
                await reader.execute(text("SET SESSION innodb_snapshot_isolation = OFF"))


async def _waits_for_a_lock(engine: AsyncEngine) -> None:
    change = update(parent).where(parent.c.id == 1).values(amount=1)
    async with engine.connect() as holder, engine.connect() as waiter:
        await holder.execute(change)
        await waiter.execute(change)


async def _sleeps(engine: AsyncEngine) -> None:
    await _runs(_sleep(engine))(engine)


def _sleep(engine: AsyncEngine) -> str:
    return {
        "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT count(*) FROM c",
        "postgresql": "SELECT pg_sleep(30)",
        # By itself SLEEP says on MySQL that it was interrupted, and the statement is a success.
        "mysql": "SELECT SLEEP(30) FROM parent",
    }[engine.dialect.name]


async def own_id(connection: AsyncConnection) -> int:
    """Return the number by which the server knows a connection."""
    word = "pg_backend_pid()" if connection.dialect.name == "postgresql" else "CONNECTION_ID()"
    return int((await connection.execute(text(f"SELECT {word}"))).scalar_one())


async def _server_sees(engine: AsyncEngine, question: str, number: int) -> None:
    """Ask the server, on a connection of its own, until the answer is `number`."""
    async with asyncio.timeout(20), engine.connect() as watcher:
        while (await watcher.execute(text(question))).scalar_one() != number:
            await watcher.rollback()


async def _is_cancelled_by_somebody(engine: AsyncEngine) -> None:
    postgres = engine.dialect.name == "postgresql"
    async with engine.connect() as victim, engine.connect() as killer:
        number = await own_id(victim)
        running = asyncio.create_task(victim.execute(text(_sleep(engine))))
        await _server_sees(
            engine,
            f"SELECT count(*) FROM pg_stat_activity WHERE pid = {number} AND query ~ 'sleep'"
            " AND state = 'active'"
            if postgres
            else "SELECT count(*) FROM information_schema.processlist"
            f" WHERE id = {number} AND info LIKE '%SLEEP(30)%'",
            1,
        )
        kill = f"SELECT pg_cancel_backend({number})" if postgres else f"KILL QUERY {number}"
        await killer.execute(text(kill))
        await running


async def _commits_on_a_dead_link(engine: AsyncEngine) -> None:
    async with engine.connect() as victim:
        await victim.execute(insert(parent).values(id=3, code="three"))
        await end_connection(engine, await own_id(victim))
        await victim.commit()


async def _goes_on_in_a_transaction_that_is_over(engine: AsyncEngine) -> None:
    if engine.dialect.name == "mysql":
        # The deadlock undoes one of them, which then goes on as if nothing had happened.
        await _two_wait_for_each_other(engine, swallow=True)
        return
    # SQLite is told to roll everything back; PostgreSQL needs not be told.
    words = "INSERT OR ROLLBACK" if engine.dialect.name == "sqlite" else "INSERT"
    async with engine.connect() as connection:
        await connection.execute(insert(parent).values(id=3, code="three"))
        with contextlib.suppress(UniqueViolationError):
            await connection.execute(text(f"{words} INTO parent (id, code) VALUES (4, 'one')"))
        await connection.execute(select(parent))


async def _loses_its_connection(engine: AsyncEngine) -> None:
    async with engine.connect() as victim:
        await end_connection(engine, await own_id(victim))
        await victim.execute(text("SELECT 1"))


async def end_connection(engine: AsyncEngine, number: int) -> None:
    """Let the server end a connection, and return when it is gone."""
    postgres = engine.dialect.name == "postgresql"
    kill = f"SELECT pg_terminate_backend({number})" if postgres else f"KILL {number}"
    async with engine.connect() as killer:
        await killer.execute(text(kill))
    await _is_gone(engine, number)


async def _is_gone(engine: AsyncEngine, number: int) -> None:
    if engine.dialect.name == "postgresql":
        question = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {number}"
    else:
        question = f"SELECT count(*) FROM information_schema.processlist WHERE id = {number}"
    await _server_sees(engine, question, 0)


async def _sits_idle_in_a_transaction(engine: AsyncEngine) -> None:
    async with engine.connect() as idle:
        if not getattr(engine.dialect, "is_mariadb", True):
            pytest.skip("MySQL ends no transaction for its idleness")
        number = await own_id(idle)
        await idle.execute(select(parent))  # on MySQL a transaction begins with a table
        await _is_gone(engine, number)
        await idle.execute(text("SELECT 1"))


async def _runs_a_plan_of_yesterday(engine: AsyncEngine) -> None:
    query = text("SELECT * FROM parent")
    async with engine.connect() as reader, engine.connect() as changer:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        begin = text("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        for _ in range(7 if engine.dialect.driver == "psycopg" else 1):  # it prepares late
            await reader.execute(query if engine.dialect.name == "postgresql" else begin)
        if engine.dialect.name == "postgresql":
            await reader.commit()
        how = "" if engine.dialect.name == "postgresql" else ", ALGORITHM=COPY"
        await changer.execute(text(f"ALTER TABLE parent ADD COLUMN later INTEGER{how}"))
        await changer.commit()
        await reader.execute(query)


async def _connects_twice(engine: AsyncEngine) -> None:
    async with engine.connect(), engine.connect():
        pass


async def new_user(engine: AsyncEngine, words: str) -> str:
    """Make a user that may log in and read one table; its name is its password too."""
    name = f"u{secrets.token_hex(6)}"
    if engine.dialect.name == "postgresql":
        statements = [f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {words}"]
    else:
        statements = [
            f"CREATE USER {name}@'%' IDENTIFIED BY '{name}' {words}",
            f"GRANT SELECT ON child TO {name}@'%'",
        ]
    for statement in statements:
        await _runs(statement)(engine)
    return name


async def drop_user(engine: AsyncEngine, name: str) -> None:
    """Drop a user of `new_user`."""
    host = "" if engine.dialect.name == "postgresql" else "@'%'"
    await _runs(f"DROP {'USER' if host else 'ROLE'} {name}{host}")(engine)


PROVOCATIONS = [
    Provocation(
        UniqueViolationError,
        _everywhere(_runs(insert(parent).values(id=3, code="one"))),
        constraint={"postgres": "uq_parent_code", "mysql": "uq_parent_code"},
        table={"sqlite": "parent", "postgres": "parent", "MySQL": "parent"},
        columns={"sqlite": ("code",), "postgres": ("code",)},
    ),
    Provocation(
        ForeignKeyViolationError,
        _everywhere(_runs(insert(child).values(id=1, parent_id=99))),
        constraint={"postgres": "fk_child_parent", "mysql": "fk_child_parent"},
        table={"postgres": "child", "mysql": "child"},
        columns={"postgres": ("parent_id",), "mysql": ("parent_id",)},
    ),
    Provocation(
        NotNullViolationError,
        _everywhere(_runs("INSERT INTO parent (id, code) VALUES (3, NULL)")),
        table={"sqlite": "parent", "postgres": "parent"},
        columns={"sqlite": ("code",), "postgres": ("code",), "mysql": ("code",)},
    ),
    Provocation(
        CheckViolationError,
        _everywhere(_runs(insert(parent).values(id=3, code="three", amount=-1))),
        constraint=dict.fromkeys(("sqlite", "postgres", "mysql"), "ck_parent_amount"),
        table={"postgres": "parent", "mysql": "parent", "MySQL": None},
    ),
    Provocation(
        ExclusionViolationError,
        {"postgres": _overlaps},
        constraint={"postgres": "ex_stay"},
        table={"postgres": "stay"},
        columns={"postgres": ("during",)},
    ),
    Provocation(
        DataError,
        {
            **_on_servers(_runs(insert(parent).values(id=3, code="far too long"))),
            "sqlite": _runs(insert(parent).values(id=2**70, code="big")),
        },
    ),
    Provocation(UndefinedObjectError, _everywhere(_runs("SELECT * FROM no_such_table"))),
    Provocation(StatementSyntaxError, _everywhere(_runs("SELEKT 1"))),
    Provocation(
        PermissionDeniedError,
        _on_servers(_runs("SELECT * FROM parent")),
        user={"postgres": "", "mysql": ""},
    ),
    Provocation(ReadOnlyError, _everywhere(_writes_where_only_reads_are_possible)),
    Provocation(SerializationError, _everywhere(_writes_what_another_one_changed)),
    Provocation(DeadlockError, _on_servers(_two_wait_for_each_other)),
    Provocation(
        LockTimeoutError, _everywhere(_waits_for_a_lock), settings={"lock_timeout_seconds": 1}
    ),
    Provocation(
        StatementTimeoutError, _everywhere(_sleeps), settings={"statement_timeout_seconds": 0.5}
    ),
    Provocation(StatementCancelledError, _on_servers(_is_cancelled_by_somebody)),
    Provocation(StalePlanError, _on_servers(_runs_a_plan_of_yesterday)),
    Provocation(ConnectionLostError, _on_servers(_loses_its_connection)),
    Provocation(CommitOutcomeUnknownError, _on_servers(_commits_on_a_dead_link)),
    Provocation(TransactionAbortedError, _everywhere(_goes_on_in_a_transaction_that_is_over)),
    Provocation(
        PoolExhaustedError,
        _everywhere(_connects_twice),
        settings={"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.1},
    ),
    Provocation(
        IdleInTransactionTimeoutError,
        _on_servers(_sits_idle_in_a_transaction),
        settings={"idle_in_transaction_timeout_seconds": 1},
    ),
    Provocation(
        TooManyConnectionsError,
        _on_servers(_connects_twice),
        user={"postgres": "CONNECTION LIMIT 1", "mysql": "WITH MAX_USER_CONNECTIONS 1"},
    ),
    Provocation(
        # Servers of tests have no certificate, or one that they made themselves.
        InsecureConnectionError,
        _on_servers(_connects),
        settings={"ssl_mode": "verify-full"},
    ),
    Provocation(AuthenticationError, _on_servers(_connects), settings={"password": "wrong"}),
    Provocation(DatabaseMissingError, _on_servers(_connects), settings={"name": "no_such"}),
    Provocation(DatabaseUnavailableError, _on_servers(_connects), settings={"port": 1}),
]
