"""Migrations that stop or break a service are found, and their safe twins are not."""

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moorage import Database, MigrationError, MissingExtraError, migrations
from moorage.cli import make_app
from tests.migrations.project import Project

CONCURRENTLY = "with op.get_context().autocommit_block():\n    "
LATER = CONCURRENTLY + "op.execute('ALTER TABLE boats VALIDATE CONSTRAINT {}')"

# A name, the rule, the dangerous way, and the safe one to the same end.
TWINS = [
    (
        "index",
        "require-concurrent-index-creation",
        "op.create_index('ix', 'boats', ['name'])",
        CONCURRENTLY + "op.create_index('ix', 'boats', ['name'], postgresql_concurrently=True)",
    ),
    (
        "index_in_transaction",
        "ban-concurrent-index-creation-in-transaction",
        "op.create_index('ix2', 'boats', ['name'], postgresql_concurrently=True)\n"
        "op.execute('SELECT 1')",
        CONCURRENTLY + "op.create_index('ix2', 'boats', ['name'], postgresql_concurrently=True)\n"
        "op.execute('SELECT 1')",
    ),
    (
        "drop_index",
        "require-concurrent-index-deletion",
        "op.drop_index('ix', 'boats')",
        CONCURRENTLY + "op.drop_index('ix', 'boats', postgresql_concurrently=True)",
    ),
    (
        "required_column",
        "adding-required-field",
        "op.add_column('boats', sa.Column('crew', sa.BigInteger, nullable=False))",
        "op.add_column('boats', sa.Column('crew', sa.BigInteger))",
    ),
    (
        "not_null",
        "adding-not-nullable-field",
        "op.alter_column('boats', 'name', nullable=False)",
        "op.create_check_constraint('ck', 'boats', 'name IS NOT NULL', postgresql_not_valid=True)\n"
        + LATER.format("ck")
        + "\nop.alter_column('boats', 'name', nullable=False)",
    ),
    (
        "foreign_key",
        "adding-foreign-key-constraint",
        "op.create_foreign_key('fk', 'boats', 'ports', ['port_id'], ['id'])",
        "op.create_foreign_key('fk', 'boats', 'ports', ['port_id'], ['id'],"
        " postgresql_not_valid=True)\n" + LATER.format("fk"),
    ),
    (
        "check",
        "constraint-missing-not-valid",
        "op.create_check_constraint('ck', 'boats', 'crew > 0')",
        "op.create_check_constraint('positive', 'boats', 'crew > 0', postgresql_not_valid=True)\n"
        + LATER.format("positive"),
    ),
    (
        "unique",
        "disallowed-unique-constraint",
        "op.create_unique_constraint('uq', 'boats', ['name'])",
        CONCURRENTLY
        + "op.create_index('uq', 'boats', ['name'], unique=True, postgresql_concurrently=True)\n"
        "op.execute('ALTER TABLE boats ADD CONSTRAINT uq UNIQUE USING INDEX uq')",
    ),
    (
        "primary_key",
        "adding-serial-primary-key-field",
        "op.create_primary_key('pk', 'boats', ['id'])",
        CONCURRENTLY
        + "op.create_index('pk', 'boats', ['id'], unique=True, postgresql_concurrently=True)\n"
        "op.execute('ALTER TABLE boats ADD CONSTRAINT pk PRIMARY KEY USING INDEX pk')",
    ),
    (
        "type",
        "changing-column-type",
        "op.alter_column('boats', 'crew', type_=sa.BigInteger)",
        "op.add_column('boats', sa.Column('crew_size', sa.BigInteger))",
    ),
    (
        "rename_column",
        "renaming-column",
        "op.alter_column('boats', 'name', new_column_name='title')",
        "op.add_column('boats', sa.Column('title', sa.Text))",
    ),
    (
        "volatile_default",
        "adding-field-with-default",
        "op.add_column('boats', sa.Column('token', sa.Uuid,"
        " server_default=sa.text('gen_random_uuid()')))",
        "op.add_column('boats', sa.Column('token', sa.Uuid))\n"
        "op.alter_column('boats', 'token', server_default=sa.text('gen_random_uuid()'))",
    ),
    (
        "drop_column",
        "ban-drop-column",
        "op.drop_column('boats', 'name')",
        "op.drop_column('boats', 'name')\n\nlint_ignore = {'ban-drop-column': 'unused since 4.2'}",
    ),
    (
        "drop_table",
        "ban-drop-table",
        "op.drop_table('boats')",
        "op.drop_table('boats')\n\nlint_ignore = {'ban-drop-table': 'unused since 4.2'}",
    ),
]
# What the safe ways begin with; the dangerous ones are never run.
FIRST = """
op.create_table('ports', sa.Column('id', sa.BigInteger, primary_key=True))
op.create_table('boats', sa.Column('id', sa.BigInteger, nullable=False), sa.Column('name', sa.Text),
                sa.Column('port_id', sa.BigInteger))
"""
NEW_TABLE = """
op.create_table('ports', sa.Column('id', sa.BigInteger), sa.Column('name', sa.Text))
op.create_index('ix_ports_name', 'ports', ['name'])
"""


@pytest.fixture
def project(tmp_path: Path, backend: str) -> Project:
    """Return a project that is never connected; it is one line of revisions."""
    return Project(tmp_path / "project", {"type": backend, "ssl_mode": "disable"})


def add(project: Project, *bodies: tuple[str, str]) -> None:
    """Write revisions, each with a name and a body; what follows an empty line is no body."""
    after = None
    for name, body in bodies:
        upgrade, _, rest = body.partition("\n\n")
        path = project.revision(name, upgrade, after=after)
        path.write_text(f"{path.read_text()}\n{rest}\n")
        after = name


def only(backend: str, *backends: str) -> None:
    """Leave other backends to other tests."""
    if backend not in backends:
        pytest.skip(f"this is about {' and '.join(backends)}")


async def test_what_is_dangerous_is_found(project: Project, backend: str) -> None:
    """Each dangerous revision is found by its rule, with a safe way; a new table is no danger."""
    only(backend, "postgres")
    add(project, ("new", NEW_TABLE), *((name, danger) for name, _, danger, _ in TWINS))
    found = await migrations.lint(config=project.config)
    dangers = [one for one in found if one.is_dangerous]
    for name, rule, _, _ in TWINS:
        (one,) = (
            one for one in dangers if Path(one.script).stem == f"{name}_" and one.rule == rule
        )
        assert one.statement.startswith(("CREATE", "DROP", "ALTER")), one
        assert len(one.safe_way) > 20
    assert {Path(one.script).stem[:-1] for one in dangers} == {name for name, *_ in TWINS}
    (last,) = {
        Path(one.script).stem for one in await migrations.lint("type", config=project.config)
    }
    assert last == "type_"
    ranged = await migrations.lint("drop_column:", config=project.config)
    assert [one.rule for one in ranged] == ["ban-drop-table"]


async def test_the_safe_twins_are_not(
    tmp_path: Path, backend: str, fresh_database: dict[str, Any], database: Database
) -> None:
    """The safe way to each of these ends is no finding, and a server goes it."""
    only(backend, "postgres")
    project = Project(tmp_path / "project", fresh_database)
    add(project, ("first", FIRST), *((name, safe) for name, _, _, safe in TWINS))
    assert [one for one in await migrations.lint(config=project.config) if one.is_dangerous] == []
    applied = await migrations.upgrade(config=project.config, database=database)
    assert len(applied) == len(TWINS) + 1


async def test_a_reason_is_asked_for(project: Project, backend: str) -> None:
    """A rule is left out for a reason only; SQL that asks the database cannot be looked at."""
    only(backend, "postgres")
    add(project, ("a1", "op.drop_table('boats')\n\nlint_ignore = {'ban-drop-table': ''}"))
    with pytest.raises(MigrationError, match="no dict of rules with reasons"):
        await migrations.lint(config=project.config)
    add(project, ("a1", "op.get_bind().execute(sa.text('SELECT 1')).scalar()"))
    with pytest.raises(MigrationError, match="a1 cannot be written as SQL"):
        await migrations.lint(config=project.config)


async def test_without_squawk_the_line_that_installs_it(
    project: Project, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the error has the line; a backend without a linter says so."""
    add(project, ("a1", "op.drop_table('boats')"))
    if backend != "postgres":
        with pytest.raises(MigrationError, match="knows nothing of dangerous migrations"):
            await migrations.lint(config=project.config)
        return
    monkeypatch.setattr("shutil.which", lambda *_arguments, **_options: None)
    with pytest.raises(MissingExtraError, match=r"moorage-postgres\[lint\]"):
        await migrations.lint(config=project.config)


def test_the_command(project: Project, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`moorage db lint` prints each finding with its safe way, and fails on what it is told to."""
    only(backend, "postgres")
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def lint(*arguments: str) -> Any:
        return CliRunner().invoke(make_app(), ["db", "lint", *arguments], catch_exceptions=False)

    add(project, ("a1", "op.add_column('boats', sa.Column('crew', sa.Integer))"))
    assert lint().exit_code == 0
    advice = lint("--fail-on", "advice")
    assert (advice.exit_code, "advice: prefer-bigint-over-int" in advice.stdout) == (1, True)
    add(project, ("a1", "op.create_index('ix', 'boats', ['name'])"))
    found = lint()
    assert found.exit_code == 1
    assert found.stdout.splitlines()[:2] == [
        "migrations/versions/a1_.py: danger: require-concurrent-index-creation",
        "    CREATE INDEX ix ON boats (name);",
    ]
    assert "Safe way: outside of the transaction: with op.get_context()" in found.stdout
    assert found.stdout.endswith("1 dangerous, 0 to think about\n")
    assert lint("--fail-on", "never").exit_code == 0
    assert lint("--fail-on", "sometimes").exit_code == 2
