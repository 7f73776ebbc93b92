"""How many sessions a host has open for us, and who may open the next.

    free  --enter-->   lent   --rest-->   idle   --take-->   lent
    lent  --leave-->   free
    idle  --(another waits for room)-->   free
    lent  --leave_behind-->   left behind   --leave_left-->   free

What is left behind is a session whose process has not ended, though it was asked to: sshd keeps its place
until then. How many sshd gives (MaxSessions) is learned from its refusals; a new connection begins anew.
"""

import asyncio

from listener.ssh.shell import Shell


class Sessions:
    """Counts the sessions of one connection, of which we want `most`."""

    def __init__(self, most: int) -> None:
        self._wanted = self._most = most
        self._held = 0
        """All that are not free, those that were left behind included."""
        self._left = 0
        self._idle: list[Shell] = []
        self._queue = asyncio.Lock()
        """Held by the one who waits for room; the others wait for it in turn."""
        self._freed = asyncio.Event()

    async def enter(self) -> bool:
        """Wait until one more session may be opened, and count it.

        An idle shell makes room. Returns False where nobody will: all are left behind. Nobody who holds a
        session may wait here, or two who hold one each would wait for each other for ever.
        """
        async with self._queue:
            while self._held >= self._most:
                if self._idle:
                    await self._close(self._idle.pop(0))
                elif self._left >= self._held:
                    return False
                else:
                    self._freed.clear()
                    await self._freed.wait()
            self._held += 1
        return True

    async def _close(self, shell: Shell) -> None:
        try:
            await shell.close()
        finally:
            self.leave()

    def take(self) -> Shell | None:
        """Lend an idle shell; None where there is none, or somebody else has waited for its place longer."""
        while self._idle and not self._queue.locked():
            shell = self._idle.pop()
            if shell.usable:
                return shell
            self.leave()
        return None

    def rest(self, shell: Shell) -> None:
        """Keep a shell for whoever needs one next, or take it away for whoever waits for its place."""
        self._idle.append(shell)
        self._freed.set()

    def leave(self) -> None:
        """Count a session that has ended."""
        self._held -= 1
        self._freed.set()

    def leave_behind(self) -> None:
        """Count a session of ours as left behind: it is nobody's, and its place stays taken."""
        self._left += 1
        self._freed.set()

    def leave_left(self) -> None:
        """Count a session that was left behind, and has ended now."""
        self._left -= 1
        self.leave()

    def refused(self) -> None:
        """Learn that the host gives no more than there are, unless there are none."""
        if self._held:
            self._most = self._held

    def begin_anew(self) -> None:
        """Forget what belonged to an earlier connection; whoever was lent a session leaves by itself."""
        self._most = self._wanted
        self._held -= self._left + len(self._idle)
        self._left = 0
        self._idle.clear()
        self._freed.set()
