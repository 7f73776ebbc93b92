"""The middlewares around every request: its client, its memory, and how often the client may be refused."""

import ssl
import traceback
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from listener.edge.acceptor import Acceptor
from listener.edge.body_memory import BodyMemory, Reservation
from listener.edge.connection import ConnectionContext, connection_of
from listener.edge.connection_limit import ConnectionLimit
from listener.edge.guess_delay import GuessDelay
from listener.edge.limits import Limits, RateLimitedLog
from listener.edge.malloc import trim_forever
from listener.edge.proxies import client_address_of
from listener.edge.refusal_limit import RefusalLimit
from listener.errors import (
    BadRequestError,
    BodyTooLargeError,
    BodyTooSlowError,
    CompressedBodyError,
    ForbiddenError,
    HookNotFoundError,
    ListenerError,
    SignatureRejectedError,
    TooManyRefusalsError,
    UnauthorizedError,
)
from listener.journal import Log
from listener.request_context import RequestContext, begin, request_context

COUNTED_REFUSALS = (
    UnauthorizedError,
    SignatureRejectedError,
    HookNotFoundError,
    BodyTooLargeError,
    BodyTooSlowError,
    CompressedBodyError,
)
"""The refusals that are counted. Errors of known callers are not; unknown paths are, for everybody."""


class Edge:
    """Everything between the sockets and the routes."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        log: Log,
        render: Callable[[ListenerError], web.Response],
    ) -> None:
        """Answer requests that are not HTTP with what `render` makes of their error."""
        self.limits = limits
        self._render = render
        self.limited_log = RateLimitedLog(log, clock)
        self.refusals = RefusalLimit(limits.refusals, clock)
        self.guesses = GuessDelay(limits.refusals, clock)
        self.body_memory = BodyMemory(limits.unverified_bytes, clock)
        self.connections = ConnectionLimit(limits.connections, clock)
        self.scrapers = ConnectionLimit(limits.scrapers, clock)

    def acceptor(self, server: web.Server, tls: ssl.SSLContext | None) -> Acceptor:
        """Return what accepts connections for a server."""
        return Acceptor(self._shared_by(server, self.connections), self.limits, tls)

    def metrics_acceptor(self, server: web.Server) -> Acceptor:
        """Return what accepts connections for the metrics. They have their own limit: nobody is verified."""
        return Acceptor(self._shared_by(server, self.scrapers), self.limits, None)

    async def trim_memory(self) -> None:
        """Give the memory of ended connections back to the system, until cancelled."""
        await trim_forever(lambda: self.connections.ended + self.scrapers.ended)

    def _shared_by(self, server: web.Server, connections: ConnectionLimit) -> ConnectionContext:
        return ConnectionContext(
            server, connections, self.limited_log, self.limits.head_timeout, self.refusals.count, self._render
        )

    def outer(self) -> Middleware:
        """Return the outermost middleware: it finds the client, and reserves memory for the body."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            invalid: BadRequestError | None = None
            try:
                client = client_address_of(request, self.limits.trusted)
            except BadRequestError as error:
                invalid = error
            else:
                if (client.remote, client.scheme) != (request.remote, request.scheme):
                    request = request.clone(remote=client.remote, scheme=client.scheme)
            connection = connection_of(request)
            connection.begin_request(request.remote or "")
            reservation = Reservation(self.body_memory, connection)
            context = begin(RequestContext(connection, reservation, invalid))
            context.over = self.refusals.over(request.remote)
            try:
                response = await handler(request)
            finally:
                reservation.end()
            if "Expect" in request.headers and not context.invited:
                response.force_close()  # The body may follow, or the next request: nobody knows.
            return response

        return middleware

    def inner(self) -> Middleware:
        """Return the innermost middleware: it counts refusals, and answers 429 when there were too many."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if (invalid := request_context().invalid) is not None:
                raise invalid
            try:
                response = await handler(request)
            except (*COUNTED_REFUSALS, web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
                await self._count(request, error)
                raise
            except ForbiddenError as error:
                if not request_context().credential:
                    await self._count(request, error)
                raise
            if (refused := request_context().refused) is not None:
                await self._count(request, refused)
            return response

        return middleware

    async def _count(self, request: web.Request, error: Exception) -> None:
        """Count a refusal and delay a guess; raise `TooManyRefusalsError` if there were too many."""
        client = request.remote or ""
        self.refusals.count(client)
        if isinstance(error, ListenerError) and error.guess:
            await self._delay(request, error)
        context = request_context()
        if not context.over:
            return
        context.quiet = True
        if _expects_challenge(request, error):
            return
        again_in = self.refusals.again_in(client)
        self.limited_log.warning("refused too often", client, client=client, again_in=again_in)
        raise TooManyRefusalsError(again_in=again_in) from error

    async def _delay(self, request: web.Request, error: ListenerError) -> None:
        """Delay the answer to a wrong secret, and free the memory of its request before."""
        seconds = self.guesses.wait(request.remote, request.match_info.get("hook", ""))
        if seconds:
            traceback.clear_frames(error.__traceback__)
            context = request_context()
            context.body = None
            context.memory.end()
            await connection_of(request).sleep(seconds)


def _expects_challenge(request: web.Request, error: Exception) -> bool:
    """Return whether the sender waits for a 401 before it sends its password (RFC 7617)."""
    basic = isinstance(error, SignatureRejectedError) and error.challenge.startswith("Basic")
    return basic and "Authorization" not in request.headers
