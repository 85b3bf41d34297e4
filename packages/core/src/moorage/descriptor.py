"""The descriptor of a connection, let go without a word to the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.trsock import TransportSocket
from weakref import WeakKeyDictionary

__all__ = ["note_descriptor", "release_descriptor"]

# What the descriptors of transports lead to. Some event loops tell the number of a descriptor that
# they have closed, which may be somebody else's by then.
_inodes: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()


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


def release_descriptor(transport: asyncio.BaseTransport | None) -> None:
    """
    Close this process's descriptor of a transport's socket, and nothing else.

    For connections whose event loop does not run any more, and for a forked child, whose parent
    goes on using them: closing the transport would send the driver's goodbye, or take the socket
    out of the parent's selector. A server notices as soon as the last process has let go.
    Called by connectors in ``abandon``; neither awaits nor touches the event loop.
    """
    sock = None if transport is None else transport.get_extra_info("socket")
    if transport is None or sock is None or (number := sock.fileno()) < 0:
        return
    known = _inodes.get(transport)
    if known is None and not isinstance(sock, TransportSocket):
        return
    # The number stays taken, by nothing, as long as Python's socket believes that it owns it: it
    # will close that number one day, which must not be somebody else's by then.
    with contextlib.suppress(OSError):
        if known is not None and os.fstat(number).st_ino != known:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nothing, number, inheritable=False)
        finally:
            os.close(nothing)
