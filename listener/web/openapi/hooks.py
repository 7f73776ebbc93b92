"""Deliveries."""

from http import HTTPStatus

from listener.web.openapi.operations import ANY_TIME, Operation, answered, problems
from listener.web.openapi.schemas import Accepted, Delivered
from listener.web.protocol import FORM, JSON

_ANSWERS = (
    answered(Accepted, "Verified and durable; these runs serve it.", HTTPStatus.ACCEPTED),
    answered(Delivered, "Verified, and selects nothing; or the first answer to the same delivery."),
    *problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        *ANY_TIME,
    ),
)
_BODIES = (JSON, FORM)

OPERATIONS = (
    Operation(
        "POST",
        "/hooks/{hook}",
        "deliver",
        "Hooks",
        "One delivery of a webhook, signed by the hook's scheme.",
        _ANSWERS,
        bodies=_BODIES,
        free=True,
    ),
    Operation(
        "POST",
        "/hooks/{hook}/{secret}",
        "deliver_by_path",
        "Hooks",
        "The same for the scheme path, whose secret stands in the path.",
        _ANSWERS,
        bodies=_BODIES,
        free=True,
    ),
)
