"""What is answered to anybody: the probes, and this description."""

from http import HTTPStatus

from listener.web.openapi.operations import ANY_TIME, Answer, Operation, answered, problems
from listener.web.openapi.schemas import Alive, Description, Ready, Unready

_FEWER = problems(*(status for status in ANY_TIME if status is not HTTPStatus.SERVICE_UNAVAILABLE))

OPERATIONS = (
    Operation(
        "GET",
        "/healthz",
        "alive",
        "Probes",
        "Whether the listener runs.",
        (answered(Alive, "It does."), *_FEWER),
        free=True,
    ),
    Operation(
        "GET",
        "/readyz",
        "ready",
        "Probes",
        "Whether requests are taken.",
        (
            answered(Ready, "They are."),
            answered(Unready, "They are not, and why.", HTTPStatus.SERVICE_UNAVAILABLE),
            *_FEWER,
        ),
        free=True,
    ),
    Operation(
        "GET",
        "/openapi.json",
        "describe",
        "Probes",
        "This description.",
        (
            answered(Description, "The description.", headers=("ETag",)),
            Answer(HTTPStatus.NOT_MODIFIED, "It is the one that If-None-Match names.", {}, ("ETag",)),
            *_FEWER,
        ),
        free=True,
    ),
)
