"""
The one tree of errors of all moorage packages.

::

    MoorageError
    ├── SettingsError                  (also ValueError) a setting is wrong, or two disagree
    ├── ConnectorError                 a connector cannot be used
    │   ├── ConnectorNotFoundError     (also LookupError, ValueError) nothing installed has the name
    │   ├── ConnectorConflictError     (also LookupError) two distributions claim the name
    │   ├── ConnectorImportError       (also ImportError) it, or its driver, does not load
    │   └── ConnectorContractError     (also TypeError) loaded, but it breaks the contract
    │       └── ContractVersionError   written for another contract number
    ├── BulkInsertError                (also ValueError) rows that do not fit their table
    ├── MigrationError                 (also RuntimeError) the schema cannot be migrated
    │   ├── MigrationLockError         another process migrates, for too long
    │   ├── HalfAppliedMigrationError  a revision was interrupted where DDL cannot be undone
    │   └── PendingMigrationsError     the database is not where the code expects it
    ├── SeedError                      (also ValueError) seeds that cannot be written
    ├── MissingExtraError              (also ImportError) an optional package is not installed
    ├── ScaffoldError                  files of a project cannot be written as asked for
    ├── LifecycleError                 (also RuntimeError) used at a time when it cannot work
    │   ├── DatabaseDisposedError      the Database was disposed
    │   ├── UnitOfWorkError            a unit of work was used against its rules
    │   ├── SessionSharedError         one session was used by two tasks
    │   └── UncommittedChangesError    a session ended with writes that nobody committed
    ├── IdentityError                  a session may not work on somebody's behalf like this
    │   └── IdentityRequiredError      it has no identity, and the database demands one
    └── DatabaseError                  the database, or the way to it, failed
        ├── ConnectError               no connection could be made
        │   ├── DatabaseUnavailableError   refused, not resolved, starting up, too late: may pass
        │   │   └── TooManyConnectionsError    the server has no connection left
        │   ├── AuthenticationError        user, password or access rule: will not pass by itself
        │   ├── DatabaseMissingError       the server answers, the database is not there
        │   └── InsecureConnectionError    TLS was asked for and not given
        ├── PoolExhaustedError         no connection of the pool came free in time
        ├── ConnectionLostError        the connection broke in the middle of work
        │   └── IdleInTransactionTimeoutError  the server ended it: a transaction sat idle
        ├── CommitOutcomeUnknownError  COMMIT was sent, and no answer came
        ├── SerializationError         the transaction collided with another one: run it again
        ├── DeadlockError              two transactions waited for each other; one was undone
        ├── TransactionAbortedError    an earlier error ended the transaction; it cannot commit
        ├── LockTimeoutError           a lock was not had within its deadline
        ├── StatementCancelledError    the server ended the statement at somebody's request
        │   └── StatementTimeoutError  … because its time was up
        ├── StalePlanError             the schema changed under a prepared statement
        ├── ConstraintViolationError   a rule of the schema forbids these rows
        │   ├── UniqueViolationError       a row with this key is there already
        │   ├── ForeignKeyViolationError   the row referred to is not there, or would go
        │   ├── NotNullViolationError      a column that needs a value was given none
        │   ├── CheckViolationError        a value breaks a CHECK
        │   └── ExclusionViolationError    a row overlaps another one
        ├── ReadOnlyError              a write where only reads are possible
        ├── PermissionDeniedError      the user may not do this
        ├── UndefinedObjectError       no such table, column, function …
        ├── StatementSyntaxError       the database does not understand the statement
        └── DataError                  a value that the column cannot hold

Errors of the database are raised as an instance of a class above **and** of the class that
SQLAlchemy would have raised for this very error on this driver, so that ``except
sqlalchemy.exc.OperationalError`` keeps working. The second base is added on demand by
:func:`blend`; the class is made once per pair and survives pickle and copy.

Every error carries ``hint`` (the next step) and the class attribute ``anchor``, the name of its
section in the documentation's page of errors. No message contains a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import exc as sa_exc

__all__ = [
    "AuthenticationError",
    "CheckViolationError",
    "CommitOutcomeUnknownError",
    "ConnectError",
    "ConnectionLostError",
    "ConnectorConflictError",
    "ConnectorContractError",
    "ConnectorError",
    "ConnectorImportError",
    "ConnectorNotFoundError",
    "ConstraintViolationError",
    "ContractVersionError",
    "DataError",
    "DatabaseDisposedError",
    "DatabaseError",
    "DatabaseMissingError",
    "DatabaseUnavailableError",
    "DeadlockError",
    "ExclusionViolationError",
    "ForeignKeyViolationError",
    "HalfAppliedMigrationError",
    "IdentityError",
    "IdentityRequiredError",
    "IdleInTransactionTimeoutError",
    "InsecureConnectionError",
    "LifecycleError",
    "LockTimeoutError",
    "BulkInsertError",
    "MigrationError",
    "MigrationLockError",
    "MissingExtraError",
    "MoorageError",
    "NotNullViolationError",
    "PendingMigrationsError",
    "PermissionDeniedError",
    "PoolExhaustedError",
    "ReadOnlyError",
    "ScaffoldError",
    "SeedError",
    "SerializationError",
    "SessionSharedError",
    "SettingsError",
    "StalePlanError",
    "StatementCancelledError",
    "StatementSyntaxError",
    "StatementTimeoutError",
    "TooManyConnectionsError",
    "TransactionAbortedError",
    "UncommittedChangesError",
    "UndefinedObjectError",
    "UniqueViolationError",
    "UnitOfWorkError",
]


class MoorageError(Exception):
    """
    Base of everything that moorage raises.

    Attributes:
        hint: The next step, as a sentence; empty where there is none to give.
        anchor: Name of the section in the documentation's page of errors.
    """

    anchor: ClassVar[str] = "moorage"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Tracebacks show the path that users import from, not the file it happens to live in.
        if cls.__module__ == __name__:
            cls.__module__ = "moorage"

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  Next step: {self.hint}" if self.hint else message


MoorageError.__module__ = "moorage"


class SettingsError(MoorageError, ValueError):
    """
    One or more settings are wrong, or two of them disagree.

    Raised while settings are built or checked against a connector, before any connection.

    Attributes:
        problems: One sentence per problem; each begins with the variable's name.
    """

    anchor = "settings"

    def __init__(self, problems: str | tuple[str, ...] | list[str], *, hint: str = "") -> None:
        found = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(found) == 1:
            message = found[0]
        else:
            lines = "".join(f"\n  - {problem}" for problem in found)
            message = f"{len(found)} settings are wrong:{lines}"
        super().__init__(message, hint=hint)
        self.problems = found

    def errors(self) -> list[dict[str, str]]:
        """
        Return the problems as data, in the manner of pydantic, without the values.

        Each item has ``variable`` (the name of the environment variable, or of the argument) and
        ``msg``; the input itself is left out because it may be a secret.
        """
        return [
            {"variable": p.removeprefix("argument ").partition(" ")[0], "msg": p}
            for p in self.problems
        ]


class ConnectorError(MoorageError):
    """A connector cannot be used."""

    anchor = "connector"


class ConnectorNotFoundError(ConnectorError, LookupError, ValueError):
    """No installed distribution publishes a connector of this name."""

    anchor = "connector-not-found"


class ConnectorConflictError(ConnectorError, LookupError):
    """Two distributions publish different connectors under one name."""

    anchor = "connector-conflict"


class ConnectorImportError(ConnectorError, ImportError):
    """The connector is installed, but it or its driver does not import."""

    anchor = "connector-import"


class ConnectorContractError(ConnectorError, TypeError):
    """The object behind the entry point does not keep the contract of ``DBConnector``."""

    anchor = "connector-contract"


class ContractVersionError(ConnectorContractError):
    """The connector was written for a contract number that this core does not speak."""

    anchor = "contract-version"


class MissingExtraError(MoorageError, ImportError):
    """An optional package is not installed; the hint is the line that installs it."""

    anchor = "missing-extra"


class BulkInsertError(MoorageError, ValueError):
    """What was given to ``bulk_insert`` does not fit the table, or the backend."""

    anchor = "bulk-insert"


class MigrationError(MoorageError, RuntimeError):
    """The schema cannot be migrated, or nothing can be said about it."""

    anchor = "migration"


class MigrationLockError(MigrationError):
    """Another process has been migrating this database for longer than was to be waited."""

    anchor = "migration-lock"


class HalfAppliedMigrationError(MigrationError):
    """
    A revision was interrupted on a backend that cannot undo CREATE and ALTER.

    Attributes:
        revision: The revision.
        direction: ``upgrade`` or ``downgrade``.
        ran: Its statements that ran.
        unknown: The statement, if any, that was under way.
    """

    anchor = "half-applied-migration"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        revision: str = "",
        direction: str = "",
        ran: tuple[str, ...] = (),
        unknown: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.revision = revision
        self.direction = direction
        self.ran = ran
        self.unknown = unknown


class PendingMigrationsError(MigrationError):
    """The database is not at the revisions that the code expects."""

    anchor = "pending-migrations"


class SeedError(MoorageError, ValueError):
    """A seed is wrong, or may not run here; what it has written was rolled back."""

    anchor = "seed"


class ScaffoldError(MoorageError):
    """Files of a project cannot be written as asked for; nothing was written."""

    anchor = "scaffold"


class LifecycleError(MoorageError, RuntimeError):
    """Something was used at a time of its life when it cannot work."""

    anchor = "lifecycle"


class DatabaseDisposedError(LifecycleError):
    """The ``Database`` was disposed; it opens no further session."""

    anchor = "database-disposed"


class UnitOfWorkError(LifecycleError):
    """A unit of work was begun twice, ended before it began, or committed from inside."""

    anchor = "unit-of-work"


class SessionSharedError(LifecycleError):
    """One session was used by two tasks; a session belongs to the task that began with it."""

    anchor = "session-shared"


class UncommittedChangesError(LifecycleError):
    """A session that was written to has ended without a commit; nothing was stored."""

    anchor = "uncommitted-changes"


class IdentityError(MoorageError):
    """A session may not work on somebody's behalf, or not like this."""

    anchor = "identity"


class IdentityRequiredError(IdentityError):
    """A session has no identity, and the database demands one."""

    anchor = "identity-required"


class DatabaseError(MoorageError):
    """
    The database, or the way to it, failed.

    What is raised is always an instance of this class and of a class of ``sqlalchemy.exc``.

    Attributes:
        backend_code: The code that decided the class: SQLSTATE, errno, or SQLite's extended
            result code by name; empty where the failure has none.
        constraint: Name of the constraint that was broken; ``None`` where the backend does not
            tell.
        table: Name of the table that the error is about, likewise.
        columns: Names of its columns that the error is about; empty where the backend does not
            tell.
        is_transient: Whether the same work, run again as a whole, may succeed.
        orig: What SQLAlchemy took for the error of the driver, or the operating system raised.
    """

    anchor = "database"
    is_transient: ClassVar[bool] = False
    backend_code: str = ""
    constraint: str | None = None
    table: str | None = None
    columns: tuple[str, ...] = ()
    orig: BaseException | None = None

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        backend_code: str = "",
        constraint: str | None = None,
        table: str | None = None,
        columns: tuple[str, ...] = (),
        orig: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.backend_code = backend_code
        self.constraint = constraint
        self.table = table
        self.columns = columns
        self.orig = orig

    @property
    def driver_exception(self) -> BaseException | None:
        """
        Return what the driver itself raised.

        ``orig`` may be an emulation that SQLAlchemy puts around a driver that is no DBAPI.
        """
        return _of_the_driver(self.orig)


class ConnectError(DatabaseError):
    """No connection could be made."""

    anchor = "connect"


class DatabaseUnavailableError(ConnectError):
    """The server cannot be reached, is starting up, or did not answer in time; it may later."""

    anchor = "database-unavailable"
    is_transient = True


class TooManyConnectionsError(DatabaseUnavailableError):
    """The server has as many connections as it, or this user, may have."""

    anchor = "too-many-connections"


class AuthenticationError(ConnectError):
    """The server refused the user, the password or the origin of the connection."""

    anchor = "authentication"


class DatabaseMissingError(ConnectError):
    """The server (or the folder) is there, the database is not."""

    anchor = "database-missing"


class InsecureConnectionError(ConnectError):
    """TLS was asked for, and the server did not give it or could not prove who it is."""

    anchor = "insecure-connection"


class PoolExhaustedError(DatabaseError):
    """
    No connection of the pool came free within ``pool_timeout_seconds``.

    Not transient: the wait was had, and trying again at once makes the queue longer.
    """

    anchor = "pool-exhausted"


class ConnectionLostError(DatabaseError):
    """
    The connection broke while it was in use; what its transaction did is undone.

    Not raised where COMMIT was under way: that is :class:`CommitOutcomeUnknownError`.
    """

    anchor = "connection-lost"
    is_transient = True


class IdleInTransactionTimeoutError(ConnectionLostError):
    """The server ended the connection, because its transaction sat idle for too long."""

    anchor = "idle-in-transaction-timeout"
    is_transient = False


class CommitOutcomeUnknownError(DatabaseError):
    """COMMIT was sent, and nobody knows what became of it; it must not be repeated blindly."""

    anchor = "commit-outcome-unknown"


class SerializationError(DatabaseError):
    """The transaction collided with another one and was undone; run the whole unit again."""

    anchor = "serialization"
    is_transient = True


class DeadlockError(DatabaseError):
    """Two transactions waited for each other, and this one was undone; run the unit again."""

    anchor = "deadlock"
    is_transient = True


class TransactionAbortedError(DatabaseError):
    """
    An earlier error had ended the transaction; nothing of it can be stored any more.

    Raised where the code went on after it had swallowed that error. PostgreSQL answers the COMMIT
    of such a transaction with a ROLLBACK that drivers take for success; MySQL, after a deadlock,
    and SQLite, after a full disk, begin another transaction with the next statement, so that a
    half would be stored.
    """

    anchor = "transaction-aborted"


class LockTimeoutError(DatabaseError):
    """A lock was not had within ``lock_timeout_seconds``."""

    anchor = "lock-timeout"
    is_transient = True


class StatementCancelledError(DatabaseError):
    """The server ended the statement because somebody else asked it to."""

    anchor = "statement-cancelled"


class StatementTimeoutError(StatementCancelledError):
    """The statement ran for longer than ``statement_timeout_seconds`` and was ended."""

    anchor = "statement-timeout"


class StalePlanError(DatabaseError):
    """The schema changed after the statement was prepared; run the whole unit again."""

    anchor = "stale-plan"
    is_transient = True


class ConstraintViolationError(DatabaseError):
    """A constraint of the schema forbids the rows that were written, or the deletion."""

    anchor = "constraint-violation"


class UniqueViolationError(ConstraintViolationError):
    """A row with this key is there already."""

    anchor = "unique-violation"


class ForeignKeyViolationError(ConstraintViolationError):
    """A row refers to one that is not there, or one that is referred to would go."""

    anchor = "foreign-key-violation"


class NotNullViolationError(ConstraintViolationError):
    """A column that must have a value was given none."""

    anchor = "not-null-violation"


class CheckViolationError(ConstraintViolationError):
    """A value breaks a CHECK of the schema."""

    anchor = "check-violation"


class ExclusionViolationError(ConstraintViolationError):
    """A row overlaps another one where an EXCLUDE constraint forbids it."""

    anchor = "exclusion-violation"


class ReadOnlyError(DatabaseError):
    """A write reached a session, a file or a server on which only reads are possible."""

    anchor = "read-only"


class PermissionDeniedError(DatabaseError):
    """The database user may not do this."""

    anchor = "permission-denied"


class UndefinedObjectError(DatabaseError):
    """The statement names a table, column, function or other object that is not there."""

    anchor = "undefined-object"


class StatementSyntaxError(DatabaseError):
    """The database does not understand the statement."""

    anchor = "statement-syntax"


class DataError(DatabaseError):
    """A value cannot be held by its column."""

    anchor = "data"


def _of_the_driver(error: BaseException | None) -> BaseException | None:
    """Return what is behind SQLAlchemy's emulation of an error, or the error itself."""
    if error is None or not type(error).__module__.startswith("sqlalchemy."):
        return error
    return error.__cause__ or error


_CAUSE: Any = vars(BaseException)["__cause__"]  # the slot, which a property of ours covers


def _get_cause(self: BaseException) -> BaseException | None:
    return _of_the_driver(_CAUSE.__get__(self))


def _set_cause(self: BaseException, cause: BaseException | None) -> None:
    _CAUSE.__set__(self, cause)


_blended: dict[tuple[type[DatabaseError], type[sa_exc.SQLAlchemyError]], type[DatabaseError]] = {}


def _blended_class(
    ours: type[DatabaseError], theirs: type[sa_exc.SQLAlchemyError]
) -> type[DatabaseError]:
    """Return the one class that derives from both, made at the first call for the pair."""
    if (known := _blended.get((ours, theirs))) is not None:
        return known
    # `code` is SQLAlchemy's link to its own page of errors, and would be printed after our hint.
    members: dict[str, Any] = {
        "__module__": ours.__module__,
        "__qualname__": ours.__qualname__,
        "__reduce__": _reduce,
        "_moorage_parts": (ours, theirs),
        "code": None,
        # SQLAlchemy raises what its listeners return "from" its emulation of the driver's error.
        "__cause__": property(_get_cause, _set_cause),
    }
    # setdefault: of two threads that come here at once, both get the same class.
    return _blended.setdefault((ours, theirs), type(ours.__name__, (ours, theirs), members))


def _reduce(self: DatabaseError) -> tuple[Any, ...]:
    ours, theirs = type(self)._moorage_parts  # type: ignore[attr-defined]  # set by _blended_class
    return _rebuild, (ours, theirs, self.args, self.__dict__)


def _rebuild(
    ours: type[DatabaseError],
    theirs: type[sa_exc.SQLAlchemyError],
    args: tuple[Any, ...],
    state: dict[str, Any],
) -> DatabaseError:
    cls = _blended_class(ours, theirs)
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def blend(ours: DatabaseError, theirs: sa_exc.SQLAlchemyError) -> DatabaseError:
    """
    Return an error that is an instance of the classes of both arguments.

    Called where an error of the driver becomes one of ours. The result carries the message, hint
    and code of ``ours`` and the statement, parameters and ``connection_invalidated`` of
    ``theirs``; ``except`` clauses for either class catch it.
    """
    state = {**theirs.__dict__, **ours.__dict__}
    state.pop("code", None)
    orig = getattr(theirs, "orig", None)
    # What we have raised ourselves is nobody's original.
    state["orig"] = ours.orig if orig is None or isinstance(orig, MoorageError) else orig
    # Of an error that was blended before only SQLAlchemy's half is kept: a lost COMMIT must not
    # be caught by who waits for a lost connection.
    _, kind = getattr(type(theirs), "_moorage_parts", (None, type(theirs)))
    return _rebuild(type(ours), kind, ours.args, state)
