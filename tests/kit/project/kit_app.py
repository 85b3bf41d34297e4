"""A small application with routes, served by the fixtures."""

from fastapi import FastAPI
from kit_boats import Boat
from sqlalchemy import select

from moorage_fastapi import DBSession, DBUnitOfWork

app = FastAPI()


@app.post("/boats", status_code=201)
async def add(name: str, unit: DBUnitOfWork) -> None:
    """Store a boat."""
    unit.session.add(Boat(name=name))


@app.get("/boats")
async def names(session: DBSession) -> list[str]:
    """Return the names of all boats."""
    return list(await session.scalars(select(Boat.name).order_by(Boat.name)))
