"""What a seed is, and where seeds are found."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession

from moorage.errors import SeedError
from moorage.seeding.datafile import read_data_file

__all__ = ["Seed", "SeedFunction", "find_seeds", "is_production", "seed"]

SeedFunction = Callable[[AsyncSession], Awaitable[object]]
"""What a seed does, with the session of a unit of work."""

_F = TypeVar("_F", bound=SeedFunction)
_MARK = "__moorage_seed__"
_PRODUCTION = frozenset({"production", "prod", "live"})
_DATA = frozenset({".yaml", ".yml"})


def is_production(environment: str) -> bool:
    """Return whether an environment is the one that seeds have to name: production, prod, live."""
    return environment.casefold() in _PRODUCTION


@dataclass(frozen=True)
class Seed:
    """
    One seed.

    Attributes:
        name: Its file, and the function in it.
        run: What it does.
        order: Those with lower numbers run first; then the name decides.
        environments: Where it runs; without any, everywhere but in production.
    """

    name: str
    run: SeedFunction
    order: int = 0
    environments: frozenset[str] = frozenset()

    def is_for(self, environment: str) -> bool:
        """Return whether it runs in an environment."""
        if is_production(environment):
            return any(map(is_production, self.environments))
        named = {name.casefold() for name in self.environments}
        return not named or environment.casefold() in named


@dataclass(frozen=True)
class _Declared:
    order: int
    environments: frozenset[str]


def seed(*, order: int = 0, environments: Iterable[str] = ()) -> Callable[[_F], _F]:
    """
    Make a coroutine function a seed; it is given the session of a unit of work of its own.

    It must come to the same whenever it runs: write by :func:`upsert`, or look first.

    Args:
        order: Seeds with lower numbers run first.
        environments: Where it runs; if left out, everywhere but in production.

    Raises:
        SeedError: It is no coroutine function.
    """
    if isinstance(environments, str):
        environments = (environments,)

    def mark(function: _F) -> _F:
        if not _is_coroutine_function(function):
            raise SeedError(
                f"{getattr(function, '__qualname__', function)} is no coroutine function",
                hint="write `async def`, with one argument: the session",
            )
        setattr(function, _MARK, _Declared(order, frozenset(environments)))
        return function

    return mark


def _is_coroutine_function(function: object) -> bool:
    return inspect.iscoroutinefunction(function)


def find_seeds(
    places: Sequence[str | Path], catalogues: MetaData | Sequence[MetaData] = ()
) -> list[Seed]:
    """
    Return the seeds in folders, files and packages, in the order in which they run.

    Data files are read and checked as a whole; modules are imported.

    Args:
        places: Paths, or names of modules and packages.
        catalogues: The tables that data files may name.

    Raises:
        SeedError: A place or file is not there or is wrong; the message has all that is.
        MissingExtraError: There are YAML files, and PyYAML is not installed.
    """
    tables = [catalogues] if isinstance(catalogues, MetaData) else list(catalogues)
    found: list[Seed] = []
    problems: list[str] = []
    for path, module in _files(places):
        if path.suffix in _DATA:
            data = read_data_file(path, tables, problems)
            found.append(Seed(path.name, data.plant, data.order, data.environments))
        else:
            found.extend(_of_module(path, _imported(path) if module is None else module))
    if problems:
        raise SeedError(
            "nothing was written, for seeds are wrong:\n  " + "\n  ".join(problems),
            hint="mend these lines",
        )
    return sorted(found, key=lambda one: (one.order, one.name))


def _files(places: Sequence[str | Path]) -> Iterator[tuple[Path, ModuleType | None]]:
    """Yield data files, and modules: by their path, or imported where they have a name."""
    for place in places:
        path = Path(place)
        if path.is_dir():
            yield from ((one, None) for one in _in_folder(path))
        elif path.is_file():
            yield path, None
        elif isinstance(place, str) and all(part.isidentifier() for part in place.split(".")):
            yield from _in_package(place)
        else:
            raise SeedError(
                f"there are no seeds at {place}",
                hint="make the folder, or say where they are: moorage db seed --seeds PLACE",
            )


def _in_folder(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if (path.suffix == ".py" or path.suffix in _DATA) and not path.name.startswith((".", "_"))
    )


def _in_package(name: str) -> Iterator[tuple[Path, ModuleType | None]]:
    module = _import(name, name)
    folders = list(getattr(module, "__path__", ()))
    yield Path(module.__file__ or name), module
    for folder in folders:
        for path in _in_folder(Path(folder)):
            is_data = path.suffix in _DATA
            yield path, None if is_data else _import(f"{name}.{path.stem}", str(path))


def _imported(path: Path) -> ModuleType:
    """Import a file that has no name of its own."""
    name = f"moorage_seeds_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise _not_imported(str(path), error) from error
    return module


def _import(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _not_imported(shown, error) from error


def _not_imported(what: str, error: ImportError) -> SeedError:
    return SeedError(
        f"the seeds in {what} cannot be imported: {error}",
        hint="run it in the folder of the project, or install the project",
    )


def _of_module(path: Path, module: ModuleType) -> Iterator[Seed]:
    for name, value in vars(module).items():
        declared: Any = getattr(value, _MARK, None)
        # One that was imported from elsewhere runs there.
        if isinstance(declared, _Declared) and value.__module__ == module.__name__:
            yield Seed(f"{path.name}: {name}", value, declared.order, declared.environments)
