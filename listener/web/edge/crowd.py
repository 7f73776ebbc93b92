"""Who is connected: so many in all, and a share of them for one client.

Who comes when no place is left takes that of the one who has waited longest without asking for anything.
A client that sends its request at once waits for moments; one that only holds a connection makes room.
"""

from collections import Counter, OrderedDict
from typing import Protocol

from listener.web.edge.limits import SHARE


class Guest(Protocol):
    """One connection."""

    @property
    def client(self) -> str:
        """Whose it is."""

    @property
    def trusted(self) -> bool:
        """Whether it is a trusted proxy's, through which many clients come."""

    def evict(self) -> None:
        """End it at once."""


class Crowd:
    """All connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._here: set[Guest] = set()
        self._by_client: Counter[str] = Counter()
        self._waiting: OrderedDict[Guest, None] = OrderedDict()
        self._waiting_by_client: dict[str, OrderedDict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._here)

    def enter(self, guest: Guest) -> bool:
        """Let a guest in, at the cost of another if need be; return whether there is a place."""
        share = self._most if guest.trusted else max(1, self._most // SHARE)
        if self._by_client[guest.client] >= share:
            if not self._evict(self._waiting_by_client.get(guest.client, OrderedDict())):
                return False
        elif len(self._here) >= self._most and not self._evict(self._waiting):
            return False
        self._here.add(guest)
        self._by_client[guest.client] += 1
        self.waits(guest)
        return True

    def waits(self, guest: Guest) -> None:
        """Note that nothing is asked for on this connection."""
        if guest in self._here:
            self._waiting[guest] = None
            self._waiting_by_client.setdefault(guest.client, OrderedDict())[guest] = None

    def works(self, guest: Guest) -> None:
        """Note that a request is being answered."""
        self._waiting.pop(guest, None)
        mine = self._waiting_by_client.get(guest.client)
        if mine is not None:
            mine.pop(guest, None)
            if not mine:
                del self._waiting_by_client[guest.client]

    def leaves(self, guest: Guest) -> None:
        """Note that a connection has ended."""
        if guest in self._here:
            self.works(guest)
            self._here.remove(guest)
            self._by_client[guest.client] -= 1
            if not self._by_client[guest.client]:
                del self._by_client[guest.client]

    def _evict(self, waiting: OrderedDict[Guest, None]) -> bool:
        oldest = next(iter(waiting), None)
        if oldest is None:
            return False
        self.leaves(oldest)
        oldest.evict()
        return True
