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
        db: Import name of the database package.
        has_alembic: Whether migrations are ours; else they are the project's own.
        needed: All dependencies.
    """

    found: Found
    answers: Answers
    app: str | None
    db: str
    has_alembic: bool
    needed: tuple[str, ...]

    @property
    def upgrade(self) -> str:
        """Return what applies the migrations."""
        return f"{self._runner}{'alembic upgrade head' if self._is_plain else 'moorage db upgrade'}"

    @property
    def revise(self) -> str:
        """Return what writes a migration; its message is to be added."""
        own = "alembic revision --autogenerate" if self._is_plain else "moorage db revision"
        return f"{self._runner}{own}"

    @property
    def seed(self) -> str:
        """Return what plants the seeds."""
        if self.answers.standalone:
            return f"{self._runner}python seeds/books.py"
        # An env.py of somebody else's does not name our models.
        models = "" if self.has_alembic else f" --models {self.db}.models:Base"
        return f"{self._runner}moorage db seed --env dev{models}"

    def commands(self) -> tuple[str, ...]:
        """Return the next three: install, migrate, and look."""
        if not self.has_alembic and (self.answers.example or self.answers.auth):
            return self._install, f'{self.revise} -m "first tables"', self.upgrade
        return self._install, self.upgrade, f"{self._runner}{self._look}"

    @property
    def _install(self) -> str:
        listed = self.found.dependencies
        if not listed.is_edited:
            program = "uv pip" if self.answers.tool == "uv" else f"{self._runner}pip"
            return f"{program} install {shlex.join(self.needed)}"
        if self._runner:
            return _INSTALLERS[self.answers.tool]
        if listed.extra:
            return f"pip install --editable '.[{listed.extra}]'"
        if listed.path == "pyproject.toml":
            return "pip install --group dev --editable ."
        main = listed.path or "requirements.txt"
        return f"pip install -r {main} -r {listed.development or 'requirements-dev.txt'}"

    @property
    def _is_plain(self) -> bool:
        """Return whether migrations are run by Alembic's own command."""
        theirs = self.found.alembic
        reads_other_settings = not self.has_alembic and theirs and not theirs.is_called_by_ours
        return self.answers.standalone or bool(reads_other_settings)

    @property
    def _runner(self) -> str:
        return "" if self.found.dependencies.is_plain else _RUNNERS.get(self.answers.tool, "")

    @property
    def _look(self) -> str:
        source = "src" if self.answers.layout == "src" else ""
        folder = f" --app-dir {source}" if source else ""
        if self.app is not None:
            return f"uvicorn{folder} {self.app}main:app --reload"
        served = [one for one in self.found.applications if one.target and not one.is_mounted]
        if self.answers.fastapi and served:
            module = served[0].path.removeprefix(f"{source}/" if source else "")
            module = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            if all(part.isidentifier() for part in module.split(".")):
                return f"uvicorn{folder} {module}:{served[0].target} --reload"
        return "python -m pytest tests/database"
