"""How much memory all bodies may take together while their senders are not verified.

The first `UNRESERVED` bytes of each body are not counted. So a delivery of the usual size never waits. Beyond
them, a body is counted as it arrives, not by its announced length. When no memory is left, the unverified
requests that have held the most for the longest are evicted. A client only ever waits for its own bodies.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from listener.edge.connection_limit import LimitedConnection, costliest
from listener.errors import NoRoomError
from listener.networks import NetworkKey
from listener.request_context import UNRESERVED


class BodyMemory:
    """So many bytes for all bodies together."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._held = 0
        self._reservations: set[Reservation] = set()
        """Those that hold memory."""
        self._waiting: OrderedDict[asyncio.Future[None], tuple[Reservation, int]] = OrderedDict()
        """Who waits, and for how many bytes more."""

    @property
    def held(self) -> int:
        """Bytes that are reserved now."""
        return self._held

    async def take(self, reservation: "Reservation", size: int) -> None:
        """Reserve so many bytes more: by evicting others, or once the same client has given some back.

        Raises `NoRoomError` if all memory is held by requests that wait: one of them has to give up.
        """
        self._evict_for(reservation, size)
        if self._fits(size):
            self._add(reservation, size)
            return
        if sum(waiting.taken for waiting, _ in self._waiting.values()) + reservation.taken == self._held:
            raise NoRoomError
        granted = asyncio.get_running_loop().create_future()
        self._waiting[granted] = (reservation, size)
        try:
            await granted
        finally:
            # A request that gives up at the moment of the grant keeps the memory until its reservation ends.
            self._waiting.pop(granted, None)

    def release(self, reservation: "Reservation") -> None:
        """Give all bytes of a reservation back, and let waiting requests go on, in their order."""
        self._reservations.discard(reservation)
        self._held -= reservation.taken
        reservation.taken = 0
        for granted, (waiting, size) in list(self._waiting.items()):
            if not granted.done() and self._fits(size):
                del self._waiting[granted]
                self._add(waiting, size)
                granted.set_result(None)

    def _evict_for(self, reservation: "Reservation", size: int) -> None:
        while not self._fits(size):
            now = self._clock()
            costs = {each: each.cost(now) for each in self._reservations if not each.connection.verified}
            if not costs:
                return
            worst = costliest(costs)[0]
            if worst.networks[-1] == reservation.networks[-1]:
                return
            worst.connection.evict()
            for granted, (waiting, _) in self._waiting.items():
                # Its handler waits here, not on its connection, and would keep the bytes that it has read.
                if waiting is worst and not granted.done():
                    granted.set_exception(NoRoomError())
            self.release(worst)

    def _fits(self, size: int) -> bool:
        return self._held + size <= self._most

    def _add(self, reservation: "Reservation", size: int) -> None:
        self._reservations.add(reservation)
        self._held += size
        reservation.taken += size


class Reservation:
    """The memory of one request's body, given back when the request has been answered."""

    def __init__(self, memory: BodyMemory, connection: LimitedConnection) -> None:
        self._memory = memory
        self.connection = connection
        self.taken = 0
        """Bytes that are reserved."""
        self.waiting = False
        """Whether the body waits for memory, and not for its sender."""

    @property
    def networks(self) -> tuple[NetworkKey, ...]:
        """The networks around the client."""
        return self.connection.networks

    def cost(self, now: float) -> float:
        """Return its cost: its bytes times its connection's cost in seconds."""
        return self.taken * self.connection.cost(now)

    async def hold(self, size: int) -> None:
        """Hold so many bytes in all, once there is memory; raises `NoRoomError`."""
        more = size - UNRESERVED - self.taken
        if more <= 0:
            return
        self.waiting = True
        await self._memory.take(self, more)
        self.waiting = False

    def end(self) -> None:
        """Give everything back."""
        self._memory.release(self)
