"""JSON by another codec."""

import sys

import pytest

from moorage import DatabaseSettings, MissingExtraError
from moorage.json_codec import json_arguments


def test_the_standard_library_is_the_default() -> None:
    """Nothing changes for who asks for nothing."""
    assert json_arguments(DatabaseSettings(_env_file=None)) == {}


def test_orjson_writes_what_json_reads() -> None:
    """Values come back, and what orjson refuses is written by the standard library."""
    codec = json_arguments(DatabaseSettings(json_codec="orjson", _env_file=None))
    dumps, loads = codec["json_serializer"], codec["json_deserializer"]
    value = {"a": [1, 2.5, None, True], "ü": "😀"}
    assert isinstance(dumps(value), str)
    assert loads(dumps(value)) == value
    assert dumps(2**70) == str(2**70)
    assert loads(dumps({1: "a"})) == {"1": "a"}
    with pytest.raises(TypeError):
        dumps(object())


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for orjson without having it is told what to install."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(MissingExtraError, match="orjson") as caught:
        json_arguments(DatabaseSettings(json_codec="orjson", _env_file=None))
    assert caught.value.hint == "pip install 'moorage[orjson]'"
