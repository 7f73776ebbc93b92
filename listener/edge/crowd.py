"""Who is connected, and the one ranking of who leaves when there is no place left.

Whoever has not shown who they are costs something for as long as they are here: the seconds in which they
sent less than `PACE`. The costs of a network are those of all its strangers together, so the slowest and the
most numerous leave first, whatever they are doing. Who comes is let in: a good delivery is verified within
milliseconds, and has cost next to nothing by then.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from listener.networks import NetworkKey

PACE = 32 << 10
"""Bytes a second of a sender who costs nothing."""

LEAST = 0.25
"""Seconds that a connection costs however fast it is: else those who make new ones all the time would cost
less than a good sender who has to wait for us."""

SHARE = 4
"""One client may keep a quarter of the connections by being verified: a leaked secret shuts no door."""

AT_ONCE = 32
"""Connections that are accepted before anything else gets its turn, at most."""

BATCH = 32
"""A thirty-second of the connections leave at once: under a flood, nobody is ranked for each that comes."""


class Counted(Protocol):
    """What the networks of a stranger are charged for."""

    @property
    def networks(self) -> tuple[NetworkKey, ...]:
        """The networks around its client, the widest first."""


class Guest(Counted, Protocol):
    """One connection."""

    @property
    def verified(self) -> bool:
        """Whether its last request was that of somebody known."""

    @property
    def asking(self) -> bool:
        """Whether a request of it is being answered."""

    def cost(self, now: float) -> float:
        """Return what it costs, in seconds."""

    def evict(self) -> None:
        """End it at once."""


G = TypeVar("G", bound=Counted)


def costliest(costs: Mapping[G, float]) -> list[G]:
    """Return those of the client that has to leave, the costliest first.

    It is the costliest client of the costliest network in the costliest wider network: many addresses of one
    owner count as one, and an address that is alone costs what it costs alone.
    """
    left = costs
    for width in range(len(next(iter(costs)).networks)):
        sums: dict[NetworkKey, float] = defaultdict(float)
        for each, cost in left.items():
            sums[each.networks[width]] += cost
        worst = max(sums, key=sums.__getitem__)
        left = {each: cost for each, cost in left.items() if each.networks[width] == worst}
    return sorted(left, key=left.__getitem__, reverse=True)


class Crowd:
    """All connections of one door."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._here: dict[Guest, None] = {}
        """In the order in which they came."""
        self.ended = 0
        """How many have left so far."""

    def __len__(self) -> int:
        return len(self._here)

    @property
    def at_once(self) -> int:
        """How many may come before those who are here get their turn.

        It takes some turns until who comes is known. If as many came meanwhile as there are places, whoever
        came just before would leave for them without having been read.
        """
        return max(1, min(AT_ONCE, self._most // 16))

    def enter(self, guest: Guest) -> bool:
        """Let a guest in, at the cost of others if need be; return whether there is a place."""
        if len(self._here) >= self._most:
            self._make_room()
        if len(self._here) >= self._most:
            return False
        self._here[guest] = None
        return True

    def leaves(self, guest: Guest) -> None:
        """Note that a connection has ended."""
        if guest in self._here:
            del self._here[guest]
            self.ended += 1

    def _make_room(self) -> None:
        """End strangers; only where there are none, one of those who were verified and ask for nothing."""
        now = self._clock()
        strangers = self._strangers()
        leaving = strangers or [guest for guest in self._here if not guest.asking]
        if not leaving:
            return
        many = max(1, self._most // BATCH) if strangers else 1
        for guest in costliest({guest: guest.cost(now) for guest in leaving})[:many]:
            self.leaves(guest)
            guest.evict()

    def _strangers(self) -> list[Guest]:
        """Return who is not verified, and of each verified client what goes beyond its share."""
        share = max(1, self._most // SHARE)
        kept: Counter[NetworkKey] = Counter()
        strangers = []
        for guest in self._here:
            if guest.verified and kept[guest.networks[-1]] < share:
                kept[guest.networks[-1]] += 1
            else:
                strangers.append(guest)
        return strangers
