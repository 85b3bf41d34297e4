"""Options of the MySQL connector, read from ``DB_MYSQL_<OPTION>``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moorage import ConnectorOptions

Words = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(,[A-Za-z0-9_]+)*$")]


class MySQLOptions(ConnectorOptions):
    """What can be chosen about MySQL and MariaDB beyond the core settings."""

    sql_mode: Words = Field(
        "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
        "NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY",
        description="`sql_mode` of each session: values that do not fit are errors.",
    )
    isolation_level: Annotated[
        str, Field(pattern=r"^(READ COMMITTED|REPEATABLE READ|SERIALIZABLE)$")
    ] = Field(
        "READ COMMITTED",
        description="Isolation of each session; the server's own default is REPEATABLE READ.",
    )
