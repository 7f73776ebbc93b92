"""Figures of what happens, counted from the events on their way to the log.

So the modules that do the work do not know about figures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from listener import __version__
from listener.errors import ListenerError, StoreUnavailableError
from listener.journal import Log
from listener.metrics.stored import SITE, Overdue, StoredFigures, read
from listener.queue import RunStore
from listener.sites import Sites

M = TypeVar("M", Counter, Gauge, Histogram)

STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds. A step on a warm connection takes milliseconds; one that transfers objects takes minutes."""
WAITS = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)

Facts = Mapping[str, Any]


class CountingLog:
    """A log that counts events and passes them on. Implements `listener.journal.Log`."""

    def __init__(self, log: Log, counts: Callable[[str, Facts], None]) -> None:
        self._log = log
        self._counts = counts

    def debug(self, event: str, **facts: Any) -> None:
        """Count and write one event."""
        self._counts(event, facts)
        self._log.debug(event, **facts)

    def info(self, event: str, **facts: Any) -> None:
        """Count and write one event."""
        self._counts(event, facts)
        self._log.info(event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Count and write one event."""
        self._counts(event, facts)
        self._log.warning(event, **facts)

    def error(self, event: str, **facts: Any) -> None:
        """Count and write one event."""
        self._counts(event, facts)
        self._log.error(event, **facts)


class Metrics:
    """All figures of one listener."""

    def __init__(
        self, sites: Sites, hooks: Iterable[str], clock: Callable[[], float], deliveries: int
    ) -> None:
        self._sites = sites
        self._hooks = frozenset(hooks)
        self._clock = clock
        self._registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._deliveries_most = deliveries
        self._standing = StoredFigures(self._label, self._hooks, deliveries)
        self._registry.register(self._standing)
        ProcessCollector(registry=self._registry)
        Info("sync_staging", "This listener.", registry=self._registry).info({"version": __version__})
        self._deliveries = self._counter("deliveries", "Verified deliveries.", "hook", "outcome")
        self._refused = self._counter("refused_deliveries", "Refused deliveries.", "hook", "reason")
        self._refused_calls = self._counter("refused_calls", "Refused calls of the API.", "reason")
        self._secrets = self._counter("secret_uses", "Deliveries that a secret has signed.", "hook", "secret")
        self._last_used = Gauge(
            "sync_staging_secret_last_used_timestamp_seconds",
            "When a secret last signed a delivery.",
            ("hook", "secret"),
            registry=self._registry,
        )
        self._calls = self._counter("calls", "Direct calls for a sync.", *SITE, "origin")
        self._drifts = self._counter("drifts", "Syncs that a look at drift asked for.", *SITE)
        self._runs = self._counter("runs", "Runs that were carried out to their end.", *SITE, "state")
        self._failures = self._counter("failed_attempts", "Attempts of runs that failed.", *SITE, "error")
        self._step = self._histogram("run_step_seconds", "How long the steps of a run took.", STEPS, "step")
        self._waited = self._histogram("run_wait_seconds", "How long runs waited for their start.", WAITS)
        self._requests = self._counter("requests", "HTTP requests.", "route", "status")
        self._answered = self._histogram("request_seconds", "How long requests took.", STEPS, "route")
        self._defects = self._counter("defects", "Defects of this program; the log has the details.")
        self._task_failures = self._counter("task_failures", "Failures of background tasks.", "task")
        self._store_errors = self._counter("store_errors", "Times that the store did not answer the worker.")
        self._events = self._by_event()

    def _by_event(self) -> Mapping[str, Callable[[Facts], None]]:
        """Return what counts each event."""
        return {
            "delivery": self._on_delivery,
            "delivery refused": self._on_refused,
            "call refused": lambda facts: self._refused_calls.labels(_code(facts)).inc(),
            "call": lambda facts: self._calls.labels(*self._where(facts), _text(facts, "origin")).inc(),
            "drift": lambda facts: self._drifts.labels(*self._where(facts)).inc(),
            "looked": self._on_look,
            "start": self._on_start,
            "again": self._on_failure,
            "run": self._on_run,
            "request": self._on_request,
            "task failed": lambda facts: self._task_failures.labels(_text(facts, "task")).inc(),
            "defect": lambda _: self._defects.inc(),
            "store": lambda _: self._store_errors.inc(),
        }

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"sync_staging_{name}_total", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sync_staging_{name}", what, labels, buckets=buckets, registry=self._registry)

    def watch(self, overdue: Overdue) -> None:
        """Ask `overdue` for the environments that have waited too long, each time the figures are read."""
        self._standing.overdue = overdue

    def counting(self, log: Log) -> CountingLog:
        """Return a log that counts events and passes them on to `log`."""
        return CountingLog(log, self._count)

    async def exposed(self, store: RunStore, accept: str) -> tuple[bytes, str]:
        """Return all figures in a form that the reader accepts, and its media type."""
        try:
            self._standing.reading = await read(store, self._sites, self._deliveries_most)
        except StoreUnavailableError:
            self._standing.reading = None
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def _child(self, metric: M, *labels: str) -> M:
        """Return a metric with labels: prometheus_client looks them up under a lock, each time anew."""
        child: M | None = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child

    def _count(self, event: str, facts: Facts) -> None:
        counts = self._events.get(event)
        if counts is not None:
            counts(facts)

    def _label(self, site: str) -> str:
        """Return the label of a site: its id, or its pattern; empty if it is not configured any more."""
        if site in self._sites.by_id:
            return site
        pattern = self._sites.pattern(site)
        return "" if pattern is None else pattern.text

    def _where(self, facts: Facts) -> tuple[str, str]:
        """Return the labels of an environment; both are empty if it is not configured any more."""
        site, environment = _text(facts, "site"), _text(facts, "environment")
        if site not in self._sites or environment not in self._sites.site(site).environments:
            return "", ""
        return self._label(site), environment

    def _hook(self, facts: Facts) -> str:
        name = _text(facts, "hook")
        return name if name in self._hooks else ""

    def _on_delivery(self, facts: Facts) -> None:
        hook = self._hook(facts)
        outcome = "ignored" if facts.get("ignored") else "accepted"
        self._child(self._deliveries, hook, "repeated" if facts.get("repeated") else outcome).inc()
        secret = _text(facts, "secret")
        self._child(self._secrets, hook, secret).inc()
        self._child(self._last_used, hook, secret).set(self._clock())

    def _on_refused(self, facts: Facts) -> None:
        self._refused.labels(self._hook(facts), _code(facts)).inc()

    def _on_look(self, facts: Facts) -> None:
        site, environment = _text(facts, "site"), _text(facts, "environment")
        self._standing.drifted[site, environment] = bool(facts.get("drifted"))

    def _on_start(self, facts: Facts) -> None:
        if facts.get("attempt") == 1:
            self._waited.observe(facts.get("waited", 0.0))

    def _on_failure(self, facts: Facts) -> None:
        self._failures.labels(*self._where(facts), _code(facts)).inc()

    def _on_run(self, facts: Facts) -> None:
        self._runs.labels(*self._where(facts), _text(facts, "outcome")).inc()
        if facts.get("outcome") == "failed":
            self._on_failure(facts)
        if facts.get("outcome") == "succeeded" and "undoes" not in facts:
            self._on_look({**facts, "drifted": False})
        for step, seconds in facts.get("durations", {}).items():
            self._step.labels(step).observe(seconds)

    def _on_request(self, facts: Facts) -> None:
        route = _text(facts, "route")
        self._child(self._requests, route, str(facts.get("status", ""))).inc()
        self._child(self._answered, route).observe(facts.get("seconds", 0.0))


def _text(facts: Facts, key: str) -> str:
    return str(facts.get(key, ""))


def _codes(kind: type[ListenerError]) -> Iterator[str]:
    yield kind.code
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


CODES = frozenset(_codes(ListenerError))


def _code(facts: Facts) -> str:
    """Return the code of the error in an event. Other texts become no label."""
    code = _text(facts, "error")
    return code if code in CODES else ListenerError.code


def application(metrics: Metrics, store: RunStore) -> web.Application:
    """Return the application that answers `GET /metrics`, and nothing else."""

    async def expose(request: web.Request) -> web.Response:
        body, media_type = await metrics.exposed(store, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": media_type})

    app = web.Application()
    app.add_routes([web.get("/metrics", expose)])
    return app
