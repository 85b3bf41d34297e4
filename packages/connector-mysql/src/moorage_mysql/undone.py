"""
Transactions that a deadlock has undone.

InnoDB undoes the whole transaction, and the next statement begins another one without a word: who
swallows the error and goes on would commit the second half alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import ExceptionContext

from moorage import DatabaseError, TransactionAbortedError, blend

__all__ = ["refuse_undone_transactions"]

# Key in `Connection.info`, which lives as long as the driver's connection.
_UNDONE = "moorage_mysql_undone"
_DEADLOCK = 1213
_BACK_TO_SAVEPOINT = "ROLLBACK TO SAVEPOINT"


def refuse_undone_transactions(engine: Engine) -> None:
    """Let everything but a rollback fail in a transaction that a deadlock has undone."""
    event.listen(engine, "begin", _forget)
    event.listen(engine, "handle_error", _note_deadlock)
    event.listen(engine, "before_cursor_execute", _refuse, retval=True)
    event.listen(engine, "commit", _refuse_commit)


def _forget(connection: Connection) -> None:
    connection.info.pop(_UNDONE, None)


def _note_deadlock(context: ExceptionContext) -> None:
    code = next(iter(getattr(context.original_exception, "args", ())), None)
    if code == _DEADLOCK and context.connection is not None:  # which is open: it has answered
        context.connection.info[_UNDONE] = True


def _refuse(
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: Any,
    context: object,
    executemany: bool,
) -> tuple[str, Any]:
    if connection.invalidated or _UNDONE not in connection.info:
        return statement, parameters
    if statement.startswith(_BACK_TO_SAVEPOINT):
        # The savepoint went with the rest. Its block ends because of the deadlock, which must
        # stay the news.
        return "DO 0", parameters
    raise _error()


def _refuse_commit(connection: Connection) -> None:
    if not connection.invalidated and connection.info.pop(_UNDONE, False):
        # SQLAlchemy takes a COMMIT that failed for the end of the transaction.
        connection.dialect.do_rollback(connection.connection)
        raise _error()


def _error() -> DatabaseError:
    message = (
        "a deadlock has undone this transaction, and its error was swallowed; nothing of it can be"
        " stored"
    )
    hint = "let errors leave the unit of work, which can then be run again as a whole"
    ours = TransactionAbortedError(message, hint=hint, backend_code=str(_DEADLOCK))
    return blend(ours, sa_exc.InvalidRequestError(message))
