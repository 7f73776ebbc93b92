"""Figures of the present: read from the store when Prometheus asks, and from the last looks at drift."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from listener.queue import Backlog, Hold, RunStore
from listener.sites import Sites

SITE = ("site", "environment")

Overdue = Callable[[], Collection[tuple[str, str]]]
"""Returns sites and environments (`listener.waits.Waits.overdue`)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store holds at one moment."""

    backlog: Backlog
    holds: frozenset[tuple[str, str]]
    successes: Mapping[tuple[str, str], float]
    """When each environment last became equal to live, in Unix seconds."""
    deliveries: Mapping[str, int]
    """How many deliveries of each hook are kept whole."""


async def read(store: RunStore, sites: Sites, deliveries: int) -> Reading:
    """Read the store; deliveries are counted up to one more than `deliveries`, the limit for each hook."""
    configured = [(each.site, each.name) for site in sites for each in site.environments.values()]
    found = await store.last_successes(configured)
    successes = {environment: success.at for environment, success in found.items()}
    holds = frozenset(map(_held, await store.holds()))
    return Reading(await store.backlog(), holds, successes, await store.kept(deliveries + 1))


def _held(hold: Hold) -> tuple[str, str]:
    return hold.site, hold.environment


class StoredFigures(Collector):
    """Figures of the present: what the store holds, and what the last looks at drift found."""

    def __init__(self, label: Callable[[str], str], hooks: Collection[str], deliveries: int) -> None:
        self._label = label
        self._hooks = hooks
        self._deliveries = deliveries
        self.overdue: Overdue = frozenset
        self.reading: Reading | None = None
        self.drifted: dict[tuple[str, str], bool] = {}
        """What the last look at each environment found. So the sites of a pattern are those that exist."""

    def describe(self) -> Iterator[Metric]:
        """Return nothing: no other collector uses these names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return the figures."""
        yield _gauge("store_up", "Whether the store answers.", float(self.reading is not None))
        yield self._by_site(
            "drifted_environments", "Environments that differed from live when last looked at.", self.drifted
        )
        what = "Environments whose run has waited long for a repository that is never at rest."
        yield self._by_site("restless_environments", what, dict.fromkeys(self.overdue(), True))
        what = "How many deliveries of a hook are kept whole (history.deliveries)."
        yield _gauge("kept_deliveries_limit", what, self._deliveries)
        if self.reading is not None:
            yield from self._stored(self.reading)

    def _stored(self, reading: Reading) -> Iterator[Metric]:
        backlog = reading.backlog
        yield _gauge("queued_runs", "Runs that wait.", backlog.queued)
        yield _gauge("running_runs", "Runs that any listener carries out now.", backlog.running)
        if backlog.oldest is not None:
            what = "When the oldest waiting run was made."
            yield _gauge("oldest_queued_run_timestamp_seconds", what, backlog.oldest)
        yield self._by_site("held_environments", "Environments on hold.", dict.fromkeys(reading.holds, True))
        successes = GaugeMetricFamily(
            "sync_staging_last_success_timestamp_seconds",
            "When an environment last became equal to live.",
            labels=SITE,
        )
        for (site, environment), at in reading.successes.items():
            successes.add_metric((site, environment), at)
        yield successes
        what = "Deliveries that are kept whole; counted up to one more than the limit."
        kept = GaugeMetricFamily("sync_staging_kept_deliveries", what, labels=("hook",))
        for hook in reading.deliveries.keys() & set(self._hooks):
            kept.add_metric((hook,), reading.deliveries[hook])
        yield kept

    def _by_site(self, name: str, what: str, found: Mapping[tuple[str, str], bool]) -> Metric:
        """Return the number of environments with a true value, for each label."""
        counts: dict[tuple[str, str], int] = {}
        for (site, environment), true in found.items():
            label = self._label(site), environment
            counts[label] = counts.get(label, 0) + true
        family = GaugeMetricFamily(f"sync_staging_{name}", what, labels=SITE)
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sync_staging_{name}", what, value=value)
