"""
moorage in FastAPI: sessions and units of work that end before the response is sent.

``session: AsyncSession = Depends(get_db_session)`` is all that a route needs.
"""

from moorage_fastapi.dependencies import (
    DBReadSession,
    DBSession,
    DBUnitOfWork,
    get_db_session,
    get_read_session,
    get_unit_of_work,
)
from moorage_fastapi.lifespan import lifespan

__all__ = [
    "DBReadSession",
    "DBSession",
    "DBUnitOfWork",
    "get_db_session",
    "get_read_session",
    "get_unit_of_work",
    "lifespan",
]
