"""How much memory the bodies of all requests may take while nobody knows yet whose they are.

The first `FREE` bytes of each are not counted, for the connections are: so a delivery of the usual size never
waits, whatever others send. Beyond them a body is counted as it arrives, not by the length that it announces:
who wants to hold memory has to send as much.
"""

import asyncio
from collections import Counter, OrderedDict

from aiohttp import web

from listener.errors import NoRoomError
from listener.networks import household
from listener.web.edge.limits import SHARE

FREE = 64 << 10
"""Bytes of each body that need no room."""


class Room:
    """So many bytes for all, and a share of them for one client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._by_client: Counter[str] = Counter()
        self._waiting: OrderedDict[asyncio.Future[None], tuple[str, int, int]] = OrderedDict()
        """Whose, how much more is wanted, and how much is held meanwhile."""

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._held

    async def take(self, client: str, size: int, held: int = 0) -> None:
        """Wait until there is room for so many bytes more than are held, and take it.

        Raises `NoRoomError` where all that is held is held by those who wait: one of them has to give way.
        """
        if self._fits(client, size):
            self._add(client, size)
            return
        if self._stuck(client, held):
            raise NoRoomError
        granted = asyncio.get_running_loop().create_future()
        self._waiting[granted] = (client, size, held)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give_back(client, size)
            raise
        finally:
            self._waiting.pop(granted, None)

    def give_back(self, client: str, size: int) -> None:
        """Give bytes back, and let those go on, in their order, for whom there is room now."""
        self._add(client, -size)
        for granted, (waiter, wanted, _) in list(self._waiting.items()):
            if not granted.done() and self._fits(waiter, wanted):
                del self._waiting[granted]
                self._add(waiter, wanted)
                granted.set_result(None)

    def _fits(self, client: str, size: int) -> bool:
        share = self._most // SHARE
        return self._held + size <= self._most and self._by_client[client] + size <= share

    def _stuck(self, client: str, held: int) -> bool:
        mine = sum(each for waiter, _, each in self._waiting.values() if waiter == client)
        everybodys = sum(each for _, _, each in self._waiting.values())
        return mine + held == self._by_client[client] or everybodys + held == self._held

    def _add(self, client: str, size: int) -> None:
        self._held += size
        self._by_client[client] += size
        if not self._by_client[client]:
            del self._by_client[client]


class Lease:
    """The room of one request, given back when it has been answered."""

    def __init__(self, room: Room, client: str | None) -> None:
        self._room = room
        self._client = household(client)
        self._taken = 0
        self.waiting = False
        """Whether the body waits for room, and not for its sender."""

    async def hold(self, size: int) -> None:
        """Hold so many bytes in all, once there is room; raises `NoRoomError`."""
        more = size - FREE - self._taken
        if more <= 0:
            return
        self.waiting = True
        await self._room.take(self._client, more, self._taken)
        self.waiting = False
        self._taken += more

    def end(self) -> None:
        """Give everything back."""
        if self._taken:
            self._room.give_back(self._client, self._taken)
            self._taken = 0


LEASE = web.RequestKey("lease", Lease)
