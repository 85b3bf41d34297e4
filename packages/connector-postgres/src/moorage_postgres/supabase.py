"""
Supabase: PostgreSQL with three ways in, and errors that say where its dashboard has the answer.

Everything is the PostgreSQL connector's, on the same driver; poolers are recognised there. Here is
what only Supabase has: users that carry the name of the project, a certificate authority of its
own, a direct host without an IPv4 address, and few connections in session mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from moorage import (
    AuthenticationError,
    ConnectorOptions,
    DatabaseSettings,
    DatabaseUnavailableError,
    DBConnector,
    Diagnosis,
    InsecureConnectionError,
    SettingsError,
    TooManyConnectionsError,
)
from moorage_postgres.connector import PostgresConnector
from moorage_postgres.options import SupabaseOptions
from moorage_postgres.poolers import is_project_host, is_shared_pooler

__all__ = ["SupabaseConnector"]

# Where the dashboard shows what. It is not ours, and its pages move: named is what stands on them.
_CONNECT: Final = "the dashboard's Connect dialog"
_DATABASE: Final = "the dashboard's database settings"

# What Supabase calls the only database of a project.
_NAME: Final = "postgres"

# Whom Supabase serves tables to over HTTP.
_API_ROLES: Final = ("anon", "authenticated", "service_role")


class SupabaseConnector(PostgresConnector):
    """A project of Supabase, direct or through one of its poolers."""

    name = "supabase"
    url_schemes: ClassVar[frozenset[str]] = frozenset({"postgresql", "postgres"})
    options_model: ClassVar[type[ConnectorOptions]] = SupabaseOptions
    reloads_api: ClassVar[bool] = True

    def __init__(self, settings: DatabaseSettings) -> None:
        if "name" not in settings.model_fields_set:
            settings = settings.replaced("Supabase's name for it", name=_NAME)
        super().__init__(settings)
        self._check_user()

    def classify_error(
        self, error: BaseException, *, statement: str | None = None
    ) -> Diagnosis | None:
        """Say what an error means, and while connecting where Supabase has what is missing."""
        diagnosis = super().classify_error(error, statement=statement)
        if statement is not None:
            return diagnosis
        # What is left to the base is a host that cannot be reached, and that has a reason here.
        diagnosis = diagnosis or DBConnector.classify_error(self, error)
        if diagnosis is None:
            return None
        return dataclasses.replace(diagnosis, hint=self._hint(diagnosis) or diagnosis.hint)

    @property
    def api_roles(self) -> tuple[str, ...]:
        """Roles that work in the database, those of Supabase's own API among them."""
        return tuple(dict.fromkeys((*_API_ROLES, *super().api_roles)))

    def _check_user(self) -> None:
        """Refuse a user whose form belongs to another way in."""
        settings = self.settings
        user, origin = settings.user, settings.origin("user")
        host = settings.hosts[0].host
        if is_shared_pooler(host) and "." not in user:
            raise SettingsError(
                f"{origin} names no project, and {host} ({settings.origin('host')}) serves many:"
                " there a user is written user.PROJECT-REF",
                hint=f"copy the user from {_CONNECT}, beside the host",
            )
        if is_project_host(host) and "." in user:
            raise SettingsError(
                f"{origin} ends with a project, and {host} ({settings.origin('host')}) has users"
                " without one",
                hint=f"write {user.partition('.')[0]}, or give the host of the shared pooler",
            )

    def _hint(self, diagnosis: Diagnosis) -> str:
        setting = self.settings.variable
        host = self.settings.hosts[0].host
        hints: Mapping[type[Any], str] = {
            InsecureConnectionError: (
                f"Supabase has a certificate authority of its own: download its certificate from"
                f" {_DATABASE} (SSL), and name the file in {setting('ssl_ca')}"
            ),
            AuthenticationError: (
                f"compare {setting('host')} and {setting('user')} with {_CONNECT}, letter by"
                f" letter; {_DATABASE} can give the database a new password"
            ),
            TooManyConnectionsError: (
                f"lower {setting('pool_size')} and {setting('max_overflow')}, or use the pooler in"
                f" transaction mode, port 6543: in session mode each connection of every process"
                f" counts against the pool size in {_DATABASE}"
            ),
        }
        if diagnosis.kind in hints:
            return hints[diagnosis.kind]
        if diagnosis.kind is DatabaseUnavailableError and is_project_host(host):
            return (
                f"{host} has an IPv6 address only, unless its project has the IPv4 add-on: from a"
                f" network without IPv6 use the pooler in session mode (host and user in"
                f" {_CONNECT}); a paused project answers nobody"
            )
        return ""
