"""The verdict over the matrix is red if any cell is, and if nothing was tested."""

import pytest

from hatch_plugins import MISSING
from scripts.matrix import ROOT, Cell, Result, mark_corners, report, select, split


def result(verdict: str, summary: str = "") -> Result:
    """Return the result of some cell."""
    return Result(Cell(f"test.py3.11-2.1-{verdict}", "3.11"), verdict, summary)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["ok"], 0),
        (["ok", "skipped"], 0),
        (["ok", "unsteady"], 0),
        (["unsteady", "FAILED"], 1),
        (["ok", "FAILED", "ok"], 1),
        (["skipped", "skipped"], 1),
        (["no tests"], 1),
        ([], 1),
    ],
)
def test_verdict(verdicts: list[str], status: int) -> None:
    """One red cell is enough to fail; a skipped one is fine, only skipped ones are not."""
    assert report([result(verdict) for verdict in verdicts]) == status


def test_every_cell_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A red cell hides no other: each has its line, and all their tests are in the sum."""
    report(
        [
            result("ok", "===== 7 passed, 1 skipped in 2s ====="),
            result("FAILED", "== 2 failed, 3 passed in 1s =="),
            result("skipped", "Python 3.14 is missing"),
        ]
    )
    shown = capsys.readouterr().out.splitlines()
    for verdict in ("ok", "FAILED", "skipped"):
        assert any(f"test.py3.11-2.1-{verdict} " in line for line in shown)
    assert shown[-1] == "10 passed, 2 failed"


def test_the_corners_are_those_of_this_machine() -> None:
    """Full depth is had on the oldest and the newest Python that can be run, however few."""

    def corners(*pythons: str) -> list[str]:
        cells = [
            Cell(f"test.py{python.removesuffix(MISSING)}-{line}-sqlite", python)
            for python in pythons
            for line in ("2.0", "2.1")
        ]
        return [cell.name for cell in mark_corners(cells) if cell.is_corner]

    assert corners("3.9", "3.13", "3.11", f"3.14{MISSING}") == [
        "test.py3.9-2.0-sqlite",
        "test.py3.13-2.1-sqlite",
    ]
    assert corners("3.11") == ["test.py3.11-2.0-sqlite", "test.py3.11-2.1-sqlite"]
    assert corners(f"3.14{MISSING}") == []


@pytest.mark.parametrize("is_corner", [False, True])
@pytest.mark.parametrize("backend", ["sqlite", "postgres", "mysql"])
def test_every_path_of_a_cell_is_there(backend: str, is_corner: bool) -> None:
    """No cell names a test that was moved: pytest would not run a single one of its tests."""
    cells = (f"test.py3.11-2.0-{backend}", f"test.py3.11-2.1-{backend}", "all.py3.11-2.1")
    for name in cells:
        cell = Cell(name, "3.11", is_corner)
        assert all((ROOT / path).exists() for path in (*cell.paths, *cell.left_out))
        assert not (is_corner and cell.left_out)


def test_the_checks_beside_the_cells_are_asked_for_by_name() -> None:
    """Lint, types and packaging run with the whole, and with nothing that a user narrowed down."""
    checks = [Cell("lint", script="check"), Cell("lint", script="types"), Cell("packaging")]
    cells = [Cell("test.py3.11-2.1-sqlite", "3.11"), *checks]
    assert select(cells, []) == cells
    assert select(cells, ["sqlite", "2.1"]) == cells[:1]
    assert select(cells, ["lint"]) == checks[:2]
    assert select(cells, ["types"]) == checks[1:2]
    assert select(cells, ["packaging"]) == checks[2:]
    assert [cell.label for cell in checks] == ["lint:check", "lint:types", "packaging"]
    assert all((ROOT / path).exists() for path in checks[2].paths)


def test_what_is_split_is_run_whole() -> None:
    """At full counts the cell of all packages runs as parts, which leave out nothing."""
    whole = Cell("all.py3.13-2.1", "3.13", is_corner=True)
    parts = split(whole)
    assert sorted(path for part in parts for path in part.paths) == sorted(whole.paths)
    assert len({part.label for part in parts}) == len(parts) == 2
    assert split(Cell("test.py3.13-2.1-sqlite", "3.13", is_corner=True))[0].part == ()
