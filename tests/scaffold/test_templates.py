"""Every project that can be asked for is clean source."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moorage.scaffold.key_shapes import find_secrets
from tests.fix_scale import Scale
from tests.scaffold.projects import (
    BACKENDS,
    FLAGS,
    LAYOUTS,
    TOOLS,
    name_of,
    pairwise,
    product,
    run,
    write,
)

pytestmark = pytest.mark.timeout(900)

CHOICES = {**FLAGS, **LAYOUTS, **BACKENDS}


@pytest.mark.scaled
def test_every_project_is_clean(scale: Scale, tmp_path: Path) -> None:
    """Any two choices, all in the long run, parse, hold no secret, and are as ruff wants them."""
    everything, tools = product(CHOICES), TOOLS["tool"]
    rows = everything if scale(small=0, full=1) else pairwise(CHOICES)
    for number, options in enumerate(rows):
        folder = tmp_path / name_of(options)
        plan = write(folder, tool=tools[number % len(tools)], **options)
        (folder / "ruff.toml").touch()  # what is first-party depends on the project's folder
        for change in plan.changes:
            assert list(find_secrets(change.after)) == [], change.path
            if change.path.endswith(".py"):
                compile(ast.parse(change.after, change.path), change.path, "exec")
                assert change.after.endswith("\n")
    for command in (["check", "--extend-select", "I"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.scaled(small=[])
@pytest.mark.parametrize("options", pairwise({**FLAGS, **BACKENDS}), ids=name_of)
def test_projects_have_types(options: dict[str, Any], tmp_path_factory: Any) -> None:
    """
    mypy, strict, finds nothing in a project, whatever is in it.

    At small counts this is `make types`, where mypy knows the libraries already.
    """
    folder = tmp_path_factory.mktemp("shop")
    write(folder, **{"tool": "pip", "layout": "package", **options})
    cache = ["--cache-dir", str(tmp_path_factory.getbasetemp() / "types")]
    source = [name for name in ("app", "tests", "alembic", "seeds") if (folder / name).is_dir()]
    run(folder, "-m", "mypy", "--strict", *cache, *source)


@pytest.mark.scaled
def test_a_new_revision_is_sorted(scale: Scale, tmp_path: Path) -> None:
    """What autogenerate imports stands where ruff wants it, in a folder called alembic as well."""
    for standalone in (True, False)[: scale(small=1, full=2)]:
        revise(tmp_path / str(standalone), standalone=standalone)


def revise(tmp_path: Path, *, standalone: bool) -> None:
    """Add a model to a project, and let Alembic write and apply the revision."""
    folder, where = tmp_path / "shop", {"database": {"type": "sqlite", "name": "app.db"}}
    write(folder, backend="sqlite", tool="uv", standalone=standalone, fastapi=False, example=False)
    models = folder / "app/db/models.py"
    models.write_text(
        "from sqlalchemy.orm import Mapped\n\nfrom app.db.base import Base, Entity\n\n\n"
        "class Boat(Entity):\n    __tablename__ = 'boats'\n\n    name: Mapped[str]\n"
        "\n\n__all__ = ['Base', 'Boat']\n"
    )
    run(folder, "-c", ALEMBIC, "revision --autogenerate -m boats", "upgrade head", "check", **where)
    (folder / "ruff.toml").touch()
    run(folder, "-m", "ruff", "check", "--no-cache", "--extend-select", "I", "alembic")
    (revision,) = (folder / "alembic/versions").glob("*.py")
    own = "app.db.columns" if standalone else "moorage.models"
    assert f"\nimport {own}\n" in revision.read_text()


# Commands one after the other in one process, which imports everything once.
ALEMBIC = """
import sys
from alembic.config import main

for command in sys.argv[1:]:
    main(command.split())
"""
