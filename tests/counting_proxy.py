"""
A TCP proxy that counts how often a client waits for its server.

It understands no protocol: a round trip begins when the client says something after the server
spoke last. What is said in one go, in however many packets, counts once; the numbers are exact,
whatever the speed of the machine.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self, cast


class CountingProxy:
    """
    A proxy in front of a server.

    Args:
        host: Host of the server.
        port: Port of the server.
        delay_seconds: Time that each direction takes longer, as on a network; the packets of one
            direction do not wait for each other.
    """

    def __init__(self, host: str, port: int, delay_seconds: float = 0.0) -> None:
        self.target = (host, port)
        self.delay_seconds = delay_seconds
        self.sent: list[bytes] = []
        self.round_trips = 0
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    @property
    def port(self) -> int:
        """Return the port that the proxy listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def reset(self) -> None:
        """Count from zero again."""
        self.round_trips = 0
        self.sent.clear()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            await link.end()

    def add(self, link: "_Link") -> None:
        """Note that a link is open."""
        self._links.add(link)

    def remove(self, link: "_Link") -> None:
        """Note that a link is closed."""
        self._links.discard(link)


class _End(asyncio.Protocol):
    """One side of a link; hands on what it receives."""

    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Link(_End):
    """The client's side, which knows the server's."""

    def __init__(self, proxy: CountingProxy) -> None:
        self._proxy = proxy
        self._server = _ServerSide(self)
        self._server_spoke = True
        self._opening: asyncio.Task[None] | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.add(self)
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self._server, *self._proxy.target)
        except OSError:
            self.close()
            return
        for data in self._early:
            self._to_server(data)

    def data_received(self, data: bytes) -> None:
        if self._server_spoke:
            self._server_spoke = False
            self._proxy.round_trips += 1
            self._proxy.sent.append(data)
        if self._server.transport is None:
            self._early.append(data)
        else:
            self._pass_on(self._to_server, data)

    def from_server(self, data: bytes) -> None:
        self._server_spoke = True
        self._pass_on(self._to_client, data)

    def _pass_on(self, write: Callable[[bytes], None], data: bytes) -> None:
        if self._proxy.delay_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._proxy.delay_seconds, write, data)
        else:
            write(data)

    def _to_server(self, data: bytes) -> None:
        if self._server.transport is not None:
            self._server.transport.write(data)

    def _to_client(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.close()
        self._proxy.remove(self)

    async def end(self) -> None:
        if self._opening is not None:
            with contextlib.suppress(OSError):
                await self._opening
        self._server.close()
        self.close()


class _ServerSide(_End):
    def __init__(self, client: _Link) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.from_server(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()
