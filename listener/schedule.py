"""The safety net for lost webhooks: each site is looked at regularly, and what differs from live is synced.

Each site has its own moment within the interval, so that the work is spread out. Each round is shifted a
little at random, so that several listeners do not look at the same time. They need no leader: a second look
costs one round trip, and a second trigger joins the run of the first.
"""

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence

from listener.directory import Directory
from listener.errors import StoreError
from listener.intake import Intake
from listener.journal import Log, Remarks
from listener.plans import MOVING
from listener.progress import commit_of
from listener.queue import RunStore
from listener.sites import Environment, Site
from listener.sync import Look, Synchronizer

SLICES = 30
"""The parts of an interval. The sites of one part are looked at together."""

JITTER = 0.1
"""The share of a pause that is random."""


class Schedule:
    """Looks at drift, and starts a sync if an environment that follows live differs from it."""

    def __init__(
        self,
        directory: Directory,
        synchronizer: Synchronizer,
        intake: Intake,
        store: RunStore,
        *,
        interval: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._directory = directory
        self._synchronizer = synchronizer
        self._intake = intake
        self._store = store
        self._interval = interval
        self._clock = clock
        self._log = log

    async def run_forever(self) -> None:
        """Look at all sites again and again until cancelled. Return at once if the interval is 0."""
        while self._interval:
            for part in range(SLICES):
                pause = self._interval / SLICES
                await asyncio.sleep(pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 (jitter)
                await self.round(part)

    async def round(self, part: int | None = None) -> int:
        """Look at the sites of one part of the interval, or at all; return how many syncs were started."""
        sites, _ = await self._directory.all()
        chosen = [site for site in sites if part is None or _part_of(site) == part]
        following = [environment for site in chosen for environment in site.following]
        if not following:
            return 0
        try:
            holds = {(hold.site, hold.environment): hold for hold in await self._store.holds()}
            looks = await self._synchronizer.survey(following, Remarks(self._log))
            asked = 0
            for environment, seen in zip(following, looks, strict=True):
                self._log_look(environment, seen)
                hold = holds.get((environment.site, environment.name))
                if not _drifted(seen) or (hold is not None and _holds(hold.live, seen)):
                    continue
                await self._intake.scheduled(environment)
                asked += 1
        except StoreError as error:
            self._log.warning("schedule", error=error.code, message=error.message)
            return 0
        return asked

    def _log_look(self, environment: Environment, seen: Sequence[Look]) -> None:
        """Log whether an environment differs from live, if that is known."""
        if all(look.plan is not None for look in seen):
            where = {"site": environment.site, "environment": environment.name}
            self._log.debug("looked", **where, drifted=_drifted(seen))


def _part_of(site: Site) -> int:
    return zlib.crc32(site.id.encode()) % SLICES


def _drifted(looks: Sequence[Look]) -> bool:
    return any(look.plan is not None and look.plan.kind in MOVING for look in looks)


def _holds(live: str | None, looks: Sequence[Look]) -> bool:
    """Return whether a hold is in force. That of a rollback ends when live has moved."""
    if live is None:
        return True
    return all(look.observation is None or commit_of(look.observation.live) == live for look in looks)
