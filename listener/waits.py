"""Which repositories keep runs waiting, across attempts and runs.

A run's outcome carries this from one attempt to the next. Here it is kept for the run's successor and for
status answers. An entry that no attempt confirms is dropped: its run was cancelled, or another listener
carries it out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from listener.sites import Leg

FORGOTTEN = 60.0
"""Seconds after the last look by a run until an entry is dropped. A run looks every 5 s, unless its host is
full."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    since: float
    overdue: bool
    looked: float


class Waits:
    """Since when each leg has been busy without a mark of a publish, as a run found it last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Leg, _Waiting] = {}

    def found(self, leg: Leg, since: float, *, overdue: bool) -> None:
        """Keep what an attempt has found; `since` is 0 for a leg that is at rest."""
        if since:
            self._waiting[leg] = _Waiting(since, overdue, self._clock())
        else:
            self._waiting.pop(leg, None)

    def since(self, leg: Leg) -> float:
        """Return since when a leg has been busy, in Unix seconds of its host's clock; 0 if it is not."""
        self._forget()
        waiting = self._waiting.get(leg)
        return waiting.since if waiting else 0.0

    def overdue(self) -> frozenset[tuple[str, str]]:
        """Return the sites and environments whose runs have waited for longer than `patience`."""
        self._forget()
        return frozenset((leg.site, leg.environment) for leg, each in self._waiting.items() if each.overdue)

    def _forget(self) -> None:
        limit = self._clock() - FORGOTTEN
        for leg in [leg for leg, each in self._waiting.items() if each.looked < limit]:
            del self._waiting[leg]
