"""``get`` of our sessions, whose statement is kept, beside that of SQLAlchemy, which builds it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, Numeric, create_engine, event, exc
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.pool import StaticPool

from moorage.session import GuardedSession, _guarded_class

Answer = tuple[str, int]


class Base(DeclarativeBase):
    """Base of the models."""


class Animal(Base):
    """Has subclasses in one table."""

    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.name_id"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    """One of them."""

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Owner(Base):
    """Whose key column is called otherwise, and who brings rows of another table along."""

    __tablename__ = "owner"

    key: Mapped[str] = mapped_column("name_id", primary_key=True)
    animals: Mapped[list[Animal]] = relationship(lazy="joined")


class Pair(Base):
    """Has a key of two columns."""

    __tablename__ = "pair"

    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(primary_key=True)


class House(Base):
    """Brings rows of another table along where somebody asks for it."""

    __tablename__ = "house"

    id: Mapped[int] = mapped_column(primary_key=True)
    rooms: Mapped[list["Room"]] = relationship()


class Room(Base):
    """One of several in a house."""

    __tablename__ = "room"

    id: Mapped[int] = mapped_column(primary_key=True)
    house_id: Mapped[int] = mapped_column(ForeignKey("house.id"))


class Priced(Base):
    """Has a key of a type that SQLAlchemy converts."""

    __tablename__ = "priced"

    price: Mapped[Any] = mapped_column(Numeric(5, 2), primary_key=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Return a database in memory with a few rows."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Owner(key="ada"), Pair(left=1, right="a"), Priced(price=3)])
        session.flush()
        session.add_all([Animal(id=1, owner_id="ada"), Dog(id=2, owner_id="ada")])
        session.add(House(id=1, rooms=[Room(), Room()]))
        session.commit()
    yield engine
    engine.dispose()


def expired(session: Session) -> Any:
    """Ask for an object whose row somebody else deletes, and which is read anew."""
    animal = session.get(Animal, 1)
    session.commit()
    session.connection().exec_driver_sql("DELETE FROM animal WHERE id = 1")
    found = session.get(Animal, 1)
    session.rollback()
    return (animal is not None, found)


def pending(session: Session) -> Any:
    """Ask for what was added and not stored yet."""
    session.add(Animal(id=77))
    return session.get(Animal, 77).kind  # type: ignore[union-attr]


def joined_by_a_listener(session: Session) -> int:
    """Ask for a house in a session in which somebody joins the rooms to whatever is read."""

    def join(state: Any) -> None:
        state.statement = state.statement.options(joinedload(House.rooms))

    event.listen(session, "do_orm_execute", join)
    return len(session.get_one(House, 1).rooms)


WAYS: dict[str, Callable[[Session], Any]] = {
    "there": lambda session: session.get(Animal, 1).id,  # type: ignore[union-attr]
    "not there": lambda session: session.get(Animal, 99),
    "twice": lambda session: session.get(Dog, 2) is session.get(Animal, 2),
    "a subclass": lambda session: type(session.get(Animal, 2)).__name__,
    "another class": lambda session: session.get(Dog, 1),
    "another class, loaded": lambda session: (session.get(Animal, 1).id, session.get(Dog, 1)),  # type: ignore[union-attr]
    "with rows of another table": lambda session: len(session.get(Owner, "ada").animals),  # type: ignore[union-attr]
    "with what a listener joins": joined_by_a_listener,
    "two columns": lambda session: session.get(Pair, (1, "a")).right,  # type: ignore[union-attr]
    "by name": lambda session: session.get(Owner, {"key": "ada"}).key,  # type: ignore[union-attr]
    "too few columns": lambda session: session.get(Pair, 1),
    "of another type": lambda session: session.get(Priced, 3).price,  # type: ignore[union-attr]
    "with options": lambda session: session.get(Owner, "ada", options=[joinedload(Owner.animals)]),
    "with a lock": lambda session: session.get(Animal, 1, with_for_update={"read": True}).id,  # type: ignore[union-attr]
    "by keywords": lambda session: session.get(entity=Animal, ident=1).id,  # type: ignore[union-attr]
    "required": lambda session: session.get_one(Animal, 99),
    "of no class": lambda session: session.get(Engine, 1),
    "expired": expired,
    "pending": pending,
}


def answer(session: Session, way: Callable[[Session], Any]) -> Answer:
    """Return what a way gives or raises, and how many statements it takes."""
    statements: list[str] = []
    engine: Any = session.get_bind()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        found = way(session)
    except exc.SQLAlchemyError as error:
        found = type(error)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    told = repr(found) if not isinstance(found, Base) else type(found).__name__
    return told, len(statements)


@pytest.mark.parametrize("way", WAYS)
def test_the_answers_are_those_of_sqlalchemy(engine: Engine, way: str) -> None:
    """Whatever is asked for, it is the same object or error after as many statements."""
    with Session(engine) as theirs, GuardedSession(engine) as ours:
        expected = answer(theirs, WAYS[way])
        theirs.rollback()
        assert answer(ours, WAYS[way]) == expected


def test_the_statement_is_built_once(engine: Engine) -> None:
    """Two sessions run one statement object, where SQLAlchemy's run one each."""
    seen: dict[type[Session], list[Any]] = {Session: [], GuardedSession: []}
    for kind, statements in seen.items():
        for _ in range(2):
            with kind(engine) as session:
                event.listen(
                    session,
                    "do_orm_execute",
                    lambda state, to=statements: to.append(state.statement),
                )
                session.get(Animal, 1)
    assert seen[GuardedSession][0] is seen[GuardedSession][1]
    assert seen[Session][0] is not seen[Session][1]


def test_a_get_of_somebody_else_is_called(engine: Engine) -> None:
    """A session class that has a ``get`` of its own keeps it when it is guarded."""

    class Theirs(Session):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            return "theirs"

    with _guarded_class(Theirs)(engine) as session:
        assert session.get(Animal, 1) == "theirs"


def test_a_class_that_is_mapped_anew(engine: Engine) -> None:
    """A class whose mapping was cleared and made again is read by its new mapping."""

    class Mapped2:
        pass

    table = Base.metadata.tables["pair"]
    mappings = registry()
    for key in (table.c.left, table.c.right):
        mappings.map_imperatively(Mapped2, table, primary_key=[key])
        with GuardedSession(engine) as session:
            found = session.get(Mapped2, 1 if key is table.c.left else "a")
            assert found is not None
        mappings.dispose()
