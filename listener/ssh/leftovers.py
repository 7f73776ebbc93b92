"""What we have left running on a host: a step that was given up, or a push that goes on without us.

    given up   --the host says that nothing of it is there-->   gone
    given up   --it is there still-->   stalled                  nobody is sent into its repository
    given up   --the connection is lost-->   given up            asked again as soon as there is a connection
    stalled    --the host says that nothing of it is there-->   gone

A service (git-receive-pack) is not asked to end, for an account without a shell has nothing that could ask.
It is stalled for as long as its channel stays open: the host closes that when the process has ended.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from listener.errors import HostStalledError
from listener.ssh.service import Service

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

    def __init__(self, host: str) -> None:
        self._host = host
        self._known: list[Leftover] = []

    def add(self, left: Leftover) -> None:
        """Take one in."""
        self._known.append(left)

    def gone(self, left: Leftover) -> None:
        """Forget one."""
        if left in self._known:
            self._known.remove(left)

    @property
    def groups(self) -> list[Leftover]:
        """Those that can be asked to end."""
        return [left for left in self._known if left.group]

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
        return HostStalledError(f"On {self._host}, what an earlier step has started does not end: {told}.")
