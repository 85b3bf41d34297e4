"""JSON columns by orjson instead of the standard library, for who asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from moorage.errors import MissingExtraError
from moorage.settings import DatabaseSettings

__all__ = ["json_arguments"]


def json_arguments(settings: DatabaseSettings) -> dict[str, Callable[[Any], Any]]:
    """
    Return the engine's arguments for the codec that the settings name; none for the usual one.

    Raises:
        MissingExtraError: orjson is not installed.
    """
    if settings.json_codec == "standard":
        return {}
    try:
        orjson: Any = import_module("orjson")
    except ImportError as error:
        raise MissingExtraError(
            f"{settings.origin('json_codec')} is orjson, which is not installed",
            hint="pip install 'moorage[orjson]'",
        ) from error

    def dumps(value: Any) -> str:
        try:
            text: bytes = orjson.dumps(value)
        except TypeError:
            return json.dumps(value)  # integers of more than 64 bits, keys that are no text
        return text.decode()

    return {"json_serializer": dumps, "json_deserializer": orjson.loads}
