"""Counters, counted from the events on their way to the log.

So the modules that do the work do not need to know the figures. For each known value of its labels, a counter
exists from the start, at 0. If a series began at 1, Prometheus would not notice its first event.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector

from listener import __version__
from listener.errors import ListenerError, RequestError, StoreError, SyncError
from listener.journal import Log
from listener.looks import LookState
from listener.metrics.exposition import exposition
from listener.metrics.labels import SITE, Key, Labels
from listener.metrics.present import Present, Scope, Watched
from listener.metrics.stored import Readings, Stored
from listener.runs import EXPLICIT, State

M = TypeVar("M", Counter, Histogram)

STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds. A step on a warm connection takes milliseconds; one that transfers objects takes minutes."""
WAITS = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)

Facts = Mapping[str, Any]


def _codes(kind: type[ListenerError]) -> Iterator[str]:
    yield kind.code
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


CODES = frozenset(_codes(ListenerError))
REFUSALS = frozenset({*_codes(RequestError), *_codes(StoreError), ListenerError.code})
"""The reasons why a request may be refused."""
ATTEMPTS = frozenset(_codes(SyncError))
"""The reasons why an attempt at a run may fail."""


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

    def __init__(self, scope: Scope, clock: Callable[[], float]) -> None:
        self._labels = Labels(scope.sites, scope.most)
        self._hooks = scope.hooks
        self._clock = clock
        self._deliveries_most = scope.deliveries
        self._registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._present = Present(self._labels, clock(), scope)
        self._registry.register(self._present)
        ProcessCollector(registry=self._registry)
        Info("sync_staging", "This listener.", registry=self._registry).info({"version": __version__})
        self._deliveries = self._counter("deliveries", "Verified deliveries.", "hook", "outcome")
        self._refused = self._counter("refused_deliveries", "Refused deliveries.", "hook", "reason")
        self._refused_calls = self._counter("refused_calls", "Refused calls of the API.", "reason")
        self._secrets = self._counter("secret_uses", "Deliveries that a secret has signed.", "hook", "secret")
        self._calls = self._counter("calls", "Direct calls for a sync.", *SITE, "origin")
        self._drifts = self._counter("drifts", "Syncs that a look at drift asked for.", *SITE)
        self._looks = self._counter("looks", "Looks at environments, by what they found.", "result")
        self._runs = self._counter("runs", "Runs that were carried out to their end.", *SITE, "state")
        self._failures = self._counter("failed_attempts", "Attempts of runs that failed.", *SITE, "error")
        self._step = self._histogram("run_step_seconds", "How long the steps of a run took.", STEPS, "step")
        self._waited = self._histogram("run_wait_seconds", "How long runs waited for their start.", WAITS)
        self._requests = self._counter("requests", "HTTP requests.", "route", "status")
        self._answered = self._histogram("request_seconds", "How long requests took.", STEPS, "route")
        self._defects = self._counter("defects", "Defects of this program; the log has the details.")
        self._store_errors = self._counter("store_errors", "Times that the store did not answer the worker.")
        self._begin_at_zero(scope)
        self._events = self._by_event()

    def _begin_at_zero(self, scope: Scope) -> None:
        """Make the counters for all known values of their labels."""
        for hook in scope.hooks.values():
            for secret in hook.secrets_by_name:
                self._child(self._secrets, hook.name, secret)
        for name in (*scope.hooks, ""):
            self._begin_hook(name)
        for reason in REFUSALS:
            self._child(self._refused_calls, reason)
        for state in LookState:
            self._child(self._looks, state.value)
        for where in self._labels.all():
            self._begin_environment(*where)
        for step in ("observe", "apply", "studio", "keep"):
            self._child(self._step, step)
        for route, statuses in scope.routes.items():
            self._child(self._answered, route)
            for status in statuses:
                self._child(self._requests, route, str(status))

    def _begin_hook(self, hook: str) -> None:
        for outcome in ("accepted", "ignored", "repeated"):
            self._child(self._deliveries, hook, outcome)
        for reason in REFUSALS:
            self._child(self._refused, hook, reason)

    def _begin_environment(self, site: str, environment: str) -> None:
        self._child(self._drifts, site, environment)
        for origin in EXPLICIT:
            self._child(self._calls, site, environment, origin.value)
        for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
            self._child(self._runs, site, environment, state.value)
        for error in ATTEMPTS:
            self._child(self._failures, site, environment, error)

    def _by_event(self) -> Mapping[str, Callable[[Facts], None]]:
        """Return what counts each event."""
        return {
            "delivery": self._on_delivery,
            "delivery refused": self._on_refused,
            "call refused": lambda facts: self._refused_calls.labels(_code(facts)).inc(),
            "call": lambda facts: self._calls.labels(*self._where(facts), _text(facts, "origin")).inc(),
            "drift": lambda facts: self._drifts.labels(*self._where(facts)).inc(),
            "looked": lambda facts: self._child(self._looks, _text(facts, "state")).inc(),
            "start": self._on_start,
            "again": self._on_failure,
            "run": self._on_run,
            "request": self._on_request,
            "certificate": self._on_certificate,
            "defect": lambda _: self._defects.inc(),
            "store": lambda _: self._store_errors.inc(),
        }

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"sync_staging_{name}_total", what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sync_staging_{name}", what, labels, buckets=buckets, registry=self._registry)

    def watch(self, watched: Watched) -> None:
        """Set the sources of the figures of the present."""
        self._present.watched = watched

    def counting(self, log: Log) -> CountingLog:
        """Return a log that counts events and passes them on to `log`."""
        return CountingLog(log, self._count)

    def readings(self, store: Stored) -> Readings:
        """Return what reads the store for the scrapes."""
        return Readings(store, self._labels, self._deliveries_most)

    async def exposed(self, readings: Readings, accept: str) -> tuple[bytes, str]:
        """Return all figures in a form that the reader accepts, and its media type."""
        self._present.reading = await readings.latest()
        return await exposition(self._registry, accept)

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

    def _where(self, facts: Facts) -> Key:
        """Return the labels of an environment; both are empty if it is not configured any more."""
        return self._labels.of(_text(facts, "site"), _text(facts, "environment"))

    def _hook(self, facts: Facts) -> str:
        name = _text(facts, "hook")
        return name if name in self._hooks else ""

    def _on_delivery(self, facts: Facts) -> None:
        hook = self._hook(facts)
        outcome = "ignored" if facts.get("ignored") else "accepted"
        self._child(self._deliveries, hook, "repeated" if facts.get("repeated") else outcome).inc()
        secret = _text(facts, "secret")
        self._child(self._secrets, hook, secret).inc()
        self._present.last_used[hook, secret] = self._clock()

    def _on_refused(self, facts: Facts) -> None:
        self._refused.labels(self._hook(facts), _code(facts)).inc()

    def _on_certificate(self, facts: Facts) -> None:
        if "expires" in facts:
            self._present.certificate = datetime.fromisoformat(_text(facts, "expires")).timestamp()

    def _on_start(self, facts: Facts) -> None:
        if facts.get("attempt") == 1:
            self._waited.observe(facts.get("waited", 0.0))

    def _on_failure(self, facts: Facts) -> None:
        self._failures.labels(*self._where(facts), _code(facts)).inc()

    def _on_run(self, facts: Facts) -> None:
        self._runs.labels(*self._where(facts), _text(facts, "outcome")).inc()
        if facts.get("outcome") == "failed":
            self._on_failure(facts)
        for step, seconds in facts.get("durations", {}).items():
            self._step.labels(step).observe(seconds)

    def _on_request(self, facts: Facts) -> None:
        route = _text(facts, "route")
        self._child(self._requests, route, str(facts.get("status", ""))).inc()
        self._child(self._answered, route).observe(facts.get("seconds", 0.0))


def _text(facts: Facts, key: str) -> str:
    return str(facts.get(key, ""))


def _code(facts: Facts) -> str:
    """Return the code of the error in an event. Any other text counts as an internal error."""
    code = _text(facts, "error")
    return code if code in CODES else ListenerError.code


def application(metrics: Metrics, store: Stored) -> web.Application:
    """Return the application that answers `GET /metrics`, and nothing else."""
    readings = metrics.readings(store)

    async def expose(request: web.Request) -> web.Response:
        body, media_type = await metrics.exposed(readings, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def run(_: web.Application) -> AsyncIterator[None]:
        readings.begin()
        yield
        await readings.close()

    app = web.Application()
    app.add_routes([web.get("/metrics", expose)])
    app.cleanup_ctx.append(run)
    return app
