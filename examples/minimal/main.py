"""The shortest real program: a table, a unit of work that writes, a session that reads."""

import asyncio
import os

from sqlalchemy import String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from moorage import Database, DatabaseSettings


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(200))


def settings() -> DatabaseSettings:
    """Read DB_TYPE, DB_HOST, DB_NAME and so on; without DB_TYPE, use SQLite in memory."""
    if "DB_TYPE" in os.environ:
        return DatabaseSettings()
    return DatabaseSettings(type="sqlite", name=":memory:")


async def main() -> None:
    async with Database(settings()) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.unit_of_work() as session:  # commits at its end, or not at all
            session.add_all([Note(text="casts off"), Note(text="comes alongside")])
        async with database.read_session() as session:
            for note in await session.scalars(select(Note).order_by(Note.id)):
                print(note.id, note.text)


if __name__ == "__main__":
    asyncio.run(main())
