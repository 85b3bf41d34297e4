"""
Write ``examples/connector-template`` anew: what ``moorage connector new`` makes for a new backend.

``--check`` only says whether it is current. Heron is a made-up database that speaks PostgreSQL's
protocol, as several real ones do.
"""

import shutil
import sys
from pathlib import Path

from moorage.scaffold.connector import plan_connector, render_connector, write_connector

FOLDER = Path(__file__).parent.parent / "examples" / "connector-template"
PLAN = plan_connector("heron", driver="postgresql+asyncpg", port=5433)


def differences() -> list[str]:
    """Return the files that are missing, too many, or not as they would be written."""
    wanted = {FOLDER / path: text for path, text in render_connector(PLAN).items()}
    rubbish = {"__pycache__", "dist", ".pytest_cache"}
    found = {
        path: path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*")
        if path.is_file() and not rubbish & set(path.parts)
    }
    return sorted(
        str(path.relative_to(FOLDER))
        for path in {*wanted, *found}
        if wanted.get(path) != found.get(path)
    )


def main() -> int:
    """Write the example, or check it."""
    different = differences()
    if "--check" in sys.argv[1:]:
        for name in different:
            print(f"{name}: run python scripts/connector_example.py")
        return int(bool(different))
    if different:
        shutil.rmtree(FOLDER, ignore_errors=True)
        write_connector(PLAN, FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
