"""
The socket under a connection: kept alive, given up when its peer is gone, and let go in silence.

A fork and a loop that was killed leave connections behind that nobody may close properly: that
would speak to the server in the name of somebody else. Their descriptors are released, and what
belongs to them is kept from its finalizers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from asyncio.trsock import TransportSocket
from weakref import WeakKeyDictionary

__all__ = ["enable_keepalive", "keep", "note_descriptor", "release_descriptor"]

_PROBES = 3
_LONGEST_IDLE_SECONDS = 32_767  # Linux takes no more

# What the descriptors of transports lead to. Some event loops tell the number of a descriptor that
# they have closed, which may be somebody else's by then.
_inodes: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()


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


def note_descriptor(transport: asyncio.BaseTransport) -> None:
    """
    Remember which socket a transport has.

    :func:`moorage.enable_keepalive` does it; connectors without keepalive call it for each new
    connection.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError, TypeError):  # it is closed, or cannot be kept weakly
        _inodes[transport] = os.fstat(sock.fileno()).st_ino


def release_descriptor(transport: asyncio.BaseTransport | int | None) -> None:
    """
    Close this process's descriptor of a connection's socket, and nothing else.

    For connections whose event loop does not run any more, and for a forked child, whose parent
    goes on using them: closing the transport would send the driver's goodbye, or take the socket
    out of the parent's selector. A server notices as soon as the last process has let go.
    Called by connectors in ``abandon``; neither awaits nor touches the event loop.

    Args:
        transport: The transport; or the number of a descriptor that its owner, a library in C,
            certainly has not closed.
    """
    if isinstance(transport, int):
        _point_at_nothing(transport)
        return
    sock = None if transport is None else transport.get_extra_info("socket")
    if transport is None or sock is None or (number := sock.fileno()) < 0:
        return
    known = _inodes.get(transport)
    if known is None and not isinstance(sock, TransportSocket):
        return
    with contextlib.suppress(OSError):
        if known is None or os.fstat(number).st_ino == known:
            _point_at_nothing(number)


def _point_at_nothing(number: int) -> None:
    # The number stays taken, by nothing, as long as its owner believes that it owns it: it will
    # close that number one day, which must not be somebody else's by then.
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nothing, number, inheritable=False)
        finally:
            os.close(nothing)


def keep(let_go: object) -> None:
    """
    Keep what was let go until this process ends, and from its finalizers even then.

    Those of drivers and transports complain, or would speak to the server or the parent's loop.
    """
    _let_go.append(let_go)
    with contextlib.suppress(ImportError, AttributeError):  # no reference counts here
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(let_go))


_let_go: list[object] = []
