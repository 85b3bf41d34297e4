"""The test kit beside a pooler in transaction mode."""

from pathlib import Path
from typing import Any

from moorage import Database, DatabaseSettings, get_connector
from moorage.testing.storage import Storage


async def test_the_databases_of_tests_are_never_the_application_s(
    tmp_path: Path, pooled: dict[str, Any]
) -> None:
    """A direct URL leads to the server, and its name of a database is not what is made anew."""
    settings = DatabaseSettings(**pooled, _env_file=None)

    async def schema(database: Database) -> None:
        """Make nothing."""

    made = Storage(settings, schema, "main", tmp_path).settings("tests")
    assert made.direct().name == made.name == f"{settings.name}_test_tests"
    assert get_connector(made).get_url().database == made.name
