"""
Where settings come from: arguments, environment, ``.env`` and secret files, in this order.

pydantic-settings reads the sources; this module decides between them, remembers which variable
each value came from (so that an error can name it), reads ``<PREFIX>PASSWORD_FILE``, spreads a
URL over the fields it stands for, and finds variables that nobody will ever read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from moorage.address import Address, parse_address, parse_hosts

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# What a URL stands for, besides its query and scheme.
_PARTS = ("host", "port", "user", "password", "name")
_SECRETS = frozenset({"password", "url", "direct_url"})
# Kubernetes injects these for services that are called like the prefix, or that begin with it
# (`db`, `db-postgresql`); nobody typed them.
_SERVICE_LINK = re.compile(
    r"^(\w+_)?(service_host|service_port(_\w+)?|port_\d+_(tcp|udp|sctp)(_\w+)?)$"
)
_SERVICE_LINK_VALUE = re.compile(r"^(tcp|udp|sctp)://")
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
        problems: What is wrong already, one sentence each; reported with what validation finds.
    """

    prefix: str = field(default="DB_", compare=False)
    origins: dict[str, str] = field(default_factory=dict, compare=False)
    leftovers: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    address: Address | None = field(default=None, compare=False)
    problems: list[str] = field(default_factory=list, compare=False)

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
            f" in {getattr(dotenv, 'env_file', '.env')}": _variables(dotenv),
        }
        self._prefix = str(getattr(environment, "env_prefix", "DB_"))

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
        decided = set(arguments)
        if arguments.get("url") is not None:
            # An argument beats the environment, so parts that linger there do not count.
            decided.update(_PARTS)
        for suffix, variables in self._variables.items():
            found = self._layer(variables, suffix, decided, reading)
            for name, (value, origin) in found.items():
                values[name] = value
                reading.origins[name] = origin
            decided.update(found)
        if self._prefix.lower() == "db_" and "url" not in values:
            for suffix, variables in self._variables.items():
                if url := variables.get("database_url"):
                    values["url"] = url
                    reading.origins["url"] = f"DATABASE_URL{suffix}"
                    break
        if values.get("url") is not None:
            _spread_url(values, reading)
        return values

    def _layer(
        self,
        variables: Mapping[str, str],
        suffix: str,
        decided: set[str],
        reading: Reading,
    ) -> dict[str, tuple[Any, str]]:
        """
        Return one source's values by field, each with the name that a user knows it by.

        What a source that beats this one has decided is not even looked at.
        """
        found: dict[str, tuple[Any, str]] = {}
        fields = self.settings_cls.model_fields.keys() - {"connector_options"}
        prefix = self._prefix.lower()
        for variable, value in variables.items():
            name = variable.removeprefix(prefix)
            if not variable.startswith(prefix) or name in decided:
                continue
            origin = f"{variable.upper()}{suffix}"
            secret = name.removesuffix("_file")
            if name in fields:
                if value:
                    found[name] = (value, origin)
                elif name == "name":
                    # Elsewhere an empty variable means "not set", as compose files write it; with
                    # an empty database name drivers connect to one that is called like the user.
                    reading.problems.append(
                        f"{origin} is empty; write the database's name, or remove the variable"
                    )
            elif secret in _SECRETS:
                if value and secret not in decided:
                    try:
                        found[secret] = (_read_secret(value), origin)
                    except ValueError as error:
                        reading.problems.append(f"{origin} {error}")
                    if variables.get(f"{prefix}{secret}"):
                        reading.problems.append(
                            f"{origin} and {reading.variable(secret)} are both set; keep one"
                            " of them"
                        )
            elif prefix and value and not _is_service_link(name, value):
                reading.leftovers.setdefault(name, value)
        return found


def _read_secret(path: str) -> str:
    # Somebody may have put the secret itself where its path belongs.
    shown = f"the file {path}" if path.startswith("/") else "a file"
    try:
        # Editors end a file with a line break, which is no part of the secret.
        secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(
            f"names {shown}, which cannot be read ({reason}); mount the secret there, or correct"
            " the path"
        ) from None
    if not secret:
        raise ValueError(f"names {shown}, which is empty; write the secret into it")
    return secret


def _is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes set a variable; a service's own port holds a URL."""
    return bool(_SERVICE_LINK.match(name) or _SERVICE_LINK_VALUE.match(value))


def _spread_url(values: dict[str, Any], reading: Reading) -> None:
    """Fill the fields that a URL stands for, unless a field that was set says otherwise."""
    origin = reading.origins["url"]
    try:
        address = parse_address(_plain(values["url"]))
    except ValueError as error:
        reading.problems.append(f"{origin} {error}")
        return
    reading.address = address
    only = address.hosts[0] if len(address.hosts) == 1 else None
    parts: dict[str, Any] = {
        "host": only.host if only else address.host_text or None,
        "port": only.port if only else None,
        "user": address.user,
        "password": address.password,
        "name": address.name,
    }
    for part, in_url in parts.items():
        if in_url is None:
            continue
        if part not in values:
            values[part] = in_url
            reading.origins[part] = origin
        elif not _agree(part, values[part], in_url, parts["port"]):
            reading.problems.append(
                f"{reading.origin(part)} and {origin} disagree about the {part}; remove one of them"
            )
            if part == "host":
                parts["port"] = None  # it belongs to the host that does not count


def _variables(source: PydanticBaseSettingsSource) -> dict[str, str]:
    found: Mapping[str, str | None] = getattr(source, "env_vars", {})
    return {name.lower(): value or "" for name, value in found.items()}


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _agree(part: str, value: Any, in_url: object, url_port: int | None) -> bool:
    if part == "port":
        text = str(value).strip()
        # What is wrong with abc or tcp://… is said by the field's own validation.
        return not text.isdecimal() or int(text) == in_url
    if part != "host":
        return _plain(value) == str(in_url)
    try:
        ours, theirs = parse_hosts(str(value)), parse_hosts(str(in_url))
    except ValueError:
        return True  # the field's own validation says what is wrong with it
    if len(ours) == len(theirs) == 1:
        ports = {ours[0].port, url_port}
        return ours[0].host == theirs[0].host and (None in ports or len(ports) == 1)
    return ours == theirs


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that ``name`` is most likely a slip of, if any is near."""
    import difflib  # needed where something is wrong, and only there

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


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
    candidates = [*known, *(f"{name}_file" for name in sorted(_SECRETS))]
    owners = set(connector_names)
    sentences = []
    for name in sorted(reading.leftovers):
        owner, underscore, option = name.partition("_")
        if any(name.startswith(f"{other}_") for other in owners):
            continue
        near = nearest(name, candidates, cutoff=0.75)
        maybe_option = bool(underscore and option) and _NAME.match(owner) is not None
        if not near and maybe_option and not type_is_known:
            continue
        advice = f"did you mean {reading.variable(near)}?" if near else "remove it"
        sentences.append(f"{reading.variable(name)} is not a setting of moorage; {advice}")
    return sentences
