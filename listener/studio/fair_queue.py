"""FairQueue: who may ask Studio about a credential that nobody here has seen yet.

A few questions are under way at a time, and the clients take turns, so that one that shows many credentials
waits behind itself. One that has shown many unknown ones is not locked out, for others may stand behind its
address: it goes on slowly.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from listener.errors import StudioUnavailableError

AT_ONCE = 4
"""Credentials that are asked about at a time."""

WAITING_MOST = 64
"""Credentials that wait for their turn at most."""

REST = 3.0
"""Seconds between two questions for a client that has shown many unknown credentials."""


class FairQueue:
    """Gives turns to clients, one after the other."""

    def __init__(self, slowed: Callable[[str], bool]) -> None:
        """Let a client rest between its questions as long as it is `slowed`."""
        self._slowed = slowed
        self._under_way = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """In the order in which the clients are served."""
        self._resting: set[str] = set()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a client's turn, and hold it; raise `StudioUnavailableError` where too many wait."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(granted)
        self._serve()
        self._shorten()
        try:
            await granted
            yield
        finally:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._under_way -= 1
            else:
                self._forget(client, granted)
            self._serve()

    def _serve(self) -> None:
        """Let the next ones go on."""
        for client in list(self._waiting):
            if self._under_way >= AT_ONCE:
                return
            if client not in self._resting:
                self._grant(client)

    def _grant(self, client: str) -> None:
        granted = self._waiting[client].popleft()
        self._waiting.move_to_end(client)
        if not self._waiting[client]:
            del self._waiting[client]
        if granted.done():  # Who has given up in this very moment takes no turn.
            return
        self._under_way += 1
        granted.set_result(None)
        if self._slowed(client):
            self._resting.add(client)
            asyncio.get_running_loop().call_later(REST, self._rested, client)

    def _rested(self, client: str) -> None:
        self._resting.discard(client)
        self._serve()

    def _shorten(self) -> None:
        """Let the client of whom the most wait give up its last one, where too many wait."""
        if sum(map(len, self._waiting.values())) <= WAITING_MOST:
            return
        most = max(self._waiting, key=lambda client: len(self._waiting[client]))
        last = self._waiting[most][-1]
        self._forget(most, last)
        if not last.done():
            last.set_exception(
                StudioUnavailableError("Studio is not asked: too many unknown credentials wait for that.")
            )

    def _forget(self, client: str, waiting: asyncio.Future[None]) -> None:
        if client in self._waiting and waiting in self._waiting[client]:
            self._waiting[client].remove(waiting)
            if not self._waiting[client]:
                del self._waiting[client]
