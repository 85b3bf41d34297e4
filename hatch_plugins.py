"""Extend hatch: environments whose Python is not installed are skipped, visibly."""

import os
from typing import Any

import python_discovery
from hatch.env.collectors.plugin.interface import EnvironmentCollectorInterface

MISSING = "-not-installed"


class SkipMissingInterpreters(EnvironmentCollectorInterface):  # type: ignore[misc]  # untyped
    """
    Rename an interpreter that this machine does not have.

    hatch downloads a Python that it misses, and without a network that ends the whole run with a
    traceback. A name that it can neither find nor download makes it skip the environment and say
    so. ``MOORAGE_PYTHON_DOWNLOADS=1`` lets it download.
    """

    def finalize_environments(self, config: dict[str, dict[str, Any]]) -> None:
        if os.environ.get("MOORAGE_PYTHON_DOWNLOADS") == "1":
            return
        found: dict[str, bool] = {}
        for environment in config.values():
            wanted = environment.get("python")
            if not wanted:
                continue
            if wanted not in found:
                found[wanted] = python_discovery.get_interpreter(wanted, ()) is not None
            if not found[wanted]:
                environment["python"] = f"{wanted}{MISSING}"
