"""
Write the tables of docs/settings.md, from the code that reads the settings.

``python scripts/settings_tables.py`` writes them, ``--check`` only says whether they are current.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moorage import DatabaseSettings
from moorage_mysql import MySQLOptions
from moorage_postgres import PostgresOptions
from moorage_sqlite import SQLiteOptions

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
OPTIONS: Mapping[str, type[BaseModel]] = {
    "SQLITE": SQLiteOptions,
    "POSTGRES": PostgresOptions,
    "MYSQL": MySQLOptions,
}


def default_of(field: FieldInfo) -> str:
    """Return the default as a user would write it."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value in (None, {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def rows(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield a row per variable."""
    for name, field in model.model_fields.items():
        if name != "connector_options":
            yield f"| `{prefix}{name.upper()}` | {default_of(field)} | {field.description} |"


def tables() -> dict[str, str]:
    """Return the tables by name."""
    head = ["| variable | default | what it says |", "|---|---|---|"]
    options = [row for name, model in OPTIONS.items() for row in rows(f"DB_{name}_", model)]
    return {
        "settings": "\n".join([*head, *rows("DB_", DatabaseSettings)]),
        "options": "\n".join([*head, *options]),
    }


def with_tables(text: str) -> str:
    """Return the text with what stands between the markers written anew."""
    for name, table in tables().items():
        begin, end = f"<!-- {name}: made by scripts/settings_tables.py -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE.name}: the markers of the table {name!r} are gone")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def main() -> int:
    """Write the tables, or check them."""
    text = PAGE.read_text(encoding="utf-8")
    current = with_tables(text)
    if "--check" in sys.argv[1:]:
        if text != current:
            print("docs/settings.md: run python scripts/settings_tables.py")
        return int(text != current)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
