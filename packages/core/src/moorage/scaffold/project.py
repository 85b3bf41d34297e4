"""What ``moorage init`` writes into a project, decided before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from moorage.errors import ScaffoldError
from moorage.scaffold import standalone
from moorage.scaffold.adoption import Note, adoption_notes, to_markdown
from moorage.scaffold.backends import Backend, Variable, find_backend
from moorage.scaffold.changes import (
    MANIFEST,
    Change,
    Manifest,
    digest,
    read_text,
    refuse_outside,
)
from moorage.scaffold.dependencies import development, requirements
from moorage.scaffold.discovery import Found, modules_of
from moorage.scaffold.imports import arrange_imports
from moorage.scaffold.listing import Listing
from moorage.scaffold.questions import Answers
from moorage.scaffold.rendering import render
from moorage.scaffold.section import Section
from moorage.scaffold.steps import Steps
from moorage.settings import DatabaseSettings

__all__ = ["ProjectPlan", "plan_project"]

_SECTION = "README.md#moorage"
_SESSION = "session.py"
_FIRST = "0001_first_tables.py"
# What a database has run already is not written anew.
_NEXT_REVISION = 'for tables that are new, moorage db revision -m "what it does"'


@dataclass(frozen=True)
class ProjectPlan:
    """
    Everything that would be done, and what is to be said of it.

    Attributes:
        answers: The decisions.
        changes: Files to write, the manifest among them.
        kept: Files that are left alone, with the reason.
        notes: What is to be changed by hand.
        requirements: Dependencies of the project.
        development: Dependencies of its tests.
        variables: Settings that have no value yet.
        modules: What can be imported when the dependencies are installed.
        layer: What ``Database`` is imported from.
        source: Folder of the source below the project; empty for the project itself.
        commands: The next three commands.
    """

    answers: Answers
    changes: tuple[Change, ...]
    kept: Mapping[str, str]
    notes: tuple[Note, ...]
    requirements: tuple[str, ...]
    development: tuple[str, ...]
    variables: tuple[Variable, ...]
    modules: tuple[str, ...]
    layer: str
    source: str
    commands: tuple[str, ...]


def plan_project(
    found: Found, answers: Answers, manifest: Manifest, force: Sequence[str] = ()
) -> ProjectPlan:
    """
    Return what would be written into a project.

    A file that somebody has changed, or that was there before, is kept unless it is forced.

    Raises:
        ScaffoldError: Something is in the way; nothing was written.
        MissingExtraError: A package of the extra ``cli`` is not installed.
    """
    was_standalone = manifest.answers.get("standalone", False)
    if manifest.files and was_standalone != answers.standalone:
        raise ScaffoldError(
            f"this project was set up with{'' if was_standalone else 'out'} a layer of its own",
            hint=f"leave --{'no-' if was_standalone else ''}standalone out; the other kind needs a"
            " project without .moorage.json and without what it lists",
        )
    planner = _Planner(found, answers, manifest)
    planner.add_sources()
    planner.add_migrations()
    planner.add_tests()
    planner.add_surroundings()
    return planner.plan([PurePosixPath(path).as_posix() for path in force])


@dataclass
class _Planner:
    found: Found
    answers: Answers
    manifest: Manifest
    backend: Backend = field(init=False)
    files: dict[str, str] = field(default_factory=dict)
    edits: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    section_digest: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        answers = self.answers
        self.backend = find_backend(answers.backend)
        self.source = "src" if answers.layout == "src" else ""
        self.package = "/".join(filter(None, (self.source, answers.package.replace(".", "/"))))
        self.app = f"{answers.package}." if answers.package else ""
        self.folder = self._database_folder()
        self.db = f"{self.app}{self.folder}"
        self.has_tables = answers.example or answers.auth
        self.has_alembic = not self.found.alembic or "alembic.ini" in self.manifest.files
        self.has_main = answers.fastapi and self._is_ours_or_free("main.py")
        self.migrations = self._migrations_folder()
        self.needed = requirements(self.backend, answers)
        needed = (*self.needed, *development(answers))
        app = self.app if self.has_main else None
        self.steps = Steps(self.found, answers, app, self.db, self.has_alembic, needed)
        writer = "unit: DBUnitOfWork" if answers.unit_of_work else "session: DBSession"
        is_unit = answers.unit_of_work or not answers.standalone
        self.values = {
            **answers.to_json(),
            "title": _title(self.found.root),
            "app": self.app,
            "db": self.db,
            "networked": self.backend.networked,
            "row_level_security": self.backend.row_level_security,
            "source": self.source,
            "alembic": self.has_alembic,
            "revision": self.has_alembic and self.has_tables,
            "writer": writer,
            "session": "unit.session" if answers.unit_of_work else "session",
            "store": "flush" if answers.unit_of_work else "commit",
            "begin": f"database.{'unit_of_work' if is_unit else 'sessionmaker.begin'}()",
            "connector": self.backend.connector,
            "schemes": self.backend.schemes,
            "backend_title": self.backend.title,
            "seeding": not answers.standalone,
        }

    def add_sources(self) -> None:
        """Add the database package, and the application where there is none."""
        init = self._in_package("__init__.py")
        if self.answers.package and (
            init in self.manifest.files or not (self.found.root / self.package).exists()
        ):
            self.files[init] = f'"""{self.values["title"]}."""\n'
        folder = self._in_package(self.folder)
        self._render("database", folder)
        if self.answers.standalone:
            for template in standalone.layer_templates(self.backend, self.answers):
                self._render(template, folder)
            # In a layer of one's own, sessions are a package.
            session = self.files.pop(f"{folder}/{_SESSION}")
            self.files[f"{folder}/session/__init__.py"] = session
        if self.answers.example:
            self._render("example", folder)
            self._render("seeds", "seeds")
        if self.answers.auth:
            self._render("users", folder)
        if self.answers.fastapi and self.answers.example:
            self._render("fastapi", self.package)
        if self.has_main:
            self._render("app", self.package)

    def add_migrations(self) -> None:
        """Add what Alembic needs, and the first revision, unless the project has its own."""
        if not self.has_alembic:
            return
        folder = self.migrations
        templates = files("moorage") / "migrations" / "templates"
        ini = (templates / "alembic.ini").read_text(encoding="utf-8")
        ini = ini.replace("{directory}", folder)
        if self.source:
            path = "prepend_sys_path = %(here)s"
            ini = ini.replace(path, f"{path}/{self.source}")
        self.files["alembic.ini"] = ini
        mako = (templates / "script.py.mako").read_text("utf-8")
        own = repr([*self._own(), *self._folders()])
        self.files[f"{folder}/script.py.mako"] = mako.replace('["alembic"]', own)
        self._render("migrations", folder)
        revision = f"{folder}/versions/{_FIRST}"
        others = list((self.found.root / folder / "versions").glob("*.py"))
        if self.has_tables and (revision in self.manifest.files or not others):
            self._render("first-revision", f"{folder}/versions")
        elif self.has_tables:
            self.kept[f"{folder}/versions"] = _NEXT_REVISION
        else:
            self.files[f"{folder}/versions/README"] = "Revisions are written here.\n"

    def add_tests(self) -> None:
        """Add tests of all that is written."""
        folder = "tests/database"
        self._render("tests", folder)
        if self.answers.example:
            self._render("tests-example", folder)
            self._render("tests-seeds", folder)
        if self.answers.auth:
            self._render("tests-users", folder)
        if self.answers.fastapi and self.answers.example:
            self._render("tests-fastapi", folder)
        if self.has_main:
            self._render("tests-app", folder)
        if self.answers.standalone:
            self._render("standalone/tests", folder)
        # In a project that exists, settings of pytest's could come from a folder above.
        is_new = self.found.layout == "none" and not self.found.has_pytest_settings
        if "pytest.ini" in self.manifest.files or is_new:
            self._render("pytest", "")

    def add_surroundings(self) -> None:
        """Add dependencies, variables, what version control ignores, a server and a section."""
        self._add_dependencies()
        self._add_variables()
        self._add_ignored()
        self._add_compose()
        self._add_section()

    def plan(self, force: Sequence[str]) -> ProjectPlan:
        """Compare what is wanted with what is there."""
        router = f"{self.app}books" if self.answers.fastapi and self.answers.example else ""
        notes = adoption_notes(
            self.found,
            db=self.db,
            router=router,
            unit_of_work=self.answers.unit_of_work,
            fastapi=self.answers.fastapi,
        )
        if self.answers.standalone:
            lead = partial(standalone.rewritten_line, db=self.db)
            notes = [replace(note, add=tuple(map(lead, note.add))) for note in notes]
        if notes:
            self.files[self._in_package(f"{self.folder}/MIGRATION.md")] = to_markdown(notes)
        if unknown := sorted(set(force) - self.files.keys()):
            raise ScaffoldError(
                f"--force-file names what is not written: {', '.join(unknown)}",
                hint="moorage init --dry-run lists the files",
            )
        changes, digests = self._compare(force)
        changes += [
            Change(path, before, after, is_ours=False)
            for path, after in sorted(self.edits.items())
            if (before := read_text(self.found.root / path)) != after
        ]
        changes += self._manifest_change(changes, digests)
        refuse_outside(self.found.root, changes)
        return ProjectPlan(
            answers=self.answers,
            changes=tuple(changes),
            kept=self.kept,
            notes=tuple(notes),
            requirements=tuple(self.needed),
            development=tuple(development(self.answers)),
            variables=tuple(one for one in self._variables() if one.is_to_fill_in),
            modules=(f"{self.db}.models", *([f"{self.app}main"] if self.has_main else [])),
            layer=f"{self.db}.core" if self.answers.standalone else "moorage",
            source=self.source,
            commands=self.steps.commands(),
        )

    # -- files that are ours

    def _compare(self, force: Sequence[str]) -> tuple[list[Change], dict[str, str]]:
        changes: list[Change] = []
        digests: dict[str, str] = {}
        in_the_way: list[str] = []
        for path, after in sorted(self.files.items()):
            before = read_text(self.found.root / path)
            written = self.manifest.files.get(path)
            if before == after or path in force:
                digests[path] = digest(after)
            elif before is None and written is not None:
                self.kept[path] = "you removed it"
                digests[path] = written
            elif before is not None and written is None:
                in_the_way.append(path)
            elif before is not None and path.endswith(_FIRST):
                self.kept[path] = _NEXT_REVISION
                digests[path] = str(written)
            elif before is not None and digest(before) != written:
                self.kept[path] = "you changed it"
                digests[path] = str(written)
            else:
                digests[path] = digest(after)
            if before != after and path not in self.kept:
                changes.append(Change(path, before, after))
        if in_the_way:
            options = "".join(f" --force-file {path}" for path in in_the_way)
            raise ScaffoldError(
                f"{', '.join(in_the_way)}: there is such a file already, which is not ours",
                hint=f"rename it, leave out that part (as --no-example), or overwrite it:{options}",
            )
        gone = self.manifest.files.keys() - digests.keys() - {_SECTION}
        digests.update({path: self.manifest.files[path] for path in gone})
        digests.update(self.section_digest)
        return changes, digests

    def _manifest_change(self, changes: list[Change], digests: dict[str, str]) -> list[Change]:
        from moorage import __version__

        before = read_text(self.found.root / MANIFEST)
        # A newer version that has nothing to change leaves no trace.
        version = self.manifest.version if not changes and before else __version__
        after = Manifest(version, self.answers.to_json(), digests).to_text()
        return [] if after == before else [Change(MANIFEST, before, after)]

    def _render(self, template: str, folder: str) -> None:
        for path, text in render(f"project/{template}", self.values).items():
            self.files["/".join(filter(None, (folder, str(path))))] = (
                self._arranged(text) if path.suffix == ".py" else text
            )

    def _arranged(self, source: str) -> str:
        """Return a module with its imports in order, from where the names are."""
        if not self.answers.standalone:
            return arrange_imports(source, self._own(), self._folders())
        places = partial(standalone.place_of, db=self.db)
        arranged = arrange_imports(source, self._own(), self._folders(), places)
        return standalone.rewritten(arranged, self.db)

    def _own(self) -> list[str]:
        """Return the names of what is the project's own, as ruff finds them."""
        top = self.answers.package.partition(".")[0]
        return [top] if top else [self.folder, "books", "main"]

    def _folders(self) -> list[str]:
        return ["alembic"] if self.migrations == "alembic" else []

    def _in_package(self, name: str) -> str:
        return "/".join(filter(None, (self.package, name)))

    def _is_ours_or_free(self, name: str) -> bool:
        path = self._in_package(name)
        if path in self.manifest.files:
            return True
        return not self.found.applications and not (self.found.root / path).exists()

    def _database_folder(self) -> str:
        names = ("db", "database", "moorage_db")
        for name in names:
            if self._in_package(f"{name}/base.py") in self.manifest.files:
                return name
        for name in names:
            place = self.found.root / self._in_package(name)
            if not place.exists() and not place.with_suffix(".py").exists():
                return name
        raise ScaffoldError(
            f"there is no free name for the database package: {', '.join(names)} are taken",
            hint="rename one of them",
        )

    def _migrations_folder(self) -> str:
        if "alembic/env.py" in self.manifest.files:
            return "alembic"
        return "migrations" if (self.found.root / "alembic").exists() else "alembic"

    # -- files that belong to somebody, of which some lines are ours

    def _add_dependencies(self) -> None:
        package = self.answers.package or self.folder
        ours = {path.removesuffix(".py") for path in self.files if re.fullmatch(r"\w+\.py", path)}
        modules = () if self.answers.package else sorted({*modules_of(self.found.root), *ours})
        listing = Listing(self.found, self.answers, self.needed, development(self.answers))
        listing.add(_project_name(self.found.root), self.package or ".")
        if not self.source:
            listing.name_packages(package, modules)
        self.edits |= listing.edits
        self.kept |= listing.kept

    def _variables(self) -> list[Variable]:
        variables = list(self.backend.variables)
        fields = DatabaseSettings.model_fields
        for name in ("pool_size", "max_overflow"):
            value = getattr(self.answers, name)
            if value != fields[name].default:
                meaning = str(fields[name].description).rstrip(".").replace("`", "")
                variables.append(Variable(f"DB_{name.upper()}", str(value), meaning))
        return variables

    def _add_variables(self) -> None:
        lines = [line for one in self._variables() for line in one.lines()]
        head = ["# Copy this file to .env, which is never committed, and fill in what is in <…>."]
        if self.backend.url:
            head.append(f"# Instead of the parts, one URL: DATABASE_URL={self.backend.url}")
        before = read_text(self.found.root / ".env.example")
        if before is None:
            self.edits[".env.example"] = _text([*head, "", *lines])
        else:
            missing = [one for one in self._variables() if f"{one.name}=" not in before]
            lacking = [line for one in missing for line in one.lines()]
            self.edits[".env.example"] = _appended(before, lacking)
        no_secrets = not any(one.is_to_fill_in for one in self._variables())
        if no_secrets and not (self.found.root / ".env").exists():
            self.edits[".env"] = _text(lines)

    def _add_ignored(self) -> None:
        before = read_text(self.found.root / ".gitignore")
        wanted = [".env", *self.backend.ignore]
        if before is None:
            self.edits[".gitignore"] = _text([*wanted, "__pycache__/", ".venv/", ".pytest_cache/"])
            return
        there = {line.strip().lstrip("/") for line in before.splitlines()}
        first = [] if there & {".env", ".env*", "*.env"} else [".env"]
        rest = [line for line in wanted[1:] if line not in there]
        self.edits[".gitignore"] = _appended("".join(f"{line}\n" for line in first) + before, rest)

    def _add_compose(self) -> None:
        template = f"compose/{self.backend.name}"
        if not (files("moorage.scaffold") / "templates" / "project" / template).is_dir():
            return
        theirs = [name for name in self.found.files if "compose" in name]
        if "compose.yaml" in self.manifest.files or not theirs:
            self._render(template, "")
        else:
            self.kept[theirs[0]] = "it is yours; add a service for the database if it has none"

    def _add_section(self) -> None:
        root = self.found.root
        others = [path.name for path in root.glob("[Rr][Ee][Aa][Dd][Mm][Ee]*")]
        if others and "README.md" not in others:
            self.kept[others[0]] = "no section is added to a README that is no README.md"
            return
        try:
            before = read_text(root / "README.md")
        except ScaffoldError:
            self.kept["README.md"] = "no section is added to what is no UTF-8 text"
            return
        section = Section(self._section())
        after, kept = section.put_into(
            before, self.manifest.files.get(_SECTION), self.values["title"]
        )
        if kept:
            self.kept["README.md"] = kept
            written = self.manifest.files.get(_SECTION)
            self.section_digest = {} if written is None else {_SECTION: written}
        else:
            self.edits["README.md"] = after
            self.section_digest = {_SECTION: section.digest}

    def _section(self) -> list[str]:
        filled = [one.name for one in self._variables() if one.is_to_fill_in]
        steps, is_own = self.steps, self.answers.standalone
        return [
            "## Database",
            "",
            f"{self.backend.title}, by way of `{self.db}`"
            f" ({'SQLAlchemy' if is_own else 'moorage and SQLAlchemy'}). The variables `DB_*` or",
            "`DATABASE_URL`, of the environment or of `.env`, say where it is; `.env.example` lists"
            " them.",
            "",
            *(f"{number}. {step}" for number, step in enumerate(self.backend.steps, 1)),
            *([""] if self.backend.steps else []),
            "```console",
            *([f"$ cp .env.example .env    # and fill in {', '.join(filled)}"] if filled else []),
            *(["$ docker compose up --detach --wait"] if "compose.yaml" in self.files else []),
            *(f"$ {command}" for command in self.steps.commands()),
            "```",
            "",
            f"Models are in `{self._in_package(self.folder)}/models.py`; after a change of them:",
            f'`{steps.revise} -m "what it does"`, then `{steps.upgrade}`.',
            *([f"Rows to begin with: `{steps.seed}`."] if self.answers.example else []),
        ]


def _title(root: Path) -> str:
    """Return the folder's name without what would end a string or a heading."""
    name = root.resolve().name
    return "".join(c for c in name if c.isprintable() and c not in '"\\`') or "app"


def _project_name(root: Path) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in root.resolve().name.lower())
    return "-".join(filter(None, kept.split("-"))) or "app"


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _appended(before: str, lines: Sequence[str]) -> str:
    if not lines:
        return before
    return f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{_text(lines)}"
