"""
moorage in FastAPI: sessions and units of work that end before the response is sent.

``session: AsyncSession = Depends(get_db_session)`` is all that a route needs.
"""

from moorage_fastapi.dependencies import (
    AppDatabase,
    DBReadSession,
    DBSession,
    DBUnitOfWork,
    get_app_database,
    get_db_session,
    get_read_session,
    get_unit_of_work,
)
from moorage_fastapi.health import health_router
from moorage_fastapi.lifespan import lifespan
from moorage_fastapi.problems import PROBLEM_RESPONSES, Problem, add_problem_handlers

__all__ = [
    "PROBLEM_RESPONSES",
    "AppDatabase",
    "DBReadSession",
    "DBSession",
    "DBUnitOfWork",
    "Problem",
    "add_problem_handlers",
    "get_app_database",
    "get_db_session",
    "get_read_session",
    "get_unit_of_work",
    "health_router",
    "lifespan",
]
