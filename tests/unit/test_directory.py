"""Sites come by pages: in one order, each once, whether they are configured by id or found by a pattern."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.directory import FOUND_LASTS, Directory, Listing
from listener.errors import HostUnreachableError, SiteNotFoundError
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites
from tests.kept_log import KeptLog

if TYPE_CHECKING:
    from listener.plans import Repositories


def site(site_id: str, path: str = "/srv/x") -> Site:
    at = RepositoryAddress("studio", path)
    staging = Environment.of(site_id, "staging", at, "live", Policy.FORWARD, [(at, "staging")], follow=True)
    return Site(site_id, at, "live", {"staging": staging})


class Host:
    """What a host has, and how often it was asked."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)
        self.asked = 0
        self.down = False

    async def present(self, _address: object, site_id: str | None, _notes: object) -> list[str]:
        self.asked += 1
        if self.down:
            raise HostUnreachableError
        return [each for each in self.ids if site_id in (None, each)]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def directory(host: Host, *ids: str, clock: Callable[[], float] | None = None) -> Directory:
    """The directory of these sites, and of those that the host has for the pattern `p-*`."""
    sites = Sites.of(map(site, ids), [SitePattern("p-*", site("p-*", "/srv/{site}"))])
    return Directory(sites, cast("Repositories", host), clock or Clock(), KeptLog())


async def pages(found: Directory, visible: frozenset[str] | None, most: int) -> list[Listing]:
    """Every page of a list."""
    read = [await found.page(visible, "", most)]
    while read[-1].more:
        read.append(await found.page(visible, read[-1].sites[-1].id, most))
    return read


def ids(listings: list[Listing]) -> Iterator[str]:
    return (each.id for listing in listings for each in listing.sites)


NAMES = st.lists(st.from_regex("[a-c]{1,3}", fullmatch=True), unique=True, max_size=12)


@given(
    configured=NAMES,
    found=NAMES,
    most=st.integers(1, 5),
    covered=st.none() | st.frozensets(st.from_regex("(p-)?[a-c]{1,3}", fullmatch=True)),
)
def test_the_pages_are_the_whole_list_in_order_whatever_their_length(
    configured: list[str], found: list[str], most: int, covered: frozenset[str] | None
) -> None:
    host = Host(*(f"p-{each}" for each in found), "elsewhere", "p-A")
    everything = sorted([*configured, *(f"p-{each}" for each in found)])
    expected = [each for each in everything if covered is None or each in covered]
    read = asyncio.run(pages(directory(host, *configured), covered, most))
    assert list(ids(read)) == expected
    assert all(len(each.sites) == most for each in read[:-1])
    assert read[-1].sites or not expected


async def test_a_site_that_is_gone_by_the_next_page_hides_no_other() -> None:
    host = Host("p-a", "p-b", "p-c")
    found = directory(host)
    assert list(ids([await found.page(None, "p-b", 2)])) == ["p-c"]
    assert list(ids([await found.page(None, "p-aaa", 2)])) == ["p-b", "p-c"]


async def test_the_host_of_a_pattern_is_asked_once_for_all_pages_and_again_for_a_first_one() -> None:
    host, clock = Host("p-a", "p-b", "p-c"), Clock()
    found = directory(host, clock=clock)
    await pages(found, None, 1)
    assert host.asked == 1
    host.ids.append("p-d")
    assert list(ids(await pages(found, None, 2))) == ["p-a", "p-b", "p-c", "p-d"]
    assert host.asked == 2
    clock.now += FOUND_LASTS
    await found.page(None, "p-a", 2)
    assert host.asked == 3


async def test_a_host_is_not_asked_for_a_caller_who_may_see_none_of_its_sites() -> None:
    host = Host("p-a")
    found = directory(host, "mine", "other")
    assert list(ids(await pages(found, frozenset({"mine", "gone"}), 1))) == ["mine"]
    assert host.asked == 0
    assert list(ids(await pages(found, frozenset({"mine", "p-a"}), 1))) == ["mine", "p-a"]
    assert host.asked == 1


async def test_a_pattern_whose_host_does_not_answer_is_told_on_each_page() -> None:
    host = Host("p-a")
    host.down = True
    read = await pages(directory(host, "a", "b"), None, 1)
    assert list(ids(read)) == ["a", "b"]
    assert [[each.pattern for each in listing.unlisted] for listing in read] == [["p-*"], ["p-*"]]
    assert host.asked == 1


async def test_all_sites_are_one_page() -> None:
    sites, unlisted = await directory(Host("p-a"), *(f"s{number:04}" for number in range(1000))).all()
    assert (len(sites), sites[0].id, unlisted) == (1001, "p-a", [])


async def test_a_site_of_a_pattern_exists_if_its_repository_does() -> None:
    found = directory(Host("p-a"))
    assert (await found.site("p-a")).repository.path == "/srv/p-a"
    for unknown in ("p-b", "other"):
        with pytest.raises(SiteNotFoundError):
            await found.site(unknown)
