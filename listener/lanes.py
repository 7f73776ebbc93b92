"""Which hosts have enough runs. A full host does not delay the runs of other hosts."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from listener.sites import Environment, Sites


class Lanes:
    """Counts the runs on each host. The *lane* of an environment names all hosts that its run needs.

    Each claim of a run asks which lanes are full. The answer is kept, and made again only when a host becomes
    full or free: otherwise each claim would take longer with each configured host.
    """

    def __init__(self, sites: Sites, per_host: int) -> None:
        self._lanes_of: defaultdict[str, set[str]] = defaultdict(set)
        for site in (*sites, *(pattern.template for pattern in sites.patterns)):
            for environment in site.environments.values():
                for host in hosts_of(environment.lane):
                    self._lanes_of[host].add(environment.lane)
        self._count = len(set().union(*self._lanes_of.values()))
        self._per_host = per_host
        self._runs: Counter[str] = Counter()
        self._full_hosts: frozenset[str] = frozenset()
        self._full: frozenset[str] = frozenset()

    def full(self) -> frozenset[str]:
        """Return the lanes that contain a host with `per_host` runs."""
        return self._full

    def all_full(self) -> bool:
        """Return whether no run of a configured environment may start."""
        return 0 < self._count == len(self._full)

    def full_without(self, environment: Environment) -> frozenset[str]:
        """Return the lanes that will be full after a run of this environment has ended."""
        leaving = {host for host in hosts_of(environment.lane) if self._runs[host] <= self._per_host}
        return frozenset().union(*(self._lanes_of[host] for host in self._full_hosts - leaving))

    def enter(self, environment: Environment) -> None:
        """Count a run that begins."""
        hosts = hosts_of(environment.lane)
        self._runs.update(hosts)
        self._changed(hosts)

    def leave(self, environment: Environment) -> None:
        """Stop counting a run that needs its hosts no longer."""
        hosts = hosts_of(environment.lane)
        self._runs.subtract(hosts)
        self._changed(hosts)

    def _changed(self, hosts: Iterable[str]) -> None:
        full = {host for host in hosts if self._runs[host] >= self._per_host}
        changed = self._full_hosts.difference(hosts) | full
        if changed != self._full_hosts:
            self._full_hosts = changed
            self._full = frozenset().union(*(self._lanes_of[host] for host in changed))


def hosts_of(lane: str) -> Iterable[str]:
    """Return the hosts of a lane."""
    return lane.split(",")
