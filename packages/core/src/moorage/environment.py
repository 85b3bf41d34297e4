"""
Where settings come from: arguments, environment, ``.env`` and secret files, in this order.

pydantic-settings reads the sources; this module decides between them, remembers which variable
each value came from (so that an error can name it), reads ``<PREFIX>PASSWORD_FILE``, spreads a
URL over the fields it stands for, and finds variables that nobody will ever read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from moorage.address import Address, parse_address, parse_hosts
from moorage.errors import SettingsError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# What a URL stands for, besides its query and scheme.
_PARTS = ("host", "port", "user", "password", "name")
_SECRETS = ("password", "url")
# Kubernetes injects these for a service that is called like the prefix; nobody typed them.
_SERVICE_LINK = re.compile(r"^(service_host|service_port(_\w+)?|port_\d+_(tcp|udp)(_\w+)?)$")
_NAME = re.compile(r"^[a-z][a-z0-9]*$")


@dataclass
class Reading:
    """
    What was learnt while the sources were read.

    It takes no part in comparisons: two settings with equal values are equal wherever the
    values came from.

    Attributes:
        prefix: Prefix of the environment variables, as written.
        origins: Field to the name that a user knows it by (``DB_HOST``, ``DB_HOST in .env``).
        leftovers: Variables under the prefix that are no core field: lower case, prefix removed.
        address: The URL taken apart, if there was one.
    """

    prefix: str = field(default="DB_", compare=False)
    origins: dict[str, str] = field(default_factory=dict, compare=False)
    leftovers: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    address: Address | None = field(default=None, compare=False)

    def variable(self, name: str) -> str:
        """Return the environment variable of a field, or of a connector's option."""
        return f"{self.prefix}{name}".upper()

    def origin(self, name: str) -> str:
        """Return where a field's value was found, or the variable that would set it."""
        return self.origins.get(name, self.variable(name))


# The settings class fills this in while pydantic-settings calls the source below: there is no
# other way from a source to the instance that is being built.
current_reading: ContextVar[Reading] = ContextVar("moorage_settings_reading")


class LayeredSource(PydanticBaseSettingsSource):
    """Merge arguments, environment and ``.env`` into one set of values, or say what disagrees."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        arguments: PydanticBaseSettingsSource,
        environment: PydanticBaseSettingsSource,
        dotenv: PydanticBaseSettingsSource,
    ) -> None:
        super().__init__(settings_cls)
        self._arguments = arguments
        self._variables = {
            "": _variables(environment),
            " in .env": _variables(dotenv),
        }
        self._prefix = str(getattr(environment, "env_prefix", "DB_"))
        self._problems: list[str] = []

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Satisfy the base class; values are found for all fields together in ``__call__``."""
        raise KeyError(field_name)

    def __call__(self) -> dict[str, Any]:
        reading = current_reading.get(Reading())
        reading.prefix = self._prefix.upper()
        values: dict[str, Any] = {}
        fields = frozenset(self.settings_cls.model_fields)
        arguments = {k: v for k, v in self._arguments().items() if k in fields}
        for name, value in arguments.items():
            values[name] = value
            reading.origins[name] = f"argument {name}"
        for suffix, variables in self._variables.items():
            found = self._layer(variables, suffix, fields, reading)
            for name, (value, origin) in found.items():
                if name not in values:
                    values[name] = value
                    reading.origins[name] = origin
        if self._prefix.lower() == "db_" and "url" not in values:
            for suffix, variables in self._variables.items():
                if url := variables.get("database_url"):
                    values["url"] = url
                    reading.origins["url"] = f"DATABASE_URL{suffix}"
                    break
        if values.get("url") is not None:
            self._spread_url(values, arguments, reading)
        if self._problems:
            raise SettingsError(self._problems)
        return values

    def _layer(
        self,
        variables: Mapping[str, str],
        suffix: str,
        fields: frozenset[str],
        reading: Reading,
    ) -> dict[str, tuple[Any, str]]:
        """Return one source's values by field, each with the name that a user knows it by."""
        found: dict[str, tuple[Any, str]] = {}
        prefix = self._prefix.lower()
        for variable, value in variables.items():
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix)
            if name in fields and name != "connector_options":
                if value:
                    found[name] = (value, f"{variable.upper()}{suffix}")
                elif name == "name":
                    # Elsewhere an empty variable means "not set", as compose files write it; an
                    # empty database name has been seen to connect to a database called like the user.
                    self._problems.append(
                        f"{variable.upper()}{suffix} is empty; write the database's name, or remove the"
                        " variable"
                    )
            elif name.removesuffix("_file") in _SECRETS:
                if value:
                    self._secret_file(found, name.removesuffix("_file"), value, suffix, variables)
            elif prefix:
                reading.leftovers.setdefault(name, value)
        return found

    def _secret_file(
        self,
        found: dict[str, tuple[Any, str]],
        name: str,
        path: str,
        suffix: str,
        variables: Mapping[str, str],
    ) -> None:
        prefix = self._prefix.lower()
        variable = f"{prefix}{name}_file".upper()
        if variables.get(f"{prefix}{name}"):
            self._problems.append(
                f"{variable}{suffix} and {variable.removesuffix('_FILE')} are both set; keep one of them"
            )
            return
        try:
            # Editors end a file with a line break, which is no part of the secret.
            secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._problems.append(
                f"{variable}{suffix} names the file {path}, which cannot be read ({reason}); mount"
                " the secret there, or correct the path"
            )
            return
        if not secret:
            self._problems.append(f"{variable}{suffix} names the file {path}, which is empty")
            return
        found[name] = (secret, f"{variable}{suffix}")

    def _spread_url(
        self, values: dict[str, Any], arguments: Mapping[str, Any], reading: Reading
    ) -> None:
        """Fill the fields that a URL stands for, unless a field that was set says otherwise."""
        origin = reading.origins["url"]
        if "url" in arguments:
            # An argument beats the environment, so parts that linger there do not count.
            for part in _PARTS:
                if part not in arguments:
                    values.pop(part, None)
        try:
            address = parse_address(_plain(values["url"]))
        except ValueError as error:
            self._problems.append(f"{origin} {error}")
            return
        reading.address = address
        port = address.hosts[0].port if len(address.hosts) == 1 else None
        parts = {
            "host": address.host_text or None,
            "port": port,
            "user": address.user,
            "password": address.password,
            "name": address.name,
        }
        if len(address.hosts) == 1:
            parts["host"] = address.hosts[0].host
        for part, in_url in parts.items():
            if in_url is None:
                continue
            if part not in values:
                values[part] = in_url
                reading.origins[part] = origin
            elif not _agree(part, values[part], in_url, port):
                self._problems.append(
                    f"{reading.origin(part)} and {origin} disagree about the {part}; remove one of them"
                )


def _variables(source: PydanticBaseSettingsSource) -> dict[str, str]:
    found: Mapping[str, str | None] = getattr(source, "env_vars", {})
    return {name.lower(): value or "" for name, value in found.items()}


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _agree(part: str, value: Any, in_url: object, url_port: int | None) -> bool:
    if part != "host":
        return _plain(value) == str(in_url)
    try:
        ours, theirs = parse_hosts(str(value)), parse_hosts(str(in_url))
    except ValueError:
        return True  # the field's own validation says what is wrong with it
    if len(ours) == len(theirs) == 1:
        return ours[0].host == theirs[0].host and ours[0].port in {None, url_port}
    return ours == theirs


def unknown_variables(
    reading: Reading, fields: Iterable[str], connector_names: Iterable[str], *, type_is_known: bool
) -> list[str]:
    """
    Return a sentence for each variable under the prefix that nothing will ever read.

    A variable is left alone when it may be an option of a connector: ``DB_<CONNECTOR>_…`` for a
    name in ``connector_names``, and, while the connector is not known yet, any
    ``DB_<WORD>_…`` that does not look like a slip of a core field.
    """
    known = sorted(set(fields) - {"connector_options"})
    candidates = [*known, *(f"{name}_file" for name in _SECRETS)]
    owners = set(connector_names)
    sentences = []
    for name in sorted(reading.leftovers):
        owner, underscore, option = name.partition("_")
        if _SERVICE_LINK.match(name) or any(name.startswith(f"{other}_") for other in owners):
            continue
        near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)
        maybe_option = bool(underscore and option) and _NAME.match(owner) is not None
        if not near and maybe_option and not type_is_known:
            continue
        advice = f"did you mean {reading.variable(near[0])}?" if near else "remove it"
        sentences.append(f"{reading.variable(name)} is not a setting of moorage; {advice}")
    return sentences
