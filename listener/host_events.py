"""Events for a host that stops answering, and for one that answers again."""

import asyncio
from collections.abc import Callable, Mapping

from listener.errors import StoreError
from listener.events import EventKind, EventStore, Happened
from listener.health import HostHealth

EVERY = 1.0
"""Seconds between two checks of the hosts' states. The checks send nothing: other requests find the state."""


class HostEvents:
    """Stores an event when a host's state changes. The first answer of a host is not an event."""

    def __init__(
        self,
        health: Callable[[], Mapping[str, HostHealth]],
        store: EventStore,
        clock: Callable[[], float],
    ) -> None:
        self._health = health
        self._store = store
        self._clock = clock
        self._up: dict[str, bool] = {}

    async def run_forever(self) -> None:
        """Store all changes until cancelled. If the store does not answer, they are stored later."""
        while True:
            await asyncio.sleep(EVERY)
            await self.store_changes()

    async def store_changes(self) -> None:
        """Store the changes since the last call."""
        now = {name: health.up for name, health in self._health().items() if health.up is not None}
        changed = {name: up for name, up in now.items() if self._up.get(name, True) != up}
        if changed:
            try:
                await self._store.note_events([self._event(name, up=up) for name, up in changed.items()])
            except StoreError:
                return
        self._up = now

    def _event(self, host: str, *, up: bool) -> Happened:
        event, level = ("host answers", "info") if up else ("host away", "warning")
        return Happened.saying(EventKind.HOST, self._clock(), event, level=level, host=host)
