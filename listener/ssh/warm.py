"""The SSH connection to one host: made when it is needed, then kept and shared."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import asyncssh

from listener.errors import HostUnreachableError, SyncError
from listener.plans import Notes
from listener.sites import Host
from listener.ssh import failures, keys
from listener.ssh.circuit import Circuit
from listener.ssh.login import log_in

CLOSE_LIMIT = 1.0
"""Seconds that the other end may take to close a connection."""


class WarmConnection:
    """One host's connection.

    `via` is the connection to its jump host. `login_slots` limits how many hosts are logged in to at the same
    time. `on_connected` is awaited with each new connection before anybody uses it.
    """

    def __init__(
        self,
        host: Host,
        limit: float,
        via: "WarmConnection | None",
        login_slots: asyncio.Semaphore,
        on_connected: Callable[[asyncssh.SSHClientConnection], Awaitable[None]],
    ) -> None:
        """`limit` is the seconds for a login."""
        self.host = host
        self.circuit = Circuit()
        self._limit = limit
        self._via = via
        self._login_slots = login_slots
        self._on_connected = on_connected
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None

    @property
    def current(self) -> asyncssh.SSHClientConnection | None:
        """The connection, if there is one and it is open."""
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection

    async def get(self, notes: Notes) -> asyncssh.SSHClientConnection:
        """Return the connection. If there is none, wait for the one attempt to connect; raise `SyncError`."""
        connection = self.current
        if connection is not None:
            return connection
        started = time.monotonic()
        self.circuit.check(started)
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(notes), name=f"connect {self.host.name}")
            # All who wait for it may have been cancelled when it ends: its exception is read here.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        connection = await asyncio.shield(self._connecting)
        notes.note("connect", seconds=round(time.monotonic() - started, 4), user=self.host.user)
        return connection

    async def _connect(self, notes: Notes) -> asyncssh.SSHClientConnection:
        try:
            connection = await self.log_in(notes)
        except HostUnreachableError as error:
            self.circuit.failed(error, time.monotonic())
            raise
        self.circuit.succeeded()
        self._warn_of_unreadable_lines(notes)
        self._connection = connection
        await self._on_connected(connection)
        return connection

    def _warn_of_unreadable_lines(self, notes: Notes) -> None:
        """Name the lines of known_hosts that were skipped: one of them may be meant to revoke a key."""
        lines = keys.unreadable_lines(self.host.known_hosts)
        if lines:
            numbers = ", ".join(map(str, lines[: keys.MAX_UNREADABLE]))
            reason = f"{self.host.known_hosts} has lines that can't be read and are skipped: {numbers}"
            notes.note("known hosts", level="warning", reason=reason)

    async def log_in(self, notes: Notes) -> asyncssh.SSHClientConnection:
        """Return a new connection, which the caller closes; raise `SyncError`."""
        tunnel = await self._tunnel(notes)
        jump_host = self._via.host.name if self._via is not None else ""
        async with self._login_slots:
            return await log_in(self.host, self._limit, tunnel, jump_host)

    async def _tunnel(self, notes: Notes) -> asyncssh.SSHClientConnection | None:
        """Return the connection to the jump host, if there is one."""
        if self._via is None:
            return None
        try:
            return await self._via.get(notes)
        except SyncError as error:
            raise failures.behind(self.host, self._via.host, error) from error

    def drop(self, connection: asyncssh.SSHClientConnection) -> None:
        """Abort a connection whose other end does not answer; the next caller connects again."""
        connection.abort()
        if self._connection is connection:
            self._connection = None

    async def close(self) -> None:
        """Close the connection. A peer that does not answer is not waited for."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await connection.wait_closed()
            connection.abort()
