"""The client of an application, beside the other fixtures."""

import pytest
from kit_app import app
from kit_boats import Boat, launch, names
from sqlalchemy import select

from moorage.testing import assert_queries

pytestmark = pytest.mark.asyncio


@pytest.fixture
def db_app():
    """Return the application."""
    return app


@pytest.mark.parametrize("turn", [1, 2])
async def test_the_client_shares_the_transaction(db_client, db_session, turn) -> None:
    """Requests see what the test has committed, the test sees theirs, and the next one neither."""
    await launch("Fram")
    assert (await db_client.post("/boats", params={"name": "Gjøa"})).status_code == 201
    with assert_queries(1) as log:
        assert (await db_client.get("/boats")).json() == ["Fram", "Gjøa"]
    assert list(log.by_work) == ["GET /boats"]
    assert await names() == ["Fram", "Gjøa"]
    assert len((await db_session.scalars(select(Boat))).all()) == 2
