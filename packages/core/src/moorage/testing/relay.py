"""A stretch of the way to a server that can be cut, as a network does it: without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Self

import pytest

from moorage.registry import get_connector
from moorage.settings import DatabaseSettings
from moorage.tls import effective_ssl_mode

__all__ = ["Relay", "relayed"]


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
        self.bytes_sent: int = 0
        """How much was passed on to the server."""

    @property
    def port(self) -> int:
        """Return the port to connect to instead of the server's."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Cut all links; new ones can be made."""
        for writer in self._writers:
            writer.transport.abort()

    async def closed(self) -> None:
        """Return when each link has been closed by one of its ends."""
        if self._links:
            await asyncio.wait(self._links)

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
                await asyncio.gather(
                    _pass_on(reader, to_server, self._count), _pass_on(server, writer)
                )
                self._writers.discard(to_server)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._links.discard(link)

    def _count(self, chunk: bytes) -> None:
        self.bytes_sent += len(chunk)


async def _pass_on(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    note: Callable[[bytes], object] = len,
) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            note(chunk)
            target.write(chunk)
            await target.drain()
    target.transport.abort()


@contextlib.asynccontextmanager
async def relayed(settings: DatabaseSettings) -> AsyncIterator[tuple[Relay, DatabaseSettings]]:
    """Yield a relay to the server of ``settings``, and settings that lead through it."""
    place = settings.hosts[0]
    port = place.port or get_connector(settings).default_port
    if place.is_socket or port is None:
        pytest.fail("settings: name a host and a port, between which a link can be cut")
    mode = effective_ssl_mode(settings)
    async with Relay(place.host, port) as relay:
        through = {
            "host": "127.0.0.1",
            "port": relay.port,
            "ssl_mode": "require" if mode.startswith("verify") else mode,
        }
        yield relay, settings.model_copy(update=through)
