"""How often a client may be refused: one token bucket for each. Other requests are not counted."""

import math
from collections import OrderedDict
from collections.abc import Callable

from listener.edge.limits import CLIENTS_MOST
from listener.networks import client_key

MINUTE = 60.0


class RefusalLimit:
    """Counts refused requests by client."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """For each client, how many refusals it had left, and when that was."""

    def over(self, client: str | None) -> bool:
        """Return whether a client has been refused too often."""
        return self._now(client_key(client)) < 1

    def count(self, client: str | None) -> None:
        """Count one refusal."""
        key = client_key(client)
        left = max(0.0, self._now(key) - 1)
        self._left.pop(key, None)
        self._left[key] = (left, self._clock())
        while len(self._left) > CLIENTS_MOST:
            self._left.popitem(last=False)

    def again_in(self, client: str | None) -> int:
        """Return after how many whole seconds a client may be refused once more."""
        missing = 1 - self._now(client_key(client))
        return max(1, math.ceil(missing * MINUTE / self._most))

    def _now(self, key: str) -> float:
        if key not in self._left:
            return float(self._most)
        left, at = self._left[key]
        return min(float(self._most), left + (self._clock() - at) * self._most / MINUTE)
