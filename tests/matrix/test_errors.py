"""Each class of error, brought about on a real server: what is caught, and what it carries."""

import copy
import pickle
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy import exc as sa_exc

import moorage
from moorage import (
    CommitOutcomeUnknownError,
    ConnectError,
    ConnectionLostError,
    ConstraintViolationError,
    DatabaseError,
    IdleInTransactionTimeoutError,
    InsecureConnectionError,
    PoolExhaustedError,
    TransactionAbortedError,
)
from tests.fix_database import DatabaseFactory
from tests.matrix.provocations import (
    PROVOCATIONS,
    ROWS,
    Provocation,
    drop_user,
    end_connection,
    metadata,
    new_user,
    own_id,
    parent,
)

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
# On some backends nothing of the driver's or SQLAlchemy's is behind these.
FOUND_OUT_BY_US = (InsecureConnectionError, PoolExhaustedError, TransactionAbortedError)
COLUMNS = ("", "error", "sqlite", "postgres", "mysql", "psycopg")
SQLALCHEMY_2_1 = not sqlalchemy.__version__.startswith("2.0")


@pytest.mark.parametrize("provocation", PROVOCATIONS, ids=lambda p: p.kind.__name__)
async def test_error_is_ours_and_sqlalchemys(
    provocation: Provocation, backend: str, make_database: DatabaseFactory
) -> None:
    """An error of the database is of our class and of the class SQLAlchemy would have raised."""
    act = provocation.acts.get(backend)
    usual = make_database()
    driver = usual.engine.dialect.driver
    column = driver if driver in COLUMNS else backend
    if act is None:
        assert _documented(provocation.kind.__name__, column) == "none"
        return
    async with usual.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(parent.insert(), ROWS)
    settings = dict(provocation.settings)
    if backend in provocation.user:
        user = await new_user(usual.engine, provocation.user[backend])
        settings.update(user=user, password=user)
    database = make_database(**settings)
    theirs: list[type] = []

    @event.listens_for(database.engine.sync_engine, "handle_error")
    def see_what_sqlalchemy_would_raise(context: object) -> None:
        theirs.append(type(context.sqlalchemy_exception))  # type: ignore[attr-defined]

    with pytest.raises(DatabaseError) as caught:
        await act(database.engine)
    error = caught.value

    assert isinstance(error, sa_exc.SQLAlchemyError)
    assert type(error)._moorage_parts[0] is provocation.kind
    if theirs and theirs[-1] is not type(None) and not isinstance(error, FOUND_OUT_BY_US):
        assert isinstance(error, theirs[-1])
    assert error.hint
    assert error.constraint == provocation.constraint.get(backend)
    told = provocation.table.get(backend)
    if not getattr(usual.engine.dialect, "is_mariadb", True):
        told = provocation.table.get("MySQL", told)
    assert error.table == told
    assert error.columns == provocation.columns.get(backend, ())
    is_link_gone = isinstance(error, (ConnectionLostError, CommitOutcomeUnknownError))
    assert getattr(error, "connection_invalidated", False) == is_link_gone
    assert error.__cause__ is error.driver_exception
    assert not type(error.__cause__).__module__.startswith("sqlalchemy")
    assert error.orig is not None or isinstance(error, FOUND_OUT_BY_US)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert (twin.backend_code, twin.constraint, twin.columns) == (
            error.backend_code,
            error.constraint,
            error.columns,
        )
    if not isinstance(error, ConnectError) or SQLALCHEMY_2_1:
        assert _cell(error) in _documented(provocation.kind.__name__, column).split(" or ")
    await database.dispose()
    if backend in provocation.user:
        await drop_user(usual.engine, user)


def test_every_error_is_brought_about() -> None:
    """Each class of error that nothing derives from, and each code's own class, has its row."""
    bases = {DatabaseError, ConnectError, ConstraintViolationError}
    classes = {
        value
        for value in vars(moorage).values()
        if isinstance(value, type) and issubclass(value, DatabaseError)
    }
    assert {provocation.kind for provocation in PROVOCATIONS} == classes - bases


async def test_death_of_an_idle_connection_is_not_blamed_on_its_transaction(
    backend: str, make_database: DatabaseFactory
) -> None:
    """A connection that dies outside of a transaction is lost, however long it sat in the pool."""
    if backend == "sqlite":
        return  # its connections do not die
    limit = 1
    engine = make_database(idle_in_transaction_timeout_seconds=limit).engine
    async with engine.connect() as connection:
        number = await own_id(connection)
    async with engine.connect() as connection, engine.connect() as other:
        sleep = "pg_sleep" if backend == "postgres" else "SLEEP"
        await other.execute(text(f"SELECT {sleep}({limit * 1.2})"))
        assert await own_id(connection) == number
        await end_connection(engine, number)
        with pytest.raises(ConnectionLostError) as caught:
            await connection.execute(text("SELECT 1"))
    assert not isinstance(caught.value, IdleInTransactionTimeoutError)


def _cell(error: DatabaseError) -> str:
    _, theirs = type(error)._moorage_parts  # type: ignore[attr-defined]
    return f"`{error.backend_code}` {theirs.__name__}" if error.backend_code else theirs.__name__


def _documented(kind: str, column: str) -> str:
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| {kind} |"):
            return line.split("|")[COLUMNS.index(column)].strip()
    raise AssertionError(f"{kind} has no row in {DOCS.name}")
