"""The two Crafter calls, in all their spellings."""

from collections.abc import Iterator
from http import HTTPStatus

from pydantic import BaseModel

from listener.web.crafter import PREFIXES, PUBLISH
from listener.web.openapi.operations import Answer, Operation, Parameter, answered
from listener.web.openapi.schemas import Message, ResetStaging, SyncStaging
from listener.web.protocol import EVENTS, JSON, NDJSON

PREFER = Parameter("Prefer", "header", "RFC 7240: wait=SECONDS, respond-async", {"type": "string"})
ACCEPT = Parameter("Accept", "header", "the form of the answer", {"type": "string"})

RUN_HEADERS = ("X-Run-Id", "Vary", "Preference-Applied")

_ANSWERS = (
    Answer(
        HTTPStatus.OK,
        "The environment is now equal to live. As a stream: the run's log, and the status at its end.",
        {JSON: Message, NDJSON: None, EVENTS: None},
        RUN_HEADERS,
    ),
    answered(
        Message,
        "Asked for by Prefer: the run goes on.",
        HTTPStatus.ACCEPTED,
        headers=("Location", *RUN_HEADERS),
    ),
    answered(Message, "The body is no JSON object, or parameters are missing.", HTTPStatus.BAD_REQUEST),
    answered(
        Message,
        "No credential, or one that does not cover the site.",
        HTTPStatus.UNAUTHORIZED,
        headers=("WWW-Authenticate",),
    ),
    answered(Message, "There is no such site or environment.", HTTPStatus.NOT_FOUND),
    answered(
        Message,
        "Too many requests of this address were refused.",
        HTTPStatus.TOO_MANY_REQUESTS,
        headers=("Retry-After",),
    ),
    answered(
        Message,
        "Anything else: the sync has failed, or goes on beyond the wait. See the run.",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        headers=RUN_HEADERS,
    ),
    answered(
        Message,
        "The listener stops while the caller waits. The run goes on.",
        HTTPStatus.SERVICE_UNAVAILABLE,
        headers=("Retry-After", *RUN_HEADERS),
    ),
)


def _spelt(call: str, name: str, summary: str, body: type[BaseModel]) -> Iterator[Operation]:
    for place, prefix in zip(("", "_under_studio"), PREFIXES, strict=True):
        for form, extension in (("", ".json"), ("_without_extension", "")):
            yield Operation(
                "POST",
                f"{prefix}{PUBLISH}{call}{extension}",
                f"{name}{place}{form}",
                "Crafter",
                summary,
                _ANSWERS,
                body=body,
                parameters=(PREFER, ACCEPT),
            )


OPERATIONS = (
    *_spelt("sync-staging", "sync_staging", "Make an environment equal to live, and wait.", SyncStaging),
    *_spelt("reset-staging", "reset_staging", "Make the staging environment equal to live.", ResetStaging),
)
