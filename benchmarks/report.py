"""What was measured, as Markdown and as plots."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peers import load
from benchmarks.targets import TARGETS

FOLDER = Path(__file__).parent
PACKAGES = (
    "moorage",
    "SQLAlchemy",
    "asyncpg",
    "aiomysql",
    "aiosqlite",
    "advanced-alchemy",
    "fastapi-sqla",
    "sqlmodel",
    "tortoise-orm",
    "piccolo",
    "fastapi",
    "uvicorn",
    "uvloop",
)

# What does not depend on the machine.
COUNTED = {
    "round trips": "Round trips, counted",
    "calls": "Calls of Python functions in one unit, counted",
}


def cell(ratio: dict[str, float]) -> str:
    """Return a ratio with its quartiles."""
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def machine() -> list[str]:
    """Say what this was measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    present = []
    for package in PACKAGES:
        try:
            present.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return [
        f"{os.cpu_count()} cores ({cpu}), Python {platform.python_version()}; client and servers"
        " share them.",
        "",
        ", ".join(present) + ".",
        "",
    ]


def markdown(results: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Measurements",
        "",
        "Made by `make bench`. Ratios are speeds: 1 is as fast as the base, 2 takes half the time.",
        "They are taken inside of each round, with all variants in shuffled order; in brackets the",
        "quartiles. Units that fail count as time that was spent.",
        f"{results['rounds']} rounds. Load of the machine before: {results['load']}.",
        "",
        *machine(),
        "## Targets",
        "",
        *targets(results),
    ]
    for kind, title in COUNTED.items():
        if kind in results:
            lines += [f"## {title}", ""]
        for backend, peers in results.get(kind, {}).items():
            rows = [[name, *(str(n) for n in counts.values())] for name, counts in peers.items()]
            lines += [f"### {backend}", "", *table(["", "read", "write", "change"], rows)]
    for section in ("postgres", "mysql", "sqlite", "network", "web"):
        for work, bases in results.get(section, {}).items():
            if work == "losses":
                rows = [[name, *map(str, counts.values())] for name, counts in bases.items()]
                title = "### sqlite: 32 tasks change one row ten times each"
                lines += [title, "", *table(["", "acknowledged", "lost", "failed"], rows)]
                continue
            if work == "clients":
                lines += [f"The clients of the services were {bases}.", ""]
                continue
            if work == "failures":
                rows = [[name, ", ".join(what)] for name, what in bases.items()]
                lines += [f"### {section}: units that failed", "", *table(["", ""], rows)]
                continue
            names = list(next(iter(bases.values())))
            heads = ["", *(f"of {base}" for base in bases), "us per unit"]
            rows = [
                [
                    name,
                    *(cell(bases[base][name]) for base in bases),
                    f"{bases[next(iter(bases))][name]['microseconds']:.0f}",
                ]
                for name in names
            ]
            lines += [f"### {section}: {work}", "", *table(heads, rows)]
    for backend, bases in results.get("bulk", {}).items():
        rows = [
            [name, *(cell(bases[base][name]) for base in bases)]
            for name in next(iter(bases.values()))
        ]
        lines += [f"### bulk: {backend}", "", *table(["", *(f"of {b}" for b in bases)], rows)]
    for title, values in results.get("growth", {}).items():
        rows = []
        for name, value in values.items():
            told = cell(value) if "median" in value else f"{value['bytes_each']} bytes each"
            rows.append([name, told, f"{value['microseconds']:.0f}"])
        lines += [f"### growth: {title}", "", *table(["", "of the first", "us per unit"], rows)]
    lines += ["## Peers, and the pages that configure them", ""]
    lines += [f"* {peer.name}: {peer.docs}" for peer in load()]
    return "\n".join(lines) + "\n"


def targets(results: dict[str, Any]) -> list[str]:
    """Return the table of targets."""
    rows = []
    for target in TARGETS:
        ratio = target.found(results)
        if ratio is None:
            continue
        verdict = "reached" if ratio["high"] >= target.wanted else "missed"
        what = f"{target.section}: {target.work}"
        rows.append([what, target.base, f"{target.wanted:g}", cell(ratio), verdict])
    return table(["work", "base", "target", "measured", ""], rows)


def plots(results: dict[str, Any]) -> None:
    """Draw one plot per backend: the speed of each peer, of everybody's code."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    for section in ("postgres", "mysql", "sqlite", "web"):
        works = {
            name: bases
            for name, bases in results.get(section, {}).items()
            if "everybody's" in bases and "raw driver" in bases
        }
        if not works:
            continue
        figure, axes = pyplot.subplots(figsize=(10, 1 + 0.9 * len(works)))
        names = list(next(iter(works.values()))["everybody's"])
        height = 0.8 / len(names)
        for index, name in enumerate(names):
            ratios = [bases["everybody's"][name] for bases in works.values()]
            middle = [ratio["median"] for ratio in ratios]
            errors = [
                [ratio["median"] - ratio["low"] for ratio in ratios],
                [ratio["high"] - ratio["median"] for ratio in ratios],
            ]
            places = [number + index * height for number in range(len(works))]
            axes.barh(places, middle, height, xerr=errors, label=name)
        axes.set_yticks([number + 0.4 - height / 2 for number in range(len(works))], list(works))
        axes.invert_yaxis()
        axes.set_xlabel("speed, as a multiple of everybody's code")
        axes.set_xscale("log")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.set_title(section)
        figure.tight_layout()
        for suffix in ("png", "svg"):
            figure.savefig(FOLDER / f"results-{section}.{suffix}", dpi=110)
        pyplot.close(figure)
