"""
One vocabulary of TLS for every driver: the five modes of libpq, turned into an ``SSLContext``.

Drivers disagree about TLS to the point of danger: some take ``require`` for "verified", some
ignore a wrong word, one sends the password in the clear when the server does not offer TLS.
Connectors therefore ask here what was asked for, and check afterwards that they got it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from moorage.address import is_loopback
from moorage.errors import SettingsError
from moorage.settings import DatabaseSettings, SSLMode

__all__ = ["effective_ssl_mode", "make_ssl_context"]


def effective_ssl_mode(settings: DatabaseSettings) -> SSLMode:
    """
    Return the mode that holds for these settings.

    Unset means ``prefer`` where every host is on this machine, and ``verify-full`` elsewhere: a
    connection that leaves the machine without a proof of the server's identity is somebody's
    decision, not our default.
    """
    if settings.ssl_mode == "require" and settings.ssl_ca is not None:
        return "verify-ca"  # as libpq does: an authority that is given is there to be asked
    if settings.ssl_mode is not None:
        return settings.ssl_mode
    if all(is_loopback(place.host) for place in settings.hosts):
        return "prefer"
    return "verify-full"


def make_ssl_context(
    settings: DatabaseSettings, mode: SSLMode | None = None
) -> ssl.SSLContext | None:
    """
    Return the context for these settings, or ``None`` for ``disable``.

    ``prefer`` and ``require`` encrypt without checking who answers (with ``ssl_ca``, ``require``
    is ``verify-ca``), ``verify-ca`` checks the certificate, ``verify-full`` its host name too.
    Reads the certificate files.

    Raises:
        SettingsError: A certificate file cannot be read, or a key was given without certificate.
    """
    chosen = mode or effective_ssl_mode(settings)
    if chosen == "disable":
        return None
    if settings.ssl_key is not None and settings.ssl_cert is None:
        raise SettingsError(
            f"{settings.origin('ssl_key')} is set without {settings.variable('ssl_cert')};"
            " a key is of use only with its certificate"
        )
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if chosen in {"prefer", "require"}:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif chosen == "verify-ca":
        context.check_hostname = False
    if settings.ssl_ca is not None and context.verify_mode is not ssl.CERT_NONE:
        # Only the given authority counts: a pinned CA beside the system's would pin nothing.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = chosen == "verify-full"
        with _readable(settings, "ssl_ca"):
            context.load_verify_locations(cafile=settings.ssl_ca)
    # Python's own floor, which Debian's build leaves to a file of OpenSSL's.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ssl_cert is not None:
        if settings.ssl_key is not None:
            # load_cert_chain() does not say which of the two files is missing.
            with _readable(settings, "ssl_key"):
                settings.ssl_key.read_bytes()
        with _readable(settings, "ssl_cert"):
            # Without a password OpenSSL would ask the terminal for one, and wait.
            context.load_cert_chain(settings.ssl_cert, settings.ssl_key, password="")
    return context


@contextmanager
def _readable(settings: DatabaseSettings, field: str) -> Iterator[None]:
    """Turn a failure to read a certificate file into an error that names the variable."""
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        advice = "give a readable PEM file"
        if field == "ssl_cert":
            advice += f", and in {settings.variable('ssl_key')} its own key without passphrase"
        raise SettingsError(
            f"{settings.origin(field)} names {getattr(settings, field)}, which cannot be used"
            f" ({error.strerror or type(error).__name__}); {advice}"
        ) from error
