"""Which hosts have enough runs. A full host does not delay the runs of other hosts."""

from collections import Counter
from collections.abc import Iterable

from listener.sites import Environment, Sites


class Lanes:
    """Counts the runs on each host. The *lane* of an environment names all hosts that its run needs."""

    def __init__(self, sites: Sites, per_host: int) -> None:
        environments = [
            environment
            for site in (*sites, *(pattern.template for pattern in sites.patterns))
            for environment in site.environments.values()
        ]
        self._known = {environment.lane for environment in environments}
        self._per_host = per_host
        self._runs: Counter[str] = Counter()

    def full(self) -> frozenset[str]:
        """Return the lanes that contain a host with `per_host` runs."""
        full = {host for host, runs in self._runs.items() if runs >= self._per_host}
        return frozenset(lane for lane in self._known if full.intersection(hosts_of(lane)))

    def enter(self, environment: Environment) -> None:
        """Count a run that begins."""
        self._runs.update(hosts_of(environment.lane))

    def leave(self, environment: Environment) -> None:
        """Stop counting a run that needs its hosts no longer."""
        self._runs.subtract(hosts_of(environment.lane))


def hosts_of(lane: str) -> Iterable[str]:
    """Return the hosts of a lane."""
    return lane.split(",")
