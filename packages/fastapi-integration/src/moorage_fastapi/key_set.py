"""
The public keys of whoever issues tokens (a JSON Web Key Set), fetched when they are needed.

They are asked for rarely and never for longer than a deadline: what is known is used for a while
where nobody answers, and tokens that name keys which do not exist lead to few questions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from moorage import MissingExtraError, MoorageError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from jwt import PyJWK

__all__ = ["KeySet", "KeySetError"]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

_LARGEST: Final = 256 * 1024
_OK: Final = 200
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_now = time.monotonic


class KeySetError(MoorageError):
    """No key is known to verify tokens with, and nobody gives any at the moment."""

    anchor: ClassVar[str] = "key-set"


KeySetError.__module__ = "moorage_fastapi"


class KeySet:
    """
    Public keys by their ids, from one place that never changes.

    Args:
        url: Where they are; a token has no say in it.
        algorithms: For which signatures; keys for others, and secret ones, are passed over.
        timeout_seconds: Longest wait for the whole answer.
        refresh_seconds: Age at which they are asked for again.
        keep_seconds: Age up to which they are used where nobody answers; a key that was withdrawn
            is believed no longer than this.
        pause_seconds: Least time between two questions, whatever tokens ask for.

    Raises:
        SettingsError: The place is on another host, and not asked under TLS.
        MissingExtraError: The packages of the extra ``jwt`` are not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        algorithms: Collection[str],
        timeout_seconds: float,
        refresh_seconds: float,
        keep_seconds: float,
        pause_seconds: float,
    ) -> None:
        try:
            import httpx
            import jwt
        except ImportError as error:
            raise MissingExtraError(
                f"verifying tokens needs an optional package: {error}",
                hint="pip install 'moorage-fastapi[jwt]'",
            ) from error
        self._httpx = httpx
        self._jwt = jwt
        place = urlsplit(url)
        self._is_here = place.hostname in _LOOPBACK
        if place.scheme != "https" and not (place.scheme == "http" and self._is_here):
            raise SettingsError(
                f"the keys of tokens are to be had from {url!r}, which proves nothing",
                hint="write a URL that begins with https://",
            )
        self.url = url
        self._algorithms = frozenset(algorithms)
        self._timeout_seconds = timeout_seconds
        self._refresh_seconds = refresh_seconds
        self._keep_seconds = keep_seconds
        self._pause_seconds = pause_seconds
        self._keys: dict[str, PyJWK] = {}
        self._had_at = self._asked_at = -math.inf
        self._asking: asyncio.Task[None] | None = None

    async def find(self, name: str) -> PyJWK | None:
        """
        Return the key of this id, or ``None`` if there is none.

        Raises:
            KeySetError: No keys are known at all.
        """
        now = _now()
        if now - self._had_at > self._keep_seconds:
            self._keys = {}
        known = self._keys.get(name)
        if known is not None and now - self._had_at <= self._refresh_seconds:
            return known
        if now - self._asked_at >= self._pause_seconds:
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        elif known is None:
            await self._wait()
        if not self._keys:
            raise KeySetError(
                "there is no key to verify tokens with",
                hint=f"is this the right place, and can it be reached from here? {self.url}",
            )
        return self._keys.get(name)

    async def _wait(self) -> None:
        """Wait for the answer that somebody else has asked for, in the same event loop."""
        asking = self._asking
        if asking is not None and asking.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(asking)

    async def _ask(self) -> None:
        """Fetch the keys; what fails is logged, and leaves those that are there."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                keys = self._read(await self._fetch())
        # A body that is no JSON is a ValueError, one that is nested without end a RecursionError.
        except (self._httpx.HTTPError, OSError, ValueError, RecursionError) as error:
            logger.warning(
                "the keys of tokens could not be had from %s: %s", self.url, type(error).__name__
            )
            return
        self._keys, self._had_at = keys, _now()

    async def _fetch(self) -> bytes:
        options: Any = {"timeout": self._timeout_seconds, "trust_env": not self._is_here}
        async with (
            self._httpx.AsyncClient(**options) as client,
            client.stream("GET", self.url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != _OK:
                raise ValueError(response.status_code)
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _LARGEST:
                    raise ValueError("it does not end")
        return bytes(body)

    def _read(self, body: bytes) -> dict[str, PyJWK]:
        found = json.loads(body)
        listed = found.get("keys") if isinstance(found, dict) else None
        keys: dict[str, PyJWK] = {}
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and (key := self._usable(one)) is not None:
                keys.setdefault(str(one["kid"]), key)
        if not keys:
            raise ValueError("no key for these algorithms")
        return keys

    def _usable(self, described: dict[str, Any]) -> PyJWK | None:
        """Return a public key that is meant to verify with one of the algorithms."""
        is_named = isinstance(described.get("kid"), str)
        is_public = described.get("kty") != "oct" and "d" not in described
        verifies = described.get("use", "sig") == "sig"
        verifies = verifies and "verify" in described.get("key_ops", ["verify"])
        if not (is_named and is_public and verifies):
            return None
        try:
            key = self._jwt.PyJWK(described)
        except (self._jwt.PyJWTError, ValueError, TypeError, KeyError):
            return None
        return key if key.algorithm_name in self._algorithms else None
