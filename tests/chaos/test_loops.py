"""Loops that end without a word, processes that fork, and servers and tools that do both."""

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text

from moorage import Database, DatabaseSettings
from tests.fix_backend import DRIVER_SETTING
from tests.fix_scale import Scale
from tests.matrix.test_pool import connections_on_the_server, work
from tests.servers.server import free_port

with warnings.catch_warnings():
    # Starlette asks for a newer client than the other tests use.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

BACKEND_ID = {
    "postgres": "SELECT pg_backend_pid()",
    "mysql": "SELECT connection_id()",
    "sqlite": "SELECT 0",
}
# What the programs below have in common: a database, and the server's name of a connection.
PROLOGUE = """
import asyncio, gc, json, os, sys
from moorage import Database, DatabaseSettings
from sqlalchemy import text

BACKEND_ID = os.environ["BACKEND_ID"]
database = Database(DatabaseSettings(_env_file=None))

async def backend_id():
    async with database.session() as session:
        return (await session.execute(text(BACKEND_ID))).scalar_one()

async def several():
    return await asyncio.gather(*(backend_id() for _ in range(3)))

def sockets():
    # The server's end is the same for all; what tells sockets apart is their inode.
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
"""


@pytest.fixture
def environment(backend: str, fresh_database: dict[str, Any]) -> dict[str, str]:
    """Return variables that point a program at the test's database."""
    settings = {f"DB_{name.upper()}": str(value) for name, value in fresh_database.items()}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DB_") or name == DRIVER_SETTING
    }
    return {**kept, **settings, "BACKEND_ID": BACKEND_ID[backend]}


@pytest.fixture
def nothing_left(fresh_database: dict[str, Any]) -> Iterator[None]:
    """Ask the server, after the test, whether any connection is left."""
    yield

    async def look() -> None:
        async with Database(DatabaseSettings(**fresh_database, _env_file=None)) as watcher:
            await connections_on_the_server(watcher, 0)

    asyncio.run(look())


# From Python 3.12 on forking beside threads is warned of, which the embedded driver has.
PYTHON = (sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning")


def run(program: str, environment: dict[str, str]) -> None:
    """Run a program to which each warning is an error, and which prints none."""
    done = subprocess.run(
        [*PYTHON, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def database_on(settings: dict[str, Any], **overrides: Any) -> Database:
    """Return a database that was made without a loop."""
    return Database(DatabaseSettings(**{**settings, **overrides}, _env_file=None))


@pytest.mark.usefixtures("nothing_left")
def test_loops_that_were_killed(fresh_database: dict[str, Any]) -> None:
    """Connections of loops that were closed without a chance to close them do not stay open."""
    database = database_on(fresh_database)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work(database, tasks=3))
        loop.close()
        gc.collect()

    async def last() -> None:
        await work(database, tasks=2)
        assert database.pool_statistics().idle == 2
        await database.dispose()

    asyncio.run(last())


@pytest.mark.usefixtures("nothing_left")
def test_a_loop_that_waits_when_another_disposes(fresh_database: dict[str, Any]) -> None:
    """Disposing in one loop lets go of what another one has, if that one does not run."""
    database = database_on(fresh_database)
    waiting = asyncio.new_event_loop()
    waiting.run_until_complete(work(database, tasks=2))
    asyncio.run(database.dispose())
    assert database.pool_statistics().idle == 0
    waiting.run_until_complete(waiting.shutdown_asyncgens())
    waiting.close()


KILLED = (
    PROLOGUE
    + """
for _ in range(3):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(several())
    # Its transports belong to what was let go, and are not warned of either.
    loop.close()
gc.collect()
asyncio.run(several())
"""
)


@pytest.mark.usefixtures("nothing_left")
def test_a_program_that_kills_loops_ends_in_silence(environment: dict[str, str]) -> None:
    """No finalizer complains when a program ends whose loops were killed."""
    run(KILLED, environment)


FOUR_CHILDREN = (
    PROLOGUE
    + """
import threading

loop = asyncio.new_event_loop()
mine = set(loop.run_until_complete(several()))
before = sockets()
assert before or BACKEND_ID == "SELECT 0"
reports = []
for _ in range(4):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        gc.collect()
        inherited = sorted(sockets() & before - own_pair)
        try:
            ids = asyncio.run(several())
            gc.collect()
        except BaseException as error:
            ids = repr(error)
        os.write(writer, json.dumps([ids, inherited]).encode())
        os._exit(0)
    os.close(writer)
    reports.append((child, reader))
for child, reader in reports:
    ids, inherited = json.loads(os.read(reader, 65536))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert inherited == [], inherited
    assert isinstance(ids, list), ids
    assert BACKEND_ID == "SELECT 0" or not mine & set(ids), (mine, ids)
again = set(loop.run_until_complete(several()))
assert again == mine, (again, mine)
loop.run_until_complete(database.dispose())
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""
).replace(
    "loop = asyncio.new_event_loop()\n",
    # The loop's own pair of sockets, which wakes it up, is inherited as well.
    "loop = asyncio.new_event_loop()\nown_pair = sockets()\n",
)


@pytest.mark.usefixtures("nothing_left")
def test_forked_children_share_no_socket(environment: dict[str, str]) -> None:
    """Four children let go of the parent's sockets, open their own, and leave the parent alone."""
    run(FOUR_CHILDREN, environment)


PLAIN_FORK = (
    PROLOGUE
    + """
from sqlalchemy.ext.asyncio import create_async_engine
engine = create_async_engine(database.engine.url)

async def plain():
    async with engine.connect() as connection:
        return (await connection.execute(text(BACKEND_ID))).scalar_one()

async def bounded():
    return await asyncio.wait_for(plain(), 5)

def outcome(run):
    try:
        return run(bounded())
    except BaseException as error:
        return type(error).__name__

loop = asyncio.new_event_loop()
mine = loop.run_until_complete(plain())
child = os.fork()
if child == 0:
    one, two = outcome(asyncio.run), outcome(asyncio.run)
    os._exit(0 if isinstance(one, int) and isinstance(two, int) and mine not in {one, two} else 1)
spoiled = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
spoiled = outcome(loop.run_until_complete) != mine or spoiled
print("spoiled" if spoiled else "fine")
os._exit(0)
"""
)


def test_a_plain_engine_does_not_survive_a_fork(backend: str, environment: dict[str, str]) -> None:
    """Negative control: with SQLAlchemy's own pool a child spoils the parent's connection."""
    if backend != "postgres":
        return  # the other drivers fail in their own ways, some of them by hanging
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_FORK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "spoiled\n", done.stderr


GUNICORN = (
    PROLOGUE
    + """
# Preloaded: the master opens connections in a loop that it keeps, and forks its workers then.
loop = asyncio.new_event_loop()
MASTER = [os.getpid(), *loop.run_until_complete(several())]

def application(environ, start_response):
    found = {"master": MASTER, "pid": os.getpid(), "ids": asyncio.run(several())}
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
)


@contextmanager
def gunicorn(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Yield the URL of an application that gunicorn has loaded before it forked its workers."""
    (folder / "app.py").write_text(GUNICORN)
    url = f"127.0.0.1:{free_port()}"
    log = (folder / "log").open("w+")
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", f"--bind={url}", "app"],
        cwd=folder,
        env={**environment, "HOME": str(folder)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield f"http://{url}/"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        log.seek(0)
        said = log.read()
        log.close()
    assert not re.search("Traceback|Warning|Error", said), said


def get(url: str) -> dict[str, Any]:
    """Ask an application that may still be starting."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except ConnectionRefusedError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
        signal.sigtimedwait([], 0.1)
    raise AssertionError(f"nobody answers at {url}")


@pytest.mark.scaled
@pytest.mark.usefixtures("nothing_left")
def test_gunicorn_with_preload(
    backend: str, environment: dict[str, str], tmp_path: Path, scale: Scale
) -> None:
    """Workers of a server that loaded the application before it forked share no connection."""
    with gunicorn(tmp_path, environment) as url:
        answers = [get(url) for _ in range(scale(small=4, full=20))]
    master, *masters_ids = answers[0]["master"]
    assert master not in {answer["pid"] for answer in answers}
    if backend != "sqlite":
        used = {number for answer in answers for number in answer["ids"]}
        assert not used & set(masters_ids)


PYTEST = (
    PROLOGUE
    + """
import pytest

@pytest.mark.parametrize("time", range(5))
async def test_in_a_loop_of_its_own(time):
    assert len(await several()) == 3

async def test_a_session_is_left_open():
    test_a_session_is_left_open.session = session = database.session()
    await session.execute(text(BACKEND_ID))
    await session.close()

def test_without_any_loop():
    assert asyncio.run(several())
"""
)


@pytest.mark.usefixtures("nothing_left")
def test_pytest_with_a_loop_per_test(environment: dict[str, str], tmp_path: Path) -> None:
    """A database of a module serves tests with a loop each, and is nowhere warned of."""
    (tmp_path / "test_it.py").write_text(PYTEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nfilterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", str(tmp_path)),
            *("-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"),
        ],
        cwd=tmp_path,
        # What else is installed takes longer to load than the tests.
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


@pytest.mark.usefixtures("nothing_left")
def test_a_test_client_without_a_block(backend: str, fresh_database: dict[str, Any]) -> None:
    """Each request of a `TestClient` outside of `with` works, and so does its thread."""
    database = database_on(fresh_database)

    async def in_the_loop() -> int:
        async with database.session() as session:
            return int((await session.execute(text(BACKEND_ID[backend]))).scalar_one())

    def in_a_thread() -> int:
        return asyncio.run(in_the_loop())

    app = FastAPI()

    @app.get("/")
    async def both(
        one: Annotated[int, Depends(in_the_loop)], other: Annotated[int, Depends(in_a_thread)]
    ) -> list[int]:
        return [one, other]

    client = TestClient(app)
    for _ in range(5):
        one, other = client.get("/").json()
        assert backend == "sqlite" or one != other
    gc.collect()
