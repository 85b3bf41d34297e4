"""PostgreSQL on psycopg 3: all that a connector needs to pass the suite."""

from typing import Any

import psycopg
from sqlalchemy import URL

import moorage
from moorage import Capabilities, DBConnector, Diagnosis, effective_ssl_mode

ERRORS = {
    "23505": moorage.UniqueViolationError,
    "23503": moorage.ForeignKeyViolationError,
    "23502": moorage.NotNullViolationError,
    "22003": moorage.DataError,
    "42P01": moorage.UndefinedObjectError,
    "42601": moorage.StatementSyntaxError,
    "42501": moorage.PermissionDeniedError,
    "55P03": moorage.LockTimeoutError,
    "57014": moorage.StatementTimeoutError,
    "40P01": moorage.DeadlockError,
    "40001": moorage.SerializationError,
}


class PsycopgConnector(DBConnector):
    """PostgreSQL on psycopg 3."""

    name = "psycopg"
    contract = 1
    default_port = 5432
    capabilities = Capabilities(
        tls=True,
        isolation_levels=frozenset({"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}),
        transactional_ddl=True,
        errors=frozenset({*ERRORS.values(), moorage.ConnectionLostError}),
    )

    def get_url(self) -> URL:
        return self.build_url("postgresql+psycopg")

    def get_engine_args(self) -> dict[str, Any]:
        arguments, settings = super().get_engine_args(), self.settings
        statement = round(settings.statement_timeout_seconds * 1000)
        lock = round(settings.lock_timeout_seconds * 1000)
        arguments["connect_args"] = {
            "options": f"-c statement_timeout={statement} -c lock_timeout={lock}",
            "sslmode": effective_ssl_mode(settings),
            **({"sslrootcert": str(settings.ssl_ca)} if settings.ssl_ca else {}),
        }
        return arguments

    def classify_error(self, error: Any, *, statement: str | None = None) -> Diagnosis | None:
        code = getattr(error, "sqlstate", None)
        if code is None and statement is None and isinstance(error, psycopg.Error):
            return self.unreachable(error)
        return self.diagnose(ERRORS[code], str(error), code) if code in ERRORS else None
