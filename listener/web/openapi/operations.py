"""How a route is described: a row of the tables in this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from listener.web import pages
from listener.web.openapi.schemas import Problem
from listener.web.protocol import JSON, PROBLEM

ANY_TIME = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
"""What any route may answer, whoever asks."""

LIMIT = (
    "limit",
    "how many",
    {"type": "integer", "minimum": 1, "maximum": pages.MOST, "default": pages.USUAL},
)
"""The parameter of every history: its name, what it is, its schema."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers with one status."""

    status: HTTPStatus
    what: str
    content: Mapping[str, type[BaseModel] | None]
    """What stands in it, by its media type; None for text that no schema describes."""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a route takes in its query or headers. All of them may be left out."""

    name: str
    where: str
    """`query` or `header`."""
    what: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    method: str
    path: str
    """As the application's router has it."""
    name: str
    """What a client made from the description calls it."""
    tag: str
    summary: str
    answers: tuple[Answer, ...]
    body: type[BaseModel] | None = None
    body_required: bool = True
    form: bool = False
    """Whether a form of the body's fields will do."""
    bodies: tuple[str, ...] = ()
    """The media types of a body that no schema describes."""
    parameters: tuple[Parameter, ...] = ()
    free: bool = False
    """Whether no token is needed."""


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
    HTTPStatus.BAD_REQUEST: "The body or a parameter is not what the route takes.",
    HTTPStatus.UNAUTHORIZED: "No credential, or an unknown or expired one; without any detail.",
    HTTPStatus.FORBIDDEN: "The credential's role does not allow it.",
    HTTPStatus.NOT_FOUND: "There is no such thing, or none that the credential covers.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.CONFLICT: "Things do not stand so that it could be done.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is over the route's limit.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is compressed, or of a type that is not read here.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests of this address were refused.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The listener met a defect.",
    HTTPStatus.BAD_GATEWAY: "The repository's host could not be asked, or refused.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store does not answer; nothing was accepted.",
}
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate", "X-Delivery-Id"),
    HTTPStatus.FORBIDDEN: ("X-Delivery-Id",),
    HTTPStatus.TOO_MANY_REQUESTS: ("Retry-After", "X-Delivery-Id"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After",),
}
