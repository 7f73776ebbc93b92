"""Followers of all events. One reader of the store serves them all, and only while there are any.

A follower first catches up from the store. Then it gets new events from the reader. If too many wait for it,
it reads the store again. So a slow follower needs little memory and delays nobody.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress

from listener.errors import EventsGoneError, StoreError
from listener.events import Event, EventStore, Place, Wanted
from listener.journal import Log
from listener.queue import Signal

TOGETHER = 0.1
"""Seconds between two reads of the store, at least. One read gets all events of this time."""
UNSETTLED, UNSETTLED_MOST = 0.02, 1.0
"""Seconds before the next read while an earlier commit is still under way. Each further read doubles them."""
FALLBACK = 5.0
"""Seconds after which the reader reads without a signal."""
RETRY = 1.0
"""Seconds before the next read after the store has failed."""
PENDING = 500
"""Events that wait in memory for one follower. It catches up from the store if there are more."""
AT_ONCE = 20
"""Followers that are woken in one turn of the loop. Between the turns, requests are answered."""


class Follower:
    """One reader of events, and the events that wait for it."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.pending: list[Event] = []
        self.behind = False
        """Whether too many events came: it has to catch up from the store."""
        self.gone = False
        """Whether its place in the sequence is not kept any more."""
        self.awake = asyncio.Event()

    def push(self, events: Sequence[Event]) -> None:
        """Let events wait; if there are too many, drop them and set `behind`."""
        if self.behind or len(self.pending) + len(events) > PENDING:
            self.pending.clear()
            self.behind = True
        else:
            self.pending += events


class Feed:
    """All followers of one listener."""

    def __init__(self, store: EventStore, log: Log) -> None:
        self._store = store
        self._log = log
        self._followers: dict[str | None, set[Follower]] = {}
        """By the sites whose events they get; None for those that may get any event."""
        self._head: Place | None = None
        """The place up to which all events were handed out; None without followers."""
        self._beginning = asyncio.Lock()
        self._needed = asyncio.Event()
        self._stopped = False

    def stop(self) -> None:
        """End every follower after the events that wait for it."""
        self._stopped = True
        for follower in _union(self._followers.values()):
            follower.awake.set()

    async def run_forever(self) -> None:
        """Read new events while there are followers."""
        pause = UNSETTLED
        while True:
            await self._needed.wait()
            began = time.monotonic()
            try:
                pending = await self._read()
            except StoreError as error:
                self._log.warning("events", error=error.code, message=error.message)
                await asyncio.sleep(RETRY)
                continue
            if pending:
                # Nothing signals the end of the earlier commit. It may be another program's, and take hours.
                await asyncio.sleep(pause)
                pause = min(2 * pause, UNSETTLED_MOST)
                continue
            pause = UNSETTLED
            await _pause(self._store.happening, FALLBACK)
            await asyncio.sleep(max(0.0, began + TOGETHER - time.monotonic()))

    async def follow(
        self, wanted: Wanted, after: Place | None, silence: float
    ) -> AsyncGenerator[tuple[Sequence[Event], Place], None]:
        """Yield events after a place (None: from now on), with the place up to which they are complete.

        After `silence` seconds without an event, yield an empty list. Raise `EventsGoneError` if the place is
        not kept any more.
        """
        follower = Follower(wanted)
        at = await self._begin(follower, after)
        try:
            yield (), at
            while not self._stopped:
                follower.behind = False
                async for events, at in self.stored(wanted, at):  # noqa: B020 (it goes on from there)
                    yield events, at
                async for events, at in self._coming(follower, at, silence):  # noqa: B020 (the same)
                    yield events, at
        finally:
            self._leave(follower)

    async def stored(
        self, wanted: Wanted, after: Place
    ) -> AsyncGenerator[tuple[Sequence[Event], Place], None]:
        """Yield the events after a place that are stored now, in the form of `follow`."""
        at, more = after, True
        while more:
            page = await self._store.events(at)
            if not page.known:
                raise EventsGoneError
            at, more = page.upto, page.more
            if events := [each for each in page.events if wanted.matches(each)]:
                yield events, at

    async def _coming(
        self, follower: Follower, at: Place, silence: float
    ) -> AsyncGenerator[tuple[Sequence[Event], Place], None]:
        """Yield new events from the reader, until the follower has to catch up."""
        while not (follower.behind or self._stopped):
            await _pause(follower.awake, silence)
            follower.awake.clear()
            if follower.gone:
                raise EventsGoneError
            waiting, follower.pending = follower.pending, []
            # `waiting` has all events up to the reader's place.
            events = [each for each in waiting if each.place > at]
            if not follower.behind:
                at = max(at, self._head or at)
                yield events, at

    async def _begin(self, follower: Follower, after: Place | None) -> Place:
        """Add a follower; return the place from which it has to catch up."""
        async with self._beginning:
            if self._head is None:
                self._head = await self._store.newest_event()
            for site in _only(follower):
                self._followers.setdefault(site, set()).add(follower)
            self._needed.set()
            return self._head if after is None else after

    def _leave(self, follower: Follower) -> None:
        for site in _only(follower):
            here = self._followers.get(site, set())
            here.discard(follower)
            if not here:
                self._followers.pop(site, None)
        if not self._followers:
            self._head = None
            self._needed.clear()

    async def _read(self) -> bool:
        """Hand out new events; return whether others must wait for an earlier commit."""
        signal, more, pending = self._store.happening, True, False
        signal.clear()
        while more and (asked := self._head) is not None:
            page = await self._store.events(asked)
            if self._head != asked:  # All followers have left during the read. Perhaps new ones have come.
                break
            more, pending = page.more, page.pending
            if not page.known:
                self._head = await self._store.newest_event()
            else:
                self._head = page.upto
            await _wake(list(self._hand_out(page.events, gone=not page.known)))
        return pending

    def _hand_out(self, events: Sequence[Event], *, gone: bool) -> set[Follower]:
        """Give each follower the events that it wants; return the followers to wake."""
        keys: set[str | None] = {None, *(site for each in events for site, _ in each.places)}
        woken = set()
        for follower in _union(self._followers.values() if gone else map(self._at, keys)):
            follower.gone |= gone
            if wanted := [each for each in events if follower.wanted.matches(each)]:
                follower.push(wanted)
            if wanted or gone:
                woken.add(follower)
        return woken

    def _at(self, site: str | None) -> set[Follower]:
        return self._followers.get(site, set())


def _only(follower: Follower) -> Iterable[str | None]:
    # A follower without a visible site must be among the followers, too: `stop` wakes them.
    return follower.wanted.only or (None,)


def _union(sets: Iterable[set[Follower]]) -> set[Follower]:
    return set().union(*sets)


async def _wake(followers: Sequence[Follower]) -> None:
    """Wake followers, some at a time."""
    for place, follower in enumerate(followers, 1):
        follower.awake.set()
        if place % AT_ONCE == 0:
            await asyncio.sleep(0)


async def _pause(signal: Signal, limit: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await signal.wait()
