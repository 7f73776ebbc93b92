"""Regular upkeep in the background: it deletes old backups on the hosts and old runs in the store."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from itertools import count

from listener.access import SessionStore
from listener.directory import Directory
from listener.errors import StoreError, SyncError
from listener.journal import Log, Remarks
from listener.plans import Repositories
from listener.queue import Pruned, RunStore
from listener.records import SENT_AGAIN
from listener.runs import first_id

FIRST_AFTER = 60.0
"""Seconds from the start to the first round. The runs that wait in the queue go first."""
AGAIN_AFTER = 600.0
"""Seconds between two rounds. A flood of deliveries is trimmed before it fills the disk."""
EXPIRED_EACH = 36
"""One round of so many deletes old backups on the hosts too."""

PRUNED_AT_ONCE = 200
"""Runs that are deleted in one transaction. It is small, so that other writes do not wait long."""


class Upkeep:
    """Deletes what is old."""

    def __init__(
        self,
        directory: Directory,
        repositories: Repositories,
        store: RunStore,
        sessions: SessionStore,
        *,
        keep_backups: float,
        age: float,
        runs: int,
        deliveries: int,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._directory = directory
        self._repositories = repositories
        self._store = store
        self._sessions = sessions
        self._keep_backups = keep_backups
        self._age = age
        self._runs = runs
        self._deliveries = deliveries
        self._clock = clock
        self._log = log

    async def run_forever(self) -> None:
        """Do a round every `AGAIN_AFTER` seconds until cancelled."""
        await asyncio.sleep(FIRST_AFTER)
        for number in count():
            try:
                await self.prune()
            except StoreError as error:
                self._log.warning("upkeep", error=error.code, message=error.message)
            if number % EXPIRED_EACH == 0:
                await self.expire()
            await asyncio.sleep(AGAIN_AFTER)

    async def prune(self) -> Pruned:
        """Delete old runs, their logs, deliveries and sessions from the store; return how many.

        Trim the deliveries of each hook to its limit.
        """
        await self._sessions.prune_sessions(self._clock())
        now, total = self._clock(), Pruned()
        while True:
            pruned = await self._store.prune(now - self._age, self._runs, PRUNED_AT_ONCE)
            pruned += await self._store.trim(self._deliveries, now - SENT_AGAIN, PRUNED_AT_ONCE)
            if pruned == Pruned():
                break
            total += pruned
        if total != Pruned():
            self._log.info("upkeep", **asdict(total))
        return total

    async def expire(self) -> int:
        """Delete the backups that are older than `keep_backups`; return how many."""
        before = first_id(self._clock() - self._keep_backups)
        deleted = 0
        sites, _ = await self._directory.all()
        for leg in (leg for site in sites for each in site.environments.values() for leg in each.legs):
            where = {"site": leg.site, "environment": leg.environment, "repository": str(leg)}
            try:
                expired = await self._repositories.of(leg, Remarks(self._log, **where)).expire(before)
            except SyncError as error:
                self._log.warning("upkeep", error=error.code, message=error.message, **where)
                continue
            if expired:
                self._log.info("upkeep", expired=expired, **where)
            deleted += expired
        return deleted
