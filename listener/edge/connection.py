"""One connection, and what it may cost before its client is verified.

aiohttp limits lines, fields and their number, and ends idle connections. This adds limits of time and size
for a whole head; limits for what is read ahead, for the chunks of a body and for answers that wait; a limit
of time for clients that do not read; and answers for clients that have shut down their sending side.
"""

import asyncio
import contextlib
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from listener.edge.connection_limit import LEAST, PACE, ConnectionLimit
from listener.edge.limits import RateLimitedLog
from listener.edge.parser import FailFastParser, server_log
from listener.errors import BadRequestError, ListenerError
from listener.networks import client_key, network_keys

HEAD_MOST = 64 << 10
"""Bytes of a request's head."""

IDLE = 620.0
"""Seconds that a connection may be idle. A proxy keeps its connections up to 600 s, and must close first: if
we closed, a request might be on its way already, and no forge sends it again."""

SLOWEST = 30.0
"""Seconds that a client may take to read enough of its answers, and to read the last one."""

LINGERING = 5.0
"""Seconds in which data after a refusal is read and dropped, so that the refusal arrives."""

READ_BUFFER = 32 << 10
"""Bytes of a body. When twice as many wait, the socket is not read any more."""

RECEIVED_MOST = 64 << 10
"""Bytes that are read from a socket at once. asyncio reads 256 KiB, and a paused parser keeps them."""

ANSWERS_MOST = 32 << 10
"""Bytes of answers that may wait for the client. With TLS, asyncio lets half a MiB wait."""

AHEAD = 2
"""Requests that are parsed while one is answered. aiohttp parses 32, each with its own head."""

PIECES = 8192
PIECE = 64
"""A connection may send so many chunks of bodies, and one more for each `PIECE` bytes. Each chunk costs as
much time as a small request, however small it is."""

DROPPED_MOST = 256 << 10
"""Bytes that are read and dropped after invalid HTTP, so that the answer arrives: closing a socket with
unread data resets the connection, and the client loses the answer."""

TLS_RECORD = 16 << 10
"""Bytes. asyncio allocates 256 KiB for each TLS connection, before its first byte has arrived."""

TLS_HELLO = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What all connections share."""

    server: web.Server
    connections: ConnectionLimit
    limited_log: RateLimitedLog
    head_timeout: float
    refused: Callable[[str], None]
    """Counts an invalid request as a refusal of its client."""
    render: Callable[[ListenerError], web.Response]
    """Makes the answer to an invalid request."""


class Timer:
    """A timer that fires once, unless it is stopped before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None

    def set(self, up: Callable[[str], None], cause: str) -> None:
        """Start it, if it does not run already; call `up` with `cause` at its end."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self._seconds, up, cause)

    def stop(self) -> None:
        """Stop it."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(web.RequestHandler):
    """The connection of one client."""

    def __init__(self, shared: ConnectionContext, client: str, *, trusted: bool) -> None:
        # A body is never decompressed before it is verified.
        options: dict[str, Any] = {"auto_decompress": False, "access_log": None, "read_bufsize": READ_BUFFER}
        loop = asyncio.get_running_loop()
        super().__init__(
            shared.server,
            loop=loop,
            keepalive_timeout=IDLE,
            lingering_time=LINGERING,
            logger=server_log(),
            **options,
        )
        self.client = client
        self.networks = network_keys(client)
        self.trusted = trusted
        self.verified = False
        """Whether its last request came from a known caller."""
        self.connecting: asyncio.Task[None] | None = None
        """The task that connects it, TLS handshake included."""
        self._shared = shared
        self._parser: Any = self._bounded_parser(loop)
        self._wire: asyncio.Transport | None = None
        """The transport until it is closed. aiohttp forgets it as soon as it begins to close it."""
        self._paid = loop.time()
        """The time up to which its sending has paid for it."""
        self._answered = 0
        self._head = 0
        """Bytes of an incomplete head."""
        self._first = b""
        self._pieces = 0
        self._dropped = 0
        self._sends_no_more = False
        self._late = Timer(shared.head_timeout)
        self._unread = Timer(SLOWEST)
        self._gone = asyncio.Event()

    def _bounded_parser(self, loop: asyncio.AbstractEventLoop) -> FailFastParser:
        """Return aiohttp's parser, which here reads less ahead and stops at its first error."""
        self._max_msg_queue_size, self._msg_queue_resume_size = AHEAD, AHEAD // 2
        parser = HttpRequestParser(
            self,
            loop,
            READ_BUFFER,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=AHEAD,
        )
        return FailFastParser(parser, self._not_http)

    @property
    def asking(self) -> bool:
        """Whether one of its requests is being answered."""
        return self._answered < self._request_count

    def cost(self, now: float) -> float:
        """Return its cost: the seconds in which it sent less than `PACE`."""
        return max(0.0, now - self._paid) + LEAST

    def begin_request(self, client: str) -> None:
        """Begin a request of this client, as a trusted proxy names it; the client is not verified yet."""
        self.verified = False
        self._paid = self._loop.time()
        if client != self.client:
            self.client, self.networks = client_key(client), network_keys(client)

    def evict(self) -> None:
        """End it at once."""
        if self._wire is not None:
            self._wire.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds, or until the connection has ended.

        A request goes on when its client hangs up. So a client that guesses a secret and hangs up, again and
        again, would leave each request in memory for its whole delay.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a head."""
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._wire.set_write_buffer_limits(ANSWERS_MOST)
        if hasattr(self._wire, "set_read_buffer_limits"):
            self._wire.set_read_buffer_limits(READ_BUFFER)
        else:
            vars(self._wire)["max_size"] = RECEIVED_MOST
        self._late.set(self._end, "a head that is too slow")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget everything."""
        self._shared.connections.remove(self)
        self._wire = None
        self._gone.set()
        self._late.stop()
        self._unread.stop()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer requests. At the end, the client has limited time to read the last answer."""
        await super().start()
        if self._wire is not None:
            self._unread.set(self._end, "a reader that does not read")

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and check whether they complete a head."""
        self._first = self._first or data[: len(TLS_HELLO)]
        if self._parser is None or self._parser.broken:
            self._drop(data)
            return
        self._paid = min(self._loop.time(), self._paid + len(data) / PACE)
        before, of_a_body = self._request_count, not self._parser.payload.is_eof()
        pieces = self._pieces_of_body()
        super().data_received(data)
        self._count_pieces(self._pieces_of_body() - (pieces if self._request_count == before else 0))
        if self._request_count > before:
            self._late.stop()
            self._head = 0
        elif data and not self.asking and not of_a_body and not self._parser.broken:
            self._late.set(self._end, "a head that is too slow")
            self._head += len(data)
            if self._head > HEAD_MOST:
                self._end("a head that is too large")

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio heeds what aiohttp never returns
        """Note that the client sends no more; return whether it still gets an answer.

        A client that has shut down its sending side may still read (`nc -N`, `socat`). With TLS, asyncio
        can't keep a half-open connection.
        """
        tls = self._wire is None or self._wire.get_extra_info("sslcontext") is not None
        whole = self._parser is not None and self._parser.payload.is_eof()
        self._sends_no_more = not tls and whole and self.asking
        return self._sends_no_more

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, after which the next head may come."""
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        self._paid = self._loop.time()
        if self.verified:
            self._pieces = 0
        if self._sends_no_more and not self.asking:
            self.close()
        return finished

    def pause_writing(self) -> None:
        """Wait for the client to read, for a limited time, and read nothing from it meanwhile."""
        super().pause_writing()
        self._pause_reading_for_buffer()
        self._unread.set(self._end, "a reader that does not read")

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._unread.stop()
        self._resume_reading_if_drained()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer an invalid request without quoting it: it may hold a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        answer = self._shared.render(BadRequestError("The request is not valid HTTP."))
        answer.force_close()
        return answer

    def _not_http(self, kind: str) -> None:
        tls = self._first == TLS_HELLO
        reason = "the client speaks TLS, but this port is plain HTTP" if tls else kind
        self._shared.limited_log.warning("unreadable", self.client, client=self.client, reason=reason)
        self._late.stop()
        if not self._parser.payload.is_eof():
            self.close()
        if not self.trusted:
            self._shared.refused(self.client)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > DROPPED_MOST and self._wire is not None:
            self._wire.pause_reading()

    def _pieces_of_body(self) -> int:
        """Return how many chunks of the body wait to be read."""
        splits = (
            getattr(self._parser.payload, "_http_chunk_splits", None) if self._parser is not None else None
        )
        return len(splits or ())

    def _count_pieces(self, more: int) -> None:
        self._pieces += more
        if self._pieces > PIECES + (self._parser.payload.total_bytes // PIECE if self._parser else 0):
            self._end("a body in too many pieces")

    def _end(self, cause: str) -> None:
        self._shared.limited_log.warning("connection ended", cause, cause=cause, client=self.client)
        self.evict()


class SmallBufferSSLProtocol(SSLProtocol):
    """asyncio's TLS, with a buffer of one record instead of sixteen."""

    max_size = TLS_RECORD


async def connected(
    connection: Connection, accepted: socket.socket, tls: ssl.SSLContext | None, seconds: float
) -> None:
    """Connect a socket that was accepted, or close it when the handshake fails."""
    loop = asyncio.get_running_loop()
    if tls is None:
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(lambda: connection, accepted)
        return
    shaken = loop.create_future()
    protocol = SmallBufferSSLProtocol(
        loop,
        connection,
        tls,
        shaken,
        server_side=True,
        ssl_handshake_timeout=cast("int", seconds),  # a float works
        ssl_shutdown_timeout=LINGERING,
    )
    transport: asyncio.Transport | None = None
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted)
        await shaken
    except OSError:
        pass
    except asyncio.CancelledError:
        shaken.cancel()
        if transport is not None:
            transport.abort()
        raise
    finally:
        # The traceback of a failed handshake holds this frame, and the frame would hold the future: a cycle
        # that keeps the TLS buffers until the next garbage collection.
        del shaken


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection that a request came by."""
    return cast("Connection", request.protocol)
