"""
A TCP proxy that understands just enough of two protocols to fail at a chosen statement.

It reads what the client sends message by message, and looks for the text of a statement; what
the server sends passes as it is.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Self

Fault = Literal["cut before", "cut after", "stall", "black hole", "half-close", "delay"]
"""
What happens at the chosen statement.

``cut before``: the link is reset, the server never sees it. ``cut after``: it is reset when the
server answers. ``stall``: it arrives, and no answer comes back any more. ``black hole``: from it on
everything is swallowed, on this link and on all others, until :attr:`Proxy.is_black_hole` is taken
back. ``half-close``: it arrives, and the client is told that the server will say nothing more.
``delay``: it waits for :attr:`Proxy.delay`.
"""


@dataclass
class _Armed:
    word: bytes
    fault: Fault
    times: int


class Proxy:
    """A proxy in front of a server, with at most one kind of fault waiting to happen."""

    def __init__(self, backend: str, host: str, port: int) -> None:
        self._read = _read_postgres if backend == "postgres" else _read_mysql
        self._target = (host, port)
        self._armed: _Armed | None = None
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.happened = 0
        self.delay: asyncio.Event = asyncio.Event()
        self.is_black_hole = False
        """Whether everything is swallowed, in both directions, on old links and on new ones."""

    @property
    def port(self) -> int:
        """Return the port that the proxy listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def arm(self, word: bytes, fault: Fault, times: int = 1) -> None:
        """
        Let the next statements that begin with ``word`` meet a fault.

        An empty word is that of any message: on a new link the first one of the handshake.
        """
        self._armed = _Armed(word, fault, times)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._links.discard(link)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self._target)
        answers = asyncio.create_task(self._pass_on(server, to_client))
        try:
            async for message in self._read(client):
                if self.is_black_hole:
                    continue
                armed = self._armed
                if armed is None or not _statement(message).startswith(armed.word):
                    to_server.write(message)
                    await to_server.drain()
                    continue
                armed.times -= 1
                if not armed.times:
                    self._armed = None
                self.happened += 1
                if armed.fault == "cut before":
                    return
                if armed.fault == "black hole":
                    self.is_black_hole = True
                    continue
                if armed.fault == "delay":
                    await self.delay.wait()
                else:
                    answers.cancel()
                    await asyncio.wait({answers})
                to_server.write(message)
                await to_server.drain()
                if armed.fault == "delay":
                    continue
                # What belongs to the statement and comes in messages of its own has to follow it.
                rest = asyncio.create_task(self._pass_on(client, to_server))
                await server.read(1)  # the answer: by now it is done
                rest.cancel()
                await asyncio.wait({rest})
                if armed.fault == "cut after":
                    return
                if armed.fault == "half-close":
                    to_client.write_eof()
                await client.read()
                return
        finally:
            answers.cancel()
            await asyncio.wait({answers})
            _cut(to_client.transport)
            _cut(to_server.transport)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                if not self.is_black_hole:
                    target.write(chunk)
                    await target.drain()
            target.close()


def _cut(transport: asyncio.WriteTransport) -> None:
    """Reset a link, as whoever dies does: neither of the protocol nor of TCP is there a goodbye."""
    sock = transport.get_extra_info("socket")
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _read_postgres(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield messages: a length of four bytes that counts itself, behind one byte of type."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        head = await reader.readexactly(4)  # the first message alone has no type
        yield head + await reader.readexactly(int.from_bytes(head) - 4)
        while True:
            head = await reader.readexactly(5)
            yield head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


async def _read_mysql(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield packets: a length of three bytes, little end first, and a number of one byte."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(4)
            yield head + await reader.readexactly(int.from_bytes(head[:3], "little"))


def _statement(message: bytes) -> bytes:
    """Return the text of a statement; what is none begins with other bytes."""
    text = message[5:]
    if message[:1] == b"P":  # PostgreSQL's Parse: the statement's name stands before its text
        text = text.partition(b"\0")[2]
    return text.lstrip().upper()
