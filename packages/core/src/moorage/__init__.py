"""
moorage: an async SQLAlchemy database layer with plug-in connectors.

Importing it reads no environment, scans nothing, opens nothing and imports no driver.
"""

from moorage._requirements import check_sqlalchemy as _check_sqlalchemy

_check_sqlalchemy()

from moorage.address import HostPort
from moorage.connector import (
    CONTRACT_VERSION,
    AccessMode,
    Capabilities,
    ConnectorOptions,
    DBConnector,
    Diagnosis,
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
from moorage.errors import (
    AuthenticationError,
    CommitOutcomeUnknownError,
    ConnectError,
    ConnectorConflictError,
    ConnectorContractError,
    ConnectorError,
    ConnectorImportError,
    ConnectorNotFoundError,
    ContractVersionError,
    DatabaseDisposedError,
    DatabaseError,
    DatabaseMissingError,
    DatabaseUnavailableError,
    DataError,
    InsecureConnectionError,
    LifecycleError,
    LockTimeoutError,
    MoorageError,
    ReadOnlyError,
    SerializationError,
    SettingsError,
    UnitOfWorkError,
)
from moorage.keepalive import enable_keepalive
from moorage.registry import (
    InstalledConnector,
    get_connector,
    installed_connectors,
    register_connector,
    unregister_connector,
)
from moorage.settings import (
    DatabaseSettings,
    DatabaseType,
    PrePing,
    SSLMode,
    UnknownSettingWarning,
)
from moorage.tls import effective_ssl_mode, make_ssl_context
from moorage.unit_of_work import (
    AsyncSessionFactory,
    AsyncSessionMaker,
    CommitOutcome,
    UnitOfWork,
)

__version__ = "0.1.0"

# Documentation and type checkers take from here what is public.
__all__ = [
    "CONTRACT_VERSION",
    "AccessMode",
    "AsyncSessionFactory",
    "AsyncSessionMaker",
    "AuthenticationError",
    "Capabilities",
    "CommitOutcome",
    "CommitOutcomeUnknownError",
    "ConnectError",
    "ConnectorConflictError",
    "ConnectorContractError",
    "ConnectorError",
    "ConnectorImportError",
    "ConnectorNotFoundError",
    "ConnectorOptions",
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
    "Diagnosis",
    "HostPort",
    "InsecureConnectionError",
    "InstalledConnector",
    "LifecycleError",
    "LockTimeoutError",
    "MoorageError",
    "PoolStatistics",
    "PrePing",
    "ReadOnlyError",
    "SSLMode",
    "SerializationError",
    "SettingsError",
    "URLParameter",
    "UnitOfWork",
    "UnitOfWorkError",
    "UnknownSettingWarning",
    "dispose_engine",
    "effective_ssl_mode",
    "enable_keepalive",
    "get_connector",
    "get_database",
    "get_engine",
    "get_sessionmaker",
    "installed_connectors",
    "make_ssl_context",
    "register_connector",
    "unregister_connector",
    "use_database",
]
