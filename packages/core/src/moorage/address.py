"""
Where a database is: hosts, ports and connection URLs, parsed without ever showing a secret.

SQLAlchemy's own parser takes ``u:p@ss@h`` for the host ``ss@h`` and says nothing, so that half of
a password travels to DNS and into logs; it knows nothing of several hosts. This module refuses
the first and understands the second. Nothing here opens or resolves anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

__all__ = ["Address", "HostPort", "is_loopback", "parse_address", "parse_hosts"]

_SCHEME = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9_.+-]*)://(?P<rest>.*)$", re.DOTALL)
_ESCAPE = (
    "percent-encode the characters @ / : # % ? of the password"
    " (@ is %40), or give the password apart from the URL"
)


@dataclass(frozen=True)
class HostPort:
    """
    One place where a server listens.

    Attributes:
        host: A name, an IPv4 or IPv6 address without brackets, or the absolute path of a socket.
        port: TCP port; ``None`` where none was written.
    """

    host: str
    port: int | None = None

    @property
    def is_socket(self) -> bool:
        """Whether ``host`` is the path of a Unix socket (or its folder)."""
        return self.host.startswith("/")


@dataclass(frozen=True)
class Address:
    """A connection URL, taken apart. ``password`` is not part of the repr."""

    scheme: str
    driver: str
    hosts: tuple[HostPort, ...]
    host_text: str
    user: str | None
    name: str | None
    query: Mapping[str, tuple[str, ...]]
    password: str | None

    def __repr__(self) -> str:
        return f"Address({self.scheme}://…)"


def is_loopback(host: str) -> bool:
    """Return whether traffic to ``host`` stays on this machine, judged by its spelling alone."""
    if host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Not by a prefix: 127.example.com is a name like any other.
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def parse_hosts(text: str) -> tuple[HostPort, ...]:
    """
    Parse one host or several, comma-separated, each with an optional port.

    Accepts names, IPv4, IPv6 (in brackets where a port follows) and absolute socket paths.

    Raises:
        ValueError: Says what is wrong, without repeating a part that may be a password.
    """
    return tuple(_parse_host(item.strip()) for item in text.split(","))


def _parse_host(item: str) -> HostPort:
    if not item:
        raise ValueError("is empty, or has a comma too many")
    if "@" in item:
        raise ValueError(f"contains an '@', which no host name does; {_ESCAPE}")
    if "://" in item:
        raise ValueError("is a URL; a host is a name or an address only")
    if re.search(r"\s", item):
        raise ValueError("contains white space")
    if item.startswith("/"):
        return HostPort(item)
    if item.startswith("["):
        host, bracket, rest = item[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has a '[' that does not enclose an IPv6 address")
        return HostPort(_ipv6(host), _parse_port(rest[1:]) if rest else None)
    if item.count(":") > 1:
        return HostPort(_ipv6(item))
    host, colon, port = item.partition(":")
    if not host:
        raise ValueError("has a port but no host")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("has a character that no host name has")
    return HostPort(host, _parse_port(port) if colon else None)


def _ipv6(text: str) -> str:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        error = ValueError(f"has ':' or '[' but no IPv6 address; if it is none, {_ESCAPE}")
    else:
        return text
    raise error  # not inside: the original repeats the text, which may be a password


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        # Half of a password that was pasted raw lands here: never repeat the text.
        raise ValueError(
            f"has a port that is not a number from 1 to 65535; if it is none, {_ESCAPE}"
        )
    return int(text)


def parse_address(text: str) -> Address:
    """
    Take a connection URL apart.

    Understands vendor forms (``postgres://``, ``mysql+anything://``), several hosts, IPv6, socket
    paths in ``?host=`` and query parameters; percent-encoding is undone. What the query means is
    the connector's business.

    Raises:
        ValueError: Says what is wrong, without repeating any part of the URL but its scheme.
    """
    match = _SCHEME.match(text.strip())
    if match is None:
        raise ValueError("is not a URL: it does not begin with a scheme such as postgres://")
    scheme, _, driver = match["scheme"].lower().partition("+")
    rest, _, query_text = match["rest"].partition("?")
    authority, _, path = rest.partition("/")
    tail = path + query_text
    if "@" in tail and (authority or ":" in tail.partition("@")[0]):
        # A password with a '/' or '?': what looks like the host is a part of it.
        raise ValueError(f"has an '@' behind a '/' or '?'; {_ESCAPE}")
    userinfo, _, host_text = authority.rpartition("@")
    if "@" in userinfo:
        raise ValueError(f"has an '@' too many, so that its host is unclear; {_ESCAPE}")
    user, colon, password = userinfo.partition(":")
    query: dict[str, tuple[str, ...]] = {}
    for key, value in parse_qsl(query_text, keep_blank_values=True):
        query[key] = (*query.get(key, ()), value)
    return Address(
        scheme=scheme,
        driver=driver,
        hosts=parse_hosts(unquote(host_text)) if host_text else (),
        host_text=unquote(host_text),
        user=unquote(user) or None,
        name=unquote(path) or None,
        query=query,
        password=unquote(password) if colon else None,
    )
