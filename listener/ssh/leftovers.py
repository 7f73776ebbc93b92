"""What we have left running on a host: a step that was given up, or a push that goes on without us.

    given up   --the host says that nothing of it is there-->   gone
    given up   --it is there still-->   stalled                  nobody is sent into its repository
    given up   --the connection is lost-->   given up            asked again as soon as there is a connection
    stalled    --the host says that nothing of it is there-->   gone

A service (git-receive-pack) is not asked to end, for an account without a shell has nothing that could ask.
It is stalled for as long as its channel stays open: the host closes that when the process has ended.
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
from listener.ssh.dialogue import Dialogue
from listener.ssh.service import Service
from listener.ssh.shell import told

KILL_LIMIT = 10.0
"""Seconds within which a host must have said whether a process group has ended."""

PROCESSES_MOST, PROCESS_MOST = 3, 100
"""Processes that an error names, and characters of each one's command line."""

LEFT_MOST = 3
"""Stalled processes on a host beyond which it is left alone altogether."""


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
    told: str = ""
    """What of it is there still, as far as is known."""
    here: bool = False
    """Whether it takes up one of the present connection's sessions."""

    @property
    def stalled(self) -> bool:
        """Whether it is known to go on."""
        return bool(self.told)


class Leftovers:
    """What was left behind on one host."""

    def __init__(
        self,
        host: Host,
        dialogue: Dialogue,
        another_connection: Callable[[], Awaitable[asyncssh.SSHClientConnection]],
        on_gone: Callable[[Leftover], object],
    ) -> None:
        """Take how to connect where a connection has no session to spare, and who is told of each end."""
        self._host = host
        self._dialogue = dialogue
        self._another_connection = another_connection
        self._on_gone = on_gone
        self._known: list[Leftover] = []
        self._looking: asyncio.Task[None] | None = None

    def add(self, left: Leftover) -> None:
        """Take one in."""
        self._known.append(left)

    def gone(self, left: Leftover) -> None:
        """Forget one."""
        if left in self._known:
            self._known.remove(left)
            left.told = ""
            self._on_gone(left)

    async def look_again(self, connection: asyncssh.SSHClientConnection) -> None:
        """See whether they have ended; those who come meanwhile share the answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self.look(connection), name=f"end on {self._host.name}")
        await asyncio.shield(self._looking)

    async def look(self, connection: asyncssh.SSHClientConnection) -> None:
        """Ask each to end that can be asked, and see whether it has."""
        for left in [left for left in self._known if left.group]:
            try:
                await self.ask_to_end(connection, left)
            except SyncError:
                # The others go on without it: only its own repository waits.
                left.told = left.told or f"process group {left.group}"

    async def ask_to_end(self, connection: asyncssh.SSHClientConnection, left: Leftover) -> None:
        """Ask one to end, and see whether it has; raise `SyncError` where that can't be told."""
        try:
            status, said = await self._told(connection, left)
        except SessionRefusedError:
            another = await self._another_connection()
            try:
                status, said = await self._told(another, left)
            finally:
                another.abort()
        found = re.findall(r"^left ([0-9]+) (.*)$", said, re.MULTILINE)
        if status == 0:
            self.gone(left)
        elif found and left in self._known:
            left.told = _named(found)

    async def _told(self, connection: asyncssh.SSHClientConnection, left: Leftover) -> tuple[int | None, str]:
        command, given = self._dialogue.ending(left.group, left.name)
        with failures.session_errors(self._host):
            async with asyncio.timeout(KILL_LIMIT):
                return await told(connection, command, given)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def leave_connection(self) -> None:
        """Note that a new connection has taken the place of the one they were started on."""
        for left in self._known:
            left.here = False

    def stalled(self, paths: Iterable[str]) -> HostStalledError | None:
        """Return the error that keeps everybody out of these repositories, if there is one."""
        wanted = set(paths)
        found = [left for left in self._known if left.stalled and left.path in wanted]
        return self._error(found) if found else None

    def too_many(self) -> HostStalledError | None:
        """Return the error that keeps everybody away from the host, if there is one."""
        found = [left for left in self._known if left.stalled]
        return self._error(found) if len(found) >= LEFT_MOST else None

    def _error(self, found: Iterable[Leftover]) -> HostStalledError:
        now = time.monotonic()
        told = "; ".join(f"{left.told} in {left.path}, for {now - left.since:.0f} s" for left in found)
        return HostStalledError(
            f"On {self._host.name}, what an earlier step has started does not end: {told}."
        )


def _named(found: Sequence[tuple[str, str]]) -> str:
    """Return how an error names the processes that a host told: git alone where it is among them."""
    chosen = [each for each in found if "git" in each[1]] or found
    return ", ".join(
        f"{args[:PROCESS_MOST]} (process {process})" for process, args in chosen[:PROCESSES_MOST]
    )
