"""
Check the types of what `moorage init` writes, beside those of the tree.

mypy reads the libraries once for both; `make test-long` checks all kinds of projects, with nothing
of this tree's settings.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.scaffold.projects import write  # noqa: E402

PLACE = ROOT / ".tools" / "scaffolded"
# With moorage and without.
PROJECTS = (
    {"backend": "supabase", "unit_of_work": False},
    {"backend": "postgres", "standalone": True},
)


def main() -> int:
    """Write the projects and check them; return the exit status."""
    failed = 0
    for number, options in enumerate(PROJECTS):
        folder = PLACE / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, tool="pip", layout="package", auth=True, **options)
        settings = [f"--config-file={ROOT}/pyproject.toml", f"--cache-dir={ROOT}/.mypy_cache"]
        command = [sys.executable, "-m", "mypy", *settings, "app", "tests", "alembic", "seeds"]
        failed |= subprocess.call(command, cwd=folder)
    return failed


if __name__ == "__main__":
    sys.exit(main())
