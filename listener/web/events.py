"""All events as one stream. A client can resume it at any listener."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from http import HTTPStatus

from aiohttp import web

from listener.access import Caller
from listener.deliveries import excerpt
from listener.errors import (
    BadRequestError,
    EventsGoneError,
    ForbiddenError,
    UnauthorizedError,
)
from listener.events import FOR_ADMINS, START, Event, EventKind, EventStore, Place, Wanted
from listener.feed import Feed
from listener.sites import Sites
from listener.web.credentials import Gate, uncovered
from listener.web.preferences import preferred
from listener.web.protocol import EVENTS, NDJSON
from listener.web.routes import ACCEPT, TO_CALLERS, Answer, Parameter, Route, problems
from listener.web.streams import KEEP_ALIVE, LogStream, following

_NAME = {"type": "array", "items": {"type": "string"}}
_KINDS = {"type": "array", "items": {"type": "string", "enum": [kind.value for kind in EventKind]}}
_PLACE = {"type": "string", "pattern": r"^([0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18}|0)$"}
_PARAMETERS = (
    ACCEPT,
    Parameter("site", "query", "only events of these sites", _NAME),
    Parameter("environment", "query", "only events of environments with these names", _NAME),
    Parameter("kind", "query", "only events of these kinds", _KINDS),
    Parameter("Last-Event-ID", "header", "the id of the last event that the client has", _PLACE),
    Parameter("after", "query", "the same; 0 for all events that are kept", _PLACE),
    Parameter(
        "since", "query", "from the first event since this time", {"type": "string", "format": "date-time"}
    ),
    Parameter("follow", "query", "whether to go on with new events", {"type": "boolean", "default": True}),
)

Coming = AsyncGenerator[tuple[Sequence[Event], Place], None]


class EventRoutes:
    """Handles `GET /api/v1/events`."""

    def __init__(
        self,
        gate: Gate,
        sites: Sites,
        store: EventStore,
        feed: Feed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._sites = sites
        self._store = store
        self._feed = feed
        self._clock = clock

    @Route(
        "GET",
        "/api/v1/events",
        "watch_events",
        "Events",
        (
            Answer(HTTPStatus.OK, "The events.", {NDJSON: None, EVENTS: None}),
            *problems(HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.GONE),
            *TO_CALLERS,
        ),
        parameters=_PARAMETERS,
    )
    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Follow all events: a JSON object a line, or server-sent events."""
        caller = await self._gate.caller(request)
        wanted, after = self._wanted(request, caller), await self._after(request)
        if following(request):
            coming = self._feed.follow(wanted, after, KEEP_ALIVE)
        else:
            coming = self._feed.stored(wanted, START if after is None else after)
        # Before the headers: after them, an error can't be answered any more.
        if after is not None and not (await self._store.events(after, 1)).known:
            raise EventsGoneError
        stream = LogStream(preferred(request, (NDJSON, EVENTS)), {"Cache-Control": "no-store"})
        async with stream.sent(request) as response, aclosing(coming):
            await self._send(request, caller, stream, coming, START if after is None else after)
        return response

    async def _send(
        self, request: web.Request, caller: Caller, stream: LogStream, coming: Coming, begin: Place
    ) -> None:
        """Send events; at the end, say why the stream ends and from where the client can resume."""
        reason, at, checked = "done", begin, self._clock()
        try:
            async for events, at in coming:
                if self._clock() >= checked + KEEP_ALIVE:
                    checked = self._clock()
                    if not await self._still(request, caller):
                        reason = "credential"
                        break
                if events:
                    await stream.events(events)
                else:
                    await stream.still_at(at)
        except EventsGoneError as error:
            reason = error.code
        if reason == "done" and following(request):
            reason = "stopping"
        facts = {"id": str(at), "kind": "end", "event": "end", "reason": reason}
        await stream.end(facts, at)

    async def _still(self, request: web.Request, caller: Caller) -> bool:
        """Return whether the credential of a long stream is still valid, for the same sites."""
        try:
            now = await self._gate.caller(request)
        except (UnauthorizedError, ForbiddenError):
            return False
        return now.visible == caller.visible

    def _wanted(self, request: web.Request, caller: Caller) -> Wanted:
        """Return what the query asks for; raise `BadRequestError` for a name that is not configured."""
        query = request.query
        sites, environments = query.getall("site", []), query.getall("environment", [])
        for site in sites:
            if not caller.covers(site) or site not in self._sites:
                reason = "" if caller.covers(site) else uncovered(caller, site)
                raise BadRequestError(f"site: {_shown(site)} is not a configured site.", reason=reason)
        for name in environments:
            if not self._has(name, sites):
                raise BadRequestError(f"environment: {_shown(name)} is not a configured environment.")
        kinds = frozenset(map(_kind, query.getall("kind", [])))
        if not caller.admin and (hidden := kinds & FOR_ADMINS):
            raise ForbiddenError(f"Only an admin may follow events of the kind {min(hidden)}.")
        return Wanted(caller.visible, frozenset(sites), frozenset(environments), kinds)

    def _has(self, name: str, sites: Sequence[str]) -> bool:
        """Return whether one of these sites has an environment; without sites, whether any site has it."""
        if sites:
            return any(name in self._sites.site(site).environments for site in sites)
        templates = (pattern.template for pattern in self._sites.patterns)
        return any(name in site.environments for site in (*self._sites, *templates))

    async def _after(self, request: web.Request) -> Place | None:
        """Return the place after which the client wants to go on; None if it names none."""
        said = request.headers.get("Last-Event-ID") or request.query.get("after")
        since = request.query.get("since")
        if said:
            try:
                return Place.of(said)
            except ValueError:
                raise BadRequestError("Last-Event-ID and after must be the id of an event, or 0.") from None
        return None if since is None else await self._store.events_since(_time(since))


def _kind(text: str) -> EventKind:
    try:
        return EventKind(text)
    except ValueError:
        raise BadRequestError(f"kind must be one of {', '.join(EventKind)}.") from None


def _time(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise BadRequestError("since must be a time with its zone, such as 2026-01-31T08:00:00Z.")
    return at.timestamp()


def _shown(text: str) -> str:
    return repr(excerpt(text))
