"""The warm connection to one host, and the loaded shells on it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeVar

import asyncssh

from listener.errors import (
    BeyondKeyError,
    ConnectionLostError,
    GitUnavailableError,
    HostStalledError,
    HostUnreachableError,
    SessionRefusedError,
    StepTimedOutError,
    SyncError,
)
from listener.plans import Notes
from listener.sites import Access, Host
from listener.ssh import failures, keys
from listener.ssh.circuit import Circuit
from listener.ssh.dialogue import Fields, dialogue_of
from listener.ssh.leftovers import Leftover, Leftovers
from listener.ssh.login import log_in
from listener.ssh.service import Service, opened
from listener.ssh.sessions import Sessions
from listener.ssh.shell import Shell, refusal
from listener.ssh.tour import Tour

T = TypeVar("T")

SHELLS = 3
"""Loaded shells a host. sshd's MaxSessions is 10 and it frees places late: 8 in flight already fail."""

SERVICES = 2
"""Sessions a host for git's own services, beside the shells."""

GIT_LEAST = (2, 25)

REMARKS_MOST, REMARK_MOST = 20, 500
"""Lines of a host's standard error that a reply's log gets, and characters of each."""

PAUSES = (0.1, 0.1, 0.2, 0.4)
"""Seconds before each further attempt to open a session."""


class _Silent:
    """Notes that nobody reads."""

    def note(self, event: str, level: str = "info", **facts: object) -> None:
        pass


_SILENT = _Silent()


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
        self._sessions = Sessions(SHELLS + SERVICES)
        self._shells = asyncio.Semaphore(SHELLS)
        self._services = asyncio.Semaphore(SERVICES)
        self._left = Leftovers(host, self._dialogue, self._another_connection, self._gone)
        self._greeted = False
        """Whether a shell has answered here before: one that is silent now is only slow."""
        self._working = 0
        """How many use the connection, or are about to."""
        self._remarks: dict[tuple[str, ...], int] = {}
        """What was last said on standard error (its hash), by what was asked for and in which repository."""

    async def call(
        self, notes: Notes, limit: float, verb: str, *parts: Fields, tour: Tour | None = None
    ) -> str:
        """Ask the script for something and return its output; raise `SyncError`.

        After `limit` seconds in one of the repositories, or when the caller is cancelled, the remote
        process is asked to end. `HostStalledError` tells that it, or an earlier one there, does not.
        """
        tour = tour or Tour.of(parts)
        await self._check(notes, tour.paths)
        async with self._shell(notes) as shell:
            self._refuse_stalled(tour.paths)
            try:
                async with asyncio.timeout(limit) as remaining:
                    tour.on_pass = lambda: _extend(remaining, limit)
                    reply = await shell.call(verb, *parts, tour=tour)
            except TimeoutError as error:
                await self._end(shell, tour.at)
                self._refuse_stalled([tour.at])
                where = f"{self.host.name}, in {tour.at}" if tour.at else self.host.name
                raise StepTimedOutError(f"{verb} took over {limit:g} s on {where}") from error
            except (asyncio.CancelledError, ConnectionLostError):
                # What it has started may go on without it.
                await asyncio.shield(self._end(shell, tour.at))
                raise
        self._pass_on(reply.err, notes, (verb, *tour.paths[:1]))
        if reply.status != 0:
            refused = refusal(reply)
            if isinstance(refused, BeyondKeyError):
                self._forget_login()
            raise refused
        return reply.out

    def _pass_on(self, said: str, notes: Notes, where: tuple[str, ...]) -> None:
        """Log what a host said on standard error: a little of it, however much it was.

        What it says each time is nothing new. Else a run that waits would write that with each look.
        """
        repeated = self._remarks.get(where) == hash(said)
        self._remarks[where] = hash(said)
        lines = [line for line in said.splitlines() if line]
        told = [line[:REMARK_MOST] for line in lines[:REMARKS_MOST]]
        if lines[REMARKS_MOST:]:
            told.append(f"… and {len(lines) - REMARKS_MOST} lines more")
        for line in told:
            notes.note("remote", level="warning", repeated=repeated, stderr=line)

    def _forget_login(self) -> None:
        """Log in anew the next time: what the key may do was settled at the login, and may be mended by then.

        Not while others are at work on this connection.
        """
        if self._connection is not None and not self._working:
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
        await self._check(notes, [path])
        async with self._services, self._at_work():
            stack = AsyncExitStack()
            lent = await self._begun(
                notes, lambda connection: stack.enter_async_context(opened(connection, name, path))
            )
            try:
                async with stack:
                    yield lent
            finally:
                self._leave(lent, path)

    def _leave(self, lent: Service, path: str) -> None:
        """Count a service as ended, or as left behind until it has."""
        if not lent.goes_on:
            self._sessions.leave()
            return
        left = Leftover(path, time.monotonic(), service=lent, told=lent.name, here=True)
        self._left.add(left)
        self._sessions.leave_behind()
        lent.when_ended(lambda: self._left.gone(left))

    @contextlib.asynccontextmanager
    async def _shell(self, notes: Notes) -> AsyncIterator[Shell]:
        """Lend a loaded shell, opening one where none is idle."""
        async with self._shells, self._at_work():
            idle = self._sessions.take()
            shell = await self._begun(notes, self._load) if idle is None else idle
            try:
                yield shell
            finally:
                if shell.usable:
                    self._sessions.rest(shell)
                elif not shell.left_behind:
                    self._sessions.leave()

    async def _begun(
        self, notes: Notes, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]]
    ) -> T:
        """Open a session, once there is room for one; raise `SyncError`.

        It is tried again where no command has started: the connection had died unseen, or sshd had not freed
        the place of an ended session yet, or gives no more places than there are.
        """
        for attempt, pause in enumerate(PAUSES):
            try:
                return await self._attempt(notes, opening)
            except ConnectionLostError as error:
                if attempt and not isinstance(error, SessionRefusedError):
                    raise
                if attempt:
                    # The first refusal may only mean that the place is not free yet.
                    self._sessions.refused()
            await asyncio.sleep(pause)
        return await self._attempt(notes, opening)

    async def _attempt(
        self, notes: Notes, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]]
    ) -> T:
        connection = await self._connected(notes)
        while not await self._sessions.enter():
            # All of its places are taken by what does not end: another connection has places of its own.
            self._give_up(connection)
            connection = await self._connected(notes)
        try:
            # It may have been lost meanwhile.
            connection = await self._connected(notes)
            with failures.session_errors(self.host):
                try:
                    async with asyncio.timeout(self._limit):
                        return await opening(connection)
                except TimeoutError:
                    self._give_up(connection)
                    raise
        except BaseException:
            self._sessions.leave()
            raise

    async def _load(self, connection: asyncssh.SSHClientConnection) -> Shell:
        shell = await Shell.open(connection, self._dialogue, patient=self._greeted)
        self._greeted = True
        found = re.search(r"(\d+)\.(\d+)", shell.git)
        if found is None or tuple(map(int, found.groups())) < GIT_LEAST:
            shell.abandon()
            raise GitUnavailableError(f"{self.host.name} has {shell.git or 'no git'}, which is too old")
        if not shell.usable:
            raise ConnectionLostError(f"The shell on {self.host.name} was slow to start, and has ended.")
        return shell

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
        try:
            connection = await self._log_in(notes)
        except HostUnreachableError as error:
            self._circuit.failed(error, time.monotonic())
            raise
        self._circuit.succeeded()
        self._tell_skipped(notes)
        self._connection = connection
        self._sessions.begin_anew()
        self._left.leave_connection()
        await self._left.look(connection)
        return connection

    def _tell_skipped(self, notes: Notes) -> None:
        """Tell which lines of known_hosts were passed over: one of them may be meant to forbid a key."""
        lines = keys.unreadable_lines(self.host.known_hosts)
        if lines:
            told = ", ".join(map(str, lines[: keys.MAX_UNREADABLE]))
            reason = f"{self.host.known_hosts} has lines that can't be understood, and are skipped: {told}"
            notes.note("known hosts", level="warning", reason=reason)

    async def _log_in(self, notes: Notes) -> asyncssh.SSHClientConnection:
        tunnel = await self._tunnel(notes)
        gate = self._via.host.name if self._via is not None else ""
        async with self._connects:
            return await log_in(self.host, self._limit, tunnel, gate)

    async def _tunnel(self, notes: Notes) -> asyncssh.SSHClientConnection | None:
        """Return the warm connection to the host through which this one is reached."""
        if self._via is None:
            return None
        try:
            return await self._via._connected(notes)  # noqa: SLF001 (a sibling)
        except SyncError as error:
            raise failures.behind(self.host, self._via.host, error) from error

    async def _check(self, notes: Notes, paths: Sequence[str]) -> None:
        """Raise `HostStalledError` for what does not end in the repositories, or for too much of it at all.

        It is looked at again before that, which is how a stalled host recovers.
        """
        self._circuit.check(time.monotonic())
        if self._left.stalled(paths) or self._left.too_many():
            # Connecting looks by itself.
            await self._left.look_again(await self._connected(notes))
        too_many = self._left.too_many()
        if too_many:
            self._circuit.stalled(too_many, time.monotonic())
            raise too_many
        self._refuse_stalled(paths)

    def _refuse_stalled(self, paths: Sequence[str]) -> None:
        """Raise `HostStalledError` where something of ours in one of the repositories does not end.

        A second git there would wait for the first one's locks, or hang as it does.
        """
        error = self.stalled(paths)
        if error is not None:
            raise error

    def stalled(self, paths: Sequence[str]) -> HostStalledError | None:
        """Return the error that keeps everybody out of these repositories now, if there is one."""
        return self._left.stalled(paths)

    async def _end(self, shell: Shell, path: str) -> None:
        """End a shell's remote processes for sure: now, or as soon as the host is reached again."""
        shell.abandon()
        left = Leftover(path, time.monotonic(), shell.group, shell.name)
        self._left.add(left)
        connection = self._connection
        if connection is None or connection.is_closed():
            return
        try:
            await self._left.ask_to_end(connection, left)
        except SyncError:
            self._give_up(connection)
        if left.stalled and shell.connection is self._connection:
            left.here = shell.left_behind = True
            self._sessions.leave_behind()

    async def _another_connection(self) -> asyncssh.SSHClientConnection:
        """Log in once more: what hangs may have the last session of the warm connection."""
        return await self._log_in(_SILENT)

    def _gone(self, left: Leftover) -> None:
        """Give the place of what was left behind free."""
        if left.here:
            left.here = False
            self._sessions.leave_left()

    async def warm(self, notes: Notes) -> None:
        """Connect and load a shell, where there is one, ahead of the first run; raise `SyncError`."""
        if self.host.access is Access.GIT:
            await self._connected(notes)
            return
        async with self._shell(notes):
            pass

    async def close(self) -> None:
        """Close the connection, without waiting for a peer that does not answer."""
        self._left.close()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await connection.wait_closed()
            connection.abort()


def _extend(remaining: asyncio.Timeout, limit: float) -> None:
    """Give a tour its whole time again: it has come to the next repository."""
    if not remaining.expired():
        remaining.reschedule(asyncio.get_running_loop().time() + limit)
