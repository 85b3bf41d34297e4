"""
Show the example service at work: ``make demo``, or ``DB_TYPE=postgres make demo``.

A database and the service are started, the service is driven over HTTP, 500 requests at once
included, and what must hold afterwards is checked. Nothing is left running; ``SERVE=1`` keeps
the service up until Ctrl-C. The exit status is 0 if all checks hold.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from types import FrameType, NoneType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is on the path, the tree's root is not

try:
    import httpx
    import uvicorn  # noqa: F401
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table

    import moorage_fastapi  # noqa: F401 (the service needs it; asked here to answer early)
    from scripts.demo_server import Service, ServiceError, create_tables, running_service
    from tests.servers import ServerUnavailable, throwaway
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed here; this prepares and runs everything: make demo")

BACKENDS = ("sqlite", "postgres", "mysql")
REQUESTS = 500
CONNECTIONS = 50
BOOKS = 12
MEMBERS = 40
SEED = 1851

console = Console()


@dataclass
class Demo:
    """What was done and whether it went as it must."""

    client: httpx.AsyncClient
    table: Table
    failures: list[str] = field(default_factory=list)

    def check(self, step: str, asked: str, came_back: str, holds: bool) -> None:
        """Write a line of the table."""
        self.table.add_row(step, asked, came_back, "[green]ok[/]" if holds else "[red]FAILED[/]")
        if not holds:
            self.failures.append(step)

    async def ask(
        self, step: str, method: str, path: str, expected: int, data: dict[str, Any] | None = None
    ) -> Any:
        """Send a request, show it and its answer, and return what the answer holds."""
        answer = await self.client.request(method, path, json=data)
        asked = f"{method} {path}" + (f"\n{short(data)}" if data else "")
        came_back = f"{answer.status_code} {short(answer.json())}"
        self.check(step, asked, came_back, answer.status_code == expected)
        return answer.json()

    async def get(self, path: str) -> Any:
        """Read something without a line in the table."""
        return (await self.client.get(path)).raise_for_status().json()

    async def create(self, path: str, **data: Any) -> int:
        """Create something without a line in the table."""
        key: int = (await self.client.post(path, json=data)).raise_for_status().json()["id"]
        return key


def short(data: Any) -> str:
    """Write an answer on a few lines, in the words that matter."""
    if isinstance(data, dict) and isinstance(data.get("detail"), list):
        return "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in data["detail"])
    if isinstance(data, dict) and "detail" in data:
        return str(data["detail"])
    if isinstance(data, dict) and {"status", "title", "instance"} <= data.keys():
        return str(data["title"])  # a problem of the database, told as RFC 9457 wants it
    if isinstance(data, dict) and "items" in data:
        return f"{data['total']} found: " + ", ".join(item["title"] for item in data["items"])
    if isinstance(data, dict):
        plain = {
            key: value for key, value in data.items() if not isinstance(value, dict | NoneType)
        }
        return ", ".join(f"{key}={value}" for key, value in plain.items())
    return str(data)


async def show_single_requests(demo: Demo) -> None:
    """Create, read, search, and what the service says to mistakes."""
    author = await demo.ask("create", "POST", "/authors", 201, {"name": "Herman Melville"})
    book = {"title": "Moby-Dick", "author_id": author["id"], "copies": 2}
    moby = await demo.ask("create, related", "POST", "/books", 201, book)
    await demo.ask("read", "GET", f"/books/{moby['id']}", 200)
    await demo.create("/books", title="Omoo", author_id=author["id"], copies=1)
    await demo.ask("list, a page", "GET", "/books?limit=10", 200)
    found = await demo.ask("search", "GET", "/books?q=MOBY", 200)
    demo.check("search", "any case, no other book", short(found), found["total"] == 1)
    await demo.ask("invalid input", "POST", "/books", 422, {**book, "copies": 0})
    await demo.ask("duplicate", "POST", "/authors", 409, {"name": "Herman Melville"})


async def show_half_way_failure(demo: Demo) -> None:
    """A transfer writes, finds the receiver's limit reached, and leaves nothing of the write."""
    book = (await demo.get("/books?q=moby"))["items"][0]["id"]
    giver = await demo.create("/members", name="Ishmael", email="ishmael@example.org")
    receiver = await demo.create("/members", name="Ahab", email="ahab@example.org", max_loans=0)
    lend = {"book_id": book, "member_id": giver}
    loan = await demo.ask("lend", "POST", "/loans", 201, lend)
    transfer = {"member_id": receiver}
    await demo.ask("fail half-way", "POST", f"/loans/{loan['id']}/transfer", 409, transfer)
    kept = (await demo.get(f"/members/{giver}"))["loans"]
    taken = (await demo.get(f"/members/{receiver}"))["loans"]
    demo.check(
        "... leaves nothing",
        f"GET /members/{giver} and /members/{receiver}",
        f"{len(kept)} loan at the giver's, {len(taken)} at the receiver's",
        [item["id"] for item in kept] == [loan["id"]] and not taken,
    )
    await demo.ask("return", "POST", f"/loans/{loan['id']}/return", 200)


@dataclass
class Load:
    """Many requests at once, and what their answers add up to."""

    client: httpx.AsyncClient
    books: list[int]
    members: list[int]
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    loans: list[tuple[int, int]] = field(default_factory=list)
    lent: Counter[int] = field(default_factory=Counter)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def one(self) -> None:
        """Send one request: half of them read, more than half of the others lend."""
        draw = self.chance.random()
        began = time.perf_counter()
        if draw < 0.5:
            await self.read()
        elif draw < 0.7 and self.loans:
            await self.give_back()
        else:
            await self.lend()
        self.seconds.append(time.perf_counter() - began)

    async def read(self) -> None:
        """Search, look at a book, or count."""
        paths = ("/books?q=sea&limit=10", f"/books/{self.chance.choice(self.books)}", "/statistics")
        answer = await self.client.get(self.chance.choice(paths))
        self.answers["read", answer.status_code] += 1

    async def lend(self) -> None:
        """Borrow a book for a member, which may be refused."""
        book = self.chance.choice(self.books)
        data = {"book_id": book, "member_id": self.chance.choice(self.members)}
        answer = await self.client.post("/loans", json=data)
        self.answers["lend", answer.status_code] += 1
        if answer.status_code == 201:
            self.lent[book] += 1
            self.loans.append((answer.json()["id"], book))

    async def give_back(self) -> None:
        """Return a loan that nobody else returns."""
        loan, book = self.loans.pop(self.chance.randrange(len(self.loans)))
        answer = await self.client.post(f"/loans/{loan}/return")
        self.answers["return", answer.status_code] += 1
        self.lent[book] -= answer.status_code == 200

    @property
    def as_expected(self) -> bool:
        """Whether nothing came back but successes, and refusals to lend."""
        allowed = {("read", 200), ("lend", 201), ("lend", 409), ("return", 200)}
        return set(self.answers) <= allowed and self.answers.total() == REQUESTS


async def show_load(demo: Demo) -> None:
    """500 requests at once, and what must hold behind them."""
    author = await demo.create("/authors", name="Jack London")
    books = [
        await demo.create("/books", title=f"Sea Tales {n}", author_id=author, copies=1 + n % 10)
        for n in range(BOOKS)
    ]
    members = [
        await demo.create("/members", name=f"Sailor {n}", email=f"sailor{n}@example.org")
        for n in range(MEMBERS)
    ]
    load = Load(demo.client, books, members)
    turns = asyncio.Semaphore(CONNECTIONS)
    began = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{REQUESTS} requests, {CONNECTIONS} connections", total=REQUESTS)

        async def one() -> None:
            async with turns:
                await load.one()
            progress.advance(task)

        async with asyncio.TaskGroup() as group:
            for _ in range(REQUESTS):
                group.create_task(one())
    seconds = time.perf_counter() - began
    counts = ", ".join(
        f"{n} {kind}: {status}" for (kind, status), n in sorted(load.answers.items())
    )
    asked = f"{REQUESTS} requests on {CONNECTIONS} connections"
    demo.check("many at once", asked, counts, load.as_expected)
    cuts = quantiles(load.seconds, n=100)
    demo.check(
        "... for information",
        "time from request to answer",
        f"{seconds:.1f} s in all; median {cuts[49]:.2f} s, 95 % below {cuts[94]:.2f} s,"
        f" slowest {max(load.seconds):.2f} s",
        True,
    )
    await check_invariants(demo, load)


async def check_invariants(demo: Demo, load: Load) -> None:
    """Compare what the service says with itself and with the client's own tally."""
    sums = await demo.get("/statistics")
    came_back = f"{sums['available']} available + {sums['on_loan']} lent = {sums['copies']} copies"
    adds_up = sums["available"] + sums["on_loan"] == sums["copies"]
    demo.check("copies add up", "GET /statistics", came_back, adds_up)
    shelf = [await demo.get(f"/books/{book}") for book in load.books]
    wrong = [
        book["title"]
        for book in shelf
        if book["copies"] - book["available"] != load.lent[book["id"]] or book["available"] < 0
    ]
    demo.check(
        "no more loans than copies",
        f"GET each of {len(shelf)} books, against the answers counted here",
        ", ".join(wrong) or "every book agrees",
        not wrong and sums["on_loan"] == load.lent.total(),
    )
    pool = (await demo.get("/health"))["pool"]
    came_back = f"{pool['in_use']} of {pool['capacity']} in use, {pool['idle']} idle"
    demo.check("all connections returned", "GET /health", came_back, pool["in_use"] == 0)


async def drive(service: Service) -> list[str]:
    """Send all requests, print the table, and return the names of the steps that failed."""
    table = Table(title="What happened", title_justify="left", show_lines=True)
    for heading in ("step", "asked", "came back", "ok?"):
        table.add_column(heading, overflow="fold")
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        base_url=service.url, limits=limits, timeout=120, trust_env=False
    ) as client:
        demo = Demo(client, table)
        try:
            await show_single_requests(demo)
            await show_half_way_failure(demo)
            await show_load(demo)
        except* (httpx.HTTPError, KeyError, ValueError) as group:
            for failure in group.exceptions:
                demo.check("broke off", "", repr(failure), False)
        console.print(table)
    return demo.failures


@contextmanager
def prepared_database(backend: str, folder: Path) -> Iterator[dict[str, str]]:
    """Yield the variables that point the service at a new database."""
    if backend == "sqlite":
        yield {"DB_TYPE": "sqlite", "DB_NAME": str(folder / "library.db")}
        return
    console.print(f"Starting a {backend} server of our own ...")
    with throwaway(backend) as server:
        console.print(f"{server.version()} runs on port {server.address.port}.")
        yield server.environment("library")


def run(backend: str, folder: Path, keep_serving: bool) -> int:
    """Prepare everything, drive the service, and return the exit status."""
    with prepared_database(backend, folder) as database:
        create_tables(database, folder)
        with running_service(database, folder) as service:
            console.print(f"The lending library answers at {service.url}, on {backend}.\n")
            failures = asyncio.run(drive(service))
            if failures:
                console.print(f"[red]Failed:[/] {', '.join(failures)}\n\nThe service's log:")
                console.print(service.log_tail(), markup=False, highlight=False)
                return 1
            console.print("[green]All checks hold.[/]")
            show_next_things(backend)
            if keep_serving:
                console.print(f"\nServing until Ctrl-C: {service.url}/docs")
                signal.pause()
    return 0


def show_next_things(backend: str) -> None:
    """Say what else there is to try."""
    console.print("\nNext things to try:")
    for other in BACKENDS:
        if other != backend:
            console.print(f"  DB_TYPE={other} make demo")
    console.print("  SERVE=1 make demo, which keeps the service up for a look at /docs")
    console.print("  examples/fastapi-app/README.md, the service that you have just seen")


def end_as_by_ctrl_c(_number: int, _frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C, which asyncio turns into an orderly end of its tasks."""
    signal.raise_signal(signal.SIGINT)


def main() -> int:
    """Read the environment and run the demo."""
    backend = os.environ.get("DB_TYPE") or "sqlite"
    if backend not in BACKENDS:
        console.print(f"DB_TYPE={backend}: choose one of {', '.join(BACKENDS)}", markup=False)
        return 1
    # A shell starts background jobs with Ctrl-C ignored, and SIGTERM would be ignored with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, end_as_by_ctrl_c)
    keep_serving = os.environ.get("SERVE", "") not in {"", "0"}
    try:
        with tempfile.TemporaryDirectory(prefix="moorage-demo-") as folder:
            return run(backend, Path(folder), keep_serving)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running.")
        return 0 if keep_serving else 130
    except (ServerUnavailable, ServiceError) as error:
        console.print(str(error), markup=False, highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
