"""A host that stops answering, or answers again, is an event."""

import json
from collections.abc import Sequence

from listener.errors import HostUnreachableError, StoreUnavailableError
from listener.events import EventPage, EventStore, Happened, Place
from listener.health import HostHealth
from listener.host_events import HostEvents
from listener.queue import Signal

NOW = 1_700_000_000.0


class Kept(EventStore):
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.failing = False

    async def note_events(self, happened: Sequence[Happened]) -> None:
        if self.failing:
            raise StoreUnavailableError
        self.told += [json.loads(each.text)["event"] for each in happened]

    async def events(self, after: Place, limit: int = 500) -> EventPage:
        raise NotImplementedError

    async def newest_event(self) -> Place:
        raise NotImplementedError

    async def events_since(self, at: float) -> Place:
        raise NotImplementedError

    @property
    def happening(self) -> Signal:
        raise NotImplementedError


async def test_only_changes_are_told_and_none_is_lost_with_the_store_away() -> None:
    store, health = Kept(), HostHealth(lambda: NOW)
    events = HostEvents(lambda: {"studio": health}, store, lambda: NOW)
    await events.store_changes()
    health.answered()
    await events.store_changes()
    assert store.told == []
    health.failed(HostUnreachableError())
    store.failing = True
    await events.store_changes()
    store.failing = False
    await events.store_changes()
    await events.store_changes()
    assert store.told == ["host away"]
    health.answered()
    await events.store_changes()
    assert store.told == ["host away", "host answers"]
