"""
What a connector can tell of its server: facts, which moorage judges, and faults that it found.

``moorage doctor`` asks for them by way of :class:`moorage.ExaminesServer`. A fact that a backend
does not have, or does not tell, is left out, and nothing is concluded from that.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

__all__ = ["ServerFacts", "ServerFault", "TLSState"]


@dataclass(frozen=True)
class TLSState:
    """
    How a connection is encrypted.

    Attributes:
        protocol: Such as ``TLSv1.3``; empty for a connection in the clear.
        proof: What the server's certificate proved to this end of the connection: nothing, that
            an authority stands behind it, or that it is for this host, too.
    """

    protocol: str = ""
    proof: Literal["", "authority", "host name"] = ""

    @classmethod
    def of(cls, link: ssl.SSLObject | ssl.SSLSocket | None) -> Self:
        """Return the state of what a transport calls its ``ssl_object``; ``None`` has none."""
        if link is None:
            return cls()
        # Python keeps the fields of a certificate only if it was verified.
        if not link.getpeercert():
            return cls(link.version() or "TLS")
        return cls(link.version() or "TLS", "host name" if _names_host(link) else "authority")

    def __str__(self) -> str:
        if not self.protocol:
            return "not encrypted"
        if not self.proof:
            return f"{self.protocol}, the certificate was not verified"
        extent = "authority and host name" if self.proof == "host name" else "authority"
        return f"{self.protocol}, the certificate was verified ({extent})"


def _names_host(link: ssl.SSLObject | ssl.SSLSocket) -> bool:
    return bool(link.context.check_hostname and link.server_hostname)


@dataclass(frozen=True)
class ServerFault:
    """
    One thing that is wrong with a server or with the way to it, and that only its connector knows.

    Attributes:
        code: One of ``moorage.doctor.CODES``, whose words then hold; or one of the connector's
            own, which begins with its name: ``duck-pond``.
        what: What was found, without any secret.
        fix: What to do; may be left out for a code that is known.
        why: Why it matters; likewise.
        severity: Of a code of the connector's own.
    """

    code: str
    what: str
    fix: str = ""
    why: str = ""
    severity: Literal["error", "warning"] = "warning"


@dataclass(frozen=True)
class ServerFacts:
    """
    What a server says of itself, and of a connection to it that is like all others.

    Attributes:
        product: Name and version, for people.
        release: The version as numbers.
        oldest_release: The oldest one that the connector is made for.
        tls: Whether and how the connection is encrypted; ``None`` where nothing could be, as on a
            socket of this machine.
        connection_limit: Most connections that clients like this one can have at once, of all
            hosts; ``None`` where there is no limit, or where others share it out.
        limited_by: What sets that limit, for people.
        time_zone: Time zone of the session, by its name or as an offset.
        details: Whatever else is good to know, by name.
        faults: What is wrong.
    """

    product: str
    release: tuple[int, ...] = ()
    oldest_release: tuple[int, ...] = ()
    tls: TLSState | None = None
    connection_limit: int | None = None
    limited_by: str = ""
    time_zone: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[ServerFault, ...] = ()
