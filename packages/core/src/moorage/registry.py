"""
Connectors by name: found through entry points, late, once per process, or not at all.

Importing moorage scans nothing. The first call that needs a connector reads the metadata of the
installed distributions and imports the one connector that was asked for.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from moorage.connector import CONTRACT_VERSION, DBConnector
from moorage.errors import (
    ConnectorConflictError,
    ConnectorContractError,
    ConnectorImportError,
    ConnectorNotFoundError,
    ContractVersionError,
    SettingsError,
)
from moorage.settings import DatabaseSettings

__all__ = [
    "ENTRY_POINT_GROUP",
    "ConnectorRegistry",
    "InstalledConnector",
    "check_connector_name",
    "get_connector",
    "installed_connectors",
    "register_connector",
    "registry",
    "unregister_connector",
]

ENTRY_POINT_GROUP: Final = "moorage.connectors"

logger: logging.Logger = logging.getLogger("moorage.registry")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
# What to install for a name that is well known. Anybody else's connector is found when installed.
_INSTALL_HINTS = {
    "postgres": "moorage-postgres",
    "postgresql": "moorage-postgres",
    "supabase": "moorage-postgres",
    "mysql": "moorage-mysql",
    "mariadb": "moorage-mysql",
    "sqlite": "moorage-sqlite",
}

_REPORT = "report it to its authors, or see the documentation: writing a connector"


@dataclass(frozen=True)
class InstalledConnector:
    """
    A connector that could be used, described without importing it.

    Attributes:
        name: What ``DB_TYPE`` would say.
        distribution: Name of the distribution that publishes it; empty for one registered in code.
        version: Version of that distribution.
        value: Where its class is, as ``module:attribute``.
    """

    name: str
    distribution: str
    version: str
    value: str


class ConnectorRegistry:
    """
    Finds connectors by name.

    One instance, :data:`registry`, serves the process; the functions of this module are its
    methods. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._registered: dict[str, type[DBConnector]] = {}
        self._loaded: dict[str, type[DBConnector]] = {}
        self._scanned: dict[str, tuple[EntryPoint, ...]] | None = None

    def register(self, connector: type[DBConnector], *names: str) -> None:
        """
        Make a connector of this process known, under its own name and any others.

        For tests and for connectors that live inside an application. It takes precedence over an
        installed one.

        Raises:
            ConnectorContractError: The class does not keep the contract.
            ConnectorConflictError: Another class is registered under the name.
        """
        source = f"{connector!r}, registered in code,"
        _check_contract(connector, source)
        names = names or (connector.name,)
        with self._lock:
            for name in names:
                check_connector_name(name, source)
                other = self._registered.get(name, connector)
                if other is not connector:
                    raise ConnectorConflictError(
                        f"{name!r} is registered already, as {other!r}",
                        hint="unregister_connector() it first, or choose another name",
                    )
            self._registered.update(dict.fromkeys(names, connector))

    def unregister(self, *names: str) -> None:
        """Forget connectors registered in code; names that are not registered are ignored."""
        with self._lock:
            for name in names:
                self._registered.pop(name, None)

    def forget(self) -> None:
        """Forget what was scanned and loaded, as after installing a distribution at run time."""
        with self._lock:
            self._loaded.clear()
            self._scanned = None

    def installed(self) -> list[InstalledConnector]:
        """Return all connectors that could be used, by name, without importing any of them."""
        with self._lock:
            found = [
                InstalledConnector(name, "", "", f"{cls.__module__}:{cls.__qualname__}")
                for name, cls in self._registered.items()
            ]
            for points in self._scan().values():
                found.extend(
                    InstalledConnector(point.name, *_distribution(point), point.value)
                    for point in points
                )
        return sorted(found, key=lambda item: (item.name, item.distribution))

    def find(self, name: str) -> type[DBConnector]:
        """
        Return the connector class of a name, imported and checked.

        Raises:
            ConnectorNotFoundError: Nothing installed or registered has the name.
            ConnectorConflictError: Two distributions publish different classes under it.
            ConnectorImportError: Its module, or its driver, does not import.
            ConnectorContractError: What was loaded does not keep the contract.
        """
        return self._find(name)

    def _find(self, name: str, reason: str = "") -> type[DBConnector]:
        with self._lock:
            if (known := self._registered.get(name) or self._loaded.get(name)) is not None:
                return known
            points = self._scan().get(name, ())
            if not points:
                raise self._not_found(f"there is no connector {name!r}", name, reason)
            if len({point.value for point in points}) > 1:
                claims = " and ".join(
                    sorted(f"{_distribution(point)[0]} ({point.value})" for point in points)
                )
                raise ConnectorConflictError(
                    f"connector {name!r} is claimed by {claims}",
                    hint="uninstall one of them; moorage does not choose between two",
                )
            connector = _load(points[0])
            self._loaded[name] = connector
            return connector

    def get(self, settings: DatabaseSettings) -> DBConnector:
        """
        Return the connector that the settings ask for, built with them.

        ``DB_TYPE`` decides; without it the scheme of the URL; without that the only distribution
        that publishes connectors; else ``postgres`` if it is installed. One log line says which
        connector was picked and why.

        Raises:
            ConnectorError: As :meth:`find`; also when nothing decides.
            SettingsError: The URL is for another connector than ``DB_TYPE``, or the connector
                refuses a setting.
        """
        name, reason = self._choose(settings)
        cls = self._find(name, reason)
        self._check_scheme(settings, name, cls)
        points = self._scan().get(name, ()) if name not in self._registered else ()
        source = " ".join(_distribution(points[0])) if points else "registered in code"
        logger.info("connector %r (%s) picked: %s", name, source, reason)
        return cls(settings)

    def _choose(self, settings: DatabaseSettings) -> tuple[str, str]:
        if settings.type is not None:
            return settings.type, f"{settings.origin('type')} asks for it"
        if settings.url_scheme is not None:
            return settings.url_scheme, f"{settings.origin('url')} begins with it"
        variable = settings.variable("type")
        candidates = self.installed()
        distributions = {item.distribution for item in candidates}
        names = {item.name for item in candidates}
        if len(distributions) == 1:
            (distribution,) = distributions
            reason = f"{variable} is unset and {distribution or 'this process'} publishes no other"
            if len(names) == 1:
                return names.pop(), reason
            spelling = re.sub(r"[-_.]+", "_", distribution).lower()
            named_alike = sorted((n for n in names if spelling.endswith(f"_{n}")), key=len)
            if named_alike:
                return named_alike[-1], reason
        if "postgres" in names:
            return "postgres", f"{variable} is unset and postgres is the default"
        if not names:
            raise self._not_found(f"{variable} is unset and there is no connector", "postgres")
        raise ConnectorNotFoundError(
            f"{variable} is unset, and these connectors are installed: {', '.join(sorted(names))}",
            hint=f"set {variable} to one of them",
        )

    def _check_scheme(self, settings: DatabaseSettings, name: str, cls: type[DBConnector]) -> None:
        scheme = settings.url_scheme
        if scheme is None or scheme in {name, cls.name} or scheme in cls.url_schemes:
            return
        here, there = self._values(name), self._values(scheme)
        if here and here == there:
            return
        takes = ", ".join(sorted({name, cls.name} | cls.url_schemes))
        owner = f", which belongs to connector {scheme!r}" if there else ""
        raise SettingsError(
            f"{settings.origin('url')} begins with {scheme}://{owner}, but"
            f" {settings.origin('type')} says {name!r}, which takes {takes}",
            hint=f"remove {settings.variable('type')}, or give the URL of the same database",
        )

    def _values(self, name: str) -> set[object]:
        if (registered := self._registered.get(name)) is not None:
            return {registered}
        return {point.value for point in self._scan().get(name, ())}

    def _scan(self) -> dict[str, tuple[EntryPoint, ...]]:
        with self._lock:
            if self._scanned is None:
                found: dict[str, list[EntryPoint]] = {}
                for point in entry_points(group=ENTRY_POINT_GROUP):
                    found.setdefault(point.name, []).append(point)
                self._scanned = {name: tuple(points) for name, points in found.items()}
            return self._scanned

    def _not_found(self, what: str, name: str, reason: str = "") -> ConnectorNotFoundError:
        names = sorted({item.name for item in self.installed()})
        have = f"installed: {', '.join(names)}" if names else "none is installed"
        why = f"{reason}; " if reason else ""
        package = _INSTALL_HINTS.get(name)
        if package is not None:
            hint = f"pip install {package}"
        else:
            hint = (
                "correct the name, or pip install the distribution that publishes it"
                f" ({', '.join(sorted(set(_INSTALL_HINTS.values())))} are ours)"
            )
        return ConnectorNotFoundError(f"{what} ({why}{have})", hint=hint)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    return point.dist.name, point.dist.version


def _load(point: EntryPoint) -> type[DBConnector]:
    distribution, version = _distribution(point)
    source = f"connector {point.name!r} of {distribution} {version}"
    try:
        importlib.import_module(point.module)
    except Exception as error:
        raise ConnectorImportError(
            f"{source} is installed but does not import: {type(error).__name__}: {error}",
            hint=f"reinstall it with what it needs: pip install --force-reinstall {distribution}",
        ) from error
    try:
        loaded = point.load()
    except AttributeError as error:
        raise ConnectorContractError(
            f"{source} names {point.value}, where there is no such attribute",
            hint=f"report it to the authors of {distribution}",
        ) from error
    _check_contract(loaded, source)
    check_connector_name(point.name, source)
    connector: type[DBConnector] = loaded
    return connector


def _check_contract(loaded: object, source: str) -> None:
    """Refuse an object that is no usable connector class, naming its source and the member."""
    if not (inspect.isclass(loaded) and issubclass(loaded, DBConnector)):
        raise ConnectorContractError(
            f"{source} is {type(loaded).__name__} {loaded!r}, not a subclass of DBConnector",
            hint=_REPORT,
        )
    if not isinstance(loaded.contract, int):
        raise ConnectorContractError(
            f"{source} has the contract {loaded.contract!r}, which is no number", hint=_REPORT
        )
    if loaded.contract != CONTRACT_VERSION:
        older = loaded.contract < CONTRACT_VERSION
        raise ContractVersionError(
            f"{source} was written for contract {loaded.contract}; this moorage speaks"
            f" {CONTRACT_VERSION}",
            hint="update the connector" if older else "update moorage: pip install -U moorage",
        )
    missing = sorted(getattr(loaded, "__abstractmethods__", ()))
    if missing:
        raise ConnectorContractError(f"{source} does not define {', '.join(missing)}", hint=_REPORT)
    check_connector_name(getattr(loaded, "name", None), source)


def check_connector_name(name: object, source: str) -> None:
    """
    Refuse a name under which a connector's options could not be read from variables.

    Raises:
        ConnectorContractError: Names ``source``, which has the name.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConnectorContractError(
            f"{source} has the name {name!r}; lower-case letters, digits and underscores are"
            " allowed, beginning with a letter",
            hint=_REPORT,
        )
    if (taken := _core_field_beginning_with(name, DatabaseSettings.model_fields)) is not None:
        raise ConnectorContractError(
            f"{source} has the name {name!r}, which is the beginning of the core setting"
            f" {taken!r}: its options could not be told from it",
            hint=_REPORT,
        )


def _core_field_beginning_with(name: str, fields: Iterable[str]) -> str | None:
    return next((f for f in fields if f == name or f.startswith(f"{name}_")), None)


registry: ConnectorRegistry = ConnectorRegistry()
"""The registry of this process."""


def get_connector(settings: DatabaseSettings) -> DBConnector:
    """Return the connector that the settings ask for; see :meth:`ConnectorRegistry.get`."""
    return registry.get(settings)


def installed_connectors() -> list[InstalledConnector]:
    """Return all connectors that could be used; see :meth:`ConnectorRegistry.installed`."""
    return registry.installed()


def register_connector(connector: type[DBConnector], *names: str) -> None:
    """Make a connector of this process known; see :meth:`ConnectorRegistry.register`."""
    registry.register(connector, *names)


def unregister_connector(*names: str) -> None:
    """Forget connectors registered in code; see :meth:`ConnectorRegistry.unregister`."""
    registry.unregister(*names)
