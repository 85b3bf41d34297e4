"""The examples do what they say, on every backend."""

import asyncio
import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lending_library.app import app
from lending_library.create_tables import create_tables
from moorage import get_database
from scripts.demo_server import ROOT, running_service, service_environment
from scripts.demo_server import create_tables as run_create_tables

COPIES = 50
BORROWERS = 200


@pytest.fixture
def variables(fresh_database: Mapping[str, str | int]) -> dict[str, str]:
    """Return the settings of a fresh database as a user writes them down."""
    return {f"DB_{field.upper()}": str(value) for field, value in fresh_database.items()}


@pytest_asyncio.fixture
async def client(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the service in this process; no connection may stay checked out."""
    for name in [name for name in os.environ if name.startswith("DB_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await create_tables()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://library") as client:
            yield client
        assert get_database().pool_statistics().in_use == 0


@asynccontextmanager
async def two_workers(
    variables: Mapping[str, str], folder: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the service under uvicorn; no worker may log a failure or a busy pool."""
    run_create_tables(variables, folder)
    with running_service(variables, folder, workers=2) as service:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(
            base_url=service.url, limits=limits, timeout=60, trust_env=False
        ) as client:
            yield client
            for _ in range(10):  # whichever worker answers
                health = await client.get("/health", headers={"Connection": "close"})
                assert health.json()["pool"]["in_use"] == 0
    log = service.log.read_text()
    assert "still in use" not in log
    assert "Traceback" not in log


async def created(client: httpx.AsyncClient, path: str, **data: Any) -> int:
    """Create something that must succeed and return its id."""
    answer = await client.post(path, json=data)
    assert answer.status_code == 201, answer.text
    key: int = answer.json()["id"]
    return key


async def new_book(client: httpx.AsyncClient, title: str, author: str, copies: int = 1) -> int:
    """Create a book and its author."""
    author_id = await created(client, "/authors", name=author)
    return await created(client, "/books", title=title, author_id=author_id, copies=copies)


async def new_member(client: httpx.AsyncClient, name: str, max_loans: int = 5) -> int:
    """Create a member."""
    return await created(
        client, "/members", name=name, email=f"{name}@example.org", max_loans=max_loans
    )


async def test_books_are_created_found_and_listed(client: httpx.AsyncClient) -> None:
    """Books are found by any part of title or author in any case, page by page."""
    moby = await new_book(client, "Moby-Dick", "Herman Melville", copies=3)
    wolf = await new_book(client, "The Sea-Wolf", "Jack London")
    await new_book(client, "100% Wool", "Ann Knitter")

    book = (await client.get(f"/books/{moby}")).json()
    assert (book["title"], book["author"]["name"]) == ("Moby-Dick", "Herman Melville")
    assert (book["copies"], book["available"]) == (3, 3)
    for q in ("moby", "MELVILLE"):
        page = (await client.get("/books", params={"q": q})).json()
        assert [item["id"] for item in page["items"]] == [moby]
    literal = (await client.get("/books", params={"q": "%"})).json()
    assert [item["title"] for item in literal["items"]] == ["100% Wool"]
    second = (await client.get("/books", params={"q": "-", "limit": 1, "offset": 1})).json()
    assert (second["total"], [item["id"] for item in second["items"]]) == (2, [wolf])


async def test_books_are_exported(client: httpx.AsyncClient) -> None:
    """All books come as a spreadsheet reads them, quotes and commas included."""
    first = await new_book(client, 'Sailing "Alone", Around the World', "Joshua Slocum")
    second = await new_book(client, "Typee", "Herman M.")
    answer = await client.get("/books.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(answer.text.splitlines()))
    assert rows == [
        [str(first), 'Sailing "Alone", Around the World', "Joshua Slocum"],
        [str(second), "Typee", "Herman M."],
    ]


async def test_mistakes_of_the_client_have_their_own_answers(client: httpx.AsyncClient) -> None:
    """What is invalid, unknown or a duplicate is answered with 422, 404 or 409."""
    await created(client, "/authors", name="Joseph Conrad")
    before = (await client.get("/statistics")).json()
    invalid = await client.post("/authors", json={"name": "  "})
    unknown = await client.post("/books", json={"title": "Typhoon", "author_id": 4711})
    duplicate = await client.post("/authors", json={"name": "Joseph Conrad"})
    assert (invalid.status_code, unknown.status_code, duplicate.status_code) == (422, 404, 409)
    assert (await client.get("/statistics")).json() == before


async def test_a_lent_book_comes_back(client: httpx.AsyncClient) -> None:
    """A loan takes a copy and shows at the member's; its return puts the copy back, once."""
    book = await new_book(client, "Two Years Before the Mast", "Richard Dana")
    member = await new_member(client, "ishmael")
    answer = await client.post("/loans", json={"book_id": book, "member_id": member})
    assert answer.status_code == 201
    loan = answer.json()
    assert datetime.fromisoformat(loan["lent_at"]).utcoffset() == timedelta()
    assert (await client.get(f"/books/{book}")).json()["available"] == 0
    at_home = (await client.get(f"/members/{member}")).json()["loans"]
    assert [item["book"]["author"]["name"] for item in at_home] == ["Richard Dana"]
    assert at_home[0]["lent_at"] == loan["lent_at"]

    assert (await client.post(f"/loans/{loan['id']}/return")).status_code == 200
    assert (await client.post(f"/loans/{loan['id']}/return")).status_code == 409
    assert (await client.get(f"/books/{book}")).json()["available"] == 1
    assert (await client.get(f"/members/{member}")).json()["loans"] == []


async def test_a_transfer_that_fails_half_way_leaves_nothing(client: httpx.AsyncClient) -> None:
    """A loan whose receiver turns out to be at the limit stays where it was."""
    book = await new_book(client, "The Riddle of the Sands", "Erskine Childers", copies=2)
    giver = await new_member(client, "queequeg")
    receiver = await new_member(client, "starbuck", max_loans=1)
    loan = await created(client, "/loans", book_id=book, member_id=giver)
    await created(client, "/loans", book_id=book, member_id=receiver)

    answer = await client.post(f"/loans/{loan}/transfer", json={"member_id": receiver})
    assert answer.status_code == 409
    at_home = (await client.get(f"/members/{giver}")).json()["loans"]
    assert [item["id"] for item in at_home] == [loan]
    assert len((await client.get(f"/members/{receiver}")).json()["loans"]) == 1

    other = await new_member(client, "tashtego")
    moved = await client.post(f"/loans/{loan}/transfer", json={"member_id": other})
    assert (moved.status_code, moved.json()["member_id"]) == (200, other)


async def test_no_more_loans_than_copies(client: httpx.AsyncClient) -> None:
    """Of 200 requests at once for a book with 50 copies, 50 get one and 150 are told no."""
    book = await new_book(client, "Treasure Island", "Robert Louis Stevenson", copies=COPIES)
    members = [await new_member(client, f"sailor-{number}", 100) for number in range(10)]
    before = (await client.get("/statistics")).json()["on_loan"]

    async def lend(number: int) -> int:
        data = {"book_id": book, "member_id": members[number % len(members)]}
        return (await client.post("/loans", json=data)).status_code

    answers = Counter(await asyncio.gather(*(lend(number) for number in range(BORROWERS))))
    assert answers == {201: COPIES, 409: BORROWERS - COPIES}
    assert (await client.get("/statistics")).json()["on_loan"] == before + COPIES
    assert (await client.get(f"/books/{book}")).json()["available"] == 0


@pytest.mark.scaled(small=["sqlite", "postgres"])
async def test_two_workers_keep_the_same_promises(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """Under uvicorn with two workers all of the above holds too."""
    async with two_workers(variables, tmp_path) as client:
        await test_books_are_created_found_and_listed(client)
        await test_mistakes_of_the_client_have_their_own_answers(client)
        await test_a_lent_book_comes_back(client)
        await test_a_transfer_that_fails_half_way_leaves_nothing(client)
        await test_no_more_loans_than_copies(client)


def test_the_minimal_example_runs(variables: dict[str, str], tmp_path: Path) -> None:
    """The shortest program stores and prints two notes in the database that DB_TYPE names."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "minimal" / "main.py"],
        env=service_environment(variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["1 casts off", "2 comes alongside"]
