"""Every answer that is not plain success: which status an error has, and in whose words it is told.

Studio's routes answer `{"message": …}` in Studio's own words; all others answer problem details (RFC 9457).
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from listener.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ConflictError,
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

STATUSES: Mapping[type[ListenerError], HTTPStatus] = {
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    SignatureRejectedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    BodyTooSlowError: HTTPStatus.REQUEST_TIMEOUT,
    ConflictError: HTTPStatus.CONFLICT,
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
"""The status of an error is that of its nearest ancestor here."""

HSTS = "max-age=31536000"
"""A year, in which a browser that was here once comes by HTTPS only (RFC 6797)."""

RETRY_AFTER = "5"
"""Seconds, told to a sender whose delivery could not be taken in."""

CLOSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""With these answers the rest of the body is not read: the connection ends."""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has, before it is sent."""
    mark_private(response)
    if request.transport is not None and request.transport.get_extra_info("sslcontext") is not None:
        response.headers["Strict-Transport-Security"] = HSTS


def mark_private(response: web.StreamResponse) -> None:
    """Mark an answer as private: no cache keeps it, and no browser guesses its type.

    `Server` names the program, but not its parts and their versions, as aiohttp would.
    """
    response.headers["Server"] = "sync-staging"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"


def status_of(error: ListenerError) -> HTTPStatus:
    """Return the HTTP status that tells of `error`."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def in_studios_words(error: ListenerError) -> web.Response:
    """Return an error as Studio's API told it."""
    status = status_of(error)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        # Who was known and denied got the same from Studio.
        status, message = HTTPStatus.UNAUTHORIZED, "Unauthorized"
    elif status is HTTPStatus.TOO_MANY_REQUESTS:
        message = status.phrase
    elif status in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
        message = error.message
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
        # Too large, too slow, compressed: no JSON object has arrived, and Studio knew no other word for that.
        return _finished(web.json_response({"message": "Bad Request"}, status=HTTPStatus.BAD_REQUEST), status)
    else:
        status, message = HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"
    return _finished(web.json_response({"message": message}, status=status), status, again_in=error.again_in)


def as_problem(error: ListenerError) -> web.Response:
    """Return an error as problem details; a refused credential or signature gets no detail."""
    status = status_of(error)
    problem: dict[str, Any] = {"type": "about:blank", "title": status.phrase, "status": status.value}
    if status is not HTTPStatus.UNAUTHORIZED:
        problem |= {"code": error.code, "detail": error.message}
        if error.remedy:
            problem["remedy"] = error.remedy
    response = web.json_response(problem, status=status, content_type="application/problem+json")
    if isinstance(error, MethodNotAllowedError):
        response.headers["Allow"] = ", ".join(error.allowed)  # RFC 9110, 15.5.6
    challenge = error.challenge if isinstance(error, UnauthorizedError | SignatureRejectedError) else ""
    return _finished(response, status, challenge, error.again_in)


def private_problem(error: ListenerError) -> web.Response:
    """Return an error as problem details, for a request that reaches no route and gets no headers there."""
    response = as_problem(error)
    mark_private(response)
    return response


def _finished(
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
