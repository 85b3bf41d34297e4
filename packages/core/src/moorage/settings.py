"""Settings of one database: pure data, read from arguments, environment, ``.env`` and files."""

from __future__ import annotations

import builtins
import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from moorage.address import HostPort, parse_address, parse_hosts
from moorage.environment import (
    LayeredSource,
    Reading,
    current_reading,
    nearest,
    unknown_variables,
)
from moorage.errors import SettingsError

__all__ = ["DatabaseSettings", "DatabaseType", "PrePing", "SSLMode", "UnknownSettingWarning"]

PrePing = Literal["idle", "always", "never"]
SSLMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DatabaseType(StrEnum):
    """Names of the first-party connectors; ``DatabaseSettings.type`` takes any other name too."""

    POSTGRES = "postgres"
    MYSQL = "mysql"
    SQLITE = "sqlite"


class UnknownSettingWarning(UserWarning):
    """A variable under the prefix is read by nothing, most often because of a slip."""


_warned: set[str] = set()


class DatabaseSettings(BaseSettings):
    """
    Settings of one database.

    Every field ``x`` is the environment variable ``DB_X`` (another prefix through
    :meth:`from_env`). Arguments beat the environment, which beats ``.env``. Building settings
    opens no connection and imports no connector.

    Raises:
        SettingsError: One sentence per problem, each naming the variable; never a value.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="DB_",
        env_file=".env",
        env_file_encoding="utf-8",
        case_sensitive=False,
        # Somebody else's variables in the same .env are none of our business.
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        # Built when settings are first read: importing moorage costs less.
        defer_build=True,
    )

    type: str | None = Field(
        None, description="Connector by name; unset: decided by the URL, or by what is installed."
    )
    url: SecretStr | None = Field(
        None, repr=False, description="Connection URL instead of the parts."
    )
    direct_url: SecretStr | None = Field(
        None,
        repr=False,
        description="URL that leads past a pooler, for what needs a session of its own:"
        " migrations, locks, LISTEN.",
    )
    host: str = Field(
        "localhost",
        description="Host name, address or socket path; several, comma-separated, where the"
        " connector fails over.",
    )
    read_host: str | None = Field(
        None, description="Hosts that serve reads, where the connector supports it."
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="TCP port; unset: the connector's default."
    )
    name: Annotated[str, Field(min_length=1)] = Field(
        "app", description="Name of the database; for SQLite the path of its file, or `:memory:`."
    )
    user: Annotated[str, Field(min_length=1)] = Field("app", description="User to log in as.")
    password: SecretStr | None = Field(
        None, description="Password; or its file in `DB_PASSWORD_FILE`."
    )

    pool_size: Annotated[int, Field(ge=1)] = Field(
        10, description="Connections that each event loop keeps open."
    )
    max_overflow: Annotated[int, Field(ge=0)] = Field(
        20, description="Connections above `pool_size` at peaks."
    )
    pool_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        30.0, description="Longest wait for a free connection."
    )
    pool_shrink_seconds: Seconds = Field(
        30.0, description="Idle time after which a connection beyond the pool's size is closed."
    )
    pool_hold_warning_seconds: Seconds = Field(
        60.0, description="Time after which a log line tells who holds a connection; 0: never."
    )
    pool_recycle_seconds: Annotated[int, Field(ge=1)] = Field(
        1800,
        description="Age at which a connection is replaced before use, or up to a quarter sooner.",
    )
    pool_pre_ping: PrePing = Field(
        "idle", description="Check a connection before use: after it idled, `always`, or `never`."
    )
    pool_ping_idle_seconds: Seconds = Field(
        30.0, description="Idle time after which `idle` checks."
    )
    pool_connects_at_once: Annotated[int, Field(ge=1)] = Field(
        5, description="Connections that each event loop opens at the same time."
    )

    ssl_mode: SSLMode | None = Field(
        None,
        description="`disable`, `prefer`, `require`, `verify-ca`, `verify-full`; unset: `prefer`"
        " on loopback, else `verify-full`.",
    )
    ssl_ca: Path | None = Field(
        None, description="File of trusted certificates (PEM); unset: the system's."
    )
    ssl_cert: Path | None = Field(None, description="Client certificate (PEM).")
    ssl_key: Path | None = Field(None, description="Key of the client certificate (PEM).")

    connect_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10.0, description="Deadline of a whole connection attempt, handshake and set-up included."
    )
    statement_timeout_seconds: Seconds = Field(
        30.0, description="Longest run of one statement; 0: no limit."
    )
    answer_grace_seconds: Seconds = Field(
        5.0,
        description="How much later than that a server's answer may come before the connection is"
        " given up; 0: it is waited for.",
    )
    lock_timeout_seconds: Seconds = Field(10.0, description="Longest wait for a lock; 0: no limit.")
    idle_in_transaction_timeout_seconds: Seconds = Field(
        60.0, description="Longest pause inside a transaction; 0: no limit."
    )
    commit_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10.0, description="Longest wait for the answer to COMMIT."
    )
    hook_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        10.0, description="Longest run of one hook of a unit of work."
    )

    keepalive_idle_seconds: Seconds = Field(
        30.0,
        description="Silence after which TCP asks whether the peer is still there; 0: the"
        " kernel's default.",
    )

    application_name: str = Field(
        "moorage", description="Shown in the server's list of connections, where it has one."
    )
    echo: bool = Field(
        False,
        description="Log every statement with its values; otherwise values are hidden, in errors"
        " too.",
    )

    json_codec: Literal["standard", "orjson"] = Field(
        "standard",
        description="What reads and writes JSON columns: `standard` library, or `orjson`, which is"
        " faster and reads integers of more than 64 bits as floats.",
    )

    connector_options: Mapping[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="Options of the connector, by name; in the environment"
        " `DB_<CONNECTOR>_<OPTION>`.",
    )

    _reading: Reading = PrivateAttr(default_factory=Reading)
    _is_direct: bool = PrivateAttr(default=False)

    def __init__(self, *, _strict: bool = False, **values: Any) -> None:
        self._refuse_unknown_arguments(values)
        reading = Reading()
        token = current_reading.set(reading)
        problems: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = [explain(reading.origin, item) for item in error.errors(include_input=False)]
        except UnicodeDecodeError:
            problems = [f"{values.get('_env_file', '.env')} is not UTF-8 text; save it as UTF-8"]
        finally:
            current_reading.reset(token)
        problems = [*reading.problems, *problems]
        if problems:
            # Outside of the except block: what was caught holds the values, so that it must not
            # travel along as __context__.
            raise SettingsError(problems)
        self._reading = reading
        self._check_unknown(strict=_strict)

    @classmethod
    def _refuse_unknown_arguments(cls, values: Mapping[str, Any]) -> None:
        # `extra="ignore"` is for the variables of others; an argument was meant for us.
        known = {*cls.model_fields, *(f.alias for f in cls.model_fields.values() if f.alias)}
        unknown = sorted(name for name in values if not name.startswith("_") and name not in known)
        if unknown:
            raise SettingsError(
                [
                    f"argument {name} is not a setting; "
                    + (f"did you mean {near}?" if (near := nearest(name, known)) else "remove it")
                    for name in unknown
                ]
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__class__.model_fields:
            # pydantic's own error for a frozen model would repeat the value.
            raise SettingsError(f"{name} cannot be assigned: settings are frozen; build new ones")
        super().__setattr__(name, value)

    @classmethod
    def from_env(
        cls, prefix: str = "DB_", env_file: str | Path | None = ".env", strict: bool = False
    ) -> Self:
        """
        Read settings from the environment and a ``.env`` file.

        Args:
            prefix: Prefix of the variables; several databases of one process have one each.
            env_file: A dotenv file, beaten by the environment; absent is fine, ``None`` is none.
            strict: Make a variable under the prefix that nothing reads an error, not a warning.

        Raises:
            SettingsError: A value is wrong, two disagree, or (strict) a variable is unknown.
        """
        return cls(_env_prefix=prefix, _env_file=env_file, _strict=strict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: builtins.type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put our one layered source in the place of pydantic-settings' chain."""
        return (LayeredSource(settings_cls, init_settings, env_settings, dotenv_settings),)

    @field_validator("type", mode="before")
    @classmethod
    def _type_is_a_name(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        name = value.strip().lower()
        if not re.fullmatch(r"[a-z0-9_.-]+", name):
            raise ValueError("is no connector's name; write a name such as postgres, not a URL")
        return name

    @field_validator("port", mode="before")
    @classmethod
    def _port_is_no_service_link(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            raise ValueError(
                "holds a URL: Kubernetes injects such a variable for a Service that is called like"
                " the prefix; set enableServiceLinks: false on the pod, rename the Service, or read"
                " the settings with another prefix"
            )
        return value

    @field_validator("direct_url")
    @classmethod
    def _direct_url_parses(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_address(value.get_secret_value())
        return value

    @field_validator("host", "read_host")
    @classmethod
    def _hosts_parse(cls, value: str | None) -> str | None:
        if value is not None:
            parse_hosts(value)
        return value

    @field_validator("name")
    @classmethod
    def _name_is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; write the database's name, or remove the variable")
        return value

    @field_validator("port")
    @classmethod
    def _ports_agree(cls, value: int | None, info: ValidationInfo) -> int | None:
        places = parse_hosts(info.data["host"]) if "host" in info.data else ()
        if value is not None and len(places) == 1 and places[0].port not in {None, value}:
            raise ValueError("and the port written behind the host disagree; remove one of them")
        return value

    @property
    def hosts(self) -> tuple[HostPort, ...]:
        """Return ``host`` taken apart, with ``port`` where none is written behind a host."""
        return tuple(HostPort(h.host, h.port or self.port) for h in parse_hosts(self.host))

    @property
    def read_hosts(self) -> tuple[HostPort, ...]:
        """Return ``read_host`` taken apart in the same way; empty where it is unset."""
        places = parse_hosts(self.read_host) if self.read_host else ()
        return tuple(HostPort(h.host, h.port or self.port) for h in places)

    @property
    def env_prefix(self) -> str:
        """Return the prefix of the environment variables these settings were read with."""
        return self._reading.prefix

    @property
    def url_scheme(self) -> str | None:
        """Return the base name of the URL's scheme (``postgresql`` of ``postgresql+asyncpg``)."""
        return self._reading.address.scheme if self._reading.address else None

    @property
    def url_query(self) -> Mapping[str, tuple[str, ...]]:
        """Return the parameters behind the ``?`` of the URL; the connector translates them."""
        return MappingProxyType(self._reading.address.query if self._reading.address else {})

    def variable(self, field: str) -> str:
        """Return the name of the environment variable of a field or of a connector's option."""
        return self._reading.variable(field)

    def origin(self, field: str) -> str:
        """Return where a field's value came from (``DB_HOST in .env``), for error messages."""
        return self._reading.origin(field)

    def options_for(self, *names: str) -> dict[str, Any]:
        """
        Return the raw options of a connector, collected under each of its names.

        Options given in code beat variables; nothing is validated here.
        """
        options: dict[str, Any] = {}
        for name in names:
            start = f"{name}_"
            for variable, value in self._reading.leftovers.items():
                if variable.startswith(start):
                    options.setdefault(variable.removeprefix(start), value)
        return {**options, **self.connector_options}

    def replaced(self, origin: str, **values: Any) -> Self:
        """
        Return a copy with other values, remembered as coming from ``origin``.

        For connectors that translate parameters of the URL into settings; the values must be
        valid, they are not checked again.
        """
        copy = self.model_copy(update=values)
        reading = dataclasses.replace(
            self._reading, origins={**self._reading.origins, **dict.fromkeys(values, origin)}
        )
        copy._reading = reading
        return copy

    @property
    def is_direct(self) -> bool:
        """Return whether these settings came from :meth:`direct`, and lead past any pooler."""
        return self._is_direct

    def direct(self) -> Self:
        """
        Return the settings that ``direct_url`` leads to, or these where it is not set.

        Whatever that URL does not say stays as it is, but for the parameters of ``url``, which
        belong to the other address.
        """
        if self.direct_url is None:
            return self
        origin, url = self.origin("direct_url"), self.origin("url")
        address = parse_address(self.direct_url.get_secret_value())
        only = address.hosts[0] if len(address.hosts) == 1 else None
        parts = {
            "host": only.host if only else address.host_text or None,
            "port": only.port if only else None,
            "user": address.user,
            "name": address.name,
            "password": None if address.password is None else SecretStr(address.password),
        }
        given = {name: value for name, value in parts.items() if value is not None}
        copy = self.replaced(
            origin, url=self.direct_url, direct_url=None, **{**given, "port": parts["port"]}
        )
        forgotten = {name for name in self.model_fields_set if self.origin(name) == url}
        copy.model_fields_set.difference_update(forgotten - given.keys())
        copy._reading = dataclasses.replace(copy._reading, address=address)
        copy._is_direct = True
        return copy

    def _check_unknown(self, *, strict: bool) -> None:
        connectors = [str(name) for name in DatabaseType]
        decided = self.type or self.url_scheme
        unknown = unknown_variables(
            self._reading,
            self.__class__.model_fields,
            [*connectors, decided] if decided else connectors,
            type_is_known=self.type is not None,
        )
        if unknown and strict:
            raise SettingsError(unknown)
        for sentence in unknown:
            if sentence not in _warned:
                _warned.add(sentence)
                warnings.warn(sentence, UnknownSettingWarning, stacklevel=3)


_ADVICE = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "string_too_short": "is empty; give a value, or remove the variable",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
}


def explain(origin: Callable[[str], str], item: Mapping[str, Any]) -> str:
    """
    Turn one of pydantic's errors into a sentence that names the variable and shows no value.

    Args:
        origin: Gives the name that a user knows a field by.
        item: One of ``ValidationError.errors(include_input=False)``.
    """
    name = ".".join(str(part) for part in item["loc"])
    context = item.get("ctx", {})
    template = _ADVICE.get(item["type"])
    if item["type"] == "value_error":
        what = str(context.get("error", item["msg"]))
    elif template is not None:
        what = template.format_map(context)
    else:
        what = f"is wrong: {item['msg']}"
    # A validator of the whole, as a connector's options may have, names the fields itself.
    return f"{origin(name)} {what}" if name else what
