"""How fast wrong secrets are answered: whoever tries one after the other has to wait for each answer.

It is the refusal that waits, never the check: a good delivery or call passes at once, from the address of
somebody who guesses too, and to a hook that is guessed at.
"""

from collections import OrderedDict
from collections.abc import Callable

from listener.edge.limits import CLIENTS_MOST
from listener.networks import household

PACE = 1.0
"""Seconds between two answers to wrong secrets of one client, once it had some for free."""

CROWD = 10
"""All clients together are answered so many times faster, by each hook and by the API."""

LONGEST = 10.0
"""Seconds that an answer waits at most: forges do not wait longer."""


class Guesses:
    """Gives each wrong secret its place in two queues: its client's, and that of what it was tried at."""

    def __init__(self, free: int, clock: Callable[[], float]) -> None:
        """Of each client, so many wrong secrets are answered at once."""
        self._free = free
        self._clock = clock
        self._due: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When the next answer is due if none were free, by client and by what was tried."""

    def wait(self, client: str | None, target: str) -> float:
        """Count a wrong secret; return for how many seconds its answer is to wait."""
        return max(
            self._wait(("client", household(client)), self._free, PACE),
            self._wait(("target", target), self._free * CROWD, PACE / CROWD),
        )

    def _wait(self, key: tuple[str, str], free: int, pace: float) -> float:
        now, saved = self._clock(), free * pace
        due = max(self._due.pop(key, now), now) + pace
        # What is due is bounded: else a flood would make a hook slow for days.
        self._due[key] = due = min(due, now + saved + LONGEST)
        while len(self._due) > CLIENTS_MOST:
            self._due.popitem(last=False)
        return max(0.0, due - now - saved)
