"""How much memory the bodies of all requests may take while nobody knows yet whose they are.

The first `FREE` bytes of each are not counted, for the connections are: so a delivery of the usual size never
waits, whatever others send. Beyond them a body is counted as it arrives, not by the length that it announces.
When no room is left, it is taken from the strangers who have held the most for the longest. A client only
ever waits for its own bodies.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from listener.edge.crowd import Guest, costliest
from listener.errors import NoRoomError
from listener.networks import NetworkKey

FREE = 64 << 10
"""Bytes of each body that need no room."""


class Room:
    """So many bytes for all."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._held = 0
        self._leases: set[Lease] = set()
        """Those that hold something."""
        self._waiting: OrderedDict[asyncio.Future[None], tuple[Lease, int]] = OrderedDict()
        """Whose, and how much more is wanted."""

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._held

    async def take(self, lease: "Lease", size: int) -> None:
        """Take so many bytes more for a lease: from others, or once its own client has given some back.

        Raises `NoRoomError` where all that is held is held by those who wait: one of them has to give way.
        """
        self._make_room(lease, size)
        if self._fits(size):
            self._add(lease, size)
            return
        if sum(waiting.taken for waiting, _ in self._waiting.values()) + lease.taken == self._held:
            raise NoRoomError
        granted = asyncio.get_running_loop().create_future()
        self._waiting[granted] = (lease, size)
        try:
            await granted
        finally:
            # Whoever gives up in the moment of being let in holds what was granted until the lease ends.
            self._waiting.pop(granted, None)

    def give_back(self, lease: "Lease") -> None:
        """Give all bytes of a lease back, and let those go on, in their order, for whom there is room now."""
        self._leases.discard(lease)
        self._held -= lease.taken
        lease.taken = 0
        for granted, (waiting, size) in list(self._waiting.items()):
            if not granted.done() and self._fits(size):
                del self._waiting[granted]
                self._add(waiting, size)
                granted.set_result(None)

    def _make_room(self, lease: "Lease", size: int) -> None:
        while not self._fits(size):
            now = self._clock()
            costs = {each: each.cost(now) for each in self._leases if not each.guest.verified}
            if not costs:
                return
            worst = costliest(costs)[0]
            if worst.networks[-1] == lease.networks[-1]:
                return
            worst.guest.evict()
            for granted, (waiting, _) in self._waiting.items():
                # Its handler waits here and not for its connection: it would keep what it has read.
                if waiting is worst and not granted.done():
                    granted.set_exception(NoRoomError())
            self.give_back(worst)

    def _fits(self, size: int) -> bool:
        return self._held + size <= self._most

    def _add(self, lease: "Lease", size: int) -> None:
        self._leases.add(lease)
        self._held += size
        lease.taken += size


class Lease:
    """The room of one request, given back when it has been answered."""

    def __init__(self, room: Room, guest: Guest) -> None:
        self._room = room
        self.guest = guest
        self.taken = 0
        """Bytes that are held."""
        self.waiting = False
        """Whether the body waits for room, and not for its sender."""

    @property
    def networks(self) -> tuple[NetworkKey, ...]:
        """The networks around the client."""
        return self.guest.networks

    def cost(self, now: float) -> float:
        """Return what it costs: bytes for so many seconds."""
        return self.taken * self.guest.cost(now)

    async def hold(self, size: int) -> None:
        """Hold so many bytes in all, once there is room; raises `NoRoomError`."""
        more = size - FREE - self.taken
        if more <= 0:
            return
        self.waiting = True
        await self._room.take(self, more)
        self.waiting = False

    def end(self) -> None:
        """Give everything back."""
        self._room.give_back(self)
