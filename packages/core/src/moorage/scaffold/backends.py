"""What is known of the backends that a project can be made for."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from moorage.errors import MoorageError, ScaffoldError
from moorage.registry import installed_connectors, registry

__all__ = ["Backend", "Variable", "find_backend", "known_backends"]


@dataclass(frozen=True)
class Variable:
    """A line of ``.env.example``: a name, a value or a placeholder, and where it comes from."""

    name: str
    value: str
    meaning: str

    @property
    def is_to_fill_in(self) -> bool:
        """Return whether the value is a placeholder."""
        return "<" in self.value

    def lines(self) -> tuple[str, str]:
        """Return the lines of a file of variables."""
        return f"# {self.meaning}", f"{self.name}={self.value}"


@dataclass(frozen=True)
class Backend:
    """
    A backend, as the templates see it.

    Attributes:
        name: What ``DB_TYPE`` says.
        title: Its name in prose.
        requirement: The extra of moorage, or the distribution, that brings the connector.
        is_extra: Which of the two it is.
        networked: Whether there is a server.
        variables: What ``.env.example`` lists.
        url: The form of its URL; empty where the parts are shorter.
        ignore: What ``.gitignore`` gets.
        steps: What is to be done at the provider's.
        row_level_security: Whether tables are served to others as well, and need policies.
        driver: What a layer without moorage needs; empty where there is no such layer.
        source: The templates of that layer's connector.
        connector: Its class.
        schemes: What a URL may begin with there.
    """

    name: str
    title: str
    requirement: str
    is_extra: bool
    networked: bool
    variables: tuple[Variable, ...]
    url: str = ""
    ignore: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    row_level_security: bool = False
    driver: tuple[str, ...] = ()
    source: str = ""
    connector: str = ""
    schemes: tuple[str, ...] = ()


def known_backends() -> dict[str, Backend]:
    """Return the backends by name: ours first, then other connectors that are installed."""
    found = {name: _ours(name, entry) for name, entry in _table().items()}
    aliases = {alias for entry in _table().values() for alias in entry["aliases"]}
    for connector in installed_connectors():
        if connector.name not in found and connector.name not in aliases:
            found[connector.name] = _foreign(connector.name, connector.distribution)
    return found


def find_backend(name: str) -> Backend:
    """
    Return the backend that a name or an alias means.

    Raises:
        ScaffoldError: There is none.
    """
    wanted = name.strip().lower()
    for own, entry in _table().items():
        if wanted == own or wanted in entry["aliases"]:
            return _ours(own, entry)
    known = known_backends()
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, 1)
    raise ScaffoldError(
        f"there is no backend {name!r}; there are {', '.join(known)}",
        hint=f"write {near[0]}" if near else "choose one of them, or install its connector first",
    )


def _table() -> dict[str, dict[str, Any]]:
    source = files("moorage.scaffold") / "templates" / "project" / "backends.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _ours(name: str, entry: dict[str, Any]) -> Backend:
    return Backend(
        name=name,
        title=entry["title"],
        requirement=entry["extra"],
        is_extra=True,
        networked=entry["networked"],
        variables=tuple(Variable(*values) for values in entry["variables"]),
        url=entry.get("url", ""),
        ignore=tuple(entry["ignore"]),
        steps=tuple(entry.get("steps", ())),
        row_level_security=entry.get("row_level_security", False),
        driver=tuple(entry["driver"]),
        source=entry["source"],
        connector=entry["connector"],
        schemes=tuple(entry["schemes"]),
    )


def _foreign(name: str, distribution: str) -> Backend:
    try:
        networked = registry.find(name).capabilities.networked
    except MoorageError:
        networked = True  # it does not load here; a server is the more likely thing
    places = [Variable("DB_HOST", "localhost", "where the server is")] if networked else []
    login = [
        Variable("DB_USER", "app", "the user to log in as"),
        Variable("DB_PASSWORD", "<password>", "the user's password"),
    ]
    return Backend(
        name=name,
        title=name.replace("_", " ").capitalize(),
        requirement=distribution or f"moorage-{name.replace('_', '-')}",
        is_extra=False,
        networked=networked,
        variables=(
            Variable("DB_TYPE", name, "the connector"),
            *places,
            Variable("DB_NAME", "app", "the database"),
            *(login if networked else []),
        ),
    )
