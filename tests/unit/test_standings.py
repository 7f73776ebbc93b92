"""A page of fresh looks fails before it begins: after the headers, an error can't be answered any more."""

from collections.abc import Collection
from typing import TYPE_CHECKING, cast

import pytest

from listener.directory import Listing
from listener.errors import StoreUnavailableError
from listener.queue import Hold
from listener.sites import Site
from listener.web.pages import Page
from listener.web.standings import Standings
from tests.kept_log import KeptLog

if TYPE_CHECKING:
    from listener.access import Caller
    from listener.directory import Directory
    from listener.queue import RunStore
    from listener.surveys import Surveys
    from listener.sync import Synchronizer


class Nothing:
    """No site, and a store that is away."""

    async def page(self, *_: object, wait: float) -> Listing:
        return Listing((), more=False, unlisted=())

    async def site(self, site_id: str, *, wait: float) -> Site:
        return cast("Site", type("Empty", (), {"id": site_id, "environments": {}}))

    async def holds(self, _sites: Collection[str]) -> list[Hold]:
        raise StoreUnavailableError


@pytest.fixture
def standings() -> Standings:
    nothing = Nothing()
    return Standings(
        cast("Directory", nothing),
        cast("RunStore", nothing),
        cast("Surveys", nothing),
        cast("Synchronizer", nothing),
        KeptLog(),
    )


async def test_a_fresh_page_is_refused_at_once_while_the_store_is_away(standings: Standings) -> None:
    with pytest.raises(StoreUnavailableError):
        await standings.fresh_page(cast("Caller", type("Admin", (), {"visible": None})), Page("", 10))


async def test_a_fresh_site_is_refused_at_once_while_the_store_is_away(standings: Standings) -> None:
    with pytest.raises(StoreUnavailableError):
        await standings.fresh_site("mysite")
