"""Which sites exist: those that are configured by id, and those that a host has for a pattern.

A site of a pattern exists if its repository does. Its host is asked, and the answer is kept for some seconds:
a site that was just created in Studio is known soon, and many calls do not make the host busy. An answer that
must come at once waits only briefly for a silent host, and then uses the sites that the host had before.
"""

import asyncio
import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from listener.errors import HostUnreachableError, SiteNotFoundError, SyncError
from listener.journal import Log, Remarks
from listener.plans import Repositories
from listener.sites import Environment, Site, SitePattern, Sites

FOUND_LASTS = 30.0
"""Seconds for which a site counts as existing after it was found."""
MISSING_LASTS = 3.0
"""Seconds for which a site counts as missing after it was not found."""

LISTING_WAIT = 0.15
"""The most seconds that an answer which must come at once waits for the host of a pattern."""

REMEMBERED = 10_000
"""Answers that are kept at most: calls with invented ids must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A pattern whose sites could not be listed."""

    pattern: str
    error: SyncError


@dataclass(slots=True)
class _Listed:
    """What is known of a pattern."""

    ids: Sequence[str] = ()
    """The ids that it stood for at the last answer, in order."""
    error: SyncError | None = None
    """Why its host did not answer the last time."""
    answered_at: float = -math.inf
    until: float = 0.0
    """Further pages may use this until then."""
    asking: asyncio.Task[None] | None = None


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
        self._listed = {pattern.text: _Listed() for pattern in sites.patterns}
        """What each pattern stands for."""
        self._asking: dict[str, asyncio.Task[bool]] = {}
        """The questions whether a site exists that are under way."""

    def configured(self) -> Iterator[Site]:
        """Return the sites that are configured by their ids, by id."""
        return map(self._sites.site, self._configured)

    @property
    def patterns(self) -> tuple[SitePattern, ...]:
        """The configured patterns."""
        return self._sites.patterns

    async def of_pattern(self, pattern: SitePattern) -> list[Site]:
        """Ask the host of a pattern; return its sites, or those that it had before if it does not answer."""
        await asyncio.wait([self._ask(pattern)])
        return [self._sites.site(each) for each in self._listed[pattern.text].ids]

    def in_patterns(self, site_id: str, environment: str, patterns: Collection[str]) -> bool:
        """Return whether a site would belong to one of these patterns, and have the environment."""
        pattern = self._sites.pattern(site_id)
        return (
            pattern is not None and pattern.text in patterns and environment in pattern.template.environments
        )

    def recall(self, site_ids: Iterable[str]) -> None:
        """Let sites of patterns, known from before the start, exist until their hosts answer."""
        found: dict[str, set[str]] = {}
        for site_id in site_ids:
            pattern = self._sites.pattern(site_id)
            if pattern is not None:
                found.setdefault(pattern.text, set()).add(site_id)
        for text, ids in found.items():
            if not self._listed[text].ids:
                self._listed[text].ids = sorted(ids)

    async def close(self) -> None:
        """End the questions that are under way."""
        tasks: list[asyncio.Task[Any]] = [*self._asking.values()]
        tasks += [each.asking for each in self._listed.values() if each.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def site(self, site_id: str, *, wait: float | None = None) -> Site:
        """Return a site; raise `SiteNotFoundError` if it is unknown, or if its repository does not exist.

        If its host does not answer, or not within `wait` seconds, a site of a pattern counts as existing. Its
        run finds out.
        """
        pattern = self._sites.pattern(site_id)
        if pattern is not None and not await self._exists(pattern, site_id, wait):
            raise SiteNotFoundError
        return self._sites.site(site_id)

    async def environment(self, site_id: str, name: str) -> Environment:
        """Return one environment of one site; raise `SiteNotFoundError` or `EnvironmentNotFoundError`."""
        return (await self.site(site_id)).environment(name)

    async def all(self) -> tuple[list[Site], list[Unlisted]]:
        """Return every site, by id, and the patterns whose hosts do not answer."""
        listing = await self.page(None)
        return list(listing.sites), list(listing.unlisted)

    async def page(
        self,
        visible: frozenset[str] | None,
        after: str = "",
        most: int | None = None,
        *,
        wait: float | None = None,
    ) -> Listing:
        """Return up to `most` sites, by id, that follow the id `after`; with `visible`, only these.

        The first page asks the hosts of patterns, for `wait` seconds at most. A further one uses what they
        said up to `FOUND_LASTS` ago. Of a host that does not answer, the sites are those that it had before.
        """
        patterns = [each for each in self._sites.patterns if self._concerns(each, visible)]
        asked = [each for each in patterns if not after or self._clock() >= self._listed[each.text].until]
        if asked:
            await asyncio.wait([self._ask(each) for each in asked], timeout=wait)
        late = {each.text for each in asked if self._listed[each.text].asking is not None}
        unlisted = tuple(filter(None, (self._unlisted(each, late) for each in patterns)))
        ids = [self._configured, *(self._listed[each.text].ids for each in patterns)]
        following = heapq.merge(*(_beyond(each, after, visible) for each in ids))
        chosen = list(islice(following, None if most is None else most + 1))
        sites = tuple(map(self._sites.site, chosen[:most]))
        return Listing(sites, len(chosen) > len(sites), unlisted)

    @cached_property
    def _configured(self) -> Sequence[str]:
        return sorted(self._sites.by_id)

    async def _exists(self, pattern: SitePattern, site_id: str, wait: float | None) -> bool:
        known = self._known.get(site_id)
        if known is not None and self._clock() < known[1]:
            return known[0]
        asking = self._asking.get(site_id)
        if asking is None:
            asking = self._asking[site_id] = asyncio.create_task(self._find(pattern, site_id))
            asking.add_done_callback(lambda _: self._asking.pop(site_id, None))
        # Unlike `wait_for`, `wait` cancels nothing: others may wait for the same answer.
        await asyncio.wait([asking], timeout=wait)
        return asking.result() if asking.done() else True

    async def _find(self, pattern: SitePattern, site_id: str) -> bool:
        """Ask the host whether it has a site."""
        try:
            exists = site_id in await self._present(pattern, site_id)
        except SyncError as error:
            self._log.warning("site", site=site_id, error=error.code, message=error.message)
            return True
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[site_id] = exists, self._clock() + (FOUND_LASTS if exists else MISSING_LASTS)
        return exists

    def _concerns(self, pattern: SitePattern, visible: frozenset[str] | None) -> bool:
        """Return whether a caller may see any site of the pattern. If not, the host is not asked."""
        return visible is None or any(self._sites.pattern(each) is pattern for each in visible)

    def _ask(self, pattern: SitePattern) -> asyncio.Task[None]:
        """Ask the host of a pattern for its sites, unless that is under way."""
        listed = self._listed[pattern.text]
        if listed.asking is None:
            listed.asking = asyncio.create_task(self._list(pattern, listed))
        return listed.asking

    async def _list(self, pattern: SitePattern, listed: _Listed) -> None:
        try:
            present = await self._present(pattern, None)
        except SyncError as error:
            self._log.warning("sites", pattern=pattern.text, error=error.code, message=error.message)
            listed.error = error
        else:
            listed.ids = sorted(each for each in set(present) if self._sites.pattern(each) is pattern)
            listed.error, listed.answered_at = None, self._clock()
        finally:
            listed.until = self._clock() + FOUND_LASTS
            listed.asking = None

    def _unlisted(self, pattern: SitePattern, late: Collection[str]) -> Unlisted | None:
        """Return why the known sites of a pattern may be out of date; None if its host answered."""
        listed = self._listed[pattern.text]
        if listed.error is not None:
            return Unlisted(pattern.text, listed.error)
        if pattern.text in late and self._clock() >= listed.answered_at + FOUND_LASTS:
            host = pattern.template.repository.host
            return Unlisted(pattern.text, HostUnreachableError(f"{host} has not answered yet."))
        return None

    async def _present(self, pattern: SitePattern, site_id: str | None) -> list[str]:
        return await self._repositories.present(
            pattern.template.repository, site_id, Remarks(self._log, host=pattern.template.repository.host)
        )


def _beyond(ids: Sequence[str], after: str, visible: frozenset[str] | None) -> Iterator[str]:
    """Yield the visible ids that follow `after`, in order."""
    following = islice(ids, bisect_right(ids, after), None)
    return following if visible is None else (each for each in following if each in visible)
