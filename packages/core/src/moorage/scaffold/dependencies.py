"""What a project depends on, by its answers."""

from __future__ import annotations

from moorage.scaffold.backends import Backend
from moorage.scaffold.questions import Answers

__all__ = ["development", "requirements"]

# Of a layer of one's own; before 2.1.9, SQLAlchemy loses connections to cancellations.
_LAYER = ("alembic>=1.16", "pydantic-settings>=2.12", "sqlalchemy[asyncio]>=2.1.9,<2.2")


def requirements(backend: Backend, answers: Answers) -> list[str]:
    """Return what the project needs to run."""
    needed = _of_layer(backend, answers) if answers.standalone else _of_moorage(backend, answers)
    needed += ["uvicorn>=0.38"] if answers.fastapi else []
    needed += ["pwdlib[argon2]>=0.3"] if answers.auth else []
    return needed


def development(answers: Answers) -> list[str]:
    """Return what its tests need beside that."""
    from moorage import __version__

    ours = [] if answers.standalone else [f"moorage[cli]>={__version__},<1"]
    client = ["httpx>=0.28"] if answers.fastapi else []
    return [*ours, "pytest>=8.3", "pytest-asyncio>=1", *client]


def _of_moorage(backend: Backend, answers: Answers) -> list[str]:
    from moorage import __version__

    extras = ["migrations", *(["fastapi"] if answers.fastapi else [])]
    extras += [backend.requirement] if backend.is_extra else []
    moorage = f"moorage[{','.join(sorted(extras))}]>={__version__},<1"
    return [moorage, *([] if backend.is_extra else [backend.requirement])]


def _of_layer(backend: Backend, answers: Answers) -> list[str]:
    framework = ["fastapi>=0.123"] if answers.fastapi else []
    return sorted([*_LAYER, *backend.driver, *framework], key=str.lower)
