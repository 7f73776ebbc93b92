"""What the edge allows, and what it has to say about the rest."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from listener.journal import Log
from listener.networks import Network

CLIENTS_MOST = 10_000
"""Clients that are remembered; the one that was quiet longest is forgotten first."""

WINDOW = 60.0
"""Seconds in which one cause is told once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is allowed. Times are seconds."""

    head_timeout: float
    """From the first byte (of a new connection: from its beginning) to a whole head."""
    connections: int
    scrapers: int
    """Connections to the address of the figures."""
    refusals: int
    """How many requests of one client may be refused in a minute."""
    unverified_bytes: int
    trusted: tuple[Network, ...] = ()
    """The proxies that are believed."""


class RateLimitedLog:
    """A log for what strangers cause as often as they like: one line a window for each cause and client."""

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def tell(self, event: str, about: str, **facts: Any) -> None:
        """Log a warning, or count it as `unsaid` for the next one about the same."""
        now, key = self._clock(), (event, about)
        at, unsaid = self._told.pop(key, (now - WINDOW, 0))
        if now - at < WINDOW:
            self._told[key] = (at, unsaid + 1)
            return
        self._told[key] = (now, 0)
        while len(self._told) > CLIENTS_MOST:
            self._told.popitem(last=False)
        self._log.warning(event, **facts, **({"unsaid": unsaid} if unsaid else {}))
