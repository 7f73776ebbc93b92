"""How fast wrong secrets are answered: a client that tries one after the other has to wait for each answer.

Only the refusal waits, never the check. So a valid delivery or call passes at once, even from the address of
the client that guesses, and even to the hook whose secret is guessed.
"""

from collections import OrderedDict
from collections.abc import Callable

from listener.edge.limits import CLIENTS_MOST
from listener.networks import client_key

PACE = 1.0
"""Seconds between two answers to wrong secrets of one client, after the free ones."""

ALL_CLIENTS = 10
"""All clients together are answered so many times faster than one, for each hook and for the API."""

LONGEST = 10.0
"""The longest delay, in seconds: forges do not wait longer."""


class GuessDelay:
    """Gives each wrong secret its place in two queues: one of its client, one of the hook or the API."""

    def __init__(self, free: int, clock: Callable[[], float]) -> None:
        """Answer the first `free` wrong secrets of each client at once."""
        self._free = free
        self._clock = clock
        self._due: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When the next answer would be due if none were free, by client and by target."""

    def wait(self, client: str | None, target: str) -> float:
        """Count a wrong secret; return for how many seconds its answer is to wait."""
        return max(
            self._wait(("client", client_key(client)), self._free, PACE),
            self._wait(("target", target), self._free * ALL_CLIENTS, PACE / ALL_CLIENTS),
        )

    def _wait(self, key: tuple[str, str], free: int, pace: float) -> float:
        now, saved = self._clock(), free * pace
        due = max(self._due.pop(key, now), now) + pace
        # Without a bound, a flood would make a hook slow for days.
        self._due[key] = due = min(due, now + saved + LONGEST)
        while len(self._due) > CLIENTS_MOST:
            self._due.popitem(last=False)
        return max(0.0, due - now - saved)
