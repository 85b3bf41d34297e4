"""MySQL and MariaDB on asyncmy: all that a connector needs to pass the suite."""

from typing import Any

from sqlalchemy import URL

import moorage
from moorage import Capabilities, DBConnector, Diagnosis

ERRORS = {
    1062: moorage.UniqueViolationError,
    1452: moorage.ForeignKeyViolationError,
    1048: moorage.NotNullViolationError,
    1264: moorage.DataError,
    1146: moorage.UndefinedObjectError,
    1064: moorage.StatementSyntaxError,
    1044: moorage.PermissionDeniedError,
    1205: moorage.LockTimeoutError,
    1969: moorage.StatementTimeoutError,
    1213: moorage.DeadlockError,
    1045: moorage.AuthenticationError,
    1049: moorage.DatabaseMissingError,
    2013: moorage.ConnectionLostError,
}


class AsyncmyConnector(DBConnector):
    """MySQL and MariaDB on asyncmy."""

    name = "asyncmy"
    contract = 1
    default_port = 3306
    capabilities = Capabilities(
        isolation_levels=frozenset({"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}),
        errors=frozenset(ERRORS.values()),
    )

    def get_url(self) -> URL:
        return self.build_url("mysql+asyncmy")

    def get_engine_args(self) -> dict[str, Any]:
        arguments, settings = super().get_engine_args(), self.settings
        lock = max(1, round(settings.lock_timeout_seconds))
        arguments["connect_args"] = {
            "charset": "utf8mb4",
            "init_command": f"SET SESSION innodb_lock_wait_timeout={lock},"
            f" max_statement_time={settings.statement_timeout_seconds:g}",
        }
        return arguments

    def classify_error(self, error: Any, *, statement: str | None = None) -> Diagnosis | None:
        number = error.args[0] if error.args else None
        if statement is None and number in (2003, 2006, 2013):
            return self.unreachable(error)
        if number not in ERRORS:
            return None
        return self.diagnose(ERRORS[number], str(error.args[-1]), str(number))
