"""What `moorage init` prints, writes, keeps and refuses."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moorage import ScaffoldError
from moorage.cli import make_app
from moorage.scaffold import changes
from moorage.scaffold.changes import MANIFEST, Change, apply_changes
from moorage.scaffold.key_shapes import find_secrets, hide_secrets
from moorage.scaffold.verification import verify
from tests.scaffold.projects import content, make_plan, write

SECRET = "hunter2-and-more"


def init(folder: Path, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run the command without a terminal; return the exit code and all that was printed."""
    command = ["init", "--project", str(folder), *arguments]
    result = CliRunner().invoke(make_app(), command, input=stdin, catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project that was set up."""
    write(tmp_path / "shop", backend="sqlite", tool="uv")
    return tmp_path / "shop"


def test_without_a_terminal_it_never_waits(tmp_path: Path) -> None:
    """Without a terminal and without --yes nothing is written, and the next step is told."""
    code, output = init(tmp_path, "sqlite")
    assert code == 1
    assert "Next step: add --yes" in output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """The plan is a tree and a diff, and the folder stays empty."""
    code, output = init(tmp_path, "sqlite", "--dry-run", "--tool", "uv")
    assert code == 0
    assert "    base.py  (create)" in output
    assert "+class Entity(UUIDKey, Timestamps, Base):" in output
    assert list(tmp_path.iterdir()) == []


def test_the_end_says_what_is_next(tmp_path: Path) -> None:
    """The command ends with dependencies, variables, what was verified, and three commands."""
    code, output = init(tmp_path, "postgres", "--yes", "--tool", "uv", "--pool-size", "7")
    assert code == 0
    tail = output.partition("\nWrote ")[2]
    assert "moorage[fastapi,migrations,postgres]" in tail
    assert "DB_PASSWORD: " in tail
    assert "the database answers: not yet" in tail
    assert tail.splitlines()[-3:] == [
        "  uv sync",
        "  uv run moorage db upgrade",
        "  uv run uvicorn app.main:app --reload",
    ]
    example = (tmp_path / ".env.example").read_text()
    assert "DB_POOL_SIZE=7" in example
    assert "DB_MAX_OVERFLOW" not in example
    assert not (tmp_path / ".env").exists()
    assert (tmp_path / ".gitignore").read_text().startswith(".env\n")
    assert "image: postgres" in (tmp_path / "compose.yaml").read_text()


def test_verification_tells_each_module_by_itself(project: Path) -> None:
    """A module that fails, one that talks, and a database that answers are told apart."""
    (project / "talks.py").write_text("print(5)\nprint('[1, 2]')\n")
    (project / "fails.py").write_text(f"raise LookupError('password={SECRET}')\n")
    plan = replace(make_plan(project), requirements=(), modules=("talks", "fails"))
    _, talks, fails, answers = verify(project, plan)
    assert (talks.result, fails.result, answers.result) == ("yes", "no", "yes")
    assert fails.detail == "LookupError: password=•••"
    (project / "leaves.py").write_text("raise SystemExit('no way')\n")
    *_, leaves, answers = verify(project, replace(plan, modules=("leaves",)))
    assert (leaves.result, leaves.detail) == ("no", "no way")
    assert answers.result == "not yet"


def test_the_picture_shows_what_is_written(tmp_path: Path) -> None:
    """The recording in the documentation has the files of today."""
    picture = (Path(__file__).parents[2] / "docs/init.svg").read_text(encoding="utf-8")
    for change in make_plan(tmp_path, backend="sqlite", tool="pip").changes:
        assert change.path.rpartition("/")[2] in picture, "run scripts/record_init.py"


def test_the_second_run_changes_nothing(project: Path) -> None:
    """A second run finds nothing to do, also with the answers of the first one left out."""
    before = content(project)
    code, output = init(project, "--yes")
    assert (code, "Nothing to change." in output) == (0, True)
    assert content(project) == before


@pytest.mark.usefixtures("unverified")
def test_what_somebody_changed_is_kept(project: Path) -> None:
    """A file that was changed or removed is left alone, until it is forced."""
    models, session = project / "app/db/models.py", project / "app/db/session.py"
    models.write_text(models.read_text() + "\nMINE = 1\n")
    session.unlink()
    code, output = init(project, "--yes")
    assert code == 0
    assert "app/db/models.py is left as it is: you changed it" in output
    assert "app/db/session.py is left as it is: you removed it" in output
    assert "MINE" in models.read_text()
    assert not session.exists()
    forced = ["--force-file", "app/db/models.py", "--force-file", "app/db/session.py"]
    assert init(project, "--yes", *forced)[0] == 0
    assert "MINE" not in models.read_text()
    assert session.exists()
    assert init(project, "--yes")[1].count("is left as it is") == 0


def test_a_later_version_updates_what_nobody_changed(project: Path) -> None:
    """Files that are as an earlier version wrote them are updated; others are not."""
    manifest = json.loads((project / MANIFEST).read_text())
    session, base = project / "app/db/session.py", project / "app/db/base.py"
    older = "# as an older version wrote it\n"
    session.write_text(older)
    base.write_text(older + "# and somebody changed it\n")
    for path in ("app/db/session.py", "app/db/base.py"):
        manifest["files"][path] = changes.digest(older)
    (project / MANIFEST).write_text(json.dumps(manifest))
    plan = make_plan(project)
    assert [change.path for change in plan.changes] == ["app/db/session.py", MANIFEST]
    assert plan.kept == {"app/db/base.py": "you changed it"}


@pytest.mark.usefixtures("unverified")
def test_another_answer_changes_the_files(project: Path) -> None:
    """An option of a second run replaces the answer of the first one."""
    assert init(project, "postgres", "--yes")[0] == 0
    assert 'type="sqlite"' not in (project / "tests/database/conftest.py").read_text()
    project_file = tomllib.loads((project / "pyproject.toml").read_text())
    (ours, *_) = project_file["project"]["dependencies"]
    assert "postgres" in ours


@pytest.mark.usefixtures("unverified")
def test_a_revision_is_not_written_anew(project: Path) -> None:
    """Another answer brings models, but leaves the revision alone, which may have been applied."""
    path = project / "alembic/versions/0001_first_tables.py"
    before = path.read_text()
    code, output = init(project, "--yes", "--auth")
    assert code == 0
    assert f"{path.relative_to(project)} is left as it is: for tables that are new" in output
    assert path.read_text() == before
    assert (project / "app/db/users.py").is_file()
    assert "Nothing to change." in init(project, "--yes")[1]


def test_a_first_revision_comes_first(tmp_path: Path) -> None:
    """Where there are revisions already, none is put beside them."""
    write(tmp_path, backend="sqlite", tool="uv", example=False)
    (tmp_path / "alembic/versions/1f_mine.py").write_text("revision = '1f'\n")
    plan = write(tmp_path, example=True)
    assert "moorage db revision" in plan.kept["alembic/versions"]
    assert not list(tmp_path.rglob("0001*"))


def test_a_failure_half_way_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file cannot be written, the project is as it was, folders included."""
    (tmp_path / "README.md").write_text("# Mine\n")
    (tmp_path / ".gitignore").write_text("dist\n")
    plan = make_plan(tmp_path, backend="sqlite", tool="pip")
    before = content(tmp_path)
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    real = Path.replace
    for failing in range(len(plan.changes)):
        left = [failing]

        def replace(self: Path, target: Any, left: list[int] = left) -> Path:
            if left[0] == 0:
                left[0] = -1
                raise OSError(28, "No space left on device", str(target))
            left[0] -= 1
            return real(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(ScaffoldError, match="the project is as it was"):
            apply_changes(tmp_path, plan.changes)
        assert content(tmp_path) == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
    monkeypatch.setattr(Path, "replace", real)
    apply_changes(tmp_path, plan.changes)
    assert (tmp_path / "README.md").read_text().startswith("# Mine\n")


def test_a_plan_that_is_out_of_date_is_refused(tmp_path: Path) -> None:
    """A file that changed between plan and writing, or leads elsewhere, stops everything."""
    plan = make_plan(tmp_path, backend="sqlite", tool="pip")
    (tmp_path / "README.md").write_text("new\n")
    with pytest.raises(ScaffoldError, match=r"README\.md was changed meanwhile"):
        apply_changes(tmp_path, plan.changes)
    assert list(content(tmp_path)) == ["README.md"]
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "app").symlink_to(outside)
    with pytest.raises(ScaffoldError, match="leads out of the project"):
        apply_changes(inside, [Change("app/main.py", None, "x")])
    assert list(outside.iterdir()) == []


@pytest.mark.usefixtures("unverified")
def test_questions_are_listed_and_answered_by_programs(tmp_path: Path) -> None:
    """A program reads the questions, sends the answers, and gets a report, all as JSON."""
    code, output = init(tmp_path, "--questions", "--json")
    listed = json.loads(output)
    assert (code, listed["found"]["layout"]) == (0, "none")
    answers = {one["name"]: one["recommended"] for one in listed["questions"]}
    assert next(iter(answers)) == "backend"
    help_text = re.sub(r"\s+", " ", CliRunner().invoke(make_app(), ["init", "--help"]).output)
    for question in listed["questions"]:
        if question["kind"] == "choice":
            assert question["recommended"] in question["options"]
        assert question["option"] == "BACKEND" or question["option"].split("/")[0] in help_text
    answers.update(backend="sqlite", fastapi=False, tool="pip")
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(answers))
    target = tmp_path / "target"
    target.mkdir()
    code, output = init(target, "--answers", str(file), "--yes", "--json")
    report = json.loads(output)
    assert (code, report["written"], report["answers"]) == (0, True, answers)
    assert len(report["next"]) == 3
    assert {one["path"] for one in report["files"]} == content(target).keys() - {"app.db"}
    assert not (target / "app/main.py").exists()
    code, output = init(target, "--answers", "-", "--yes", "--json", stdin=json.dumps(answers))
    assert (code, json.loads(output)["files"]) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["oracle"], "there is no backend 'oracle'"),
        (["sqlit"], "write sqlite"),
        (["sqlite", "--layout", "round"], "layout: 'round' is none of package, src, flat"),
        (["sqlite", "--tool", "conda"], "tool: 'conda' is none of"),
        (["sqlite", "--package", "../up"], "is no name of a package"),
        (["sqlite", "--package", "alembic"], "'alembic' is taken"),
        (["sqlite", "--pool-size", "0"], "no whole number from 1 on"),
        (["sqlite", "--answers", "missing.json"], "cannot be read"),
        (["sqlite", "--force-file", "setup.py"], "names what is not written: setup.py"),
    ],
)
def test_bad_input_is_one_error(arguments: list[str], problem: str, tmp_path: Path) -> None:
    """What cannot be is one message with the next step, and nothing is written."""
    code, output = init(tmp_path, "--yes", *arguments)
    assert code == 1
    assert problem in output
    assert output.count("error: ") == 1
    assert "Next step: " in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_bad_files_are_one_error(tmp_path: Path) -> None:
    """What cannot be read is told apart, and nothing is written."""
    cases = {
        "pyproject.toml": ("[project", "pyproject.toml cannot be read"),
        MANIFEST: ("{}", f"{MANIFEST} is damaged"),
        ".gitignore": (b"\xff\xfe", ".gitignore is no UTF-8 text"),
        "alembic.ini/x": ("", "alembic.ini cannot be read"),
    }
    for number, (name, (text, problem)) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        before = content(folder)
        code, output = init(folder, "sqlite", "--yes", "--tool", "pip")
        assert (code, problem in output, "Next step: " in output) == (1, True, True), output
        assert content(folder) == before
    assert init(tmp_path / "nowhere", "--yes")[0] == 1
    answers = json.dumps({"bakend": "sqlite", "fastapi": "maybe"})
    (tmp_path / "empty").mkdir()
    code, output = init(tmp_path / "empty", "--answers", "-", "--yes", stdin=answers)
    assert "there is no question 'bakend' (backend?)" in output
    assert "fastapi: 'maybe' is neither true nor false" in output


@pytest.mark.usefixtures("unverified")
def test_no_secret_is_printed_or_written(tmp_path: Path) -> None:
    """Passwords that stand in a project do not show in any output, and none is written."""
    (tmp_path / "app").mkdir()
    url = f"postgresql://ann:{SECRET}@db.example.org/shop"
    (tmp_path / "app/database.py").write_text(
        f'from sqlalchemy import create_engine\nengine = create_engine("{url}")\n'
    )
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\nAPI_KEY={SECRET}\n")
    (tmp_path / ".env.example").write_text(f"API_KEY={SECRET}\n")
    (tmp_path / "README.md").write_text(f"export PASSWORD={SECRET}\n")
    (tmp_path / "requirements.txt").write_text(
        f"--extra-index-url https://ann:{SECRET}@pypi.example.org/simple\nfastapi\n"
    )
    before = content(tmp_path)
    for arguments in (
        ["--questions"],
        ["--questions", "--json"],
        ["--dry-run", "--diff"],
        ["--dry-run", "--diff", "--json"],
        ["--yes", "--diff"],
        ["--yes", "--json"],
    ):
        code, output = init(tmp_path, "postgres", "--example", *arguments)
        assert code == 0, output
        assert SECRET not in output
        assert "•••" in output or "--diff" not in arguments or "Nothing" in output
    written = {path: data for path, data in content(tmp_path).items() if before.get(path) != data}
    assert "app/db/MIGRATION.md" in written
    for path, data in written.items():
        if path not in before:
            assert SECRET.encode() not in data, path
            assert list(find_secrets(data.decode())) == [], path
    assert (tmp_path / ".env").read_bytes() == before[".env"]


@pytest.mark.parametrize(
    ("text", "is_secret"),
    [
        ("postgres://ann:s3cretword@host/db", True),
        ("DB_PASSWORD=correct-horse", True),
        ('api_key = "0123456789abcdef"', True),
        ("AKIAIOSFODNN7EXAMPLE", True),
        ("-----BEGIN PRIVATE KEY-----", True),
        ("postgres://<user>:<password>@<host>/<database>", False),
        ("DB_PASSWORD=<password>", False),
        ("POSTGRES_PASSWORD: ${DB_PASSWORD:?write it into .env}", False),
        ("password=settings.password.get()", False),
        ("password: SecretStr | None = None", False),
        ("password_hash: Mapped[str] = mapped_column(String(255))", False),
        ("https://example.org:8080/path", False),
        ("DB_PASSWORD=correcthorsebattery", True),
        ("export TOKEN=staple.horse", True),
        ("POSTGRES_PASSWORD: correcthorse", True),
        ("password = hunter22", True),
        ('PASSWORD = "correcthorse"', True),
        ("sqlalchemy.url = postgresql+asyncpg://ann:staple@db.example.org/shop", True),
        ("connect(password=settings.password, port=1)", False),
        ('{"PGPASSWORD": address.password, "a": 1}', False),
        ("client = Client(token=access_token)", False),
        ("the token: signature and date have been checked", False),
        ("sqlalchemy.url = driver://user:pass@localhost/dbname", False),
        ("postgresql://postgres:postgres@localhost:5432/test", False),
    ],
)
def test_secrets_are_told_by_their_shape(text: str, is_secret: bool) -> None:
    """What looks like a secret is found and hidden; placeholders and code are not."""
    assert bool(list(find_secrets(text))) is is_secret
    assert (hide_secrets(text) != text) is is_secret


def test_a_section_of_unknown_origin_is_theirs(project: Path) -> None:
    """A section between our marks that no run remembers is kept as it is."""
    readme, path = project / "README.md", project / MANIFEST
    readme.write_text(readme.read_text().replace("## Database", "## Our database"))
    manifest = json.loads(path.read_text())
    del manifest["files"]["README.md#moorage"]
    path.write_text(json.dumps(manifest))
    assert make_plan(project).kept == {"README.md": "you changed our section"}
