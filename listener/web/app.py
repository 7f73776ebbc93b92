"""The application: every route, and the one place where errors become answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from listener import __version__
from listener.access import Token
from listener.directory import Directory
from listener.errors import BadRequestError, BodyTooLargeError, ListenerError, NotFoundError
from listener.intake import Intake
from listener.journal import Log
from listener.queue import RunStore
from listener.rollback import Rollbacks
from listener.sites import Sites
from listener.sync import Synchronizer
from listener.web.calls import Calls
from listener.web.crafter import PREFIXES, Crafter
from listener.web.credentials import Gate
from listener.web.edge import Edge
from listener.web.edge.refusals import QUIET
from listener.web.hooks import Hooks, shown_path
from listener.web.replies import as_problem, in_studios_words
from listener.web.runs import Runs
from listener.web.sites import SiteRoutes
from listener.worker import Worker

PROBES = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Ports:
    """What the HTTP surface stands on."""

    intake: Intake
    store: RunStore
    sites: Sites
    directory: Directory
    worker: Worker
    synchronizer: Synchronizer
    rollbacks: Rollbacks
    tokens: tuple[Token, ...]
    ready: Callable[[], Awaitable[str]]
    """Returns why the listener can't take requests now; empty when it can."""
    stopping: asyncio.Event
    """Set when the listener stops: who waits is answered with what there is."""
    clock: Callable[[], float]
    log: Log
    edge: Edge
    wait: float
    concurrency: int
    body_timeout: float


def application(ports: Ports) -> web.Application:
    """Return the application over these ports."""
    gate = Gate(ports.tokens, ports.clock)
    calls = Calls(ports.intake, ports.store, wait=ports.wait, stopping=ports.stopping)
    app = web.Application(middlewares=[ports.edge.outer(), _errors_and_log(ports.log), ports.edge.inner()])
    app.add_routes(Crafter(gate, ports.directory, calls, body_timeout=ports.body_timeout).routes())
    app.add_routes(Hooks(ports.intake, ports.clock, body_timeout=ports.body_timeout).routes())
    app.add_routes(
        Runs(
            gate,
            ports.sites,
            ports.store,
            ports.worker,
            calls,
            ports.rollbacks,
            ports.stopping,
            clock=ports.clock,
            concurrency=ports.concurrency,
            body_timeout=ports.body_timeout,
        ).routes()
    )
    app.add_routes(
        SiteRoutes(
            gate,
            ports.directory,
            ports.store,
            ports.synchronizer,
            ports.intake,
            calls,
            clock=ports.clock,
            log=ports.log,
            body_timeout=ports.body_timeout,
        ).routes()
    )
    app.add_routes([web.get("/healthz", _healthz), web.get("/readyz", _readyz(ports.ready))])
    return app


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "version": __version__})


def _readyz(ready: Callable[[], Awaitable[str]]) -> Handler:
    async def readyz(_request: web.Request) -> web.Response:
        reason = await ready()
        if reason:
            return web.json_response({"status": "unavailable", "reason": reason}, status=503)
        return web.json_response({"status": "ready"})

    return readyz


def _errors_and_log(log: Log) -> Middleware:
    """Return the middleware that renders errors and writes one line a request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        try:
            response = await handler(request)
        except ListenerError as error:
            response = _render(request, error)
        except web.HTTPException as error:
            response = _render(request, _of_aiohttp(request, error))
        except ConnectionResetError:
            raise
        except Exception as error:
            log.log(40, "defect", method=request.method, path=shown_path(request.path), exc_info=error)
            response = _render(request, ListenerError("The listener met a defect; its log has it."))
        if QUIET in request:
            return response
        log.log(
            10 if request.path in PROBES else 20,
            "request",
            method=request.method,
            path=shown_path(request.path),
            status=response.status,
            client=request.remote,
            seconds=round(time.monotonic() - started, 4),
        )
        return response

    return middleware


def _render(request: web.Request, error: ListenerError) -> web.Response:
    render = in_studios_words if request.path.startswith(PREFIXES) else as_problem
    return render(error)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> ListenerError:
    """Return what a routing error is to us. Studio's router knew no 405: a wrong method is no script."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLargeError()
    if error.status in {404, 405}:
        studio = request.path.startswith(PREFIXES)
        return NotFoundError("REST script not found" if studio else "No such route, or not by this method.")
    return BadRequestError()
