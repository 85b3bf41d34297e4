"""Row level security that is declared on models: what is refused, and what a declaration makes."""

import uuid
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Index, MetaData, Table, UniqueConstraint, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import MigrationError
from moorage_postgres import Grant, Policy, RowLevelSecurity, auth_users, own_rows
from moorage_postgres.expressions import asked_per_row, compared_columns
from moorage_postgres.policies import protection_of


@pytest.mark.parametrize(
    ("expression", "calls"),
    [
        ("owner = (select auth.uid())", []),
        ("owner = (SELECT (auth.jwt() ->> 'sub')::uuid)", []),
        ("team in (select team from members where who = (select auth.uid()))", []),
        ("body <> 'auth.uid()' -- auth.uid()\n and true /* auth.uid() */", []),
        ("body <> $x$ auth.uid() $x$", []),
        ("owner = (select nullif(current_setting('app.user', true), '')::uuid)", []),
        ("owner = auth.uid()", ["auth.uid"]),
        ('owner = AUTH . "uid" ()', ["auth.uid"]),
        ("owner = current_setting('app.user')::uuid", ["current_setting"]),
        ("owner = pg_catalog.current_setting('a')::uuid", ["pg_catalog.current_setting"]),
        ("exists (select 1 from members as m where m.who = auth.uid())", ["auth.uid"]),
        ("(select auth.uid()) = owner or auth.role() = 'x'", ["auth.role"]),
        ("owner = (select auth.uid() from members where id = boat)", ["auth.uid"]),
    ],
)
def test_what_is_asked_for_each_row(expression: str, calls: list[str]) -> None:
    """A call is asked once in a sub-select of its own, and nowhere else."""
    assert asked_per_row(expression) == calls


def test_what_a_policy_looks_for() -> None:
    """Columns that are compared outside of sub-selects are those that need an index."""
    names = ["owner", "team", "kind", "Odd"]
    expression = (
        "owner = (select auth.uid()) or team in (select team from members where kind = 'x')"
        " or (select 'x') = \"Odd\" or kind > 'a'"
    )
    assert compared_columns(expression, names) == ["owner", "team", "Odd"]


SLOW = "owner_id = auth.uid()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"using": SLOW}, r"asks auth\.uid\(\) again for each row"),
        ({"using": "true", "check": SLOW}, "again for each row"),
        ({"using": "(select auth.jwt() -> 'user_metadata' ->> 'x') = kind"}, "user_metadata"),
        ({}, "neither using= nor check="),
        ({"using": "true", "command": "insert"}, "no rows to look at"),
        ({"check": "true", "command": "select"}, "no rows to check"),
        ({"using": "true", "to": ()}, "for nobody"),
    ],
)
def test_policies_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    """A policy that is slow, unsafe or empty is refused where it is written, with a way out."""
    with pytest.raises(MigrationError, match=message) as caught:
        Policy("own", **{"to": "authenticated", **arguments})
    assert caught.value.hint


def test_own_rows_are_the_fast_shape() -> None:
    """The policy that most tables need has its call in a sub-select, its role and its index."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})

    class Owned:
        __table_args__ = (own_rows("Owner"), Grant("SELECT", "update", to=("a", "b")))

    class Note(Owned, Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[uuid.UUID] = mapped_column("Owner", ForeignKey(auth_users.c.id))

    class Boat(Owned, Base):
        __tablename__ = "boats"
        owner: Mapped[uuid.UUID] = mapped_column("Owner", primary_key=True)

    for model in (Note, Boat):
        table = Base.metadata.tables[model.__tablename__]
        declared = protection_of(table)
        assert declared is not None
        (rule,) = declared.policies.values()
        assert rule.using == '"Owner" = (select auth.uid())'
        assert rule.roles == ("authenticated",)
        assert declared.grants == {"a": {"select", "update"}, "b": {"select", "update"}}
        assert not table.info  # autogenerate would write it into revisions
    assert [index.name for index in Note.__table__.indexes] == ["ix_notes_Owner"]
    assert not Boat.__table__.indexes  # its key begins with the column
    assert [table.name for table in Base.metadata.sorted_tables] == ["boats", "notes"]
    insert = own_rows("owner", command="insert").rule
    assert (insert.using, insert.check) == (None, "owner = (select auth.uid())")


def test_other_bases_declare_alike() -> None:
    """A model of SQLModel's declares its protection among its arguments as well."""
    from sqlmodel import Field, SQLModel

    class Buoy(SQLModel, table=True):
        __tablename__ = "policy_buoys"
        __table_args__ = (own_rows("owner"), RowLevelSecurity(force=True))
        id: int = Field(primary_key=True)
        owner: uuid.UUID

    table = SQLModel.metadata.tables["policy_buoys"]
    declared = protection_of(table)
    SQLModel.metadata.remove(table)
    assert declared is not None
    assert declared.is_forced
    assert list(declared.policies) == ["own_rows"]


def test_an_index_that_is_there_is_enough() -> None:
    """An index or a rule of uniqueness that begins with the column makes ours superfluous."""
    for number, item in enumerate(
        (Index("a", "owner", "id"), UniqueConstraint("owner", "id"), Index("b", "owner"))
    ):
        columns = (Column("id", Uuid, primary_key=True), Column("owner", Uuid))
        table = Table(f"t{number}", MetaData(), *columns, item, own_rows("owner"))
        assert len(table.indexes) == isinstance(item, Index)
    partial = Index("c", "owner", postgresql_where=Column("owner").is_not(None))
    table = Table("t", MetaData(), Column("owner", Uuid), partial, own_rows("owner"))
    assert len(table.indexes) == 2


def test_declarations_that_fit_no_table() -> None:
    """Columns that are not there, names that are there twice and other places are refused."""
    with pytest.raises(MigrationError, match="is about owner, which is no column"):
        Table("t", MetaData(), own_rows("owner"), Column("owner", Uuid))
    twice = (Policy("a", to="x", using="true"), Policy("a", to="x", using="false"))
    with pytest.raises(MigrationError, match="two policies 'a'"):
        Table("t", MetaData(), *twice)
    with pytest.raises(MigrationError, match="no argument of a table"):
        Column("a", RowLevelSecurity())
    with pytest.raises(MigrationError, match="gives nothing"):
        Grant(to="x")


def test_the_tables_of_others_are_in_no_catalogue() -> None:
    """A foreign key to Supabase's users leaves them out of what is created, and dropped."""
    metadata = MetaData()
    table = Table("t", metadata, Column("owner", Uuid, ForeignKey(auth_users.c.id)))
    assert metadata.sorted_tables == [table]
    (key,) = table.foreign_key_constraints
    assert key.referred_table is auth_users
