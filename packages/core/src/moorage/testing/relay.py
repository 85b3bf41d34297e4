"""A stretch of the way to a server that can be cut, as a network does it: without a word."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

__all__ = ["Relay"]


class Relay:
    """
    Passes on what comes to a port of this machine, until it is cut.

    Args:
        host: Where the server is.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Return the port to connect to instead of the server's."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Cut all links; new ones can be made."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._links:
            await asyncio.wait(self._links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                server, to_server = await asyncio.open_connection(*self._target)
                self._writers.add(to_server)
                await asyncio.gather(_pass_on(reader, to_server), _pass_on(server, writer))
                self._writers.discard(to_server)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._links.discard(link)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
    target.transport.abort()
