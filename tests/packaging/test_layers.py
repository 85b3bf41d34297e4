"""
Dependencies between the modules point one way.

The imports are read from the source, so an import inside a function counts as well; one under
``if TYPE_CHECKING`` does not, since it never runs.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Each layer may import from the layers above it in this list, never from its own or below. A
# package (migrations/, pool/) is one name. A new module has to be given its place here.
CORE_LAYERS = (
    {"_requirements"},
    {"address", "errors", "notes", "by_key", "deadline"},
    {"shield"},
    {"rows"},
    {"environment", "identity", "server_facts"},
    {"abilities"},
    {"settings"},
    {"tls", "diagnosis", "pool", "json_codec"},
    {"connector"},
    {"registry", "commit", "hooks", "answers"},
    {"statements"},
    {"engine"},
    {"session"},
    {"binding"},
    {"unit_of_work", "reading", "bulk"},
    {"database", "retry"},
    {"default", "metrics"},
    {"models"},
    {"migrations"},
    {"seeding", "testing"},
    {"scaffold"},
    {"doctor"},
    {"cli"},
)
# Tighter than its layer: a unit of work runs on any session factory and must not know databases.
ONLY = {
    "unit_of_work": {
        *("errors", "connector", "engine", "commit", "session", "hooks", "shield"),
        *("binding", "identity"),
    },
    "commit": {"diagnosis", "errors", "shield"},
    "session": {"abilities", "by_key", "errors", "engine", "identity", "notes"},
    "hooks": {"shield"},
}

# Late imports upwards that are part of the design: an argument that the caller left out is looked
# up when it is needed.
LATE = {("unit_of_work", "default")}

CONNECTORS = {
    "moorage_postgres": "packages/connector-postgres/src",
    "moorage_mysql": "packages/connector-mysql/src",
    "moorage_sqlite": "packages/connector-sqlite/src",
}

# What the registry picks among several connectors when nothing else decides.
DEFAULT_CONNECTOR = "postgres"

BACKEND = re.compile(
    r"postgres|pgbouncer|mysql|mariadb|sqlite|asyncpg|psycopg|asyncmy|supabase", re.IGNORECASE
)


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` without a name."""

    module: str
    name: str
    line: int
    late: bool


def imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[Import]:
    """Yield what a module imports when it runs."""
    unseen: set[ast.AST] = set()
    late: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            unseen.update(inner for part in node.body for inner in ast.walk(part))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            late.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", node.lineno, node in late)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = len(parents) - node.level + (1 if is_package else 0)
                source = ".".join([*parents[:kept], source]).rstrip(".")
            for alias in node.names:
                if alias.name != "__version__":  # it belongs to no layer
                    yield Import(source, alias.name, node.lineno, node in late)


def modules(source: Path, package: str) -> Iterator[tuple[str, Path, ast.Module]]:
    """Yield name, file and syntax tree of each module of a package; templates are not modules."""
    for path in sorted((source / package).rglob("*.py")):
        if "templates" in path.parts:
            continue
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, path, ast.parse(path.read_text(), str(path))


def layer_faults(source: Path) -> list[str]:
    """Return every import of the core that points the wrong way."""
    rank = {name: number for number, layer in enumerate(CORE_LAYERS) for name in layer}
    faults = []
    for module, path, tree in modules(source, "moorage"):
        own = module.removeprefix("moorage").lstrip(".").partition(".")[0]
        if own in {"", "__main__"}:
            continue
        if own not in rank:
            faults.append(f"{module}: has no place in CORE_LAYERS")
            continue
        for found in imports(tree, module, is_package=path.name == "__init__.py"):
            where = f"{module}:{found.line}"
            if found.module == "moorage":
                target = found.name
            elif found.module.startswith("moorage."):
                target = found.module.split(".")[1]
            elif found.module.partition(".")[0].startswith("moorage_"):
                faults.append(f"{where}: the core imports {found.module}")
                continue
            else:
                continue
            if target == own or (found.late and (own, target) in LATE):
                continue
            if target not in rank:
                faults.append(
                    f"{where}: {target!r} is imported from the front door, not its module"
                )
            elif rank[target] >= rank[own]:
                faults.append(f"{where}: {own} imports {target}")
            elif own in ONLY and target not in ONLY[own]:
                faults.append(f"{where}: {own} may import {sorted(ONLY[own])} only, not {target}")
    return faults


def public_names(source: Path, module: str = "moorage") -> set[str]:
    """Return the names that the core, or one of its documented modules, has as public."""
    tree = ast.parse(source.joinpath(*module.split("."), "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no __all__")


def front_door_faults(source: Path, package: str, public: set[str]) -> list[str]:
    """
    Return every import of a package that takes more than the core's public names.

    What stands on the kit for tests takes its public names, which are not those of applications.
    """
    faults = []
    kit = public_names(CORE, "moorage.testing")
    for module, path, tree in modules(source, package):
        for found in imports(tree, module, is_package=path.name == "__init__.py"):
            top = found.module.partition(".")[0]
            where = f"{module}:{found.line}"
            if top.startswith("moorage_") and top != package:
                faults.append(f"{where}: imports {found.module}, another package of ours")
            elif found.module == "moorage" and found.name and found.name not in public:
                faults.append(f"{where}: {found.name!r} is not public")
            elif found.module == "moorage.testing" and found.name in kit:
                continue
            elif found.module.startswith("moorage."):
                faults.append(f"{where}: imports {found.module}, not the front door")
    return faults


# Whose objects a connector is given, or derives from.
IN_HANDS_OF_CONNECTORS = {"connector", "database", "diagnosis", "errors", "settings"}


def private_definitions(source: Path, package: str, only: set[str] | None = None) -> set[str]:
    """Return the private names of methods and attributes that a package's modules define."""
    found: set[str] = set()
    for module, _path, tree in modules(source, package):
        if only is not None and module.removeprefix(f"{package}.") not in only:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(target.id for target in targets if isinstance(target, ast.Name))
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def private_faults(source: Path, package: str, core: Path) -> list[str]:
    """Return every use of a private attribute that the core defines and the package does not."""
    theirs = private_definitions(core, "moorage", IN_HANDS_OF_CONNECTORS)
    foreign = theirs - private_definitions(source, package)
    return [
        f"{module}:{node.lineno}: {node.attr!r} is private to the core"
        for module, _path, tree in modules(source, package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in foreign
    ]


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Return the string constants that stand alone: docstrings and notes on attributes."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def backend_faults(source: Path) -> list[str]:
    """
    Return every place where the core's code names a backend or a driver.

    Docstrings, and strings of several words, are prose: a message may give an example.
    """
    faults = []
    for module, _path, tree in modules(source, "moorage"):
        allowed = docstrings(tree)
        for node in ast.walk(tree):
            # The two places that must know the first-party names, and nothing else in their files.
            is_enum = isinstance(node, ast.ClassDef) and node.name == "DatabaseType"
            is_hint = (
                isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_INSTALL_HINTS"
            )
            is_default = isinstance(node, ast.Constant) and node.value == DEFAULT_CONNECTOR
            if (module == "moorage.settings" and is_enum) or (
                module == "moorage.registry" and (is_hint or is_default)
            ):
                allowed.update(ast.walk(node))
        for node in ast.walk(tree):
            if node in allowed:
                continue
            word = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = "" if " " in node.value.strip() else node.value
            elif isinstance(node, ast.Name):
                word = node.id
            elif isinstance(node, ast.Attribute | ast.FunctionDef | ast.ClassDef | ast.alias):
                word = node.attr if isinstance(node, ast.Attribute) else node.name
            elif isinstance(node, ast.ImportFrom):
                word = node.module or ""
            if BACKEND.search(word):
                line = getattr(node, "lineno", 0)
                faults.append(f"{module}:{line}: names a backend: {word[:60]!r}")
    return faults


CORE = ROOT / "packages/core/src"


def test_core_imports_point_one_way() -> None:
    """Each module of the core imports only from the layers below it."""
    assert layer_faults(CORE) == []


def test_core_names_no_backend() -> None:
    """The core's code names no backend but in `DatabaseType` and in the install hints."""
    assert backend_faults(CORE) == []


@pytest.mark.parametrize("package", CONNECTORS)
def test_connector_uses_the_front_door(package: str) -> None:
    """A connector of ours imports what a stranger's could: public names, and no other connector."""
    assert front_door_faults(ROOT / CONNECTORS[package], package, public_names(CORE)) == []


@pytest.mark.parametrize("package", CONNECTORS)
def test_connector_keeps_off_private_attributes(package: str) -> None:
    """A connector of ours reaches into no object of the core by a private name."""
    assert private_faults(ROOT / CONNECTORS[package], package, CORE) == []


def test_a_reach_into_the_core_is_noticed(tmp_path: Path) -> None:
    """The rule on private attributes tells the core's from a connector's own, and its driver's."""
    package = tmp_path / "moorage_duck"
    package.mkdir()
    source = "class Duck:\n    def __init__(self):\n        self._pond = self.driver._writer\n"
    (package / "connector.py").write_text(source)
    assert private_faults(tmp_path, "moorage_duck", CORE) == []
    (package / "connector.py").write_text(f"{source}        self.settings._reading\n")
    (fault,) = private_faults(tmp_path, "moorage_duck", CORE)
    assert "_reading" in fault


def test_fastapi_package_uses_the_front_door() -> None:
    """The FastAPI package imports public names, what it declares, and no connector."""
    folder = ROOT / "packages/fastapi-integration"
    source = folder / "src"
    assert front_door_faults(source, "moorage_fastapi", public_names(CORE)) == []
    declared = {
        "anyio",
        "moorage",
        "moorage_fastapi",
        "fastapi",
        "starlette",
        "pydantic",
        "sqlalchemy",
        # Extras, imported where they are used.
        "httpx",
        "jwt",
        "prometheus_client",
        "pytest",
        "stamina",
    }
    foreign = {
        found.module.partition(".")[0]
        for module, path, tree in modules(source, "moorage_fastapi")
        for found in imports(tree, module, is_package=path.name == "__init__.py")
    }
    assert foreign - declared - standard_library() == set()


def test_every_package_is_checked() -> None:
    """No package of the tree escapes these rules."""
    names: set[str] = set()
    for project in ROOT.glob("packages/*/pyproject.toml"):
        build = tomllib.loads(project.read_text())["tool"]["hatch"]["build"]
        names.update(Path(path).name for path in build["targets"]["wheel"]["packages"])
    assert names == {"moorage", "moorage_fastapi", *CONNECTORS}


def standard_library() -> set[str]:
    """Return the names of the standard library's modules."""
    return set(sys.stdlib_module_names)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """Return a tree of a few modules that breaks no rule."""
    files = {
        "moorage/__init__.py": "from moorage.errors import MoorageError\n"
        '__all__ = ["MoorageError"]\n',
        "moorage/errors.py": '"""Also of PostgreSQL."""\nclass MoorageError(Exception): ...\n',
        "moorage/settings.py": "from moorage.errors import MoorageError\n"
        'class DatabaseType:\n    SQLITE = "sqlite"\n',
        "moorage/database.py": "from moorage.settings import DatabaseType\n",
        "moorage/default.py": "from moorage.database import Database\n",
        "moorage/unit_of_work.py": "def f():\n    from moorage.default import x\n",
        "moorage_sqlite/__init__.py": "from moorage import MoorageError\nimport aiosqlite\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def all_faults(source: Path) -> list[str]:
    """Apply every rule to a small tree."""
    front_door = front_door_faults(source, "moorage_sqlite", public_names(source))
    return [*layer_faults(source), *backend_faults(source), *front_door]


def test_rules_accept_a_good_tree(small_tree: Path) -> None:
    """The rules find nothing where nothing is wrong."""
    assert all_faults(small_tree) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("moorage/settings.py", "from moorage.database import Database", "settings imports"),
        ("moorage/settings.py", "from .database import Database", "settings imports database"),
        ("moorage/settings.py", "import moorage.database", "settings imports database"),
        ("moorage/settings.py", "from moorage import database", "settings imports database"),
        ("moorage/settings.py", "from moorage import Database", "front door"),
        ("moorage/settings.py", "def f():\n    import moorage.default", "settings imports default"),
        ("moorage/settings.py", "import moorage_sqlite", "core imports moorage_sqlite"),
        ("moorage/settings.py", "DEFAULT = 'postgres'", "names a backend: 'postgres'"),
        ("moorage/settings.py", "import asyncpg", "names a backend: 'asyncpg'"),
        ("moorage/settings.py", "from sqlalchemy.dialects.mysql import X", "names a backend"),
        ("moorage/settings.py", "def is_mysql(): ...", "names a backend: 'is_mysql'"),
        (
            "moorage/unit_of_work.py",
            "from moorage.default import x",
            "unit_of_work imports default",
        ),
        ("moorage/unit_of_work.py", "from moorage.settings import x", "may import"),
        ("moorage/oddity.py", "", "has no place"),
        ("moorage_sqlite/__init__.py", "from moorage import Database", "'Database' is not public"),
        ("moorage_sqlite/__init__.py", "from moorage import _x", "'_x' is not public"),
        ("moorage_sqlite/__init__.py", "from moorage.errors import x", "not the front door"),
        ("moorage_sqlite/__init__.py", "import moorage_mysql", "another package of ours"),
    ],
)
def test_rules_reject_a_broken_tree(small_tree: Path, file: str, line: str, fault: str) -> None:
    """Each rule notices the import or the name that breaks it."""
    path = small_tree / file
    path.write_text(f"{path.read_text() if path.exists() else ''}{line}\n")
    assert any(fault in found for found in all_faults(small_tree)), all_faults(small_tree)
