"""A fair queue: which client's unseen credential is asked about next.

Few requests run at a time, and the clients take turns. So a client that shows many credentials waits for its
own ones only. A client that has shown many unknown credentials is slowed down but not locked out, because
others may share its address.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from listener.errors import StudioUnavailableError

AT_ONCE = 4
"""Credentials that are asked about at the same time."""

WAITING_MOST = 64
"""The most credentials that wait for their turn."""

REST = 3.0
"""Seconds between two turns of a client that has shown many unknown credentials."""


class FairQueue:
    """Gives clients their turns, one after the other."""

    def __init__(self, slowed: Callable[[str], bool]) -> None:
        """Let a client pause between its turns as long as it is `slowed`."""
        self._slowed = slowed
        self._under_way = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """In the order of the clients' turns."""
        self._resting: set[str] = set()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a client's turn, and hold it; raise `StudioUnavailableError` if too many wait."""
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
        """Grant the next turns."""
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
        if granted.done():  # It has given up at this very moment.
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
        """If too many wait, drop the last one of the client with the most waiting."""
        if sum(map(len, self._waiting.values())) <= WAITING_MOST:
            return
        most = max(self._waiting, key=lambda client: len(self._waiting[client]))
        last = self._waiting[most][-1]
        self._forget(most, last)
        if not last.done():
            last.set_exception(
                StudioUnavailableError("Studio was not asked: too many unknown credentials are waiting.")
            )

    def _forget(self, client: str, waiting: asyncio.Future[None]) -> None:
        if client in self._waiting and waiting in self._waiting[client]:
            self._waiting[client].remove(waiting)
            if not self._waiting[client]:
                del self._waiting[client]
