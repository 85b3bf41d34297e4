"""Servers for users' tests: they start with one line, and go with the process that started them."""

import asyncio
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import text

from moorage import Database, DatabaseSettings, DatabaseUnavailableError, SettingsError

PROGRAM = """
import json, sys
from {module} import throwaway_server
from moorage.testing import ThrowawayServer
made = []
begin = ThrowawayServer.__init__
ThrowawayServer.__init__ = lambda self, *a, **k: (begin(self, *a, **k), made.append(self))[0]
with throwaway_server("boats") as settings:
    password = settings.password.get_secret_value()
    print(json.dumps([settings.port, settings.user, password, str(made[0].folder)]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def module(backend: str) -> str:
    """Return the module that starts a server of the backend."""
    if backend == "sqlite":
        pytest.skip("SQLite has no server")
    return f"moorage_{backend}.throwaway"


async def test_a_server_goes_with_its_process(backend: str, module: str) -> None:
    """A server has an empty database, and nothing is left of it when its process is killed."""
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = await asyncio.to_thread(process.stdout.readline)
            port, user, password, folder = json.loads(line)
            settings = DatabaseSettings(
                type=backend,
                host="127.0.0.1",
                port=port,
                user=user,
                password=password,
                name="boats",
                ssl_mode="disable",
                _env_file=None,
            )
            async with Database(settings) as database, database.engine.connect() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
            assert Path(folder).exists()
        finally:
            process.kill()
    async with asyncio.timeout(60):
        while Path(folder).exists():
            await asyncio.sleep(0.05)
    async with Database(settings) as database:
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()


def test_what_is_missing_is_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the programs the error has the line that installs them, and no folder is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with (
        pytest.raises(SettingsError, match="needs the program") as caught,
        import_module(module).throwaway_server(),
    ):
        pytest.fail("there is no server")
    assert "install" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
