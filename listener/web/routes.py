"""How a route is declared: beside its handler, with all that `/openapi.json` and the manual say of it."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from listener.web.answers.view import Problem
from listener.web.protocol import JSON, PROBLEM

_ROUTES = "__routes__"

TOKEN, ADMIN, SIGNATURE, NOTHING = "token", "admin token", "signature", ""
"""What a caller needs."""

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[web.StreamResponse]])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers with one status."""

    status: HTTPStatus
    what: str
    content: Mapping[str, type[BaseModel] | None]
    """The model of the answer by media type; None for text without a schema."""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter. In the query and the headers all are optional."""

    name: str
    where: str
    """`query`, `header` or `path`."""
    what: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    """As the application's router has it."""
    name: str
    """What generated clients call it (`operationId`)."""
    tag: str
    answers: tuple[Answer, ...]
    summary: str = ""
    """The first line of the handler's docstring, unless it is given."""
    body: type[BaseModel] | None = None
    body_required: bool = True
    form: bool = False
    """Whether a form with the body's fields is accepted too."""
    bodies: tuple[str, ...] = ()
    """The media types of a body without a schema."""
    parameters: tuple[Parameter, ...] = ()
    needs: str = TOKEN
    """`TOKEN`, `ADMIN`, `SIGNATURE` or `NOTHING`."""

    def __call__(self, handler: Handler) -> Handler:
        """Declare this route of a handler: use it as a decorator."""
        summary = self.summary or (inspect.getdoc(handler) or "").partition("\n")[0]
        before: tuple[Route, ...] = getattr(handler, _ROUTES, ())
        # Decorators apply from the bottom up.
        setattr(handler, _ROUTES, (replace(self, summary=summary), *before))
        return handler


def declared(handlers: type) -> Iterator[Route]:
    """Yield the routes of a class of handlers, in their order."""
    for handler in vars(handlers).values():
        yield from getattr(handler, _ROUTES, ())


def bound(handlers: object) -> Iterator[web.RouteDef]:
    """Yield the routes of an object of such a class, for aiohttp's router."""
    for name, handler in vars(type(handlers)).items():
        for route in getattr(handler, _ROUTES, ()):
            yield web.RouteDef(route.method, route.path, getattr(handlers, name), {})


def answered(
    model: type[BaseModel] | None,
    what: str,
    status: HTTPStatus = HTTPStatus.OK,
    media_type: str = JSON,
    headers: tuple[str, ...] = (),
) -> Answer:
    """Return an answer in one form."""
    return Answer(status, what, {media_type: model}, headers)


def problems(*statuses: HTTPStatus) -> tuple[Answer, ...]:
    """Return the answers that are problem details (RFC 9457)."""
    return tuple(
        answered(Problem, _PROBLEMS.get(status, status.phrase), status, PROBLEM, _HEADERS.get(status, ()))
        for status in statuses
    )


_PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "The body or a parameter is wrong.",
    HTTPStatus.UNAUTHORIZED: "The credential is missing, unknown or expired; the answer has no details.",
    HTTPStatus.FORBIDDEN: "The credential's role does not allow it.",
    HTTPStatus.NOT_FOUND: "It does not exist, or the credential does not cover it.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.CONFLICT: "The current state does not allow it.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than the route allows.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is compressed, or its type is not supported.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests from this address were refused.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The listener has a defect.",
    HTTPStatus.BAD_GATEWAY: "The repository's host does not answer, or refuses.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store does not answer; nothing was accepted.",
}
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate", "X-Delivery-Id"),
    HTTPStatus.FORBIDDEN: ("X-Delivery-Id",),
    HTTPStatus.TOO_MANY_REQUESTS: ("Retry-After", "X-Delivery-Id"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After",),
}

ANY_TIME = problems(
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE
)
"""Any route may answer these, to any caller."""
TO_CALLERS = (*problems(HTTPStatus.UNAUTHORIZED), *ANY_TIME)
"""A route that needs a credential may answer these."""
ABOUT_ONE = (*problems(HTTPStatus.NOT_FOUND), *TO_CALLERS)
"""A route whose path names a site, a run or a delivery may answer these."""
TO_BODIES = problems(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
"""A route that reads a body may answer these."""

RUN_HEADERS = ("X-Run-Id", "Location", "Vary", "Preference-Applied")
PREFER = Parameter("Prefer", "header", "RFC 7240: wait=SECONDS, respond-async", {"type": "string"})
ACCEPT = Parameter("Accept", "header", "the form of the answer", {"type": "string"})
