"""Sites and environments are found by their exact names, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.errors import EnvironmentNotFoundError, SiteNotFoundError
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites

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


def matches(pattern: str, site_id: str) -> bool:
    before, _, after = pattern.partition("*")
    long_enough = len(site_id) >= len(before) + len(after)
    return long_enough and site_id.startswith(before) and site_id.endswith(after)


ENDS = st.text("ab", max_size=3)


@given(st.lists(st.tuples(ENDS, ENDS).map("*".join), unique=True, max_size=12), st.text("abc", min_size=1))
def test_a_site_belongs_to_the_most_specific_pattern_that_it_matches_the_first_of_several(
    texts: list[str], site_id: str
) -> None:
    sites = Sites.of([SITE], [SitePattern(text, SITE) for text in texts])
    matching = [text for text in texts if matches(text, site_id)]
    found = sites.pattern(site_id)
    if len(site_id) > 50 or not matching:
        assert found is None
    else:
        assert found is not None
        assert found.text == max(matching, key=len)
        assert sites.site(site_id).id == site_id


def test_an_id_that_studio_does_not_allow_belongs_to_no_pattern() -> None:
    sites = Sites.of([SITE], [SitePattern("*", SITE)])
    assert [each for each in ("", "-a", "A", "a/b", "a" * 51, "mysite") if each in sites] == ["mysite"]
    assert sites.pattern("mysite") is None
