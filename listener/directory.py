"""Which sites there are: those that are configured by their ids, and what is found of those by pattern.

A site by pattern exists when its repository does. Its host is asked, and the answer kept for a moment: a site
that was just created in Studio is known within seconds, and callers do not make the host busy.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from listener.errors import SiteNotFoundError, SyncError
from listener.journal import Log, Remarks
from listener.plans import Repositories
from listener.sites import Environment, Site, SitePattern, Sites

THERE_LASTS = 30.0
"""Seconds for which a site that was found counts as there."""
MISSING_LASTS = 3.0
"""Seconds for which one that was not found counts as missing."""

REMEMBERED = 10_000
"""Answers that are kept at most: whoever asks for made-up ids must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A pattern whose sites could not be listed."""

    pattern: str
    error: SyncError


class Directory:
    """Looks sites up."""

    def __init__(
        self, sites: Sites, repositories: Repositories, clock: Callable[[], float], log: Log
    ) -> None:
        self._sites = sites
        self._repositories = repositories
        self._clock = clock
        self._log = log
        self._known: dict[str, tuple[bool, float]] = {}
        """Whether a site is there, and until when that counts."""

    async def site(self, site_id: str) -> Site:
        """Return a site; raise `SiteNotFoundError` if it is unknown, or its repository is not there.

        Where its host does not answer, a site by pattern is taken for there: its run will tell.
        """
        pattern = self._sites.pattern(site_id)
        if pattern is not None and not await self._there(pattern, site_id):
            raise SiteNotFoundError
        return self._sites.site(site_id)

    async def environment(self, site_id: str, name: str) -> Environment:
        """Return one environment of one site; raise `SiteNotFoundError` or `EnvironmentNotFoundError`."""
        return (await self.site(site_id)).environment(name)

    async def all(self) -> tuple[list[Site], list[Unlisted]]:
        """Return every site that there is, by id, and the patterns whose hosts do not answer."""
        found = await asyncio.gather(*map(self._listed, self._sites.patterns))
        sites = {site.id: site for site in self._sites}
        for listed in found:
            if not isinstance(listed, Unlisted):
                sites.update({site.id: site for site in listed})
        unlisted = [listed for listed in found if isinstance(listed, Unlisted)]
        return [sites[site_id] for site_id in sorted(sites)], unlisted

    async def _there(self, pattern: SitePattern, site_id: str) -> bool:
        known = self._known.get(site_id)
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            there = site_id in await self._present(pattern, site_id)
        except SyncError as error:
            self._log.warning("site", site=site_id, error=error.code, message=error.message)
            return True
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[site_id] = there, self._clock() + (THERE_LASTS if there else MISSING_LASTS)
        return there

    async def _listed(self, pattern: SitePattern) -> list[Site] | Unlisted:
        try:
            present = await self._present(pattern, None)
        except SyncError as error:
            self._log.warning("sites", pattern=pattern.text, error=error.code, message=error.message)
            return Unlisted(pattern.text, error)
        return [pattern.site(each) for each in present if self._sites.pattern(each) is pattern]

    async def _present(self, pattern: SitePattern, site_id: str | None) -> list[str]:
        return await self._repositories.present(
            pattern.template.repository, site_id, Remarks(self._log, host=pattern.template.repository.host)
        )
