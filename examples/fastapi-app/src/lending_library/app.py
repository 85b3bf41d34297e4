"""The application, and what its clients hear when the database says no."""

import logging

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse
from sqlalchemy import exc

from lending_library.routes import router
from moorage import ConstraintViolationError, DatabaseError, DataError
from moorage_fastapi import lifespan

logger = logging.getLogger(__name__)

app = FastAPI(title="Lending library", lifespan=lifespan())
app.include_router(router)


@app.exception_handler(ConstraintViolationError)
async def conflict(request: Request, error: ConstraintViolationError) -> JSONResponse:
    """A constraint decides what is a duplicate; asking before writing would race."""
    detail = "this contradicts what the library has already"
    return JSONResponse({"detail": detail}, status.HTTP_409_CONFLICT)


@app.exception_handler(exc.TimeoutError)
async def busy(request: Request, error: Exception) -> JSONResponse:
    """A lock, or a connection of the pool, was not to be had; the operator should know."""
    logger.warning("%s %s was turned away: %s", request.method, request.url.path, error)
    detail = "the library is busy; try again"
    return JSONResponse(
        {"detail": detail}, status.HTTP_503_SERVICE_UNAVAILABLE, headers={"Retry-After": "1"}
    )


@app.exception_handler(DatabaseError)
async def database_failed(request: Request, error: DatabaseError) -> JSONResponse:
    """Tell the client's mistakes and passing troubles from ours, which stay a 500."""
    if isinstance(error, DataError):
        detail = "a value is not storable"
        return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)
    if error.is_transient:
        return await busy(request, error)
    raise error
