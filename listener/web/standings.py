"""How sites stand: one look at every environment, its hold and its last success."""

from collections.abc import Sequence

from listener.access import Caller
from listener.directory import Directory
from listener.journal import Log, Remarks
from listener.queue import RunStore
from listener.sites import Environment, Site
from listener.sync import Synchronizer
from listener.web.answers.sites import (
    AnyDrift,
    EnvironmentView,
    SitesPage,
    SiteView,
    UnlistedView,
    drift_of,
)
from listener.web.pages import Page


class Standings:
    """Looks at sites and environments for the API and the page."""

    def __init__(self, directory: Directory, store: RunStore, synchronizer: Synchronizer, log: Log) -> None:
        self._directory = directory
        self._store = store
        self._synchronizer = synchronizer
        self._log = log

    async def page(self, caller: Caller, page: Page) -> SitesPage:
        """Return a page of the sites that a caller may see; an admin also sees what could not be listed."""
        listing = await self._directory.page(caller.visible, page.after, page.limit)
        unlisted = listing.unlisted if caller.admin else ()
        return SitesPage(
            sites=await self._stand(listing.sites),
            next=listing.sites[-1].id if listing.more else None,
            unlisted=tuple(map(UnlistedView.of, unlisted)),
        )

    async def site(self, site_id: str) -> SiteView:
        """Return one site; raise `SiteNotFoundError`."""
        (site,) = await self._stand([await self._directory.site(site_id)])
        return site

    async def look(self, environment: Environment) -> AnyDrift:
        """Return what a run would do; raise `SyncError` if the only repository can't be looked at."""
        remarks = Remarks(
            self._log, site=environment.site, environment=environment.name, host=",".join(environment.hosts)
        )
        looks = await self._synchronizer.look(environment, remarks)
        if len(looks) == 1 and looks[0].error is not None:
            raise looks[0].error
        return drift_of(looks)

    async def _stand(self, sites: Sequence[Site]) -> tuple[SiteView, ...]:
        environments = [each for site in sites for each in site.environments.values()]
        looks = await self._synchronizer.survey(environments, Remarks(self._log))
        holds = {
            (hold.site, hold.environment): hold
            for hold in await self._store.holds([site.id for site in sites])
        }
        successes = await self._store.last_successes([(each.site, each.name) for each in environments])
        views: dict[str, list[EnvironmentView]] = {site.id: [] for site in sites}
        for each, found in zip(environments, looks, strict=True):
            where = each.site, each.name
            views[each.site].append(EnvironmentView.of(each, found, holds.get(where), successes.get(where)))
        return tuple(
            SiteView(site=site.id, live=site.live, environments=tuple(views[site.id])) for site in sites
        )
