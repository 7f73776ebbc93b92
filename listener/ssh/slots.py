"""The session slots of one connection: how many are taken, and who gets the next one.

    free    --reserve-->  in use  --put_back-->  idle  --take_idle-->  in use
    in use  --release-->  free
    idle    --(somebody waits for a slot)-->  free
    in use  --mark_stuck-->  stuck  --release_stuck-->  free

A session is stuck if its remote process did not end when it was asked to: sshd keeps its slot until then.
sshd's limit (MaxSessions) is learned from its refusals. A new connection starts again.
"""

import asyncio

from listener.ssh.shell import Shell


class SessionSlots:
    """Counts the sessions of one connection, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._configured_limit = self._limit = limit
        self._taken = 0
        """All slots that are not free: in use, idle and stuck."""
        self._stuck = 0
        self._idle: list[Shell] = []
        self._queue = asyncio.Lock()
        """Held by the caller who waits for a slot; the others wait for the lock, first come, first served."""
        self._changed = asyncio.Event()

    async def reserve(self) -> bool:
        """Wait for a free slot and take it. An idle shell is closed to make room.

        Returns False if all slots are stuck, so that none will be free. A caller that holds a slot already
        must not call this: two such callers would wait for each other for ever.
        """
        async with self._queue:
            while self._taken >= self._limit:
                if self._idle:
                    await self._close(self._idle.pop(0))
                elif self._stuck >= self._taken:
                    return False
                else:
                    self._changed.clear()
                    await self._changed.wait()
            self._taken += 1
        return True

    async def _close(self, shell: Shell) -> None:
        try:
            await shell.close()
        finally:
            self.release()

    def take_idle(self) -> Shell | None:
        """Return an idle shell, which is in use then.

        Returns None if there is none, or if somebody waits for a slot: that caller came first, and gets it.
        """
        while self._idle and not self._queue.locked():
            shell = self._idle.pop()
            if shell.usable:
                return shell
            self.release()
        return None

    def put_back(self, shell: Shell) -> None:
        """Keep a shell that is not in use any more for the next caller."""
        self._idle.append(shell)
        self._changed.set()

    def release(self) -> None:
        """Free the slot of a session that has ended."""
        self._taken -= 1
        self._changed.set()

    def mark_stuck(self) -> None:
        """Count a session that does not end: nobody uses it, and its slot stays taken."""
        self._stuck += 1
        self._changed.set()

    def release_stuck(self) -> None:
        """Free the slot of a stuck session that has ended after all."""
        self._stuck -= 1
        self.release()

    def limit_reached(self) -> None:
        """Lower the limit to the slots that are taken: sshd has refused one more."""
        if self._taken:
            self._limit = self._taken

    def reset(self) -> None:
        """Start again for a new connection. Whoever uses a session of the old one releases it later."""
        self._limit = self._configured_limit
        self._taken -= self._stuck + len(self._idle)
        self._stuck = 0
        self._idle.clear()
        self._changed.set()
