"""Which lanes are full: those with a host that has as many runs as it may."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from listener.lanes import Lanes
from listener.sites import Environment, Policy, RepositoryAddress, Site, Sites

HOSTS = ("eu1", "eu2", "studio", "us1")

PER_HOST = 2


def _site(number: int, carriers: tuple[str, ...]) -> Site:
    site_id, live = f"site-{number}", RepositoryAddress("studio", f"/srv/{number}")
    legs = [(RepositoryAddress(host, f"/srv/{host}/{number}"), "staging") for host in carriers]
    environment = Environment.of(site_id, "staging", live, "live", Policy.FORWARD, legs, follow=True)
    return Site(site_id, live, "live", {"staging": environment})


CARRIERS = [("studio",), ("eu1",), ("eu1", "eu2"), ("us1",), ("eu2", "us1")]

SITES = Sites.of([_site(number, carriers) for number, carriers in enumerate(CARRIERS)])

ENVIRONMENTS = [site.environments["staging"] for site in SITES]


def full_lanes(running: Counter[int]) -> set[str]:
    runs = Counter(host for each in running.elements() for host in ENVIRONMENTS[each].lane.split(","))
    return {
        each.lane for each in ENVIRONMENTS if any(runs[host] >= PER_HOST for host in each.lane.split(","))
    }


@given(st.lists(st.sampled_from(range(len(ENVIRONMENTS))), max_size=12), st.data())
def test_a_lane_is_full_as_long_as_one_of_its_hosts_has_as_many_runs_as_it_may(
    begun: list[int], data: st.DataObject
) -> None:
    lanes, running = Lanes(SITES, PER_HOST), Counter[int]()
    for number in begun:
        lanes.enter(ENVIRONMENTS[number])
        running[number] += 1
        if data.draw(st.booleans()):
            ended = data.draw(st.sampled_from(sorted(running.elements())))
            lanes.leave(ENVIRONMENTS[ended])
            running[ended] -= 1
        full = full_lanes(running)
        assert lanes.full() == full
        assert lanes.all_full() == ({each.lane for each in ENVIRONMENTS} == full)
        for leaving in running.elements():
            assert lanes.full_without(ENVIRONMENTS[leaving]) == full_lanes(running - Counter([leaving]))
