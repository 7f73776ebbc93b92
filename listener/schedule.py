"""The safety net for lost webhooks: each site is looked at regularly, and synced if it differs from live.

After a start, every site is looked at once, as fast as the pauses between the looks at a host allow. So a
publish whose webhook was lost while the listener was stopped is found soon. After that, each site has its own
moment within the interval, by the clock, so that the work is spread out.

Several listeners need no leader. They use the same moments, each with a small random delay. If one of them
has just looked at a site, the others use that look. A second trigger joins the run of the first.
"""

import asyncio
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from listener.directory import LISTING_WAIT, Directory, Listing
from listener.errors import StoreError
from listener.intake import Intake
from listener.journal import Log
from listener.looks import EnvironmentLook, LookState, LookStore, Place
from listener.plans import MOVING
from listener.queue import Hold, RunFilter, RunStore
from listener.runs import State
from listener.sites import Environment, Site, SitePattern
from listener.surveys import ALWAYS, Surveys

SLICES = 30
"""The parts of an interval. The sites of one part are looked at together."""

JITTER = 0.1
"""The share of a pause that is random."""

STORE_PAUSE = 5.0
"""Seconds before the first round goes on after the store has failed."""

UNENDED_MOST = 1000
"""The number of waiting, and of running, runs whose environments a first round looks at first."""


class ScheduleStore(RunStore, LookStore, Protocol):
    """What the schedule needs of the store."""


class Schedule:
    """Looks at drift, and starts a sync if an environment that follows live differs from it."""

    def __init__(
        self,
        directory: Directory,
        surveys: Surveys,
        intake: Intake,
        store: ScheduleStore,
        *,
        interval: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._directory = directory
        self._surveys = surveys
        self._intake = intake
        self._store = store
        self._interval = interval
        self._clock = clock
        self._log = log
        self._started = clock()
        self._first_done = False

    async def run_forever(self) -> None:
        """Look at all sites again and again until cancelled. Return at once if the interval is 0."""
        if not self._interval:
            return
        rounds: dict[int, asyncio.Task[int]] = {}
        async with asyncio.TaskGroup() as group:
            if not self._first_done:
                group.create_task(self.first())
            async for part in self._moments():
                # A silent host may delay a round. The round is not started again before it has ended.
                if part not in rounds or rounds[part].done():
                    rounds[part] = group.create_task(self.round(part))

    async def _moments(self) -> AsyncIterator[int]:
        """Yield each part of the interval at its moment, by the clock."""
        pause = self._interval / SLICES
        moment = int(self._clock() / pause)
        while True:
            moment += 1
            late = random.uniform(0, JITTER)  # noqa: S311 (jitter)
            wait = (moment + late) * pause - self._clock()
            if not -self._interval < wait < 2 * pause:
                # The clock was set, or the machine has slept.
                moment = int(self._clock() / pause)
                wait = pause
            await asyncio.sleep(max(wait, 0))
            yield moment % SLICES

    async def first(self) -> int:
        """Look at every site once; return how many syncs were started. Unfinished environments come first.

        Each pattern is a part of its own, so that a silent host does not delay the other patterns.
        """
        asked = 0
        while not self._first_done:
            try:
                urgency = await self._urgency()
                asked += await self._first_round(self._directory.configured(), urgency)
                self._first_done = True
            except StoreError as error:
                self._log.warning("schedule", error=error.code, message=error.message)
                await asyncio.sleep(STORE_PAUSE)
        self._log.info("first looks", seconds=round(self._clock() - self._started, 1), syncs=asked)
        return asked

    async def _first_round(self, configured: Iterable[Site], urgency: Callable[[Environment], int]) -> int:
        async def of_pattern(pattern: SitePattern) -> int:
            return await self._round(await self._directory.of_pattern(pattern), self._started, urgency)

        parts = [self._round(configured, self._started, urgency), *map(of_pattern, self._directory.patterns)]
        ended = await asyncio.gather(*parts, return_exceptions=True)
        failed = [each for each in ended if isinstance(each, BaseException)]
        if failed:
            raise failed[0]
        await self._prune(await self._directory.page(None, wait=LISTING_WAIT))
        return sum(each for each in ended if isinstance(each, int))

    async def round(self, part: int | None = None) -> int:
        """Look at the sites of one part of the interval, or at all; return the number of started syncs."""
        enough = self._clock() - self._interval / SLICES if self._interval else ALWAYS
        try:
            listing = await self._directory.page(None, wait=LISTING_WAIT)
            chosen = [site for site in listing.sites if part is None or _part_of(site) == part]
            asked = await self._round(chosen, enough)
            if not part:
                await self._prune(listing)
        except StoreError as error:
            self._log.warning("schedule", error=error.code, message=error.message)
            return 0
        return asked

    async def _round(
        self, sites: Iterable[Site], enough: float, urgency: Callable[[Environment], int] = lambda _: 0
    ) -> int:
        """Look at sites, and sync each environment that follows live and differs; return how many."""
        environments = {(each.site, each.name): each for site in sites for each in site.environments.values()}
        # The rest is in a random order: listeners that start together begin with different sites.
        order = sorted(environments.values(), key=lambda each: (urgency(each), random.random()))  # noqa: S311
        asked = 0
        async for look in self._surveys.arriving(order, enough=enough):
            environment = environments[look.place]
            if environment.follow and await self._may_sync(look):
                await self._intake.scheduled(environment)
                asked += 1
        return asked

    async def _urgency(self) -> Callable[[Environment], int]:
        """Return the order of a first round: what is unfinished, what was never looked at, the rest."""
        looks = {each.place: each.state for each in await self._store.look_summaries()}
        left = {(hold.site, hold.environment) for hold in await self._store.holds() if hold.live is not None}
        for state in (State.RUNNING, State.QUEUED):
            unended = await self._store.runs(RunFilter(state=state, limit=UNENDED_MOST))
            left |= {(run.site, run.environment) for run in unended}
        left |= {place for place, state in looks.items() if state is not LookState.EQUAL}
        return lambda each: 0 if _place(each) in left else 2 if _place(each) in looks else 1

    async def _may_sync(self, look: EnvironmentLook) -> bool:
        """Return whether a run would move a branch, and no hold prevents it."""
        if not any(leg.plan in MOVING for leg in look.legs):
            return False
        holds = await self._store.holds([look.site])
        return not any(hold.environment == look.environment and _holds(hold, look) for hold in holds)

    async def _prune(self, listing: Listing) -> None:
        """Delete the looks at environments that do not exist any more."""
        found = {_place(each) for site in listing.sites for each in site.environments.values()}
        unlisted = {each.pattern for each in listing.unlisted}
        await self._surveys.prune(
            lambda place: place in found or self._directory.in_patterns(*place, unlisted)
        )


def _place(environment: Environment) -> Place:
    return environment.site, environment.name


def _part_of(site: Site) -> int:
    return zlib.crc32(site.id.encode()) % SLICES


def _holds(hold: Hold, look: EnvironmentLook) -> bool:
    """Return whether a hold is in force. That of a rollback ends when live has moved."""
    return hold.live is None or all(leg.live in ("", hold.live) for leg in look.legs)
