"""TCP keepalive: how soon a peer that vanished without a word is noticed."""

from __future__ import annotations

import asyncio
import socket

from moorage.descriptor import note_descriptor

__all__ = ["enable_keepalive"]

_PROBES = 3
_LONGEST_IDLE_SECONDS = 32_767  # Linux takes no more


def enable_keepalive(transport: asyncio.BaseTransport, idle_seconds: float) -> None:
    """
    Make the kernel probe the peer of an idle connection, and give up on one that is gone.

    The kernel's own default asks for the first time after two hours. Called by connectors for
    each new connection; does nothing for Unix sockets, nor where ``idle_seconds`` is 0. Notes the
    descriptor as well, for :func:`moorage.release_descriptor`.

    Args:
        transport: Transport of the driver's connection.
        idle_seconds: Silence before the first probe; a peer that is gone is noticed after about
            twice this time, also while data that was sent waits for its acknowledgement.
    """
    note_descriptor(transport)
    sock = transport.get_extra_info("socket")
    if sock is None or idle_seconds <= 0 or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    idle = min(max(1, round(idle_seconds)), _LONGEST_IDLE_SECONDS)
    options = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPALIVE": idle,  # its name on macOS
        "TCP_KEEPINTVL": max(1, idle // _PROBES),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": 2 * idle * 1000,
    }
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
