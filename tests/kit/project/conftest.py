"""The line that an application adds."""

pytest_plugins = ["moorage_fastapi.fixtures"]
