"""Which sites exist: those that are configured by id, and those that a host has for a pattern.

A site of a pattern exists if its repository does. Its host is asked, and the answer kept for some seconds: a
site that was just created in Studio is known soon, and calls do not make the host busy.
"""

import asyncio
import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from listener.errors import SiteNotFoundError, SyncError
from listener.journal import Log, Remarks
from listener.plans import Repositories
from listener.sites import Environment, Site, SitePattern, Sites

FOUND_LASTS = 30.0
"""Seconds for which a site counts as existing after it was found."""
MISSING_LASTS = 3.0
"""Seconds for which a site counts as missing after it was not found."""

REMEMBERED = 10_000
"""Answers that are kept at most: calls with invented ids must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A pattern whose sites could not be listed."""

    pattern: str
    error: SyncError


@dataclass(frozen=True, slots=True)
class Listing:
    """Some sites, by id."""

    sites: tuple[Site, ...]
    more: bool
    """Whether further sites follow."""
    unlisted: tuple[Unlisted, ...]


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
        """Whether a site exists, and until when that counts."""
        self._listed: dict[str, tuple[Sequence[str] | Unlisted, float]] = {}
        """What a pattern stands for: ids in order, and until when a further page may use them."""

    async def site(self, site_id: str) -> Site:
        """Return a site; raise `SiteNotFoundError` if it is unknown, or if its repository does not exist.

        If its host does not answer, a site of a pattern counts as existing: its run will tell.
        """
        pattern = self._sites.pattern(site_id)
        if pattern is not None and not await self._exists(pattern, site_id):
            raise SiteNotFoundError
        return self._sites.site(site_id)

    async def environment(self, site_id: str, name: str) -> Environment:
        """Return one environment of one site; raise `SiteNotFoundError` or `EnvironmentNotFoundError`."""
        return (await self.site(site_id)).environment(name)

    async def all(self) -> tuple[list[Site], list[Unlisted]]:
        """Return every site, by id, and the patterns whose hosts do not answer."""
        listing = await self.page(None)
        return list(listing.sites), list(listing.unlisted)

    async def page(self, visible: frozenset[str] | None, after: str = "", most: int | None = None) -> Listing:
        """Return up to `most` sites, by id, that follow the id `after`; with `visible`, only these.

        The first page asks the hosts of patterns. A further one uses what they said up to `FOUND_LASTS` ago.
        """
        found = await asyncio.gather(*(self._ids(each, visible, after) for each in self._sites.patterns))
        unlisted = tuple(each for each in found if isinstance(each, Unlisted))
        ids = [self._configured, *(each for each in found if not isinstance(each, Unlisted))]
        following = heapq.merge(*(_beyond(each, after, visible) for each in ids))
        chosen = list(islice(following, None if most is None else most + 1))
        sites = tuple(map(self._sites.site, chosen[:most]))
        return Listing(sites, len(chosen) > len(sites), unlisted)

    @cached_property
    def _configured(self) -> Sequence[str]:
        return sorted(self._sites.by_id)

    async def _exists(self, pattern: SitePattern, site_id: str) -> bool:
        known = self._known.get(site_id)
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            exists = site_id in await self._present(pattern, site_id)
        except SyncError as error:
            self._log.warning("site", site=site_id, error=error.code, message=error.message)
            return True
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[site_id] = exists, self._clock() + (FOUND_LASTS if exists else MISSING_LASTS)
        return exists

    async def _ids(
        self, pattern: SitePattern, visible: frozenset[str] | None, after: str
    ) -> Sequence[str] | Unlisted:
        """Return the ids that a pattern stands for, in order; nobody asks if the caller may see none."""
        if visible is not None and not any(self._sites.pattern(each) is pattern for each in visible):
            return ()
        listed, until = self._listed.get(pattern.text, ((), 0.0))
        if not after or self._clock() >= until:
            listed = await self._list(pattern)
            self._listed[pattern.text] = listed, self._clock() + FOUND_LASTS
        return listed

    async def _list(self, pattern: SitePattern) -> Sequence[str] | Unlisted:
        try:
            present = await self._present(pattern, None)
        except SyncError as error:
            self._log.warning("sites", pattern=pattern.text, error=error.code, message=error.message)
            return Unlisted(pattern.text, error)
        return sorted(each for each in set(present) if self._sites.pattern(each) is pattern)

    async def _present(self, pattern: SitePattern, site_id: str | None) -> list[str]:
        return await self._repositories.present(
            pattern.template.repository, site_id, Remarks(self._log, host=pattern.template.repository.host)
        )


def _beyond(ids: Sequence[str], after: str, visible: frozenset[str] | None) -> Iterator[str]:
    """Yield the visible ids that follow `after`, in order."""
    following = islice(ids, bisect_right(ids, after), None)
    return following if visible is None else (each for each in following if each in visible)
