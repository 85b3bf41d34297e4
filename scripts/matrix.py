"""
Run the cells of the test matrix, and the checks beside it, and report on all of them.

Each argument is one part of a cell's name; a cell runs when its name has them all::

    python scripts/matrix.py                  every cell and check
    python scripts/matrix.py packaging        what is built and what is written; also lint, types
    python scripts/matrix.py mysql 2.1        MySQL on SQLAlchemy 2.1, on every Python
    python scripts/matrix.py --long           the tests marked `scaled`, at full counts

Every cell runs the tests of its connector, the suite for connectors among them, and the rules
of transactions and sessions. What takes long or depends little on Python and SQLAlchemy runs in
the two corners of the matrix alone: the oldest Python with SQLAlchemy 2.0, and the newest one
with 2.1.

Tests that fail are run once more, by themselves. If they pass then, the cell is "unsteady": it is
not red, and its log is printed like that of a red one, since either the test or the code is wrong.

The servers are started once for all cells. hatch's own loop stops at the first red cell and calls
a run in which everything was skipped a success; this one does neither.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is on the path, the tree's root is not

from hatch_plugins import MISSING  # noqa: E402
from tests.servers import BACKENDS, ServerUnavailable, throwaway, url_variable  # noqa: E402

HATCH = (sys.executable, "-m", "hatch")
LOGS = ROOT / ".tools" / "logs"
# hatch environments are prepared one at a time: two installs at once would fight for two cores
# and for the editable builds of the same members.
PREPARING = threading.Lock()
TESTS_FAILED, NO_TESTS_SELECTED = 1, 5
# A cell leaves a quarter of its core idle, while it waits for servers and deadlines.
JOBS = min(os.cpu_count() or 1, 4) + 1
# Of tests/matrix, what every cell runs; the corners run all of it.
IN_EVERY_CELL = (
    "test_cell",
    "test_unit_of_work",
    "test_unit_rules",
    "test_hooks",
    "test_database",
    "test_read_sessions",
    "test_bulk_and_streams",
    "test_reset",
    "test_round_trips",
    "test_identity",
)
# Of the connectors' own tests, what depends on the server, or on what stands before it, alone.
IN_CORNERS = tuple(
    f"packages/connector-postgres/tests/{name}.py" for name in ("test_poolers", "test_exposure")
)


@dataclass(frozen=True)
class Cell:
    """One environment of the matrix, or a check beside it."""

    name: str
    python: str = ""
    is_corner: bool = False
    part: tuple[str, ...] = ()
    """Folders, if they are not all that the environment runs: a cell that is one of several."""
    script: str = ""
    """What hatch calls the checks that the environment runs, if these are no tests."""

    @property
    def label(self) -> str:
        """What it is called in reports and logs."""
        if self.script:
            return f"{self.name}:{self.script}"
        return "+".join([self.name, *(folder.rpartition("/")[2] for folder in self.part[:1])])

    @property
    def is_runnable(self) -> bool:
        """Whether the cell's Python is on this machine."""
        return not self.python.endswith(MISSING)

    @property
    def parts(self) -> frozenset[str]:
        """The parts of the name that a selection may ask for."""
        environment, _, variant = self.name.partition(".")
        return frozenset({environment, self.script, *variant.split("-")})

    @property
    def servers(self) -> frozenset[str]:
        """The servers that the cell needs."""
        is_all = self.name.startswith("all.")
        return frozenset(name for name in BACKENDS if is_all or name in self.parts)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The test files below its folders that the cell does not run."""
        return () if self.is_corner or self.part else IN_CORNERS

    @property
    def paths(self) -> list[str]:
        """The test folders that the cell runs."""
        if self.part:
            return list(self.part)
        if self.name == "packaging":
            return ["tests/packaging", "tests/docs"]
        if self.name.startswith("all."):
            # The suite for connectors is tried on connectors that are wrong, once; whatever the
            # example's document allows is asked once as well, on all backends, and projects are
            # scaffolded once.
            once = ["tests/conformance", "tests/schema", "tests/scaffold"]
            return ["tests/all_connectors", *(once if self.is_corner else [])]
        backend = self.name.rpartition("-")[2]
        packages = [f"connector-{backend}"]
        # The core's own tests know no backend, and hardly a line of SQLAlchemy: one cell of each
        # Python runs them, and the corners.
        is_whole = self.is_corner or "2.1" in self.parts
        if backend == "sqlite" and is_whole:
            packages += ["core", "fastapi-integration"]
        elif self.is_corner:
            packages.append("fastapi-integration")
        folders = [f"packages/{package}/tests" for package in packages]
        if not self.is_corner:
            return [*folders, *(f"tests/matrix/{name}.py" for name in IN_EVERY_CELL)]
        folders += ["tests/matrix", "tests/chaos"]
        if backend == "sqlite":
            # The one dialect that is ours, tried by SQLAlchemy's own tests on both of its lines.
            folders.append("tests/dialect")
        if backend == "postgres":
            whole = "2.1" in self.parts
            folders.append(f"tests/drivers{'' if whole else '/test_conformance.py'}")
        if "2.1" in self.parts:
            # What starts many processes takes time, and behaves alike on both.
            folders += ["tests/migrations", "tests/kit", "tests/examples", "tests/load"]
            folders += ["tests/pooled", "tests/policies"] if backend == "postgres" else []
        elif backend == "sqlite":
            # The broken connectors that need no server; the cell of all packages has all of them.
            folders.append("tests/conformance/test_faults.py")
        return folders


@dataclass(frozen=True)
class Result:
    """How a cell ended."""

    cell: Cell
    verdict: str
    summary: str
    seconds: float = 0.0

    def count(self, word: str) -> int:
        """Return how many tests pytest's summary counts under a word such as ``passed``."""
        found = re.search(rf"(\d+) {word}", self.summary)
        return int(found[1]) if found else 0

    def __str__(self) -> str:
        return f"{self.cell.label:28} {self.verdict:8} {self.seconds:6.1f} s  {self.summary}"


def parse(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__.partition("\n\n")[0].strip() if __doc__ else "")
    parser.add_argument("parts", nargs="*", help="parts of a cell's name, all of which must match")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"cells at once (default: {JOBS})")
    parser.add_argument("--long", action="store_true", help="full counts of the scaled tests")
    return parser.parse_args(arguments)


def add_pyenv_interpreters() -> None:
    """Append pyenv's interpreters to PATH: hatch looks there only, and a shim hides all but one."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return
    done = subprocess.run([pyenv, "root"], stdout=subprocess.PIPE, text=True, check=False)
    found = sorted(Path(done.stdout.strip()).glob("versions/3.1[1-9]*/bin"))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, found)])


def all_cells() -> list[Cell]:
    """Ask hatch for the cells, in the order of the matrix."""
    shown = subprocess.check_output([*HATCH, "env", "show", "--json"], cwd=ROOT, text=True)
    matrix = mark_corners(
        Cell(name, config.get("python", ""))
        for name, config in json.loads(shown).items()
        if name.startswith(("test.", "all."))
    )
    return [*matrix, Cell("packaging"), *(Cell("lint", script=name) for name in ("check", "types"))]


def mark_corners(cells: Iterable[Cell]) -> list[Cell]:
    """Mark the cells in the corners of what this machine can run."""
    cells = list(cells)
    pythons = sorted({cell.python for cell in cells if cell.is_runnable}, key=_number)
    corners = {(pythons[0], "2.0"), (pythons[-1], "2.1")} if pythons else set()
    return [
        replace(cell, is_corner=any(cell.python == p and s in cell.parts for p, s in corners))
        for cell in cells
    ]


def _number(python: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", python)))


def select(cells: Iterable[Cell], parts: Sequence[str]) -> list[Cell]:
    """Return the cells whose names have all parts; a plain ``3.11`` means a Python too."""
    wanted = {part if part in {"2.0", "2.1"} else re.sub(r"^3\.", "py3.", part) for part in parts}
    return [cell for cell in cells if wanted <= cell.parts]


def split(cell: Cell) -> list[Cell]:
    """Return a cell in parts that run side by side: all packages at full counts, else the whole."""
    if not cell.name.startswith("all."):
        return [cell]
    kit = "tests/conformance"
    others = tuple(folder for folder in cell.paths if folder != kit)
    return [replace(cell, part=(kit,)), replace(cell, part=others)]


def run(cell: Cell, environment: dict[str, str], is_long: bool) -> Result:
    """Prepare a cell's environment, run its tests, keep the output in a log."""
    if not cell.is_runnable:
        return Result(cell, "skipped", f"Python {cell.python.removesuffix(MISSING)} is missing")
    began = time.monotonic()
    options = ["-m", "scaled", "-o", "timeout=1800"] if is_long else []
    with log_path(cell).open("w") as log:

        def call(*command: str) -> int:
            argv = [*HATCH, "--no-color", "env", *command]
            return subprocess.call(
                argv,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def test(*selection: str) -> int:
            cache = f"cache_dir={LOGS / cell.label}"
            ignored = [f"--ignore={path}" for path in cell.left_out]
            arguments = ["pytest", "-o", cache, *options, *selection, *ignored, *cell.paths]
            return call("run", "-e", cell.name, "--", *arguments)

        with PREPARING:
            status = call("run", "-e", cell.name, "--", "python", "--version")
        if status == 0 and cell.script:
            status = call("run", "-e", cell.name, "--", cell.script)
        elif status == 0:
            status = test("--cache-clear")
        summary = last_line(log_path(cell))
        is_test_red = status == TESTS_FAILED and not cell.script
        is_unsteady = is_test_red and test("--last-failed") == 0
    if status == NO_TESTS_SELECTED and is_long:
        verdict = "no tests"
    elif is_unsteady:
        verdict = "unsteady"
    else:
        verdict = "ok" if status == 0 else "FAILED"
    return Result(cell, verdict, summary, time.monotonic() - began)


def log_path(cell: Cell) -> Path:
    """Return the file that keeps the output of a cell."""
    return LOGS / f"{cell.label}.log"


def last_line(log: Path) -> str:
    """Return the last line of a log that says something: pytest's summary, if all went well."""
    lines = [line.strip(" =") for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "no output")


def cell_environment(servers: dict[str, str], is_long: bool) -> dict[str, str]:
    """Return the variables of all cells: the servers' URLs, and none of the user's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DB_") and name != "DATABASE_URL"
    }
    return {**kept, **servers, "MOORAGE_TEST_SCALE": "full" if is_long else "small"}


def report(results: Sequence[Result]) -> int:
    """Print the table and return the exit status."""
    print("\nmatrix:")
    for result in results:
        print(f"  {result}")
    verdicts = [result.verdict for result in results]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    if not {"ok", "unsteady", "FAILED"} & set(verdicts):
        print(f"matrix: {counts}: nothing was tested, which is a failure")
        return 1
    print(f"matrix: {counts}")
    # The sum of all cells, alone on a line, in the words of pytest.
    passed = sum(result.count("passed") for result in results)
    failed = sum(result.count("failed") for result in results if result.verdict == "FAILED")
    print(f"{passed} passed, {failed} failed")
    return 1 if "FAILED" in verdicts else 0


def main(arguments: Sequence[str]) -> int:
    """Run the selected cells."""
    options = parse(arguments)
    add_pyenv_interpreters()
    cells = select(all_cells(), options.parts)
    if options.long:
        corner = [cell for cell in cells if cell.is_corner and "2.1" in cell.parts]
        cells = [part for cell in corner for part in split(cell)]
    if not cells:
        print(f"no cell matches {' '.join(options.parts)}")
        return 1
    LOGS.mkdir(parents=True, exist_ok=True)
    runnable = [cell for cell in cells if cell.is_runnable]
    needed = {name for cell in runnable for name in cell.servers}
    finished: dict[str, Result] = {}
    with ExitStack() as stack:
        urls = {}
        for backend in (name for name in BACKENDS if name in needed):
            try:
                urls[url_variable(backend)] = stack.enter_context(throwaway(backend)).url
            except ServerUnavailable as error:
                # The cells run all the same: their tests fail with this message, others pass.
                print(error, flush=True)
        environment = cell_environment(urls, options.long)
        pool = stack.enter_context(ThreadPoolExecutor(max(1, options.jobs)))
        # The longest ones first, or one core would idle beside the last of them.
        order = sorted(cells, key=lambda c: (not c.is_corner, "postgres" not in c.parts, c.label))
        futures = [pool.submit(run, cell, environment, options.long) for cell in order]
        for future in as_completed(futures):
            result = future.result()
            finished[result.cell.label] = result
            print(result, flush=True)
            if result.verdict in {"FAILED", "unsteady"}:
                print(log_path(result.cell).read_text(errors="replace"), flush=True)
    return report([finished[cell.label] for cell in cells])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
