"""Checks of what is raised: by statements, by connecting, and when the way to a server breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy import exc as sa_exc
from sqlalchemy.orm import aliased

from moorage.database import Database
from moorage.errors import (
    AuthenticationError,
    CheckViolationError,
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    ForeignKeyViolationError,
    NotNullViolationError,
    StatementSyntaxError,
    StatementTimeoutError,
    TransactionAbortedError,
    UndefinedObjectError,
    UniqueViolationError,
)
from moorage.settings import DatabaseSettings
from moorage.testing._tables import Item, Owner, names
from moorage.testing.check import check
from moorage.testing.relay import relayed

__all__ = ["FailureChecks"]

_NOBODY_LISTENS = 1
# An authority that signed nothing: no server has a certificate of it.
_STRANGER = Path(__file__).parents[1] / "stranger.pem"

_STATEMENTS: dict[type[DatabaseError], Any] = {
    UniqueViolationError: insert(Owner).values(id=3, name="ada", balance=0),
    ForeignKeyViolationError: insert(Item).values(id=1, owner_id=99),
    NotNullViolationError: text(
        "INSERT INTO moorage_owner (id, name, balance) VALUES (3, NULL, 0)"
    ),
    CheckViolationError: update(Owner).values(balance=-5000),
    DataError: update(Owner).values(balance=2**70),
    UndefinedObjectError: text("SELECT * FROM moorage_nowhere"),
    StatementSyntaxError: text("SELEC 1"),
}


class FailureChecks:
    """Errors are moorage's and SQLAlchemy's at once, and of the class that was declared."""

    provocations: ClassVar[Mapping[type[DatabaseError], Callable[[Database], Awaitable[object]]]]

    @check("classify_error, and what SQLAlchemy raises for a failing statement of this dialect")
    async def test_failures_are_errors_of_both_trees(self, database: Database) -> None:
        """Whatever fails is moorage's error and SQLAlchemy's at once."""
        for statement in ("SELECT * FROM moorage_nowhere", "SELEC 1"):
            with pytest.raises(DatabaseError) as caught:
                async with database.session() as session:
                    await session.execute(text(statement))
            assert isinstance(caught.value, sa_exc.SQLAlchemyError)

    @check(
        "classify_error: the code of this error; or declare less in Capabilities.errors",
        brings=_STATEMENTS,
    )
    @pytest.mark.parametrize("kind", _STATEMENTS, ids=lambda kind: kind.__name__)
    async def test_errors_are_classified(
        self, database: Database, kind: type[DatabaseError]
    ) -> None:
        """Each error that the connector declares is raised as its class, and stores nothing."""
        with pytest.raises(kind):
            async with database.unit_of_work() as session:
                await session.execute(delete(Item))
                await session.execute(_STATEMENTS[kind])
        assert await names(database) == ["ada", "bob"]

    @check("classify_error: what `provocations` brings about must be raised as its class")
    async def test_own_provocations_are_classified(self, database: Database) -> None:
        """What the author knows to bring about is raised as the class that it is listed under."""
        declared = database.connector.capabilities.errors & self.provocations.keys()
        if not declared:
            pytest.skip("none of the errors in `provocations` is declared")
        for kind in sorted(declared, key=lambda kind: kind.__name__):
            with pytest.raises(kind):
                await self.provocations[kind](database)

    @check(
        "classify_error: the code of a statement behind an error that ended the transaction",
        error=TransactionAbortedError,
    )
    async def test_a_transaction_that_is_over_is_named(self, database: Database) -> None:
        """Who swallows an error that ended the transaction is told so by the next statement."""
        async with database.session() as session:
            with contextlib.suppress(UniqueViolationError):
                await session.execute(_STATEMENTS[UniqueViolationError])
            with pytest.raises(TransactionAbortedError):
                await session.execute(select(Owner.name))

    @check("statement_timeout_seconds: who enforces it?", error=StatementTimeoutError)
    async def test_a_long_statement_is_ended(
        self, database: Database, settings: DatabaseSettings
    ) -> None:
        """A statement that runs for too long is ended, and its connection can be used again."""
        async with database.unit_of_work() as session:
            rows = [{"id": n, "name": f"n{n}", "balance": n} for n in range(10, 70)]
            await session.execute(insert(Owner), rows)
        hasty = settings.model_copy(update={"statement_timeout_seconds": 0.5})
        several = [aliased(Owner) for _ in range(8)]
        for_years = select(func.count()).where(
            *(one.balance >= -other.balance for one, other in pairwise(several))
        )
        async with Database(hasty) as other:
            with pytest.raises(StatementTimeoutError):
                async with other.session() as session:
                    await session.execute(for_years)
            await other.ping()

    @check(
        "connecting: what the driver raises there must be an OSError or be classified",
        capability="networked",
        brings=(DatabaseUnavailableError,),
    )
    async def test_an_absent_server_is_unavailable(self, settings: DatabaseSettings) -> None:
        """A port on which nobody listens is a DatabaseUnavailableError, within the deadline."""
        nowhere = settings.model_copy(update={"port": _NOBODY_LISTENS})
        async with Database(nowhere) as database:
            with pytest.raises(DatabaseUnavailableError):
                await database.ping()

    @check(
        "classify_error while connecting: the code of a refused login",
        capability="networked",
        error=AuthenticationError,
    )
    async def test_a_wrong_password_is_refused(self, settings: DatabaseSettings) -> None:
        """A wrong password is an AuthenticationError, which is not worth trying again."""
        wrong = settings.model_copy(update={"password": SecretStr("certainly wrong")})
        async with Database(wrong) as database:
            with pytest.raises(AuthenticationError) as caught:
                await database.ping()
            assert not caught.value.is_transient

    @check(
        "classify_error while connecting: the code of a database that is not there",
        capability="networked",
        error=DatabaseMissingError,
    )
    async def test_a_missing_database_is_named(self, settings: DatabaseSettings) -> None:
        """A database that is not on the server is a DatabaseMissingError, which names it."""
        absent = settings.replaced("the suite", name="moorage_nowhere")
        async with Database(absent) as database:
            with pytest.raises(DatabaseMissingError, match="moorage_nowhere"):
                await database.ping()

    @check(
        "classify_error: what the driver raises on a connection whose link broke",
        capability="networked",
        error=ConnectionLostError,
    )
    async def test_a_lost_connection_is_named(self, settings: DatabaseSettings) -> None:
        """A link that is cut is a ConnectionLostError, and the next session has a new one."""
        async with relayed(settings) as (relay, through), Database(through) as database:
            async with database.session() as session:
                await session.execute(select(1))
                relay.cut()
                with pytest.raises(ConnectionLostError):
                    await session.execute(select(1))
            await database.ping()

    @check(
        "connect_args: make_ssl_context() for what effective_ssl_mode() says; or declare no tls",
        capability="tls",
    )
    async def test_a_server_without_proof_is_refused(self, settings: DatabaseSettings) -> None:
        """Where the certificate has to be verified, a server that cannot show one is refused."""
        if settings.hosts[0].is_socket:
            pytest.fail("settings: name a host, since a socket needs no encryption")
        async with Database(settings) as usual:
            await usual.ping()
        strict = {"ssl_mode": "verify-full", "ssl_ca": _STRANGER}
        async with Database(settings.model_copy(update=strict)) as database:
            with pytest.raises(ConnectError):
                await database.ping()

    @check(
        "Capabilities.several_hosts: is a host that does not answer passed over?",
        capability="several_hosts",
    )
    async def test_hosts_are_tried_in_turn(self, settings: DatabaseSettings) -> None:
        """Where the first of several hosts is absent, the next one is connected to."""
        place = settings.hosts[0]
        hosts = f"{place.host}:{_NOBODY_LISTENS},{settings.host}"
        async with Database(settings.model_copy(update={"host": hosts})) as database:
            await database.ping()

    @check(
        "Capabilities.read_hosts: do read sessions go where `read_host` says?",
        capability="read_hosts",
    )
    async def test_reads_go_to_the_read_host(self, settings: DatabaseSettings) -> None:
        """A read session needs the host for reads, and no other session does."""
        absent = f"{settings.hosts[0].host}:{_NOBODY_LISTENS}"
        async with Database(settings.model_copy(update={"read_host": absent})) as database:
            await database.ping()
            with pytest.raises(DatabaseUnavailableError):
                async with database.read_session() as session:
                    await session.execute(select(1))
