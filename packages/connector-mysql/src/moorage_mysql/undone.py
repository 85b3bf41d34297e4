"""
Transactions that a deadlock has undone.

InnoDB undoes the whole transaction, and the next statement begins another one without a word: who
swallows the error and goes on would commit the second half alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import ExceptionContext

from moorage import DatabaseError, TransactionAbortedError, blend, statement_info

__all__ = ["refuse_undone_transactions"]

# Key in `Connection.info`, which lives as long as the driver's connection.
_UNDONE = "moorage_mysql_undone"
_DEADLOCK = 1213
_BACK_TO_SAVEPOINT = "ROLLBACK TO SAVEPOINT"


def refuse_undone_transactions(engine: Engine) -> None:
    """
    Let everything but a rollback fail in a transaction that a deadlock has undone.

    It is the dialect that refuses, not a listener, which every session would pay for.
    """
    dialect: Any = engine.dialect
    do_begin, do_commit = dialect.do_begin, dialect.do_commit
    deadlocks = _Deadlocks()

    def begin(dbapi_connection: Any) -> None:
        dbapi_connection.info.pop(_UNDONE, None)
        do_begin(dbapi_connection)

    def commit(dbapi_connection: Any) -> None:
        if dbapi_connection.info.pop(_UNDONE, False):
            # SQLAlchemy takes a COMMIT that failed for the end of the transaction.
            dialect.do_rollback(dbapi_connection)
            raise _error()
        do_commit(dbapi_connection)

    event.listen(engine, "handle_error", deadlocks.note)
    dialect.do_begin, dialect.do_commit = begin, commit
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(dialect, name, deadlocks.refusing(getattr(dialect, name)))


class _Deadlocks:
    """The deadlocks of one engine, which has none most of the time."""

    def __init__(self) -> None:
        self._have_been_seen = False

    def note(self, context: ExceptionContext) -> None:
        code = next(iter(getattr(context.original_exception, "args", ())), None)
        if code == _DEADLOCK and context.connection is not None:  # which is open: it has answered
            self._have_been_seen = True
            context.connection.info[_UNDONE] = True

    def refusing(self, execute: Callable[..., None]) -> Callable[..., None]:
        @wraps(execute)
        def refusing(cursor: Any, statement: str, *arguments: Any) -> None:
            if self._have_been_seen and arguments and _is_undone(arguments[-1]):
                if not statement.startswith(_BACK_TO_SAVEPOINT):
                    raise _error()
                # The savepoint went with the rest. Its block ends because of the deadlock, which
                # must stay the news.
                statement = "DO 0"
            execute(cursor, statement, *arguments)

        return refusing


def _is_undone(context: Any) -> bool:
    info = statement_info(context)
    return info is not None and _UNDONE in info


def _error() -> DatabaseError:
    message = (
        "a deadlock has undone this transaction, and its error was swallowed; nothing of it can be"
        " stored"
    )
    hint = "let errors leave the unit of work, which can then be run again as a whole"
    ours = TransactionAbortedError(message, hint=hint, backend_code=str(_DEADLOCK))
    return blend(ours, sa_exc.InvalidRequestError(message))
