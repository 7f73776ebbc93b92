"""The warm connection to one host, and the loaded shells on it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator

import asyncssh

from listener.errors import (
    BeyondKeyError,
    ConnectionLostError,
    GitUnavailableError,
    HostUnreachableError,
    StepTimedOutError,
    SyncError,
)
from listener.plans import Notes
from listener.sites import Access, Host
from listener.ssh import failures
from listener.ssh.circuit import Circuit
from listener.ssh.dialogue import Fields, dialogue_of
from listener.ssh.login import log_in
from listener.ssh.service import Service, opened
from listener.ssh.shell import Shell, refusal

SHELLS = 3
"""Loaded shells a host. sshd's MaxSessions is 10 and it frees slots late: 8 in flight already fail."""

SERVICES = 2
"""Sessions a host for git's own services, beside the shells."""

GIT_LEAST = (2, 25)

REMARKS_MOST, REMARK_MOST = 20, 500
"""Lines of a host's standard error that a reply's log gets, and characters of each."""

KILL_LIMIT = 5.0
"""Seconds within which a remote process group must have been ended, or its connection is given up."""

SLOT_PAUSE = 0.1
"""Seconds before a session that could not be opened is tried once more."""


class HostConnection:
    """One host: connects when needed, stays connected, lends its shells.

    `via` is the connection of the host through which this one is reached; `connects` bounds how many hosts
    are being connected to at the same time.
    """

    def __init__(
        self,
        host: Host,
        *,
        connect_timeout: float,
        via: "HostConnection | None" = None,
        connects: asyncio.Semaphore | None = None,
    ) -> None:
        self.host = host
        self._via = via
        self._dialogue = dialogue_of(host.access)
        self._connects = connects or asyncio.Semaphore()
        self._limit = connect_timeout
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._circuit = Circuit()
        self._slots = asyncio.Semaphore(SHELLS)
        self._services = asyncio.Semaphore(SERVICES)
        self._idle: list[Shell] = []
        self._working = 0
        """How many use the connection, or are about to."""
        self._leftovers: set[tuple[int, str]] = set()

    async def call(self, notes: Notes, limit: float, verb: str, *parts: Fields) -> str:
        """Ask the script for something and return its output; raise `SyncError`.

        After `limit` seconds, or when the caller is cancelled, the remote process is ended.
        """
        async with self._shell(notes) as shell:
            try:
                async with asyncio.timeout(limit):
                    reply = await shell.call(verb, *parts)
            except TimeoutError as error:
                await self._end(shell)
                raise StepTimedOutError(f"{verb} took over {limit:g} s on {self.host.name}") from error
            except asyncio.CancelledError:
                shell.abandon()
                await asyncio.shield(self._end(shell))
                raise
        _pass_on(reply.err, notes)
        if reply.status != 0:
            refused = refusal(reply)
            if isinstance(refused, BeyondKeyError):
                self._forget_login()
            raise refused
        return reply.out

    def _forget_login(self) -> None:
        """Log in anew the next time: what the key may do was settled at the login, and may be mended by then.

        Not while others are at work on this connection.
        """
        if self._connection is not None and not self._working:
            self._idle.clear()
            self._give_up(self._connection)

    @contextlib.asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    @contextlib.asynccontextmanager
    async def service(self, notes: Notes, name: str, path: str) -> AsyncIterator[Service]:
        """Lend one of git's services for the repository at `path`; raise `SyncError`."""
        async with self._services, self._at_work(), contextlib.AsyncExitStack() as stack:
            connection = await self._connected(notes)
            with failures.of_sessions(self.host):
                async with asyncio.timeout(self._limit):
                    lent = await stack.enter_async_context(opened(connection, name, path))
            yield lent

    @contextlib.asynccontextmanager
    async def _shell(self, notes: Notes) -> AsyncIterator[Shell]:
        """Lend a loaded shell, opening one where none is idle."""
        async with self._slots, self._at_work():
            while self._idle and not self._idle[-1].usable:
                self._idle.pop()
            shell = self._idle.pop() if self._idle else await self._open(notes)
            try:
                yield shell
            except ConnectionLostError:
                shell.abandon()
                raise
            finally:
                if shell.usable:
                    self._idle.append(shell)

    async def _open(self, notes: Notes) -> Shell:
        try:
            shell = await self._load(await self._connected(notes))
        except ConnectionLostError:
            # No command has started: the connection had died unseen, or sshd had not freed
            # the slot of an ended session yet.
            await asyncio.sleep(SLOT_PAUSE)
            shell = await self._load(await self._connected(notes))
        found = re.search(r"(\d+)\.(\d+)", shell.git)
        if found is None or tuple(map(int, found.groups())) < GIT_LEAST:
            shell.abandon()
            raise GitUnavailableError(f"{self.host.name} has {shell.git or 'no git'}, which is too old")
        return shell

    async def _load(self, connection: asyncssh.SSHClientConnection) -> Shell:
        with failures.of_sessions(self.host):
            try:
                async with asyncio.timeout(self._limit):
                    return await Shell.open(connection, self._dialogue)
            except TimeoutError:
                self._give_up(connection)
                raise

    def _give_up(self, connection: asyncssh.SSHClientConnection) -> None:
        """Leave a connection whose other end does not answer, without a word to it."""
        connection.abort()
        if self._connection is connection:
            self._connection = None

    async def _connected(self, notes: Notes) -> asyncssh.SSHClientConnection:
        """Return the warm connection, or share in the one attempt to make it."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        started = time.monotonic()
        self._circuit.check(started)
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._reconnect(notes), name=f"connect {self.host.name}")
            # It may end when nobody waits for it any more.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        connection = await asyncio.shield(self._connecting)
        notes.note("connect", seconds=round(time.monotonic() - started, 4), user=self.host.user)
        return connection

    async def _reconnect(self, notes: Notes) -> asyncssh.SSHClientConnection:
        tunnel = await self._tunnel(notes)
        gate = self._via.host.name if self._via is not None else ""
        try:
            async with self._connects:
                connection = await log_in(self.host, self._limit, tunnel, gate)
        except HostUnreachableError as error:
            self._circuit.failed(error, time.monotonic())
            raise
        self._circuit.succeeded()
        self._connection = connection
        await self._end_leftovers(connection)
        return connection

    async def _tunnel(self, notes: Notes) -> asyncssh.SSHClientConnection | None:
        """Return the warm connection to the host through which this one is reached."""
        if self._via is None:
            return None
        try:
            return await self._via._connected(notes)  # noqa: SLF001 (a sibling)
        except SyncError as error:
            raise failures.behind(self.host, self._via.host, error) from error

    async def _end(self, shell: Shell) -> None:
        """End a shell's remote processes for sure: now, or as soon as the host is reached again."""
        shell.abandon()
        self._leftovers.add((shell.group, shell.name))
        connection = self._connection
        if connection is not None and not connection.is_closed():
            try:
                await self._end_leftovers(connection)
            except ConnectionLostError:
                self._give_up(connection)

    async def _end_leftovers(self, connection: asyncssh.SSHClientConnection) -> None:
        for group, name in tuple(self._leftovers):
            command = self._dialogue.ending(group, name)
            with failures.of_sessions(self.host):
                async with asyncio.timeout(KILL_LIMIT):
                    ended = await connection.run(command, encoding=None)
            if ended.exit_status == 0:
                self._leftovers.discard((group, name))

    async def warm(self, notes: Notes) -> None:
        """Connect and load a shell, where there is one, ahead of the first run; raise `SyncError`."""
        if self.host.access is Access.GIT:
            await self._connected(notes)
            return
        async with self._shell(notes):
            pass

    async def close(self) -> None:
        """Close the connection, without waiting for a peer that does not answer."""
        if self._connecting is not None:
            self._connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await connection.wait_closed()
            connection.abort()


def _pass_on(said: str, notes: Notes) -> None:
    """Log what a host said on standard error: a little of it, however much it was."""
    lines = [line for line in said.splitlines() if line]
    for line in lines[:REMARKS_MOST]:
        notes.note("remote", level="warning", stderr=line[:REMARK_MOST])
    if lines[REMARKS_MOST:]:
        notes.note("remote", level="warning", stderr=f"… and {len(lines) - REMARKS_MOST} lines more")
