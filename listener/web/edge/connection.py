"""One connection, and the patience that it is met with.

aiohttp bounds lines, fields and their number, and ends connections that are idle. Here is added what it has
not: a time and a size for a whole head, a time for a reader who does not read, and a word in the log about
what is no HTTP.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from listener.errors import BadRequestError
from listener.web.edge.crowd import Crowd
from listener.web.edge.limits import Seldom
from listener.web.replies import SERVER, as_problem
from listener.web.unreadable import server_log

HEAD_MOST = 64 << 10
"""Bytes of a request's head."""

IDLE = 620.0
"""Seconds that a connection may be kept without a request: longer than proxies keep theirs (up to 600 s). Who
ends it first ends it now and then under a request, and no forge sends that again."""

SLOWEST = 30.0
"""Seconds that a client may take to make room for an answer."""

LINGERING = 5.0
"""Seconds that what follows a refusal is read and dropped, so that the refusal arrives."""

READ_BUFFER = 32 << 10
"""Bytes; twice as many may wait before the socket is not read any more."""

TLS_HELLO = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class House:
    """What all connections share."""

    server: web.Server
    crowd: Crowd
    seldom: Seldom
    head_timeout: float
    refused: Callable[[str], None]
    """Counts what was no HTTP as a refusal of its sender."""


class Alarm:
    """A time that is up once, unless it is stopped before."""

    def __init__(self, seconds: float, up: Callable[[], None]) -> None:
        self._seconds = seconds
        self._up = up
        self._handle: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """Let the time run, if it does not run already."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self._seconds, self._up)

    def stop(self) -> None:
        """Let it run no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(web.RequestHandler):
    """A connection of one client's."""

    def __init__(self, house: House, client: str, *, trusted: bool) -> None:
        # A body is never unpacked before it is verified.
        options: dict[str, Any] = {"auto_decompress": False, "access_log": None, "read_bufsize": READ_BUFFER}
        loop = asyncio.get_running_loop()
        super().__init__(
            house.server,
            loop=loop,
            keepalive_timeout=IDLE,
            lingering_time=LINGERING,
            logger=server_log(),
            **options,
        )
        self.client = client
        self.trusted = trusted
        self.connecting: asyncio.Task[None] | None = None
        """What connects it, TLS included."""
        self._house = house
        self._answered = 0
        self._head = 0
        """Bytes of a head that is not whole."""
        self._first = b""
        self._body: StreamReader | None = None
        """Of the request that was answered last: what is left of it is read and dropped."""
        self._late = Alarm(house.head_timeout, lambda: self._end("a head that is too slow"))
        self._unread = Alarm(SLOWEST, lambda: self._end("a reader that does not read"))

    def evict(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._late.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget everything."""
        self._house.crowd.leaves(self)
        self._late.stop()
        self._unread.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and see whether they make a head whole."""
        self._first = self._first or data[: len(TLS_HELLO)]
        before, of_a_body = self._request_count, self._body is not None and not self._body.is_eof()
        super().data_received(data)
        if self._request_count > before:
            self._house.crowd.works(self)
            self._late.stop()
            self._head = 0
        elif data and self._request_count == self._answered and not of_a_body:
            self._late.set()
            self._head += len(data)
            if self._head > HEAD_MOST:
                self._end("a head that is too large")

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, after which the next head may come."""
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        self._body = request.content
        if self._answered == self._request_count:
            self._house.crowd.waits(self)
        return finished

    def pause_writing(self) -> None:
        """Wait for a reader, but not for ever."""
        super().pause_writing()
        self._unread.set()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._unread.stop()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP. What was sent is not quoted: it may hold a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        tls = self._first == TLS_HELLO
        reason = "TLS, and this port speaks plain HTTP" if tls else type(exc).__name__
        self._house.seldom.tell("unreadable", self.client, client=self.client, reason=reason)
        if not self.trusted:
            self._house.refused(self.client)
        answer = as_problem(BadRequestError("The request is not HTTP as this server reads it."))
        answer.headers["Server"] = SERVER
        answer.force_close()
        return answer

    def _end(self, cause: str) -> None:
        self._house.seldom.tell("connection ended", cause, cause=cause, client=self.client)
        if self.transport is not None:
            self.transport.abort()


async def connected(
    connection: Connection, accepted: socket.socket, tls: ssl.SSLContext | None, seconds: float
) -> None:
    """Connect a socket that was accepted; who does not get through the handshake is let go."""
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: connection, accepted, ssl=tls, ssl_handshake_timeout=None if tls is None else seconds
        )
