"""The state of sites: last looks, holds and last successes; after fresh looks, if the caller asks for them.

Without fresh looks, an answer does not wait for hosts. With them, it waits `FRESH_LIMIT` at most. If a host
does not answer in time, its environments are shown by the look before, and marked as late.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from listener.access import Caller
from listener.directory import LISTING_WAIT, Directory, Listing
from listener.journal import Log, Remarks
from listener.looks import EnvironmentLook, Place
from listener.queue import Hold, RunStore, Success
from listener.sites import Environment, Site
from listener.surveys import Surveys
from listener.sync import Synchronizer
from listener.web.answers.sites import (
    AnyDrift,
    EnvironmentView,
    SitesPage,
    SitesPageEnd,
    SiteView,
    UnlistedView,
    drift_of,
)
from listener.web.pages import Page

LISTED_FRESH = 3.0
"""Seconds that a fresh answer waits for the hosts of patterns to name their sites."""

FRESH_LIMIT = 10.0
"""Seconds that an answer waits for fresh looks at most."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store has about some sites."""

    looks: Mapping[Place, EnvironmentLook]
    holds: Mapping[Place, Hold]
    successes: Mapping[Place, Success]

    def view(self, site: Site, fresh: Mapping[Place, EnvironmentLook] | None = None) -> SiteView:
        """Return the state of a site; with `fresh`, environments without a fresh look are marked as late."""
        return SiteView(
            site=site.id,
            live=site.live,
            environments=tuple(self._environment(each, fresh) for each in site.environments.values()),
        )

    def _environment(
        self, environment: Environment, fresh: Mapping[Place, EnvironmentLook] | None
    ) -> EnvironmentView:
        place = environment.site, environment.name
        look = fresh.get(place) if fresh is not None else None
        return EnvironmentView.of(
            environment,
            look or self.looks.get(place),
            self.holds.get(place),
            self.successes.get(place),
            late=fresh is not None and look is None,
        )


class FreshPage:
    """A page of sites with fresh looks: the sites as they arrive, and the rest of the page."""

    def __init__(self, sites: AsyncGenerator[SiteView, None], end: SitesPageEnd) -> None:
        self.sites = sites
        self.end = end

    async def whole(self) -> SitesPage:
        """Return the whole page, after all looks have arrived or the limit has passed."""
        async with contextlib.aclosing(self.sites) as coming:
            sites = [site async for site in coming]
        return SitesPage.of_object(self.end, sites=sorted(sites, key=lambda site: site.site))


class Standings:
    """Returns the state of sites and environments, for the API and the page."""

    def __init__(
        self, directory: Directory, store: RunStore, surveys: Surveys, synchronizer: Synchronizer, log: Log
    ) -> None:
        self._directory = directory
        self._store = store
        self._surveys = surveys
        self._synchronizer = synchronizer
        self._log = log

    async def page(self, caller: Caller, page: Page) -> SitesPage:
        """Return a page of the sites that a caller may see; for an admin, also the unlisted patterns."""
        listing = await self._directory.page(caller.visible, page.after, page.limit, wait=LISTING_WAIT)
        kept = await self._kept(listing.sites)
        return SitesPage.of_object(_end(caller, listing), sites=tuple(map(kept.view, listing.sites)))

    async def fresh_page(self, caller: Caller, page: Page) -> FreshPage:
        """Return the same, with a fresh look at each environment."""
        listing = await self._directory.page(caller.visible, page.after, page.limit, wait=LISTED_FRESH)
        return FreshPage(self._fresh(listing.sites, await self._kept(listing.sites)), _end(caller, listing))

    async def shown(self, caller: Caller, page: Page, fresh: bool) -> SitesPage:
        """Return a page, after fresh looks if these are asked for."""
        return await (await self.fresh_page(caller, page)).whole() if fresh else await self.page(caller, page)

    async def site(self, site_id: str) -> SiteView:
        """Return one site; raise `SiteNotFoundError`."""
        site = await self._directory.site(site_id, wait=LISTING_WAIT)
        return (await self._kept([site])).view(site)

    async def fresh_site(self, site_id: str) -> AsyncGenerator[SiteView, None]:
        """Return the same, with a fresh look at each environment."""
        sites = [await self._directory.site(site_id, wait=LISTED_FRESH)]
        return self._fresh(sites, await self._kept(sites))

    async def look(self, environment: Environment) -> AnyDrift:
        """Return what a run would do; raise `SyncError` if the only repository can't be looked at."""
        remarks = Remarks(
            self._log, site=environment.site, environment=environment.name, host=",".join(environment.hosts)
        )
        looks = await self._synchronizer.look(environment, remarks)
        if len(looks) == 1 and looks[0].error is not None:
            raise looks[0].error
        return drift_of([look.found for look in looks])

    async def _fresh(self, sites: Sequence[Site], kept: _Kept) -> AsyncGenerator[SiteView, None]:
        """Look at sites, and yield each when all its looks have arrived; at the end, the late ones."""
        waiting = {site.id: site for site in sites}
        fresh: dict[Place, EnvironmentLook] = {}
        environments = [each for site in sites for each in site.environments.values()]
        async for look in self._surveys.arriving(environments, urgent=True, limit=FRESH_LIMIT):
            fresh[look.place] = look
            site = waiting[look.site]
            if all((site.id, name) in fresh for name in site.environments):
                yield kept.view(waiting.pop(site.id), fresh)
        for site in waiting.values():
            yield kept.view(site, fresh)

    async def _kept(self, sites: Sequence[Site]) -> _Kept:
        environments = [each for site in sites for each in site.environments.values()]
        holds = await self._store.holds([site.id for site in sites])
        return _Kept(
            await self._surveys.known(environments),
            {(hold.site, hold.environment): hold for hold in holds},
            await self._store.last_successes([(each.site, each.name) for each in environments]),
        )


def _end(caller: Caller, listing: Listing) -> SitesPageEnd:
    return SitesPageEnd(
        next=listing.sites[-1].id if listing.more else None,
        unlisted=tuple(map(UnlistedView.of, listing.unlisted if caller.admin else ())),
    )
