"""One host: requests to our script there, in loaded shells, and git's own services."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol, TypeVar

import asyncssh

from listener.errors import (
    BeyondKeyError,
    ConnectionLostError,
    GitUnavailableError,
    HostStalledError,
    SessionRefusedError,
    StepTimedOutError,
    SyncError,
)
from listener.health import HostHealth
from listener.plans import Notes
from listener.sites import Access, Host
from listener.ssh import failures
from listener.ssh.batch import Batch
from listener.ssh.channel import Reply
from listener.ssh.dialogue import Fields, dialogue_of
from listener.ssh.leftovers import Leftover, Leftovers
from listener.ssh.remote_errors import error_of
from listener.ssh.service import Service, open_service
from listener.ssh.shell import Shell
from listener.ssh.slots import SessionSlots
from listener.ssh.warm import WarmConnection

T = TypeVar("T")

SHELLS = 3
"""Loaded shells a host. sshd allows 10 sessions (MaxSessions) but frees slots late: 8 at a time fail."""

SERVICES = 2
"""Sessions a host for git's own services, besides the shells."""

MIN_GIT = (2, 25)

MAX_STDERR_LINES, MAX_STDERR_LINE = 20, 500
"""Lines of a reply's standard error that are logged, and characters of each."""

RETRY_PAUSES = (0.1, 0.1, 0.2, 0.4)
"""Seconds before each further attempt to open a session."""


class HostRequests(Protocol):
    """What a repository needs of its host."""

    async def call(
        self,
        notes: Notes,
        limit: float,
        verb: str,
        *parts: Fields,
        batch: Batch | None = None,
        may_move: Awaitable[bool] | None = None,
    ) -> str:
        """Send a request to the script and return its output; raise `SyncError`.

        With `may_move`, the host begins at once, but moves nothing before that is True.
        """

    def service(self, notes: Notes, name: str, path: str) -> AbstractAsyncContextManager[Service]:
        """Lend one of git's services for the repository at `path`; raise `SyncError`."""


class _NoNotes:
    """Notes that nobody reads."""

    def note(self, event: str, level: str = "info", **facts: object) -> None:
        pass


_NO_NOTES = _NoNotes()


class HostConnection:
    """Connects to one host when it is needed, stays connected, and lends its shells and services.

    `via` is the connection to its jump host; `login_slots` limits how many hosts are logged in to at once.
    """

    def __init__(
        self,
        host: Host,
        *,
        connect_timeout: float,
        via: "HostConnection | None" = None,
        login_slots: asyncio.Semaphore | None = None,
    ) -> None:
        self.host = host
        self.health = HostHealth(time.time)
        self._dialogue = dialogue_of(host.access)
        self._limit = connect_timeout
        self.warm_connection: WarmConnection = WarmConnection(
            host,
            connect_timeout,
            via.warm_connection if via else None,
            login_slots or asyncio.Semaphore(),
            self._on_connected,
        )
        self._slots = SessionSlots(SHELLS + SERVICES)
        self._shells = asyncio.Semaphore(SHELLS)
        self._services = asyncio.Semaphore(SERVICES)
        self._leftovers = Leftovers(host, self._dialogue, self._extra_connection, self._on_gone)
        self._shell_answered = False
        """Whether a shell has answered here before. If so, a silent new one is only slow."""
        self.git = ""
        """The output of `git --version` there; empty until a shell has started."""
        self._at_rest = asyncio.Event()
        """Set while nobody uses the connection."""
        self._at_rest.set()
        self._users = 0
        """How many callers use the connection, or are about to."""
        self._last_stderr: dict[tuple[str, ...], int] = {}
        """The hash of the last standard error, by verb and repository."""

    async def call(
        self,
        notes: Notes,
        limit: float,
        verb: str,
        *parts: Fields,
        batch: Batch | None = None,
        may_move: Awaitable[bool] | None = None,
    ) -> str:
        """Send a request to the script and return its output; raise `SyncError`.

        After `limit` seconds in one repository, or when the caller is cancelled, the remote process is asked
        to end. `HostStalledError` means that it does not end, or that an earlier one there did not.
        """
        batch = batch or Batch.of(parts)
        with self.health.noting():
            reply = await self._reply(notes, limit, verb, parts, batch, may_move)
        self._log_stderr(reply.err, notes, (verb, *batch.paths[:1]))
        if reply.status != 0:
            failure = error_of(reply)
            if isinstance(failure, BeyondKeyError):
                self._log_in_again()
            raise failure
        return reply.out

    async def _reply(
        self,
        notes: Notes,
        limit: float,
        verb: str,
        parts: Sequence[Fields],
        batch: Batch,
        may_move: Awaitable[bool] | None,
    ) -> Reply:
        """Send a request and return its reply; raise `SyncError` if there is none."""
        await self._refuse_if_stalled(notes, batch.paths)
        async with self._shell(notes) as shell:
            # Once more: it may have become so while this caller waited for a shell.
            self._refuse_if_stuck(batch.paths)
            try:
                async with asyncio.timeout(limit) as remaining:
                    batch.on_answer = lambda: _restart(remaining, limit)
                    return await shell.call(verb, *parts, batch=batch, may_move=may_move)
            except TimeoutError as error:
                await self._end(shell, batch.current)
                self._refuse_if_stuck([batch.current])
                where = f"{self.host.name}, in {batch.current}" if batch.current else self.host.name
                raise StepTimedOutError(f"{verb} took over {limit:g} s on {where}") from error
            except (asyncio.CancelledError, ConnectionLostError):
                # The remote process may go on. Shielded, so that a second cancel can't leave it there.
                await asyncio.shield(self._end(shell, batch.current))
                raise

    def _log_stderr(self, stderr: str, notes: Notes, key: tuple[str, ...]) -> None:
        """Log a little of a reply's standard error.

        Text that is the same as the last time is marked as repeated. Else a waiting run would write it again
        with each look.
        """
        if not stderr:
            self._last_stderr.pop(key, None)
            return
        repeated = self._last_stderr.get(key) == hash(stderr)
        self._last_stderr[key] = hash(stderr)
        lines = [line for line in stderr.splitlines() if line]
        shown = [line[:MAX_STDERR_LINE] for line in lines[:MAX_STDERR_LINES]]
        if lines[MAX_STDERR_LINES:]:
            shown.append(f"… and {len(lines) - MAX_STDERR_LINES} more lines")
        for line in shown:
            notes.note("remote", level="warning", repeated=repeated, stderr=line)

    def _log_in_again(self) -> None:
        """Make the next caller log in again: sshd reads the key's line in authorized_keys only at a login.

        The line may be corrected by then. A connection that others use is kept.
        """
        connection = self.warm_connection.current
        if connection is not None and not self._users:
            self.warm_connection.drop(connection)

    @contextlib.asynccontextmanager
    async def service(self, notes: Notes, name: str, path: str) -> AsyncIterator[Service]:
        """Lend one of git's services for the repository at `path`; raise `SyncError`."""
        await self._refuse_if_stalled(notes, [path])
        async with self._services, self._in_use():
            stack = AsyncExitStack()
            with self.health.noting():
                service = await self._open_session(
                    notes, lambda connection: stack.enter_async_context(open_service(connection, name, path))
                )
            try:
                async with stack:
                    yield service
            finally:
                self._release_service(service, path)

    def _release_service(self, service: Service, path: str) -> None:
        """Free the slot of a service, now or when it has ended."""
        if not service.goes_on:
            self._slots.release()
            return
        leftover = Leftover(path, time.monotonic(), service=service, remaining=service.name, has_slot=True)
        self._leftovers.add(leftover)
        self._slots.mark_stuck()
        service.when_ended(lambda: self._leftovers.gone(leftover))

    @contextlib.asynccontextmanager
    async def _shell(self, notes: Notes) -> AsyncIterator[Shell]:
        """Lend a loaded shell; open one if none is idle."""
        async with self._shells, self._in_use():
            idle = self._slots.take_idle()
            shell = await self._open_session(notes, self._load_shell) if idle is None else idle
            try:
                yield shell
            finally:
                if shell.usable:
                    self._slots.put_back(shell)
                elif not shell.stuck:
                    self._slots.release()

    async def at_rest(self, limit: float) -> None:
        """Wait until nobody uses the connection, for `limit` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._at_rest.wait()

    @contextlib.asynccontextmanager
    async def _in_use(self) -> AsyncIterator[None]:
        self._users += 1
        self._at_rest.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._at_rest.set()

    async def _open_session(
        self, notes: Notes, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]]
    ) -> T:
        """Wait for a slot and open a session; raise `SyncError`.

        It is tried again if no command has started. The connection had died unnoticed, or sshd had not freed
        the slot of an ended session yet, or sshd allows fewer sessions.
        """
        for attempt, pause in enumerate(RETRY_PAUSES):
            try:
                return await self._open_session_once(notes, opening)
            except ConnectionLostError as error:
                if attempt and not isinstance(error, SessionRefusedError):
                    raise
                if attempt:
                    # Not at the first refusal: it may only mean that a slot is not free yet.
                    self._slots.limit_reached()
            await asyncio.sleep(pause)
        return await self._open_session_once(notes, opening)

    async def _open_session_once(
        self, notes: Notes, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]]
    ) -> T:
        connection = await self.warm_connection.get(notes)
        while not await self._slots.reserve():
            # Stuck sessions have all of its slots. A new connection has slots of its own.
            self.warm_connection.drop(connection)
            connection = await self.warm_connection.get(notes)
        try:
            # The connection may have been lost while this caller waited for a slot.
            connection = await self.warm_connection.get(notes)
            with failures.session_errors(self.host):
                try:
                    async with asyncio.timeout(self._limit):
                        return await opening(connection)
                except TimeoutError:
                    self.warm_connection.drop(connection)
                    raise
        except BaseException:
            self._slots.release()
            raise

    async def _load_shell(self, connection: asyncssh.SSHClientConnection) -> Shell:
        shell = await Shell.open(connection, self._dialogue, patient=self._shell_answered)
        self._shell_answered, self.git = True, shell.git
        version = re.search(r"(\d+)\.(\d+)", shell.git)
        if version is None or tuple(map(int, version.groups())) < MIN_GIT:
            shell.abandon()
            raise GitUnavailableError(f"{self.host.name} has {shell.git or 'no git'}, which is too old")
        if not shell.usable:
            raise ConnectionLostError(f"The shell on {self.host.name} was slow to start, and has ended.")
        return shell

    async def _on_connected(self, connection: asyncssh.SSHClientConnection) -> None:
        self._slots.reset()
        self._leftovers.connection_replaced()
        await self._leftovers.check(connection)

    async def _extra_connection(self) -> asyncssh.SSHClientConnection:
        """Log in once more: stuck processes may have the last session of the warm connection."""
        return await self.warm_connection.log_in(_NO_NOTES)

    async def _refuse_if_stalled(self, notes: Notes, paths: Sequence[str]) -> None:
        """Raise `HostStalledError` if leftovers are stuck in the repositories, or too many on the host.

        They are checked again before that: so a stalled host recovers.
        """
        circuit = self.warm_connection.circuit
        circuit.check(time.monotonic())
        if self._leftovers.stuck_in(paths) or self._leftovers.too_many():
            # If this connects anew, that has checked them already.
            await self._leftovers.check_shared(await self.warm_connection.get(notes))
        too_many = self._leftovers.too_many()
        if too_many:
            circuit.stalled(too_many, time.monotonic())
            raise too_many
        self._refuse_if_stuck(paths)

    def _refuse_if_stuck(self, paths: Sequence[str]) -> None:
        """Raise `HostStalledError` if one of our processes is stuck in one of the repositories.

        A second git there would wait for the first one's locks, or hang for the same reason.
        """
        error = self.stuck_in(paths)
        if error is not None:
            raise error

    def stuck_in(self, paths: Sequence[str]) -> HostStalledError | None:
        """Return the error that closes these repositories to everybody now, if there is one."""
        return self._leftovers.stuck_in(paths)

    async def _end(self, shell: Shell, path: str) -> None:
        """End a shell's remote processes: now, or with the next connection."""
        shell.abandon()
        leftover = Leftover(path, time.monotonic(), shell.group, shell.name)
        self._leftovers.add(leftover)
        connection = self.warm_connection.current
        if connection is None:
            return
        try:
            await self._leftovers.ask_to_end(connection, leftover)
        except SyncError:
            self.warm_connection.drop(connection)
        if leftover.stuck and shell.connection is self.warm_connection.current:
            leftover.has_slot = shell.stuck = True
            self._slots.mark_stuck()

    def _on_gone(self, leftover: Leftover) -> None:
        """Free the slot of a leftover that has ended."""
        if leftover.has_slot:
            leftover.has_slot = False
            self._slots.release_stuck()

    async def warm(self, notes: Notes) -> None:
        """Connect, and load a shell if the host has one, before the first run; raise `SyncError`."""
        with self.health.noting():
            if self.host.access is Access.GIT:
                await self.warm_connection.get(notes)
                return
            async with self._shell(notes):
                pass

    async def close(self) -> None:
        """Close the connection. A peer that does not answer is not waited for."""
        self._leftovers.close()
        await self.warm_connection.close()


def _restart(remaining: asyncio.Timeout, limit: float) -> None:
    """Give a batch its whole time again, for its next repository."""
    if not remaining.expired():
        remaining.reschedule(asyncio.get_running_loop().time() + limit)
