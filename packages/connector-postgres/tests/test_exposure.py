"""What a schema gives away that is served over HTTP: each fault is found, its mending silences."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from moorage import Database, SettingsError
from moorage.cli import make_app
from moorage_postgres.exposure import EXPOSURES, find_exposures
from moorage_postgres.testing import create_supabase_stand_in
from tests.fix_database import DatabaseFactory

# All of it is right: the neighbour of each fault below, which has to be passed over.
CLEAN = """
CREATE TABLE team (id bigint PRIMARY KEY, name text);
CREATE TABLE member (
    team_id bigint CONSTRAINT fk_member_team_id_team REFERENCES team,
    user_id uuid CONSTRAINT fk_member_user_id_users REFERENCES auth.users,
    created_at timestamptz,
    PRIMARY KEY (team_id, user_id)
);
CREATE TABLE note (
    id uuid PRIMARY KEY, owner uuid, body text, token_count int,
    team_id bigint CONSTRAINT fk_note_team_id_team REFERENCES team
);
ALTER TABLE team ENABLE ROW LEVEL SECURITY;
ALTER TABLE member ENABLE ROW LEVEL SECURITY;
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_them ON team FOR SELECT TO authenticated USING (true);
CREATE POLICY own ON member TO authenticated USING (user_id = (SELECT auth.uid()));
CREATE POLICY own ON note TO authenticated USING (owner = (SELECT auth.uid()));
CREATE VIEW short_note WITH (security_invoker = true) AS SELECT id, left(body, 9) FROM note;
CREATE MATERIALIZED VIEW note_count AS SELECT count(*) FROM note;
CREATE TABLE journal (id bigint PRIMARY KEY, password text);
CREATE VIEW all_users AS SELECT id, email FROM auth.users;
CREATE FUNCTION shout(what text) RETURNS text LANGUAGE sql SET search_path = ''
    AS $$ SELECT upper(what) $$;
REVOKE EXECUTE ON FUNCTION shout FROM PUBLIC;
CREATE FUNCTION on_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
    AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
GRANT SELECT, INSERT, UPDATE, DELETE ON team, member, note TO authenticated;
GRANT SELECT ON short_note TO authenticated;
GRANT EXECUTE ON FUNCTION shout TO authenticated;
"""

FAULTS: Mapping[str, tuple[str, str]] = {
    "rls_disabled_in_public": (
        'CREATE TABLE "Odd one" (id bigint PRIMARY KEY); GRANT SELECT ON "Odd one" TO anon',
        'table public."Odd one" has no row level security, and anon may use it',
    ),
    "version_table_exposed": (
        "GRANT SELECT ON alembic_version TO anon, authenticated",
        "public.alembic_version, where the migrations note how far they are, is served: anon and"
        " authenticated may use it",
    ),
    "sensitive_columns_exposed": ("GRANT INSERT ON journal TO anon", "sound secret (password)"),
    "policy_exists_rls_disabled": (
        "CREATE POLICY sure ON journal USING (false)",
        "table public.journal has policies (sure)",
    ),
    "rls_references_user_metadata": (
        "CREATE POLICY boss ON note FOR SELECT TO authenticated"
        " USING ((SELECT auth.jwt()) -> 'user_metadata' ->> 'boss' = 'yes')",
        "policy boss on public.note decides by user_metadata",
    ),
    "security_definer_view": (
        "CREATE VIEW every_note AS SELECT * FROM note; GRANT SELECT ON every_note TO authenticated",
        "view public.every_note looks with the rights of its owner",
    ),
    "auth_users_exposed": (
        "CREATE VIEW few_users AS SELECT * FROM all_users;"
        " GRANT SELECT (email) ON few_users TO anon",
        "view public.few_users shows rows of auth.users, and anon may use it",
    ),
    "insecure_queue_exposed": (
        "CREATE SCHEMA pgmq; CREATE TABLE pgmq.q_mail (id int)",
        "queue pgmq.q_mail has no row level security",
    ),
    "fkey_to_auth_unique": (
        "ALTER TABLE auth.users ADD UNIQUE (email); CREATE TABLE fan (id int PRIMARY KEY,"
        " email text CONSTRAINT fk_fan_email_users REFERENCES auth.users (email))",
        "foreign key fk_fan_email_users of public.fan refers to auth.users",
    ),
    "auth_rls_initplan": (
        "CREATE POLICY slow ON note FOR SELECT TO authenticated USING (owner = auth.uid())",
        "policy slow on public.note calls auth.uid for each row",
    ),
    "rls_policy_always_true": (
        "CREATE POLICY anything ON note FOR INSERT TO authenticated WITH CHECK (true)",
        "policy anything on public.note lets authenticated write any row",
    ),
    "rls_enabled_no_policy": (
        "ALTER TABLE journal ENABLE ROW LEVEL SECURITY; GRANT SELECT ON journal TO authenticated",
        "table public.journal has row level security and no policy",
    ),
    "materialized_view_in_api": (
        "GRANT SELECT ON note_count TO anon",
        "materialized view public.note_count is served: anon may use it",
    ),
    "foreign_table_in_api": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " CREATE FOREIGN TABLE far (id int) SERVER s; GRANT SELECT ON far TO anon",
        "foreign table public.far is served",
    ),
    "security_definer_function_executable": (
        "CREATE FUNCTION purge(n int) RETURNS void LANGUAGE sql SECURITY DEFINER"
        " SET search_path = '' AS $$ DELETE FROM public.note $$",
        "function public.purge(n integer) works with the rights of its owner, and anon and"
        " authenticated may call it",
    ),
    "function_open_to_public": (
        "CREATE PROCEDURE tidy() LANGUAGE sql SET search_path = '' AS $$ SELECT 1 $$",
        "function public.tidy() may be called by everybody",
    ),
    "function_search_path_mutable": (
        "ALTER FUNCTION shout RESET search_path",
        "function public.shout(what text) has no search path of its own",
    ),
    "no_primary_key": ("ALTER TABLE journal DROP CONSTRAINT journal_pkey", "has no primary key"),
    "join_table_key": (
        "CREATE TABLE tag (id int PRIMARY KEY); CREATE TABLE note_tag (id int PRIMARY KEY,"
        " note_id uuid CONSTRAINT fk_note_tag_note_id_note REFERENCES note,"
        " tag_id int CONSTRAINT fk_note_tag_tag_id_tag REFERENCES tag)",
        "table public.note_tag joins public.note and public.tag",
    ),
    "foreign_key_name": (
        "ALTER TABLE journal ADD FOREIGN KEY (id) REFERENCES team",
        "foreign key journal_id_fkey of public.journal has a name that the server made up",
    ),
    "embedding_ambiguous": (
        "ALTER TABLE note ADD COLUMN other_id bigint"
        " CONSTRAINT fk_note_other_id_team REFERENCES team",
        "public.note refers to public.team by fk_note_other_id_team and fk_note_team_id_team",
    ),
}
# What mends these is for people to complete.
UNFINISHED = {
    *("rls_references_user_metadata", "auth_rls_initplan", "embedding_ambiguous"),
}
SERVED = ("public", "pgmq_public")


async def run(connection: AsyncConnection, script: str) -> None:
    """Run a script in the transaction of a connection."""
    await connection.execute(text("SELECT 1"))  # it is open now
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(script)


@pytest.fixture
async def clean(make_database: DatabaseFactory) -> Database:
    """Return a database with nothing wrong in it."""
    database = make_database()
    async with database.engine.begin() as connection:
        await create_supabase_stand_in(connection)
        await run(connection, CLEAN)
    return database


async def test_nothing_is_found_in_what_is_right(clean: Database) -> None:
    """Tables, views, functions and policies that are right are passed over."""
    async with clean.engine.connect() as connection:
        assert await find_exposures(connection, schemas=SERVED) == []


async def test_each_fault_is_found_and_mended(clean: Database) -> None:
    """Each planted fault is found under its code alone, and the SQL of the finding mends it."""
    assert FAULTS.keys() == EXPOSURES.keys()
    wrong: dict[str, Any] = {}
    async with clean.engine.connect() as connection:
        for code, (fault, words) in FAULTS.items():
            await run(connection, fault)
            found = [f for f in await find_exposures(connection, schemas=SERVED) if f.code == code]
            if len(found) != 1 or words not in found[0].what:
                wrong[code] = found
            elif code not in UNFINISHED:
                await run(connection, found[0].fix)
                left = await find_exposures(connection, schemas=SERVED)
                if any(finding.code == code for finding in left):
                    wrong[code] = left
            await connection.rollback()
    assert wrong == {}


async def test_what_is_served_is_known(clean: Database) -> None:
    """Which schemas are served is what PostgREST was told in the database; else it is public."""
    async with clean.engine.connect() as connection:
        await run(connection, "CREATE SCHEMA api; CREATE TABLE api.loose (id int)")
        await run(
            connection, "GRANT USAGE ON SCHEMA api TO anon; GRANT SELECT ON api.loose TO anon"
        )
        assert await find_exposures(connection) == []
        await run(connection, "SET LOCAL pgrst.db_schemas = 'public, api'")
        found = await find_exposures(connection)
        assert [finding.code for finding in found] == ["rls_disabled_in_public", "no_primary_key"]
        assert await find_exposures(connection, schemas=["public"]) == []


async def test_a_server_without_an_api(make_database: DatabaseFactory) -> None:
    """Where none of the roles is there, nothing would be found, and that is an error."""
    async with make_database().engine.connect() as connection:
        with pytest.raises(SettingsError, match="no role nobody or none") as caught:
            await find_exposures(connection, roles=["nobody", "none"])
    assert "--role" in caught.value.hint


@pytest.fixture
def environment(
    clean: Database, fresh_database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the command line find the database."""
    for name, value in fresh_database.items():
        monkeypatch.setenv(f"DB_{name.upper()}", str(value))


def lint(*arguments: str) -> tuple[int, str]:
    """Run the command, in a loop of its own."""
    result = CliRunner().invoke(make_app(), ["supabase", "lint", *arguments])
    return result.exit_code, result.output


async def test_the_command(clean: Database, environment: None) -> None:
    """`moorage supabase lint` says what is wrong, for people and scripts, and exits by gravity."""
    assert await asyncio.to_thread(lint) == (0, "nothing is wrong with public\n")
    async with clean.engine.begin() as connection:
        await run(connection, "ALTER TABLE journal ADD FOREIGN KEY (id) REFERENCES team")
    status, output = await asyncio.to_thread(lint)
    assert status == 0
    assert "foreign_key_name warning: foreign key journal_id_fkey" in output
    assert "do: ALTER TABLE public.journal RENAME CONSTRAINT journal_id_fkey TO" in output
    assert (await asyncio.to_thread(lint, "--fail-on", "warning"))[0] == 1
    async with clean.engine.begin() as connection:
        await run(connection, "GRANT SELECT ON alembic_version TO anon")
    status, output = await asyncio.to_thread(lint, "--json")
    assert status == 1
    data = json.loads(output)
    assert [finding["code"] for finding in data["findings"]] == [
        "version_table_exposed",
        "foreign_key_name",
    ]
    assert data["findings"][0].keys() == {"code", "severity", "name", "what", "why", "fix"}
    assert (data["is_clean"], data["schemas"]) == (False, ["public"])
    assert (await asyncio.to_thread(lint, "--fail-on", "never"))[0] == 0
    assert (await asyncio.to_thread(lint, "--schema", "auth"))[0] == 0


async def test_the_command_cannot_look(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that cannot be asked is not one that passes."""
    status, output = await asyncio.to_thread(lint, "--role", "nobody")
    assert status == 1
    assert "there is no role nobody" in output
    monkeypatch.setenv("DB_TYPE", "supabas")
    status, output = await asyncio.to_thread(lint, "--json")
    assert status == 1
    assert "supabas" in json.loads(output)["error"]
    assert (await asyncio.to_thread(lint, "--fail-on", "often"))[0] == 2
