"""
moorage in FastAPI: sessions and units of work that end before the response is sent.

``session: AsyncSession = Depends(get_db_session)`` is all that a route needs.
"""

from moorage_fastapi.background import Background
from moorage_fastapi.deadline import RequestDeadlineError, deadline
from moorage_fastapi.dependencies import (
    AppDatabase,
    DatabaseDependencies,
    DBBackground,
    DBReadSession,
    DBSession,
    DBStreamSession,
    DBUnitOfWork,
    dependencies_for,
    get_app_database,
    get_background,
    get_db_session,
    get_read_session,
    get_stream_session,
    get_unit_of_work,
    unit_of_work,
)
from moorage_fastapi.health import health_router
from moorage_fastapi.identity import (
    Identify,
    read_session_as,
    session_as,
    unit_of_work_as,
)
from moorage_fastapi.key_set import KeySetError
from moorage_fastapi.lifespan import lifespan
from moorage_fastapi.metrics import PoolCollector, register_pool_metrics
from moorage_fastapi.problems import PROBLEM_RESPONSES, Problem, add_problem_handlers
from moorage_fastapi.rerun import rerun_route
from moorage_fastapi.tokens import TokenError, TokenVerifier

__all__ = [
    "PROBLEM_RESPONSES",
    "AppDatabase",
    "Background",
    "DBBackground",
    "DBReadSession",
    "DBSession",
    "DBStreamSession",
    "DBUnitOfWork",
    "DatabaseDependencies",
    "Identify",
    "KeySetError",
    "PoolCollector",
    "Problem",
    "RequestDeadlineError",
    "TokenError",
    "TokenVerifier",
    "add_problem_handlers",
    "deadline",
    "dependencies_for",
    "get_app_database",
    "get_background",
    "get_db_session",
    "get_read_session",
    "get_stream_session",
    "get_unit_of_work",
    "health_router",
    "lifespan",
    "read_session_as",
    "register_pool_metrics",
    "rerun_route",
    "session_as",
    "unit_of_work",
    "unit_of_work_as",
]
