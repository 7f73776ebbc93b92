"""Accepts connections, and decides who is let in before a connection costs anything."""

import asyncio
import errno
import socket
import ssl

from listener.edge.connection import Connection, ConnectionContext, connected
from listener.edge.limits import Limits
from listener.networks import address_of, client_key, within

BACKLOG = 1024
"""Connections that the system queues until they are accepted (at most net.core.somaxconn)."""

SENT_MOST = 128 << 10
"""Bytes of answers that the system buffers for one connection. Its default is megabytes for each client that
does not read, and they count as this service's memory."""

PAUSE = 1.0
"""Seconds without accepting after the process has run out of file descriptors."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Listens on an address."""

    def __init__(self, shared: ConnectionContext, limits: Limits, tls: ssl.SSLContext | None) -> None:
        self._shared = shared
        self._limits = limits
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._connecting: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port, which may be given as 0; raise `OSError` if that is not possible."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((each[0], each[4][:2]) for each in found):
                listening = socket.create_server(address, family=family, backlog=BACKLOG)
                listening.setblocking(False)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_MOST)
                self._sockets.append(listening)
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        """Stop accepting. Open connections stay open."""
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for task in self._connecting:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._shared.connections.at_once):
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(listening, error)
                return
            self._admit(accepted, peer[0])

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        accepted.setblocking(False)
        trusted = within(peer, self._limits.trusted)
        client = str(address_of(peer) or peer) if trusted else client_key(peer)
        connection = Connection(self._shared, client, trusted=trusted)
        if not self._shared.connections.admit(connection):
            self._shared.limited_log.warning(
                "connection refused", client, client=client, connections=len(self._shared.connections)
            )
            accepted.close()
            return
        task = asyncio.get_running_loop().create_task(
            connected(connection, accepted, self._tls, self._limits.head_timeout)
        )
        connection.connecting = task
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._connected(connection, accepted, done))

    def _connected(self, connection: Connection, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if task.cancelled():
            accepted.close()  # It was evicted before the transport had the socket.
        if connection.transport is None:
            self._shared.connections.remove(connection)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Let connections wait in the system's queue until descriptors are free again."""
        self._shared.limited_log.warning("connections wait", "", reason=error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(PAUSE, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)
