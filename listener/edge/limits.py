"""The limits of the edge, and the log of what exceeds them."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from listener.journal import Log
from listener.networks import Network

CLIENTS_MOST = 10_000
"""Clients that are remembered; the one with the oldest entry is forgotten first."""

WINDOW = 60.0
"""Seconds in which one cause is logged once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the edge. Times are in seconds."""

    head_timeout: float
    """From the first byte of a request, or the beginning of the connection, to the end of the head."""
    connections: int
    scrapers: int
    """Connections to the address of the metrics."""
    refusals: int
    """How many requests of one client may be refused in a minute."""
    unverified_bytes: int
    trusted: tuple[Network, ...] = ()
    """The proxies whose headers are trusted."""


class RateLimitedLog:
    """A log of what unknown clients can cause at will: one line a window for each cause and client."""

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._logged: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def warning(self, event: str, about: str, **facts: Any) -> None:
        """Log a warning, or count it as `unsaid` in the next line about the same."""
        now, key = self._clock(), (event, about)
        at, unsaid = self._logged.pop(key, (now - WINDOW, 0))
        if now - at < WINDOW:
            self._logged[key] = (at, unsaid + 1)
            return
        self._logged[key] = (now, 0)
        while len(self._logged) > CLIENTS_MOST:
            self._logged.popitem(last=False)
        self._log.warning(event, **facts, **({"unsaid": unsaid} if unsaid else {}))
