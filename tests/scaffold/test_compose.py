"""The server of compose.yaml is one that the tests of the project can use."""

import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from moorage import (
    Database,
    DatabaseSettings,
    ManagesStorage,
    PermissionDeniedError,
    get_connector,
)
from tests.fix_backend import Servers, new_database
from tests.scaffold.projects import write


async def execute(settings: dict[str, Any], *statements: str) -> None:
    """Execute statements as the server's administrator."""
    database = Database(DatabaseSettings(**settings, _env_file=None))
    async with database, database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement.replace(":", "\\:")))


async def test_the_user_of_mariadb_creates_databases_for_tests(
    servers: Servers, tmp_path: Path
) -> None:
    """What compose.yaml grants suffices for the tests' databases, and for no others."""
    plan = write(tmp_path / "shop", backend="mysql", tool="uv")
    compose = next(change.after for change in plan.changes if change.path == "compose.yaml")
    found = re.search(r"content: \|\n +(GRANT .+;)\n", compose)
    assert found is not None
    user, password = f"u{secrets.token_hex(4)}", secrets.token_hex(8)
    with new_database("mysql", servers, tmp_path) as root:
        name = str(root["name"])
        grant = found[1].replace("${DB_NAME:-app}", name).replace("${DB_USER:-app}", user)
        # As the image does with MARIADB_USER and MARIADB_DATABASE.
        own = f"GRANT ALL ON `{name}`.* TO `{user}`@`%`"
        await execute(root, f"CREATE USER `{user}`@`%` IDENTIFIED BY '{password}'", own)
        try:
            mine = {**root, "user": user, "password": password}

            def connector(database: str) -> Any:
                settings = DatabaseSettings(**{**mine, "name": database}, _env_file=None)
                return get_connector(settings)

            beside, other = connector(f"{name}_test_1a2b"), connector(f"{name}_more")
            assert isinstance(beside, ManagesStorage)
            with pytest.raises(PermissionDeniedError):
                await beside.create_database()
            await execute(root, grant.rstrip(";"))
            await beside.create_database()
            await beside.drop_database()
            with pytest.raises(PermissionDeniedError):
                await other.create_database()
        finally:
            await execute(root, f"DROP USER `{user}`@`%`")
