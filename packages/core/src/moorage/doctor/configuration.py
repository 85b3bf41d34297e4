"""The settings: what they are, where they came from, and what is unwise about them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from moorage.address import is_loopback
from moorage.connector import DBConnector
from moorage.doctor.finding import Report
from moorage.errors import ConnectorError, SettingsError
from moorage.registry import get_connector, installed_connectors
from moorage.settings import DatabaseSettings
from moorage.tls import effective_ssl_mode

__all__ = ["check_settings"]

_PLACEHOLDER = re.compile(r"<[a-z ]+>")
_SECRETS = frozenset({"password", "url", "direct_url"})


def check_settings(prefix: str, report: Report) -> DBConnector | None:
    """Read the settings of the environment and of ``.env``, and return their connector."""
    try:
        settings = DatabaseSettings.from_env(prefix)
    except SettingsError as error:
        _explain(error, prefix, report)
        return None
    try:
        DatabaseSettings.from_env(prefix, strict=True)
    except SettingsError as error:
        report.add("S302", str(error.args[0]))
    report.facts.update(_values(settings))
    _check_placeholders(settings, report)
    try:
        connector = get_connector(settings)
    except ConnectorError as error:
        report.add("C401", str(error.args[0]), fix=error.hint)
        return None
    except SettingsError as error:
        report.add("S301", str(error.args[0]), fix=error.hint)
        return None
    report.facts["connector"] = f"{connector.name}, {_reason(settings)}"
    for check in _CHECKS:
        check(connector, report)
    return connector


def _explain(error: SettingsError, prefix: str, report: Report) -> None:
    """Note what is wrong, and each variable that still has the placeholder of .env.example."""
    given = {**_given_in_file(), **os.environ}
    placeholders = {
        name
        for name, value in given.items()
        if name.startswith(prefix) or (name == "DATABASE_URL" and prefix == "DB_")
        if value and _PLACEHOLDER.search(value)
    }
    for name in sorted(placeholders):
        report.add("S303", f"{name} was not filled in")
    for problem in error.errors():
        if problem["variable"] not in placeholders:
            report.add("S301", problem["msg"], fix=error.hint)


def _given_in_file() -> dict[str, str | None]:
    path = Path(".env")
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return dict(dotenv_values(stream=StringIO(text)))


def _values(settings: DatabaseSettings) -> dict[str, str]:
    """Return what was set, by where it was; a URL says several things at once."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(settings.model_fields_set & DatabaseSettings.model_fields.keys()):
        value = "•••" if name in _SECRETS else str(getattr(settings, name))
        found.setdefault(settings.origin(name), {})[name] = value
    values = {}
    for origin, parts in found.items():
        if len(parts) > 1:
            parts.pop("url", None)
        values[origin] = ", ".join(
            value if len(parts) == 1 else f"{name} {value}" for name, value in parts.items()
        )
    return values


def _reason(settings: DatabaseSettings) -> str:
    if settings.type is not None:
        return f"because {settings.origin('type')} says so"
    if settings.url_scheme is not None:
        return f"because {settings.origin('url')} begins with it"
    return "because nothing else is said"


def _check_placeholders(settings: DatabaseSettings, report: Report) -> None:
    for name in sorted(settings.model_fields_set & DatabaseSettings.model_fields.keys()):
        value = getattr(settings, name)
        text = value.get_secret_value() if name in _SECRETS and value is not None else str(value)
        if _PLACEHOLDER.search(text):
            report.add("S303", f"{settings.origin(name)} was not filled in")


def _check_choice(connector: DBConnector, report: Report) -> None:
    settings = connector.settings
    others = {item.distribution for item in installed_connectors()}
    if settings.type is None and settings.url_scheme is None and len(others) > 1:
        variable = settings.variable("type")
        report.add("S310", f"{variable} is unset, and several connectors are installed")
    if settings.env_prefix == "DB_":
        mine, common = os.environ.get("DB_URL"), os.environ.get("DATABASE_URL")
        if mine and common and mine != common:
            report.add("S309", "DB_URL and DATABASE_URL are set, and differ; DB_URL counts")


def _check_way(connector: DBConnector, report: Report) -> None:
    settings = connector.settings
    if not connector.capabilities.networked:
        return
    away = [place.host for place in settings.hosts if not is_loopback(place.host)]
    if not away:
        return
    if settings.password is None:
        report.add("S304", f"{settings.variable('password')} is not set, and the host is {away[0]}")
    if effective_ssl_mode(settings) not in {"verify-ca", "verify-full"}:
        origin = settings.origin("ssl_mode")
        report.add("S305", f"{origin} is {settings.ssl_mode}, and the host is {away[0]}")


def _check_limits(connector: DBConnector, report: Report) -> None:
    settings = connector.settings
    for name in ("statement_timeout_seconds", "lock_timeout_seconds", "answer_grace_seconds"):
        if getattr(settings, name) == 0:
            report.add("S306", f"{settings.origin(name)} is 0, which is no limit")
    if settings.pool_pre_ping == "never":
        report.add("S311", f"{settings.origin('pool_pre_ping')} is never")
    if settings.echo:
        report.add("S308", f"{settings.origin('echo')} is on")


_CHECKS: tuple[Callable[[DBConnector, Report], None], ...] = (
    _check_choice,
    _check_way,
    _check_limits,
)
