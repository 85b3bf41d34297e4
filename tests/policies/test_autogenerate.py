"""Declared protection becomes revisions, and the database has just what is declared."""

import logging

import pytest
from sqlalchemy import Connection, text

from moorage import Database
from tests.policies.revisions import (
    ALL,
    Revision,
    migrate,
    models,
    protection,
    rights,
    supabase_options,
    within,
)

TEAMS = """
class Team(UUIDKey, Base):
    __tablename__ = "teams"
    __table_args__ = (
        RowLevelSecurity(force=True),
        Policy("members", to=("authenticated", "anon"), command="select", using="true"),
        Grant("select", to=("anon", "authenticated")),
    )
"""
NOTES = f"""{TEAMS}
class Note(IntegerKey, Base):
    __tablename__ = "notes"
    __table_args__ = (
        own_rows("owner_id"),
        Policy(
            "team",
            to="authenticated",
            command="select",
            using="exists (select from teams where id = notes.team_id) and body NOT LIKE '%:x'",
            index="team_id",
        ),
        Policy("oldest", to="anon", command="delete", using="id < (select 9 from public.notes)"),
        Policy("add", to="authenticated", command="insert", check="owner_id = (SELECT auth.uid())"),
        Policy(
            "edit",
            to="authenticated",
            command="update",
            using="notes.team_id = any (array(select t.id from teams t))",
            check="body <> ''",
        ),
        Policy(
            "quiet", to="public", using="length(body) < 9000", restrictive=True, command="delete"
        ),
        Grant("select", "insert", "update", "delete", to="authenticated"),
        Grant("all", to="service_role"),
    )
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(auth_users.c.id, ondelete="CASCADE"))
    team_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("teams.id"))
    body: Mapped[str] = mapped_column(Text)
"""
SIMPLE = """
class Note(IntegerKey, Base):
    __tablename__ = "notes"
    __table_args__ = (
        own_rows("owner_id"),
        Grant("select", "insert", "update", "delete", to="authenticated"),
    )
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(auth_users.c.id))
    kind: Mapped[str]
"""
OURS = {
    ("teams", "anon"): {"SELECT"},
    ("teams", "authenticated"): {"SELECT"},
    ("notes", "authenticated"): {"SELECT", "INSERT", "UPDATE", "DELETE", "USAGE COUNTER"},
    ("notes", "service_role"): {*ALL, "USAGE COUNTER"},
}


async def test_the_database_gets_what_is_declared(either_project: Database) -> None:
    """
    A revision makes what is declared, finds nothing afterwards, and can be undone and done again.

    Whatever a project's default privileges give away, each role may the same in the end.
    """

    def work(connection: Connection) -> None:
        revision = migrate(connection, NOTES)
        assert rights(connection) == OURS
        made = protection(connection)
        assert made["switches"] == [("notes", True, False), ("teams", True, True)]
        assert len(made["policies"]) == 7
        revision.run(revision.downgrade)
        assert protection(connection) == {"switches": [], "policies": [], "rights": {}}
        revision.run()
        assert protection(connection) == made
        # What was dropped comes back with its protection: what the server wrote is read again.
        away = Revision(connection, models(TEAMS))
        away.run()
        assert rights(connection).keys() == {("teams", "anon"), ("teams", "authenticated")}
        away.run(away.downgrade)
        assert protection(connection) == made
        assert Revision(connection, models(NOTES)).differences == []

    await within(either_project, work)


async def test_an_existing_table_gets_what_is_declared(
    either_project: Database, default_grants: bool
) -> None:
    """A table that was there before anything was declared ends with the rights of a new one."""
    plain = SIMPLE.replace("own_rows(", "Index(None, ").replace(
        "        Grant(", "        # Grant("
    )

    def work(connection: Connection) -> None:
        migrate(connection, plain)
        given = rights(connection)
        assert bool(given) is default_grants
        revision = migrate(connection, SIMPLE)
        assert rights(connection) == {("notes", "authenticated"): OURS["notes", "authenticated"]}
        revision.run(revision.downgrade)
        found = {who: those & ALL for who, those in rights(connection).items()}
        assert found == {who: those & ALL for who, those in given.items()}

    await within(either_project, work)


async def test_naively_it_depends_on_the_project(
    either_project: Database, default_grants: bool
) -> None:
    """Negative control: grants alone leave a table of an older project open to everybody."""

    def work(connection: Connection) -> dict[tuple[str, str], set[str]]:
        connection.execute(text("CREATE TABLE notes (id SERIAL PRIMARY KEY)"))
        connection.execute(text("GRANT SELECT ON notes TO authenticated"))
        return rights(connection)

    found = await within(either_project, work)
    assert (("notes", "anon") in found) is default_grants


DRIFTS = {
    "DROP POLICY own_rows ON notes": ["policy notes.own_rows: in the models only"],
    "CREATE POLICY hole ON notes USING (true)": ["policy notes.hole: in the database only"],
    "ALTER POLICY own_rows ON notes USING (true)": [
        "policy notes.own_rows: in the database only",
        "policy notes.own_rows: in the models only",
    ],
    "ALTER POLICY own_rows ON notes TO anon": [
        "policy notes.own_rows: in the database only",
        "policy notes.own_rows: in the models only",
    ],
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY": [
        "row level security notes: in the models only"
    ],
    "ALTER TABLE notes FORCE ROW LEVEL SECURITY": [
        "forced row level security notes: in the database only"
    ],
    "GRANT SELECT, UPDATE ON notes TO anon": [
        "grant notes.select, update to anon: in the database only"
    ],
    "GRANT TRUNCATE ON notes TO PUBLIC": ["grant notes.truncate to public: in the database only"],
    "GRANT UPDATE ON SEQUENCE notes_id_seq TO anon": [
        "grant notes.insert to anon: in the database only"
    ],
    "REVOKE DELETE ON notes FROM authenticated": [
        "grant notes.delete to authenticated: in the models only"
    ],
    "REVOKE USAGE ON SEQUENCE notes_id_seq FROM authenticated": [
        "grant notes.insert to authenticated: in the models only"
    ],
}


async def test_what_was_changed_by_hand_is_found(project: Database) -> None:
    """Each change that was made past the migrations is told, and put right by the next one."""

    def work(connection: Connection) -> None:
        migrate(connection, SIMPLE)
        made = protection(connection)
        for drift, sentences in DRIFTS.items():
            connection.execute(text(drift))
            revision = Revision(connection, models(SIMPLE))
            assert revision.differences == sentences, drift
            assert "pg_op.reload_api()" in revision.upgrade
            drifted = protection(connection)
            revision.run()
            assert protection(connection) == made, drift
            if "SEQUENCE" not in drift:
                revision.run(revision.downgrade)
                assert protection(connection) == drifted, drift
                revision.run()

    await within(project, work)


KINDS = """own_rows("owner_id"),
        Policy("kinds", to="authenticated", using="kind = 'open'", index="kind"),"""


async def test_columns_of_policies_can_change(project: Database) -> None:
    """A column gets another type under a policy, and goes together with it; alone it may not."""
    before = SIMPLE.replace('own_rows("owner_id"),', KINDS)
    wider = before.replace("kind: Mapped[str]", "kind: Mapped[str] = mapped_column(Text)")

    def work(connection: Connection) -> None:
        migrate(connection, before)
        for change in ("ALTER COLUMN kind TYPE text", "DROP COLUMN kind"):
            with pytest.raises(Exception, match=r"policy|depend"), connection.begin_nested():
                connection.execute(text(f"ALTER TABLE notes {change}"))
        for after in (wider, SIMPLE.replace("    kind: Mapped[str]\n", "")):
            was = protection(connection)
            revision = migrate(connection, after)
            revision.run(revision.downgrade)
            assert protection(connection) == was
            revision.run()

    await within(project, work)


async def test_tables_of_others_are_left_alone(project: Database) -> None:
    """Where nothing is declared, policies and grants that somebody made by hand stay."""
    plain = "class Note(IntegerKey, Base):\n    __tablename__ = 'notes'"

    def work(connection: Connection) -> None:
        migrate(connection, plain)
        for statement in (
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON notes TO authenticated USING (true)",
            "GRANT SELECT ON notes TO anon",
        ):
            connection.execute(text(statement))
        assert Revision(connection, models(plain)).differences == []
        filters = {"include_name": lambda name, kind, _: kind != "policy" or name != "mine"}
        shut = plain + "\n    __table_args__ = (RowLevelSecurity(),)"
        assert Revision(connection, models(shut)).differences == [
            "policy notes.mine: in the database only",
            "grant notes.select to anon: in the database only",
        ]
        kept = Revision(connection, models(shut), supabase_options(connection) | filters)
        assert kept.differences == ["grant notes.select to anon: in the database only"]

    await within(project, work)


async def test_what_is_slow_or_in_vain_is_told(
    project: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy without an index or without a grant, and a table without any, are told."""
    code = """
    class Note(UUIDKey, Base):
        __tablename__ = "notes"
        __table_args__ = (
            Policy("own", to="authenticated", using="owner_id = (select auth.uid())"),
        )
        owner_id: Mapped[uuid.UUID]


    class Open(UUIDKey, Base):
        __tablename__ = "open"
    """
    with caplog.at_level(logging.WARNING, "moorage.postgres"):
        await within(project, lambda connection: Revision(connection, models(code)))
    slow, vain, bare = (record.getMessage() for record in caplog.records)
    assert "index='owner_id'" in slow
    assert "Grant(…, to='authenticated')" in vain
    assert bare.startswith("table open has no row level security")
