"""How views and errors become answers: the one table from errors to statuses, and the headers.

Studio's routes answer an error as `{"message": …}`, in Studio's words; all others as problem details
(RFC 9457).
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp import web

from listener.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ConflictError,
    EventsGoneError,
    ForbiddenError,
    ListenerError,
    MethodNotAllowedError,
    NoRoomError,
    NotFoundError,
    OnHoldError,
    RequestError,
    SignatureRejectedError,
    StoreUnavailableError,
    SyncError,
    TooManyRefusalsError,
    UnauthorizedError,
    UnsupportedMediaError,
)
from listener.web.answers.view import Message, Problem, View
from listener.web.protocol import JSON, PROBLEM

STATUSES: Mapping[type[ListenerError], HTTPStatus] = {
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    SignatureRejectedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    BodyTooSlowError: HTTPStatus.REQUEST_TIMEOUT,
    ConflictError: HTTPStatus.CONFLICT,
    EventsGoneError: HTTPStatus.GONE,
    OnHoldError: HTTPStatus.CONFLICT,
    BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooManyRefusalsError: HTTPStatus.TOO_MANY_REQUESTS,
    NoRoomError: HTTPStatus.SERVICE_UNAVAILABLE,
    RequestError: HTTPStatus.BAD_REQUEST,
    SyncError: HTTPStatus.BAD_GATEWAY,
    StoreUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ListenerError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error has the status of its nearest ancestor in this table."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

HSTS = "max-age=31536000"
"""For a year, a browser that was here once uses HTTPS only (RFC 6797)."""

RETRY_AFTER = "5"
"""Seconds after which a sender should send a delivery again that could not be stored."""

CLOSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""After these statuses the connection ends: the rest of the body is not read."""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of every answer, before it is sent."""
    mark_private(response)
    if request.transport is not None and request.transport.get_extra_info("sslcontext") is not None:
        response.headers["Strict-Transport-Security"] = HSTS


def mark_private(response: web.StreamResponse) -> None:
    """Mark an answer as private: caches must not store it, and browsers must not guess its type.

    `Server` names the program. aiohttp would also name the versions of its parts.
    """
    response.headers["Server"] = "sync-staging"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"


def status_of(error: ListenerError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def answer(
    view: View,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] = NO_HEADERS,
    media_type: str = JSON,
) -> web.Response:
    """Return a view as JSON."""
    # aiohttp puts a media type and a charset together for each answer; a ready header costs half as much.
    return web.Response(
        body=view.to_json(),
        status=status,
        headers={"Content-Type": f"{media_type}; charset=utf-8", **headers},
    )


def in_studios_words(error: ListenerError) -> web.Response:
    """Return an error as Studio's API had it."""
    status = status_of(error)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        # Studio answered 401 for a known caller without permission too.
        status, message = HTTPStatus.UNAUTHORIZED, "Unauthorized"
    elif status is HTTPStatus.TOO_MANY_REQUESTS:
        message = status.phrase
    elif status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
        message = error.message
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
        # Too large, too slow, compressed: no JSON object has arrived. Studio had one answer for that.
        return _with_headers(answer(Message(message="Bad Request"), HTTPStatus.BAD_REQUEST), status)
    else:
        status, message = HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"
    return _with_headers(answer(Message(message=message), status), status, again_in=error.again_in)


def as_problem(error: ListenerError) -> web.Response:
    """Return an error as problem details. A 401 has no details: they would help to guess."""
    status = status_of(error)
    problem = Problem(type="about:blank", title=status.phrase, status=status.value)
    if status is not HTTPStatus.UNAUTHORIZED:
        problem.code, problem.detail, problem.remedy = error.code, error.message, error.remedy
    response = answer(problem, status, media_type=PROBLEM)
    if isinstance(error, MethodNotAllowedError):
        response.headers["Allow"] = ", ".join(error.allowed)  # RFC 9110, 15.5.6
    challenge = error.challenge if isinstance(error, UnauthorizedError | SignatureRejectedError) else ""
    return _with_headers(response, status, challenge, error.again_in)


def private_problem(error: ListenerError) -> web.Response:
    """Return an error as problem details with all headers, for a request that reaches no route."""
    response = as_problem(error)
    mark_private(response)
    return response


def _with_headers(
    response: web.Response,
    status: HTTPStatus,
    challenge: str = UnauthorizedError.challenge,
    again_in: float | None = None,
) -> web.Response:
    if status is HTTPStatus.UNAUTHORIZED and challenge:
        response.headers["WWW-Authenticate"] = challenge
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        response.headers["Retry-After"] = f"{again_in or 1:.0f}"
    if status in CLOSING:
        response.force_close()
    return response
