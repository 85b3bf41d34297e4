"""The descriptor of a connection, let go without a word to the server."""

from __future__ import annotations

import asyncio
import contextlib
import os

__all__ = ["release_descriptor"]


def release_descriptor(transport: asyncio.BaseTransport | None) -> None:
    """
    Close this process's descriptor of a transport's socket, and nothing else.

    For connections whose event loop does not run any more, and for a forked child, whose parent
    goes on using them: closing the transport would send the driver's goodbye, or take the socket
    out of the parent's selector. A server notices as soon as the last process has let go.
    Called by connectors in ``abandon``; neither awaits nor touches the event loop.
    """
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or (number := sock.fileno()) < 0:
        return
    # The number stays taken, by nothing, as long as Python's socket believes that it owns it: it
    # will close that number one day, which must not be somebody else's by then.
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nothing, number, inheritable=False)
        finally:
            os.close(nothing)
