"""Heron for moorage."""

from moorage_heron.connector import HeronConnector
from moorage_heron.options import HeronOptions

__all__ = ["HeronConnector", "HeronOptions"]
