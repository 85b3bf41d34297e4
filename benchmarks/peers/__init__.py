"""
One module per peer, each configured the way its own documentation says.

A peer does four things with books: read one by key, write one, change one, and list a hundred with
their authors.
"""

from typing import ClassVar, Protocol

from benchmarks.schema import Place


class Peer(Protocol):
    """What is measured."""

    name: ClassVar[str]
    docs: ClassVar[str]
    backends: ClassVar[frozenset[str]]

    async def open(self, place: Place) -> None:
        """Open it, with what its documentation says."""

    async def close(self) -> None:
        """Close it."""

    async def read(self, key: int) -> object:
        """Read a book."""

    async def write(self, key: int) -> object:
        """Store a new book."""

    async def change(self, key: int) -> object:
        """Read the copies of a book, and store one more."""

    async def list(self) -> object:
        """Read a hundred books, each with its author's name."""


def load() -> "list[type[Peer]]":
    """Return all peers; the base of the ratios first, then everybody's code."""
    from benchmarks.peers.advanced_alchemy_peer import AdvancedAlchemy
    from benchmarks.peers.fastapi_sqla_peer import FastAPISQLA
    from benchmarks.peers.moorage_peer import Moorage
    from benchmarks.peers.piccolo_peer import Piccolo
    from benchmarks.peers.raw_peer import Raw
    from benchmarks.peers.sqlalchemy_peer import Everybody
    from benchmarks.peers.sqlmodel_peer import SQLModelPeer
    from benchmarks.peers.tortoise_peer import TortoisePeer

    return [
        Raw,
        Everybody,
        Moorage,
        AdvancedAlchemy,
        FastAPISQLA,
        SQLModelPeer,
        TortoisePeer,
        Piccolo,
    ]
