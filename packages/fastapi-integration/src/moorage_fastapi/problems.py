"""
What a client hears when the database says no: problem details (RFC 9457) for the tree of errors.

Nothing internal is told: no SQL, no host, no value, no name of a setting. What the operator needs
goes into the log, under a number that the client is given as well.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moorage import (
    CheckViolationError,
    CommitOutcomeUnknownError,
    ConnectError,
    ConnectionLostError,
    ConstraintViolationError,
    DatabaseError,
    DataError,
    DeadlockError,
    IdentityError,
    IdentityRequiredError,
    LockTimeoutError,
    MoorageError,
    NotNullViolationError,
    PoolExhaustedError,
    ReadOnlyError,
    SerializationError,
    StalePlanError,
    StatementTimeoutError,
)
from moorage_fastapi.deadline import RequestDeadlineError

__all__ = ["PROBLEM_RESPONSES", "Problem", "add_problem_handlers"]

logger: logging.Logger = logging.getLogger("moorage.fastapi")

_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """
    The answer to one class of errors.

    Attributes:
        status: Status of the response.
        title: What happened, in words that may be told to anybody.
        retry_after: Seconds for ``Retry-After``; none is sent if ``None``.
    """

    status: int
    title: str
    retry_after: int | None = None


_UNAVAILABLE = "The database is not available."
_BUSY = "The service is busy; try again."
_FAILED = "The service has failed."

_PROBLEMS: Mapping[type[MoorageError], Problem] = {
    ConstraintViolationError: Problem(409, "This contradicts what is stored already."),
    NotNullViolationError: Problem(422, "A value is missing."),
    CheckViolationError: Problem(422, "A value is not allowed."),
    DataError: Problem(422, "A value cannot be stored."),
    PoolExhaustedError: Problem(503, _BUSY, retry_after=1),
    LockTimeoutError: Problem(503, _BUSY, retry_after=1),
    DeadlockError: Problem(503, _BUSY, retry_after=1),
    SerializationError: Problem(503, _BUSY, retry_after=1),
    StalePlanError: Problem(503, _BUSY, retry_after=1),
    # A wrong password or a missing database included: it is for the operator, and may be mended.
    ConnectError: Problem(503, _UNAVAILABLE, retry_after=5),
    ConnectionLostError: Problem(503, _UNAVAILABLE, retry_after=5),
    ReadOnlyError: Problem(503, "The database takes no changes at the moment.", retry_after=5),
    RequestDeadlineError: Problem(504, "The request was not done in time."),
    StatementTimeoutError: Problem(504, "The database did not answer in time."),
    CommitOutcomeUnknownError: Problem(
        500, "It is not known whether this was stored; look before doing it again."
    ),
    # A token with a role that is not served; a session without an identity is a mistake of ours.
    IdentityError: Problem(403, "This may not be done on your behalf."),
    IdentityRequiredError: Problem(500, _FAILED),
    MoorageError: Problem(500, _FAILED),
}

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {"type": "string", "description": "Class of the error, as a URN."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "instance": {"type": "string", "description": "Number under which the log has the rest."},
        "fields": {"type": "array", "items": {"type": "string"}},
    },
}

# What FastAPI itself says of a request that is not valid, which has the same status.
_VALIDATION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    },
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        }
    },
}


def _shown(status: int) -> dict[str, Any]:
    content: dict[str, Any] = {_MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        content["application/json"] = {"schema": _VALIDATION_SCHEMA}
    shown: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": content}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        shown["headers"] = {"Retry-After": seconds}
    return shown


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: _shown(status) for status in (403, 409, 422, 500, 503, 504)
}
"""What OpenAPI shall say of them: ``FastAPI(responses=PROBLEM_RESPONSES)``."""


def add_problem_handlers(
    app: FastAPI, problems: Mapping[type[MoorageError], Problem] | None = None
) -> None:
    """
    Answer moorage's errors with problem details, wherever in a request they are raised.

    Called once, when the application is made. The commit of a request's unit of work is part of
    the request: its failure is answered like any other.

    Args:
        app: The application. If it is in debug mode, answers carry the error's message.
        problems: Other answers for single classes; the nearest base of an error decides.
    """
    table = {**_PROBLEMS, **(problems or {})}

    async def answer(request: Request, error: Exception) -> Response:
        problem = next(table[kind] for kind in type(error).__mro__ if kind in table)
        return _respond(error, problem, debug=app.debug)

    for kind in table:
        app.add_exception_handler(kind, answer)


def _respond(error: Exception, problem: Problem, *, debug: bool) -> JSONResponse:
    instance = f"urn:uuid:{uuid.uuid4()}"
    anchor = getattr(error, "anchor", "moorage")
    body: dict[str, Any] = {
        "type": f"urn:moorage:{anchor}",
        "title": problem.title,
        "status": problem.status,
        "instance": instance,
    }
    if isinstance(error, DatabaseError) and error.columns and problem.status in {409, 422}:
        body["fields"] = list(error.columns)
    if debug:
        body["detail"] = str(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s was answered with %d", instance, problem.status, exc_info=error)
    else:
        logger.info("%s was answered with %d: %s", instance, problem.status, anchor)
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return JSONResponse(body, problem.status, headers, media_type=_MEDIA_TYPE)
