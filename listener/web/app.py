"""The application: all routes, and the one place where errors become answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from listener.access import Delegation, SessionStore, Token
from listener.audit import Audit
from listener.deliveries import Hook, excerpt
from listener.directory import Directory
from listener.errors import (
    BadRequestError,
    BodyTooLargeError,
    ListenerError,
    MethodNotAllowedError,
    NotFoundError,
)
from listener.events import EventStore
from listener.feed import Feed
from listener.intake import Intake
from listener.journal import Log
from listener.queue import RunStore
from listener.records import Records
from listener.request_context import request_context
from listener.rollback import Rollbacks
from listener.sites import Sites
from listener.surveys import Surveys
from listener.sync import Synchronizer
from listener.web.bodies import BodyReader, answer_expect_later
from listener.web.calls import Calls
from listener.web.crafter import PREFIXES, Crafter
from listener.web.credentials import Gate
from listener.web.deliveries import DeliveryRoutes
from listener.web.events import EventRoutes
from listener.web.hooks import Hooks
from listener.web.openapi import OpenApi
from listener.web.page import PageRoutes
from listener.web.probes import Probes
from listener.web.protocol import DELIVERY_ID
from listener.web.refused import misspelt_hook, record, shown_path
from listener.web.replies import as_problem, in_studios_words
from listener.web.rotation import Rotation
from listener.web.routes import Route, bound, declared
from listener.web.runs import RunControl, RunHistory, VisibleRuns
from listener.web.sites import EnvironmentRoutes, SiteRoutes
from listener.web.standings import Standings
from listener.worker import Worker

GONE = 499
"""The status in the log if the client has gone before the answer, as in nginx."""

PROBES = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Ports:
    """What the handlers use; each gets its part."""

    intake: Intake
    audit: Audit
    store: RunStore
    records: Records
    events: EventStore
    feed: Feed
    hooks: Mapping[str, Hook]
    sites: Sites
    directory: Directory
    worker: Worker
    synchronizer: Synchronizer
    surveys: Surveys
    rollbacks: Rollbacks
    tokens: tuple[Token, ...]
    sessions: SessionStore
    delegation: Delegation | None
    """Asks Studio about credentials that are not the listener's own; None if Studio is not asked."""
    ready: Callable[[], Awaitable[str]]
    """Returns why the listener can't take requests now; empty if it can."""
    stopping: asyncio.Event
    """Set when the listener stops: callers who wait get an answer at once."""
    clock: Callable[[], float]
    log: Log
    outer: Middleware
    """The outermost middleware: it begins the context of each request."""
    inner: Middleware
    """The innermost middleware: it sees the errors of routes before they are rendered."""
    wait: float
    session: float
    """Seconds that a sign-in to the page lasts."""
    concurrency: int
    body_timeout: float


HANDLERS = (
    Crafter,
    Hooks,
    SiteRoutes,
    EnvironmentRoutes,
    RunHistory,
    RunControl,
    EventRoutes,
    DeliveryRoutes,
    Rotation,
    PageRoutes,
    Probes,
    OpenApi,
)
"""The classes of all handlers, in the order of `/openapi.json` and the manual."""


def routes() -> list[Route]:
    """Return every route."""
    return [route for each in HANDLERS for route in declared(each)]


def application(ports: Ports) -> web.Application:
    """Return the application over these ports."""
    errors_and_log = _errors_and_log(ports.log, ports.audit)
    app = web.Application(middlewares=[ports.outer, errors_and_log, ports.inner])
    for handlers in _handlers(ports):
        for route in bound(handlers):
            kwargs = {**route.kwargs, "expect_handler": answer_expect_later}
            app.add_routes([web.RouteDef(route.method, route.path, route.handler, kwargs)])
    return app


def _handlers(ports: Ports) -> Iterator[object]:
    """Yield the handlers, each with the ports that it uses."""
    gate = Gate(
        ports.tokens,
        ports.sessions,
        ports.delegation,
        lasts=ports.session,
        clock=ports.clock,
        audit=ports.audit,
    )
    calls = Calls(ports.intake, ports.store, wait=ports.wait, stopping=ports.stopping)
    bodies = BodyReader(ports.body_timeout)
    standings = Standings(ports.directory, ports.store, ports.surveys, ports.synchronizer, ports.log)
    visible = VisibleRuns(gate, ports.store)
    yield Crafter(gate, ports.directory, calls, bodies)
    yield Hooks(ports.intake, ports.clock, bodies)
    yield SiteRoutes(gate, standings)
    yield EnvironmentRoutes(gate, ports.directory, standings, ports.intake, calls, bodies, ports.log)
    yield RunHistory(
        gate,
        visible,
        ports.store,
        ports.sites,
        ports.clock,
        ports.stopping,
        concurrency=ports.concurrency,
    )
    yield RunControl(
        visible, ports.store, ports.sites, ports.worker, ports.rollbacks, calls, bodies, ports.log
    )
    yield EventRoutes(gate, ports.sites, ports.events, ports.feed)
    yield DeliveryRoutes(gate, ports.intake, ports.audit, ports.records)
    yield Rotation(gate, ports.hooks, ports.tokens, ports.audit, ports.records)
    yield PageRoutes(gate, standings.shown, ports.clock, bodies)
    yield Probes(ports.ready)
    yield OpenApi(routes)


def _errors_and_log(log: Log, audit: Audit) -> Middleware:
    """Return the middleware that renders errors, records refusals and logs each request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        try:
            response = await handler(request)
            if (refused := request_context().refused) is not None:
                record(audit, request, refused, response.status)
        except ListenerError as error:
            response = _render(request, error, audit)
        except web.HTTPException as error:
            response = _render(request, _of_aiohttp(request, error), audit)
        except ConnectionResetError:
            response = web.Response(status=GONE)
        except Exception as error:
            path = shown_path(request.path)
            log.error("defect", method=request.method, path=path, exc_info=error)  # noqa: TRY400 (exc_info)
            response = _render(
                request, ListenerError("The listener has a defect; its log has the details."), audit
            )
        if request_context().quiet:
            return response
        write = log.debug if request.path in PROBES else log.info
        write(
            "request",
            method=request.method,
            path=shown_path(request.path),
            route=_route(request),
            status=response.status,
            client=request.remote,
            seconds=round(time.monotonic() - started, 4),
        )
        return response

    return middleware


def _route(request: web.Request) -> str:
    """Return the route of a request, with its parameters' names; empty if there is none."""
    route = request.match_info.route
    return f"{route.method} {route.resource.canonical}" if route.resource is not None else ""


def _render(request: web.Request, error: ListenerError, audit: Audit) -> web.Response:
    render = in_studios_words if request.path.startswith(PREFIXES) else as_problem
    response = render(error)
    refusal = record(audit, request, error, response.status)
    if refusal:
        response.headers[DELIVERY_ID] = refusal
    return response


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> ListenerError:
    """Return the error for a failure of routing. Studio answered 404 for a wrong method, and so do we."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLargeError()
    if error.status in {404, 405} and request.path.startswith(PREFIXES):
        return NotFoundError("REST script not found")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowedError(sorted(error.allowed_methods))
    if isinstance(error, web.HTTPNotFound):
        meant = misspelt_hook(request.path)
        if meant:
            reason = f"the path of the hook {excerpt(meant)} has a superfluous slash"
            return NotFoundError("Unknown route: the path has a superfluous slash.", reason=reason)
        return NotFoundError("Unknown route.")
    return BadRequestError()
