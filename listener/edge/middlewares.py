"""The edge around every request: whose it is, what it may take, and how often it may be refused."""

import ssl
import traceback
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from listener.edge.connection import ConnectionContext, connection_of
from listener.edge.crowd import Crowd
from listener.edge.door import Door
from listener.edge.guesses import Guesses
from listener.edge.limits import Limits, RateLimitedLog
from listener.edge.memory import give_back
from listener.edge.proxies import client_of
from listener.edge.refusals import Refusals
from listener.edge.room import Lease, Room
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

MISLED = web.RequestKey("misled", BadRequestError)
"""Request key: what is wrong with the headers of a trusted proxy."""

STRANGERS = (
    UnauthorizedError,
    SignatureRejectedError,
    HookNotFoundError,
    BodyTooLargeError,
    BodyTooSlowError,
    CompressedBodyError,
)
"""The refusals that strangers get. Errors of known callers are not counted; paths without a route are, for
everybody."""


class Edge:
    """What stands between the door and the routes."""

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
        self.refusals = Refusals(limits.refusals, clock)
        self.guesses = Guesses(limits.refusals, clock)
        self.room = Room(limits.unverified_bytes, clock)
        self.crowd = Crowd(limits.connections, clock)
        self.scrapers = Crowd(limits.scrapers, clock)

    def door(self, server: web.Server, tls: ssl.SSLContext | None) -> Door:
        """Return the door of a server, which answers whoever passes it."""
        return Door(self._shared_by(server, self.crowd), self.limits, tls)

    def metrics_door(self, server: web.Server) -> Door:
        """Return the door of the figures' server: nobody is verified there, so it has places of its own."""
        return Door(self._shared_by(server, self.scrapers), self.limits, None)

    async def give_memory_back(self) -> None:
        """Give back to the system what connections have left behind, for ever."""
        await give_back(lambda: self.crowd.ended + self.scrapers.ended)

    def _shared_by(self, server: web.Server, crowd: Crowd) -> ConnectionContext:
        return ConnectionContext(
            server, crowd, self.limited_log, self.limits.head_timeout, self.refusals.count, self._render
        )

    def outer(self) -> Middleware:
        """Return what goes before everything: who the client is, and the room for its body."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                client = client_of(request, self.limits.trusted)
            except BadRequestError as error:
                request[MISLED] = error
            else:
                if (client.remote, client.scheme) != (request.remote, request.scheme):
                    request = request.clone(remote=client.remote, scheme=client.scheme)
            connection = connection_of(request)
            connection.begins(request.remote or "")
            lease = Lease(self.room, connection)
            context = begin(RequestContext(connection, lease, over=self.refusals.over(request.remote)))
            try:
                response = await handler(request)
            finally:
                lease.end()
            if "Expect" in request.headers and not context.invited:
                response.force_close()  # Nobody knows whether the body follows, or the next request.
            return response

        return middleware

    def inner(self) -> Middleware:
        """Return what goes before the routes: it counts refusals, and says 429 when there were too many."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if MISLED in request:
                raise request[MISLED]
            try:
                response = await handler(request)
            except (*STRANGERS, web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
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
        """Count a refusal, slow a guess; raise `TooManyRefusalsError` instead where there were too many."""
        client = request.remote or ""
        self.refusals.count(client)
        if isinstance(error, ListenerError) and error.guess:
            await self._slow(request, error)
        context = request_context()
        if not context.over:
            return
        context.quiet = True
        if _asked_for(request, error):
            return
        again_in = self.refusals.again_in(client)
        self.limited_log.tell("refused too often", client, client=client, again_in=again_in)
        raise TooManyRefusalsError(again_in=again_in) from error

    async def _slow(self, request: web.Request, error: ListenerError) -> None:
        """Let the answer to a wrong secret wait; what was read of its request is let go before."""
        seconds = self.guesses.wait(request.remote, request.match_info.get("hook", ""))
        if seconds:
            traceback.clear_frames(error.__traceback__)
            context = request_context()
            context.body = None
            context.lease.end()
            await connection_of(request).rest(seconds)


def _asked_for(request: web.Request, error: Exception) -> bool:
    """Return whether a sender is about to show its password, once a 401 has asked for it (RFC 7617)."""
    basic = isinstance(error, SignatureRejectedError) and error.challenge.startswith("Basic")
    return basic and "Authorization" not in request.headers
