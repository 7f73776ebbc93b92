"""All open connections, and the ranking of which must leave when there is no place left.

An unverified connection has a cost: the seconds in which it sent less than `PACE`. A network pays for all its
unverified connections together. So the slowest and the most numerous clients leave first. A new connection is
always let in: a valid delivery is verified within milliseconds, and has cost almost nothing by then.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from listener.networks import NetworkKey

PACE = 32 << 10
"""Bytes a second. A sender at this rate costs nothing."""

LEAST = 0.25
"""The least cost of a connection, in seconds. Without it, a client that opens new connections all the time
would cost less than a valid sender that waits for our answer."""

SHARE = 4
"""A verified client may keep a quarter of the connections. So a leaked secret can't take all of them."""

AT_ONCE = 32
"""The most connections that are accepted before the event loop does anything else."""

BATCH = 32
"""A thirty-second of the connections leave at once. So a flood does not rank all of them for each new one."""


class Charged(Protocol):
    """Something whose cost is added up by network."""

    @property
    def networks(self) -> tuple[NetworkKey, ...]:
        """The networks around its client, the widest first."""


class LimitedConnection(Charged, Protocol):
    """One connection."""

    @property
    def verified(self) -> bool:
        """Whether its last request came from a known caller."""

    @property
    def asking(self) -> bool:
        """Whether one of its requests is being answered."""

    def cost(self, now: float) -> float:
        """Return what it costs, in seconds."""

    def evict(self) -> None:
        """End it at once."""


G = TypeVar("G", bound=Charged)


def costliest(costs: Mapping[G, float]) -> list[G]:
    """Return everything of the client that has to leave, the costliest first.

    The costliest wide network is chosen first, then the costliest network in it, then the costliest client
    in that. So the addresses of one owner count together.
    """
    left = costs
    for width in range(len(next(iter(costs)).networks)):
        sums: dict[NetworkKey, float] = defaultdict(float)
        for each, cost in left.items():
            sums[each.networks[width]] += cost
        worst = max(sums, key=sums.__getitem__)
        left = {each: cost for each, cost in left.items() if each.networks[width] == worst}
    return sorted(left, key=left.__getitem__, reverse=True)


class ConnectionLimit:
    """All connections of one server, at most so many."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._open: dict[LimitedConnection, None] = {}
        """In the order of their arrival."""
        self.ended = 0
        """How many have ended so far."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def at_once(self) -> int:
        """How many may be accepted before the open ones get their turn.

        Verifying a client takes some turns of the event loop. If a flood filled all places meanwhile, valid
        clients would be evicted before their first byte is read.
        """
        return max(1, min(AT_ONCE, self._most // 16))

    def admit(self, connection: LimitedConnection) -> bool:
        """Let a connection in, and evict others for it if necessary; return whether there was a place."""
        if len(self._open) >= self._most:
            self._evict()
        if len(self._open) >= self._most:
            return False
        self._open[connection] = None
        return True

    def remove(self, connection: LimitedConnection) -> None:
        """Note that a connection has ended."""
        if connection in self._open:
            del self._open[connection]
            self.ended += 1

    def _evict(self) -> None:
        """Evict unverified connections; if there are none, one verified connection that is idle."""
        now = self._clock()
        unverified = self._unverified()
        leaving = unverified or [connection for connection in self._open if not connection.asking]
        if not leaving:
            return
        many = max(1, self._most // BATCH) if unverified else 1
        for connection in costliest({connection: connection.cost(now) for connection in leaving})[:many]:
            self.remove(connection)
            connection.evict()

    def _unverified(self) -> list[LimitedConnection]:
        """Return the unverified connections, and those of each verified client beyond its share."""
        share = max(1, self._most // SHARE)
        kept: Counter[NetworkKey] = Counter()
        unverified = []
        for connection in self._open:
            if connection.verified and kept[connection.networks[-1]] < share:
                kept[connection.networks[-1]] += 1
            else:
                unverified.append(connection)
        return unverified
