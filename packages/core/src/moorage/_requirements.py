"""The versions of SQLAlchemy that moorage stands on, checked before anything else is imported."""

from __future__ import annotations

import re

import sqlalchemy

# Below these, cancelled tasks leak connections and a dead asyncpg connection returns to the pool
# (sqlalchemy#13241, #13699); between the lines, 2.1.0 to 2.1.8 lack the same fixes.
_FLOORS = {(2, 0): 58, (2, 1): 9}


def check_sqlalchemy(version: str = sqlalchemy.__version__) -> None:
    """
    Refuse a SQLAlchemy that moorage's promises do not hold on.

    Raises:
        ImportError: The installed version is too old, with the command that helps.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return  # a development build; whoever installs one knows
    major, minor, patch = (int(part) for part in match.groups())
    floor = _FLOORS.get((major, minor))
    if (major, minor) < min(_FLOORS) or (floor is not None and patch < floor):
        wanted = " or ".join(f">={a}.{b}.{c}" for (a, b), c in _FLOORS.items())
        raise ImportError(
            f"moorage needs SQLAlchemy {wanted}, and {version} is installed;"
            " run: pip install -U 'sqlalchemy[asyncio]'"
        )
