"""Figures of the present: hosts and tasks of this listener, and what the store holds."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from prometheus_client.metrics_core import Metric

from listener.deliveries import Hook
from listener.health import HostHealth
from listener.metrics.exposition import by_site, counter, gauge, labelled
from listener.metrics.labels import Key, Labels
from listener.metrics.stored import Reading, StoredFigures
from listener.sites import Sites

HOST_SUM = "*"
"""The label of all hosts together."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the figures need of the settings."""

    sites: Sites
    hooks: Mapping[str, Hook]
    most: int
    """With more sites than this, sites are counted together (`metrics.sites`)."""
    deliveries: int
    """How many deliveries of a hook are kept whole (`history.deliveries`)."""
    patience: float
    """Seconds (`sync.patience`)."""
    interval: float
    """Seconds (`sync.interval`)."""
    routes: Mapping[str, Collection[int]] = field(default_factory=dict)
    """The statuses of each route."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The sources of the figures of the present. Each is called when Prometheus asks."""

    overdue: Callable[[], Collection[Key]] = frozenset
    """The environments whose runs have waited for longer than `patience` (`Waits.overdue`)."""
    hosts: Callable[[], Mapping[str, HostHealth]] = dict
    tasks: Callable[[], Mapping[str, int]] = dict
    """How often each background task has failed."""


class Present:
    """Makes the figures of the present for each scrape."""

    def __init__(self, labels: Labels, started: float, scope: Scope) -> None:
        self._labels = labels
        self._started = started
        self._scope = scope
        self.watched = Watched()
        self.reading: Reading | None = None
        """What the store holds; None if it does not answer."""
        self.last_used: dict[Key, float] = {}
        """When a secret of a hook last signed a delivery here, in Unix seconds."""
        self.certificate: float | None = None
        """When the certificate of the HTTP server expires, in Unix seconds."""

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that the registry does not call `collect` to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the figures, one at a time."""
        overdue = frozenset(self.watched.overdue())
        yield gauge("store_up", "Whether the store answers.", float(self.reading is not None))
        what = "Environments whose run has waited for longer than sync.patience for a repository at rest."
        yield by_site("restless_environments", what, self._labels.counted(dict.fromkeys(overdue, 0.0)))
        what = "How many deliveries of a hook are kept whole (history.deliveries)."
        yield gauge("kept_deliveries_limit", what, self._scope.deliveries)
        what = "Failures of background tasks."
        failures = {(task,): count for task, count in self.watched.tasks().items()}
        yield counter("task_failures", what, ("task",), failures)
        yield from self._of_hosts(self.watched.hosts())
        yield from self._of_looks()
        yield from self._of_secrets()
        what = "When the certificate of the HTTP server expires."
        yield gauge("certificate_expiry_timestamp_seconds", what, self.certificate)
        if self.reading is not None:
            yield from StoredFigures(self.reading, self._labels, self._scope.patience).metrics(overdue)

    def _of_hosts(self, hosts: Mapping[str, HostHealth]) -> Iterator[Metric]:
        by_host = partial(labelled, labels=("host",))
        up = {(name,): float(health.up) for name, health in hosts.items() if health.up is not None}
        yield by_host("host_up", "Whether a host answered the last request.", values=up)
        answers = {
            (name,): health.answered_at for name, health in hosts.items() if health.answered_at is not None
        }
        what = "When a host last answered."
        yield by_host("host_last_answer_timestamp_seconds", what, values=answers)
        failures: dict[tuple[str, ...], float] = {}
        for name, health in hosts.items():
            label = HOST_SUM if len(hosts) > self._scope.most else name
            for error, count in health.failures.items():
                failures[label, error] = failures.get((label, error), 0) + count
        what = "Requests to a host that got no reply, by the code of the error."
        yield counter("host_failures", what, ("host", "error"), failures)

    def _of_looks(self) -> Iterator[Metric]:
        what = "How often each site is looked at (sync.interval); 0 for never."
        yield gauge("looks_interval_seconds", what, self._scope.interval)
        looks = self.reading.looks.values() if self.reading is not None else ()
        last = max((look.looked_at for look in looks), default=0.0)
        what = "When the last look at any environment began; the start of the listener before the first."
        at = max(last, self._started) if self._scope.interval else None
        yield gauge("last_looks_timestamp_seconds", what, at)

    def _of_secrets(self) -> Iterator[Metric]:
        used = dict(self.reading.secrets) if self.reading is not None else {}
        for key, at in self.last_used.items():
            used[key] = max(at, used.get(key, 0.0))
        known = {(name, each) for name, hook in self._scope.hooks.items() for each in hook.secrets_by_name}
        what = "When a secret last signed a delivery."
        values = {key: at for key, at in used.items() if key in known}
        yield labelled("secret_last_used_timestamp_seconds", what, ("hook", "secret"), values)
        if self.reading is not None:
            what = "Deliveries that are kept whole; counted up to one more than the limit."
            kept = {(hook,): float(self.reading.deliveries.get(hook, 0)) for hook in self._scope.hooks}
            yield labelled("kept_deliveries", what, ("hook",), kept)
