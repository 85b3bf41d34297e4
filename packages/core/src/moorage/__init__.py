"""
moorage: an async SQLAlchemy database layer with plug-in connectors.

Importing it reads no environment, scans nothing, opens nothing and imports no driver.
"""

from moorage._requirements import check_sqlalchemy as _check_sqlalchemy

_check_sqlalchemy()

from moorage.abilities import LocksMigrations, ManagesStorage
from moorage.address import HostPort
from moorage.connector import (
    CONTRACT_VERSION,
    AccessMode,
    Capabilities,
    ConnectorOptions,
    DBConnector,
    TransactionLimits,
    URLParameter,
)
from moorage.database import Database, PoolStatistics
from moorage.default import (
    dispose_engine,
    get_database,
    get_engine,
    get_sessionmaker,
    use_database,
)
from moorage.descriptor import release_descriptor
from moorage.diagnosis import Diagnosis
from moorage.errors import (
    AuthenticationError,
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectError,
    ConnectionLostError,
    ConnectorConflictError,
    ConnectorContractError,
    ConnectorError,
    ConnectorImportError,
    ConnectorNotFoundError,
    ConstraintViolationError,
    ContractVersionError,
    DatabaseDisposedError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    DeadlockError,
    ExclusionViolationError,
    ForeignKeyViolationError,
    IdleInTransactionTimeoutError,
    InsecureConnectionError,
    LifecycleError,
    LockTimeoutError,
    MissingExtraError,
    MoorageError,
    NotNullViolationError,
    PermissionDeniedError,
    PoolExhaustedError,
    ReadOnlyError,
    SerializationError,
    SessionSharedError,
    SettingsError,
    StalePlanError,
    StatementCancelledError,
    StatementSyntaxError,
    StatementTimeoutError,
    TooManyConnectionsError,
    TransactionAbortedError,
    UncommittedChangesError,
    UndefinedObjectError,
    UniqueViolationError,
    UnitOfWorkError,
    blend,
)
from moorage.holders import work_name
from moorage.hooks import Hook
from moorage.keepalive import enable_keepalive
from moorage.registry import (
    InstalledConnector,
    get_connector,
    installed_connectors,
    register_connector,
    unregister_connector,
)
from moorage.retry import as_unit, run_unit
from moorage.session import InnerCommits, retire_session, uncommitted_changes
from moorage.settings import (
    DatabaseSettings,
    DatabaseType,
    PrePing,
    SSLMode,
    UnknownSettingWarning,
)
from moorage.shield import wait_shielded
from moorage.tls import effective_ssl_mode, make_ssl_context
from moorage.unit_of_work import (
    AsyncSessionFactory,
    AsyncSessionMaker,
    CommitOutcome,
    UnitOfWork,
    UnitOptions,
    on_commit,
    on_rollback,
)

__version__ = "0.1.0"

# Documentation and type checkers take from here what is public.
__all__ = [
    "AccessMode",
    "AsyncSessionFactory",
    "AsyncSessionMaker",
    "AuthenticationError",
    "CONTRACT_VERSION",
    "Capabilities",
    "CheckViolationError",
    "CommitOutcome",
    "CommitOutcomeUnknownError",
    "ConnectError",
    "ConnectionLostError",
    "ConnectorConflictError",
    "ConnectorContractError",
    "ConnectorError",
    "ConnectorImportError",
    "ConnectorNotFoundError",
    "ConnectorOptions",
    "ConstraintViolationError",
    "ContractVersionError",
    "DBConnector",
    "DataError",
    "Database",
    "DatabaseDisposedError",
    "DatabaseError",
    "DatabaseMissingError",
    "DatabaseSettings",
    "DatabaseType",
    "DatabaseUnavailableError",
    "DeadlockError",
    "Diagnosis",
    "ExclusionViolationError",
    "ForeignKeyViolationError",
    "Hook",
    "HostPort",
    "IdleInTransactionTimeoutError",
    "InnerCommits",
    "InsecureConnectionError",
    "InstalledConnector",
    "LifecycleError",
    "LockTimeoutError",
    "LocksMigrations",
    "ManagesStorage",
    "MissingExtraError",
    "MoorageError",
    "NotNullViolationError",
    "PermissionDeniedError",
    "PoolExhaustedError",
    "PoolStatistics",
    "PrePing",
    "ReadOnlyError",
    "SSLMode",
    "SerializationError",
    "SessionSharedError",
    "SettingsError",
    "StalePlanError",
    "StatementCancelledError",
    "StatementSyntaxError",
    "StatementTimeoutError",
    "TooManyConnectionsError",
    "TransactionAbortedError",
    "TransactionLimits",
    "URLParameter",
    "UncommittedChangesError",
    "UndefinedObjectError",
    "UniqueViolationError",
    "UnitOfWork",
    "UnitOfWorkError",
    "UnitOptions",
    "UnknownSettingWarning",
    "as_unit",
    "blend",
    "dispose_engine",
    "effective_ssl_mode",
    "enable_keepalive",
    "get_connector",
    "get_database",
    "get_engine",
    "get_sessionmaker",
    "installed_connectors",
    "make_ssl_context",
    "on_commit",
    "on_rollback",
    "register_connector",
    "release_descriptor",
    "retire_session",
    "run_unit",
    "uncommitted_changes",
    "unregister_connector",
    "use_database",
    "wait_shielded",
    "work_name",
]
