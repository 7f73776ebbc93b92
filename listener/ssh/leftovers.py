"""Processes of ours on a host that may still run: of a step that was given up, or of a push without us.

    given up   --the host finds none of its processes-->   gone
    given up   --some do not end-->   stuck                  nothing is sent to its repository
    given up   --the connection is lost-->   given up        asked again with the next connection
    stuck      --the host finds none of its processes-->   gone

Without this list, the next attempt would start a second git beside the first one. It would wait for the
first one's locks, or hang for the same reason.

A service (git-receive-pack) can't be asked to end: an account without a shell runs nothing that could do it.
It counts as stuck while its channel is open: the host closes the channel when the process has ended.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import asyncssh

from listener.errors import HostStalledError, SessionRefusedError, SyncError
from listener.sites import Host
from listener.ssh import failures
from listener.ssh.channel import run_command
from listener.ssh.dialogue import Dialogue
from listener.ssh.service import Service

END_LIMIT = 10.0
"""Seconds that a host may take to say whether a process group has ended."""

MAX_PROCESSES, MAX_COMMAND_LINE = 3, 100
"""Processes that an error names, and characters of each one's command line."""

MAX_STUCK = 3
"""Stuck processes on a host at which nothing more is sent to it."""


@dataclass(eq=False, slots=True)
class Leftover:
    """One process group of ours, or one service, that was given up."""

    path: str
    """The repository that it works in."""
    since: float
    """By the monotonic clock."""
    group: int = 0
    name: str = ""
    service: Service | None = None
    remaining: str = ""
    """Its processes that still run, as far as is known."""
    has_slot: bool = False
    """Whether it takes up a session of the present connection."""

    @property
    def stuck(self) -> bool:
        """Whether it is known to go on."""
        return bool(self.remaining)


class Leftovers:
    """The leftovers on one host."""

    def __init__(
        self,
        host: Host,
        dialogue: Dialogue,
        extra_connection: Callable[[], Awaitable[asyncssh.SSHClientConnection]],
        on_gone: Callable[[Leftover], object],
    ) -> None:
        """`extra_connection` logs in once more if the connection has no free session."""
        self._host = host
        self._dialogue = dialogue
        self._extra_connection = extra_connection
        self._on_gone = on_gone
        self._known: list[Leftover] = []
        self._checking: asyncio.Task[None] | None = None

    def add(self, leftover: Leftover) -> None:
        """Remember one."""
        self._known.append(leftover)

    def gone(self, leftover: Leftover) -> None:
        """Forget one that has ended."""
        if leftover in self._known:
            self._known.remove(leftover)
            leftover.remaining = ""
            self._on_gone(leftover)

    async def check_shared(self, connection: asyncssh.SSHClientConnection) -> None:
        """Do the same as `check`, or wait for the check that runs already."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self.check(connection), name=f"end on {self._host.name}")
        await asyncio.shield(self._checking)

    async def check(self, connection: asyncssh.SSHClientConnection) -> None:
        """Ask each process group to end, and see whether it has."""
        for leftover in [leftover for leftover in self._known if leftover.group]:
            try:
                await self.ask_to_end(connection, leftover)
            except SyncError:
                # Only its own repository waits for it: the check goes on with the others.
                leftover.remaining = leftover.remaining or f"process group {leftover.group}"

    async def ask_to_end(self, connection: asyncssh.SSHClientConnection, leftover: Leftover) -> None:
        """Ask one to end, and see whether it has; raise `SyncError` if the host does not say so."""
        try:
            status, output = await self._run_end(connection, leftover)
        except SessionRefusedError:
            extra = await self._extra_connection()
            try:
                status, output = await self._run_end(extra, leftover)
            finally:
                extra.abort()
        found = re.findall(r"^left ([0-9]+) (.*)$", output, re.MULTILINE)
        if status == 0:
            self.gone(leftover)
        elif found and leftover in self._known:
            leftover.remaining = _described(found)

    async def _run_end(
        self, connection: asyncssh.SSHClientConnection, leftover: Leftover
    ) -> tuple[int | None, str]:
        command, stdin = self._dialogue.ending(leftover.group, leftover.name)
        with failures.session_errors(self._host):
            async with asyncio.timeout(END_LIMIT):
                return await run_command(connection, command, stdin)

    def close(self) -> None:
        """Stop checking."""
        if self._checking is not None:
            self._checking.cancel()

    def connection_replaced(self) -> None:
        """Note that a new connection is used: none of its sessions is taken by a leftover."""
        for leftover in self._known:
            leftover.has_slot = False

    def stuck_in(self, paths: Iterable[str]) -> HostStalledError | None:
        """Return the error that closes these repositories to everybody, if there is one."""
        if not self._known:
            return None
        wanted = set(paths)
        found = [leftover for leftover in self._known if leftover.stuck and leftover.path in wanted]
        return self._error(found) if found else None

    def too_many(self) -> HostStalledError | None:
        """Return the error that closes the whole host to everybody, if there is one."""
        found = [leftover for leftover in self._known if leftover.stuck]
        return self._error(found) if len(found) >= MAX_STUCK else None

    def _error(self, found: Iterable[Leftover]) -> HostStalledError:
        now = time.monotonic()
        listed = "; ".join(
            f"{leftover.remaining} in {leftover.path}, for {now - leftover.since:.0f} s" for leftover in found
        )
        return HostStalledError(f"Processes of an earlier step on {self._host.name} do not end: {listed}.")


def _described(processes: Sequence[tuple[str, str]]) -> str:
    """Return the processes as an error names them: only git if it is among them."""
    chosen = [each for each in processes if "git" in each[1]] or processes
    return ", ".join(
        f"{args[:MAX_COMMAND_LINE]} (process {process})" for process, args in chosen[:MAX_PROCESSES]
    )
