"""Keepalive options reach the socket."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from moorage import enable_keepalive


class Transport(asyncio.BaseTransport):
    """A transport that has nothing but a socket."""

    def __init__(self, sock: socket.socket | None) -> None:
        super().__init__({"socket": sock})


@pytest.fixture
def tcp_socket() -> Iterator[socket.socket]:
    """Return a TCP socket that is not connected to anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        yield sock


def is_on(sock: socket.socket) -> bool:
    """Return whether the kernel probes an idle peer."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="another name on this system")
@pytest.mark.parametrize(("seconds", "idle"), [(30.0, 30), (0.2, 1), (10e9, 32_767)])
def test_keepalive_is_switched_on(tcp_socket: socket.socket, seconds: float, idle: int) -> None:
    """The kernel probes after the given silence, rounded to what it accepts."""
    assert not is_on(tcp_socket)
    enable_keepalive(Transport(tcp_socket), seconds)
    assert is_on(tcp_socket)
    assert tcp_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle


def test_zero_leaves_the_kernel_alone(tcp_socket: socket.socket) -> None:
    """Zero seconds leave the kernel's own default in place."""
    enable_keepalive(Transport(tcp_socket), 0)
    assert not is_on(tcp_socket)


def test_other_transports_are_left_alone() -> None:
    """A Unix socket, and a transport without socket, are left as they are."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        enable_keepalive(Transport(sock), 30)
        assert not is_on(sock)
    enable_keepalive(Transport(None), 30)
