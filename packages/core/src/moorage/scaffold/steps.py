"""The commands that come next, as the project's own tool runs them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from moorage.scaffold.discovery import Found
from moorage.scaffold.questions import Answers

__all__ = ["Steps"]

_RUNNERS = {"uv": "uv run ", "poetry": "poetry run ", "pdm": "pdm run ", "hatch": "hatch run "}
_INSTALLERS = {
    "uv": "uv sync",
    "poetry": "poetry install",
    "pdm": "pdm install",
    "hatch": "hatch env create",
}


@dataclass(frozen=True)
class Steps:
    """
    The commands of one project.

    Attributes:
        found: The project as it was.
        answers: The decisions.
        app: What the import name of our application begins with; ``None`` for no such.
    """

    found: Found
    answers: Answers
    app: str | None

    @property
    def upgrade(self) -> str:
        """Return what applies the migrations."""
        own = "alembic upgrade head" if self.answers.standalone else "moorage db upgrade"
        return f"{self._runner}{own}"

    @property
    def revise(self) -> str:
        """Return what writes a migration; its message is to be added."""
        is_own = self.answers.standalone
        own = "alembic revision --autogenerate" if is_own else "moorage db revision"
        return f"{self._runner}{own}"

    @property
    def seed(self) -> str:
        """Return what plants the seeds."""
        is_own = self.answers.standalone
        return f"{self._runner}{'python seeds/books.py' if is_own else 'moorage db seed --env dev'}"

    def commands(self) -> tuple[str, ...]:
        """Return the next three: install, migrate, and look."""
        if self._runner:
            install = _INSTALLERS[self.answers.tool]
        elif self.found.dependency_file == "pyproject.toml":
            install = "pip install --group dev --editable ."
        else:
            install = "pip install -r requirements.txt -r requirements-dev.txt"
        return install, self.upgrade, f"{self._runner}{self._look}"

    @property
    def _runner(self) -> str:
        is_listed_plainly = self.found.dependency_file == "requirements.txt"
        return "" if is_listed_plainly else _RUNNERS.get(self.answers.tool, "")

    @property
    def _look(self) -> str:
        source = "src" if self.answers.layout == "src" else ""
        folder = f" --app-dir {source}" if source else ""
        if self.app is not None:
            return f"uvicorn{folder} {self.app}main:app --reload"
        if self.answers.fastapi and self.found.applications:
            one = self.found.applications[0]
            module = one.path.removeprefix(f"{source}/" if source else "")
            module = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            name = f"{one.factory} --factory" if one.factory else one.name
            return f"uvicorn{folder} {shlex.quote(module)}:{name} --reload"
        return "python -m pytest tests/database"
