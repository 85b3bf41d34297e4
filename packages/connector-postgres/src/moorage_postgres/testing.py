"""
For tests of row level security: a stand-in of what Supabase has, and a check of who sees what.

Nothing here is for production. The stand-in makes, on a throwaway server, the roles and functions
that policies are written against, so that they can be tested without a project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import (
    PrimaryKeyConstraint,
    UniqueConstraint,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from moorage import ADMIN, Database, Identity, PermissionDeniedError

__all__ = ["assert_isolated", "create_supabase_stand_in"]

ROLES: Final[Mapping[str, str]] = {
    "anon": "NOLOGIN NOINHERIT",
    "authenticated": "NOLOGIN NOINHERIT",
    "service_role": "NOLOGIN NOINHERIT BYPASSRLS",
}

# Roles belong to the server, and another run may be making them at the same time.
_ROLE = """
DO $$ BEGIN CREATE ROLE {role} {options};
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""
_CLAIMS = "nullif(current_setting('request.jwt.claims', true), '')::jsonb"
_OBJECTS = (
    "CREATE SCHEMA auth",
    "CREATE TABLE auth.users (id uuid PRIMARY KEY, email text)",
    f"CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT {_CLAIMS} $$",
    "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS"
    f" $$ SELECT ({_CLAIMS} ->> 'sub')::uuid $$",
    "CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS"
    f" $$ SELECT {_CLAIMS} ->> 'role' $$",
    "GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role",
    "GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role",
)
# What projects were made with until October 2026: whatever is made in `public` is given away.
_DEFAULT_GRANTS = tuple(
    f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {kind}"
    " TO anon, authenticated, service_role"
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS")
)


async def create_supabase_stand_in(
    connection: AsyncConnection, login: str | None = None, *, default_grants: bool = False
) -> None:
    """
    Make roles and `auth` functions like Supabase's, in an empty database of a throwaway server.

    Args:
        connection: Of a user who may create roles.
        login: A role that may log in and shall be able to work on behalf of these; it should be
            NOINHERIT and own nothing, as Supabase's `authenticator`.
        default_grants: Give new tables in `public` to the roles of the API, as Supabase did for
            projects until October 2026.
    """
    for role, options in ROLES.items():
        await connection.execute(text(_ROLE.format(role=role, options=options)))
    for statement in (*_OBJECTS, *(_DEFAULT_GRANTS if default_grants else ())):
        await connection.execute(text(statement))
    if login is not None:
        quoted = connection.dialect.identifier_preparer.quote_identifier(login)
        await connection.execute(text(f"GRANT {', '.join(ROLES)} TO {quoted}"))


async def assert_isolated(database: Database, model: type[Any], a: Identity, b: Identity) -> None:
    """
    Assert that two users can neither see nor touch each other's rows of ``model``.

    Each must own a row at least. Tried are all four verbs, each undone: SELECT must give no row of
    the other; UPDATE and DELETE must hit none, whether or not the statement names it (without a
    condition the rules of SELECT do not help); and an INSERT of a row like the other's must be
    refused. What a policy denies has these three shapes, and only the last one is an error.

    Args:
        database: Where both may work, as a user who may also work as `ADMIN` past the policies.
        model: A mapped class.
        a: One user.
        b: The other one.

    Raises:
        AssertionError: One of them sees or touches a row of the other, or owns none.
    """
    keys = inspect(model).primary_key
    mine, theirs = await _visible(database, model, a), await _visible(database, model, b)
    assert mine, f"{a!r} sees no row of {model.__name__}: nothing would be tested"
    assert theirs, f"{b!r} sees no row of {model.__name__}: nothing would be tested"
    both = mine.keys() & theirs.keys()
    assert not both, f"both see {len(both)} row(s) of {model.__name__}"
    for me, own, other in ((a, mine, theirs), (b, theirs, mine)):
        for statement, verb in _without_condition(model, own):
            hit = await _hit(database, me, statement)
            assert hit <= len(own), f"{me!r} can {verb} {hit - len(own)} row(s) of the other"
        for key, values in other.items():
            where = [column == value for column, value in zip(keys, key, strict=True)]
            for statement, verb in (
                (update(model).where(*where).values(values), "update"),
                (delete(model).where(*where), "delete"),
            ):
                hit = await _hit(database, me, statement)
                assert not hit, f"{me!r} can {verb} a row of the other"
            assert not await _can_insert(database, me, model, values), (
                f"{me!r} can insert a row that belongs to the other"
            )


def _without_condition(
    model: type[Any], own: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[Any, str]]:
    """Yield statements that hit whatever they may, and read nothing."""
    yield delete(model), "delete"
    mapper = inspect(model)
    table = mapper.local_table
    unique = {
        column.name
        for rule in (*table.constraints, *table.indexes)
        if isinstance(rule, PrimaryKeyConstraint | UniqueConstraint)
        or getattr(rule, "unique", None)
        for column in rule.columns
    }
    row = next(iter(own.values()))
    free = [name for name, column in mapper.columns.items() if column.name not in unique]
    if free:
        yield update(model).values({free[0]: row[free[0]]}), "update"


async def _visible(
    database: Database, model: type[Any], identity: Identity
) -> dict[tuple[Any, ...], dict[str, Any]]:
    mapper = inspect(model)
    async with database.session(identity=identity) as session:
        rows = await session.execute(select(*mapper.columns))
        found = [dict(zip(mapper.columns.keys(), row, strict=True)) for row in rows]
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return {tuple(row[name] for name in names): row for row in found}


async def _hit(database: Database, identity: Identity, statement: Any) -> int:
    async with database.session(identity=identity) as session:
        try:
            result: Any = await session.execute(statement)
        except PermissionDeniedError:
            return 0  # no grant at all, or a row that would become somebody's
        return int(result.rowcount)


async def _can_insert(
    database: Database, identity: Identity, model: type[Any], values: Mapping[str, Any]
) -> bool:
    """Return whether a copy of a row, which is taken away first, can be inserted."""
    async with database.session(identity=ADMIN) as session:
        await _remove(session, model, values)
        await session.execute(
            select(
                func.set_config("role", identity.role, True),
                func.set_config("request.jwt.claims", identity.claims_json, True),
            )
        )
        try:
            await session.execute(insert(model).values(values))
        except PermissionDeniedError:
            return False
        return True


async def _remove(session: AsyncSession, model: type[Any], values: Mapping[str, Any]) -> None:
    mapper = inspect(model)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    where = [getattr(model, name) == values[name] for name in names]
    await session.execute(delete(model).where(*where))
