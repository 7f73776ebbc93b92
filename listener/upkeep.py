"""What is done now and then, in nobody's way: the backups of old resets are deleted."""

import asyncio
from collections.abc import Callable

from listener.directory import Directory
from listener.errors import SyncError
from listener.journal import Log, Remarks
from listener.plans import Repositories
from listener.runs import first_id

FIRST_AFTER = 60.0
"""Seconds after the start: what waits in the queue goes first."""
AGAIN_AFTER = 6 * 3600.0
"""Seconds from one round to the next."""


class Upkeep:
    """Goes round all environments."""

    def __init__(
        self,
        directory: Directory,
        repositories: Repositories,
        keep_backups: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._directory = directory
        self._repositories = repositories
        self._keep_backups = keep_backups
        self._clock = clock
        self._log = log

    async def go_on(self) -> None:
        """Go round until cancelled."""
        await asyncio.sleep(FIRST_AFTER)
        while True:
            await self.round()
            await asyncio.sleep(AGAIN_AFTER)

    async def round(self) -> int:
        """Delete the backups that have been kept for long enough, and count them."""
        before = first_id(self._clock() - self._keep_backups)
        deleted = 0
        sites, _ = await self._directory.all()
        for leg in (leg for site in sites for each in site.environments.values() for leg in each.legs):
            where = {"site": leg.site, "environment": leg.environment, "repository": str(leg)}
            try:
                expired = await self._repositories.of(leg, Remarks(self._log, **where)).expire(before)
            except SyncError as error:
                self._log.log(30, "upkeep", error=error.code, message=error.message, **where)
                continue
            if expired:
                self._log.log(20, "upkeep", expired=expired, **where)
            deleted += expired
        return deleted
