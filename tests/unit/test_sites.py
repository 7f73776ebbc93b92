"""Sites and environments are found by their exact names, or not at all."""

import pytest

from listener.errors import EnvironmentNotFoundError, SiteNotFoundError
from listener.sites import Environment, Policy, RepositoryAddress, Site, Sites

HOME = RepositoryAddress("studio", "/srv/mysite/published")


def environment(name: str, *, follow: bool) -> Environment:
    return Environment.of("mysite", name, HOME, "live", Policy.FORWARD, [(HOME, name)], follow=follow)


STAGING, QA = environment("staging", follow=True), environment("qa", follow=False)
SITE = Site("mysite", HOME, "live", {"staging": STAGING, "qa": QA})
SITES = Sites.of([SITE])


def test_a_site_and_its_environments_are_found_by_name() -> None:
    assert SITES.site("mysite") is SITE
    assert SITES.environment("mysite", "qa") is QA
    assert list(SITES) == [SITE]
    assert "mysite" in SITES


@pytest.mark.parametrize("site_id", ["", "MYSITE", "mysite ", "../mysite", "mysite\x00"])
def test_another_id_is_no_site(site_id: str) -> None:
    assert site_id not in SITES
    with pytest.raises(SiteNotFoundError):
        SITES.site(site_id)
    with pytest.raises(SiteNotFoundError):
        SITES.environment(site_id, "staging")


@pytest.mark.parametrize("name", ["", "live", "Staging", "staging/../qa"])
def test_live_and_other_names_are_no_environment(name: str) -> None:
    with pytest.raises(EnvironmentNotFoundError):
        SITES.environment("mysite", name)


def test_only_what_follows_is_synced_by_every_publish() -> None:
    assert SITE.following == (STAGING,)


def test_an_address_is_told_as_git_writes_it() -> None:
    assert str(HOME) == "studio:/srv/mysite/published"
