"""The two calls that Studio documents and no longer has, answered to the letter."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from listener.access import Caller
from listener.directory import Directory
from listener.errors import EnvironmentNotFoundError, UnauthorizedError
from listener.sites import Environment, Site
from listener.web.answers.view import Body, Message
from listener.web.bodies import BodyReader
from listener.web.calls import Calls
from listener.web.credentials import Gate, asker, uncovered
from listener.web.protocol import EVENTS, JSON, NDJSON
from listener.web.routes import ACCEPT, PREFER, Answer, Handler, Route, answered

SERVICES = "/api/1/services/"
PREFIXES = (SERVICES, f"/studio{SERVICES}")
PUBLISH = "api/1/publish/"

RESET_ENVIRONMENT = "staging"
"""The environment of the `reset-staging` call if a site has several."""

Text = Annotated[str, Field(min_length=1)]


class ResetStaging(Body, extra="ignore"):
    """The Crafter call for the staging environment. Studio's clients may send more fields."""

    site_id: Text = Field(examples=["mysite"])


class SyncStaging(ResetStaging):
    """The Crafter call for one environment. Studio's clients may send more fields."""

    environment: Text = Field(examples=["staging"])


_RUN_HEADERS = ("X-Run-Id", "Vary", "Preference-Applied")
_ANSWERS = (
    Answer(
        HTTPStatus.OK,
        "The environment is now equal to live. As a stream: the run's log, and the status at its end.",
        {JSON: Message, NDJSON: None, EVENTS: None},
        _RUN_HEADERS,
    ),
    answered(
        Message,
        "Prefer asked for it: the run goes on.",
        HTTPStatus.ACCEPTED,
        headers=("Location", *_RUN_HEADERS),
    ),
    answered(Message, "The body is not a JSON object, or parameters are missing.", HTTPStatus.BAD_REQUEST),
    answered(
        Message,
        "The credential is missing or unknown, or does not cover the site.",
        HTTPStatus.UNAUTHORIZED,
        headers=("WWW-Authenticate",),
    ),
    answered(Message, "The site or environment is unknown.", HTTPStatus.NOT_FOUND),
    answered(
        Message,
        "Too many requests from this address were refused.",
        HTTPStatus.TOO_MANY_REQUESTS,
        headers=("Retry-After",),
    ),
    answered(
        Message,
        "Anything else: the sync has failed, or takes longer than the caller waits. See the run.",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        headers=_RUN_HEADERS,
    ),
    answered(
        Message,
        "The listener stops while the caller waits. The run goes on.",
        HTTPStatus.SERVICE_UNAVAILABLE,
        headers=("Retry-After", *_RUN_HEADERS),
    ),
)


def _spellings(call: str, name: str, body: type[BaseModel]) -> Callable[[Handler], Handler]:
    """Declare the routes of a call: with both prefixes, with and without the extension."""

    def declare(handler: Handler) -> Handler:
        for place, prefix in reversed([*zip(("", "_under_studio"), PREFIXES, strict=True)]):
            for form, extension in (("_without_extension", ""), ("", ".json")):
                Route(
                    "POST",
                    f"{prefix}{PUBLISH}{call}{extension}",
                    f"{name}{place}{form}",
                    "Crafter",
                    _ANSWERS,
                    body=body,
                    parameters=(PREFER, ACCEPT),
                )(handler)
        return handler

    return declare


class Crafter:
    """Handles `sync-staging` and `reset-staging`. The credential is checked before the body is read."""

    def __init__(self, gate: Gate, directory: Directory, calls: Calls, bodies: BodyReader) -> None:
        self._gate = gate
        self._directory = directory
        self._calls = calls
        self._bodies = bodies

    @_spellings("sync-staging", "sync_staging", SyncStaging)
    async def sync_staging(self, request: web.Request) -> web.StreamResponse:
        """Make an environment equal to live, and wait for it."""
        caller = await self._gate.caller(request)
        asked = await self._bodies.read_as(request, SyncStaging)
        environment = (await self._site(caller, asked.site_id)).environment(asked.environment)
        return await self._calls.crafter(request, environment, asker(request, caller))

    @_spellings("reset-staging", "reset_staging", ResetStaging)
    async def reset_staging(self, request: web.Request) -> web.StreamResponse:
        """Make the staging environment equal to live, and wait for it."""
        caller = await self._gate.caller(request)
        asked = await self._bodies.read_as(request, ResetStaging)
        environment = _staging(await self._site(caller, asked.site_id))
        return await self._calls.crafter(request, environment, asker(request, caller))

    async def _site(self, caller: Caller, site_id: str) -> Site:
        """Return the site. A caller who may not see it does not learn whether it exists."""
        if not caller.covers(site_id):
            raise UnauthorizedError(uncovered(caller, site_id))
        return await self._directory.site(site_id)


def _staging(site: Site) -> Environment:
    if RESET_ENVIRONMENT in site.environments:
        return site.environments[RESET_ENVIRONMENT]
    if len(site.environments) != 1:
        raise EnvironmentNotFoundError
    return next(iter(site.environments.values()))
