"""The figures: counted from events, told with few labels, documented."""

import asyncio
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from listener.config.names import listen_fault
from listener.config.sections import MetricsSection
from listener.deliveries import Hook
from listener.errors import HostUnreachableError, StepTimedOutError, StoreUnavailableError
from listener.health import HostHealth
from listener.looks import LookState, LookSummary
from listener.metrics import CODES, Metrics, Scope, Watched, stored
from listener.plans import PlanKind
from listener.queue import Backlog, Hold, Success
from listener.records import SECRET, TOKEN, Use
from listener.runs import State
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites
from tests.kept_log import KeptLog

README = (Path(__file__).parents[2] / "config" / "README.md").read_text()
NOW = 1_700_000_000.0
AT = RepositoryAddress("studio", "/srv/{site}")


def site(name: str, *, follow: bool = True) -> Site:
    staging = Environment.of(name, "staging", AT, "live", Policy.FORWARD, [(AT, "staging")], follow=follow)
    return Site(name, AT, "live", {"staging": staging})


SITES = Sites.of([site("mysite")], [SitePattern("by-*", site("by-*"))])


HOOKS = {"forge": Hook("forge", "github", (b"one", b"two"), secret_names=("old", "new"))}
SCOPE = Scope(SITES, HOOKS, most=10, deliveries=100, patience=900.0, interval=900.0)


def looked(site: str, state: LookState, **more: Any) -> LookSummary:
    return LookSummary(site, "staging", more.pop("looked_at", NOW), state, **more)


class Stored:
    """What a scrape asks a store; it answers, or is away."""

    def __init__(self, *looks: LookSummary) -> None:
        self.away = False
        self.slow: asyncio.Event | None = None
        self.looks = list(looks)
        self.held: dict[str, float] = {}
        self.succeeded: dict[str, float] = {}
        self.failed: dict[str, float] = {}

    async def look_summaries(self) -> list[LookSummary]:
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise StoreUnavailableError
        return self.looks

    async def backlog(self) -> Backlog:
        return Backlog(3, 1, NOW - 60)

    async def holds(self) -> list[Hold]:
        return [Hold(site, "staging", "a test", "root", since) for site, since in self.held.items()]

    async def kept(self, most: int) -> dict[str, int]:
        return {"forge": most, "gone": 1}

    async def uses(self) -> list[Use]:
        return [Use(SECRET, "forge", "new", 3, NOW - 5), Use(TOKEN, "", "ci", 1, NOW)]

    async def last_successes(
        self, environments: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Success]:
        found = {(site, "staging"): Success("r", at) for site, at in self.succeeded.items()}
        return {each: found[each] for each in environments if each in found}

    async def last_failures(self, environments: Collection[tuple[str, str]]) -> dict[tuple[str, str], float]:
        found = {(site, "staging"): at for site, at in self.failed.items()}
        return {each: found[each] for each in environments if each in found}


STORED = Stored()


async def exposed(metrics: Metrics, store: Any, accept: str = "") -> str:
    body, _ = await metrics.exposed(metrics.readings(store), accept)
    return body.decode()


Labels = tuple[str, ...]


async def figures(metrics: Metrics, store: Stored = STORED) -> dict[str, dict[Labels, float]]:
    """Every sample, by its name and the values of its labels, whose names are sorted."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(await exposed(metrics, store)):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert labels not in found.get(sample.name, {})
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def happened(found: dict[str, dict[Labels, float]], name: str) -> dict[Labels, float]:
    """The series of a counter that are not 0 any more."""
    return {labels: value for labels, value in found[name].items() if value}


def metrics_of(**changes: Any) -> Metrics:
    return Metrics(replace(SCOPE, **changes), lambda: NOW)


@pytest.fixture
def metrics() -> Metrics:
    return metrics_of()


async def test_an_event_is_told_on_and_counted_whatever_its_level(metrics: Metrics) -> None:
    kept = KeptLog()
    log = metrics.counting(kept)
    log.debug("delivery", hook="forge", secret="new", ignored="", repeated=False)
    log.info("delivery", hook="forge", secret="old", ignored="a tag", repeated=False)
    log.info("delivery", hook="forge", secret="new", ignored="", repeated=True)
    log.info("of no interest", hook="forge")
    assert kept.events == ["delivery"] * 3 + ["of no interest"]
    assert kept.lines[0] == {
        "level": "debug",
        "event": "delivery",
        "hook": "forge",
        "secret": "new",
        "ignored": "",
        "repeated": False,
    }
    found = await figures(metrics)
    assert happened(found, "sync_staging_deliveries_total") == {
        ("forge", "accepted"): 1,
        ("forge", "ignored"): 1,
        ("forge", "repeated"): 1,
    }
    assert found["sync_staging_secret_uses_total"] == {("forge", "old"): 1, ("forge", "new"): 2}
    assert found["sync_staging_secret_last_used_timestamp_seconds"]["forge", "new"] == NOW


async def test_runs_are_counted_by_how_they_ended_and_why(metrics: Metrics) -> None:
    log = metrics.counting(KeptLog())
    where = {"site": "mysite", "environment": "staging"}
    log.info("start", **where, attempt=1, waited=0.5)
    log.warning("again", **where, error="host-unreachable", message="…")
    log.info("start", **where, attempt=2, waited=20.0)
    log.error("run", **where, outcome="failed", error="diverged", durations={"observe": 0.002})
    log.info("run", **where, outcome="succeeded", durations={"observe": 0.002, "apply": 0.003})
    found = await figures(metrics)
    runs = happened(found, "sync_staging_runs_total")
    assert runs == {("staging", "mysite", "failed"): 1, ("staging", "mysite", "succeeded"): 1}
    assert happened(found, "sync_staging_failed_attempts_total") == {
        ("staging", "host-unreachable", "mysite"): 1,
        ("staging", "diverged", "mysite"): 1,
    }
    assert found["sync_staging_run_wait_seconds_count"] == {(): 1}
    assert happened(found, "sync_staging_run_step_seconds_count") == {("observe",): 2, ("apply",): 1}


async def test_an_environment_drifts_until_a_look_or_a_sync_finds_it_equal(metrics: Metrics) -> None:
    differs = LookState.DIFFERS
    store = Stored(looked("mysite", differs), looked("by-one", differs), looked("by-two", differs))
    found = await figures(metrics, store)
    assert found["sync_staging_drifted_environments"] == {("staging", "mysite"): 1, ("staging", "by-*"): 2}
    store.succeeded = {"by-two": NOW + 1, "mysite": NOW - 1}
    found = await figures(metrics, store)
    assert found["sync_staging_drifted_environments"] == {("staging", "mysite"): 1, ("staging", "by-*"): 1}
    assert found["sync_staging_last_look_timestamp_seconds"] == {
        ("staging", "mysite"): NOW,
        ("staging", "by-*"): NOW,
    }
    store.looks = [looked("mysite", LookState.EQUAL)]
    found = await figures(metrics, store)
    assert found["sync_staging_drifted_environments"] == {("staging", "mysite"): 0, ("staging", "by-*"): 0}


async def test_what_refuses_differs_all_the_same(metrics: Metrics) -> None:
    store = Stored(looked("mysite", LookState.DIFFERS, plan=PlanKind.REFUSE, error="diverged"))
    found = await figures(metrics, store)
    assert found["sync_staging_drifted_environments"]["staging", "mysite"] == 1
    assert found["sync_staging_behind_environments"]["staging", "mysite"] == 1
    assert found["sync_staging_unknown_environments"]["staging", "", "mysite"] == 0


async def test_what_is_held_or_does_not_follow_is_not_behind(metrics: Metrics) -> None:
    store = Stored(*(looked(name, LookState.DIFFERS) for name in ("mysite", "by-one", "by-two")))
    store.held = {"mysite": NOW - 60, "by-one": NOW - 90, "forgotten": NOW}
    found = await figures(metrics, store)
    assert found["sync_staging_behind_environments"] == {("staging", "mysite"): 0, ("staging", "by-*"): 1}
    assert found["sync_staging_held_environments"] == {("staging", "mysite"): 1, ("staging", "by-*"): 1}
    assert found["sync_staging_hold_started_timestamp_seconds"] == {
        ("staging", "mysite"): NOW - 60,
        ("staging", "by-*"): NOW - 90,
    }
    manual = metrics_of(sites=Sites.of([site("mysite", follow=False)]))
    found = await figures(manual, Stored(looked("mysite", LookState.DIFFERS)))
    assert found["sync_staging_drifted_environments"] == {("staging", "mysite"): 1}
    assert found["sync_staging_behind_environments"] == {("staging", "mysite"): 0}


async def test_what_nobody_can_tell_is_a_figure_of_its_own_and_says_why(metrics: Metrics) -> None:
    found = await figures(metrics)
    unknown = found["sync_staging_unknown_environments"]
    assert unknown == {("staging", "not-looked-at", "mysite"): 1, ("staging", "", "by-*"): 0}
    store = Stored(
        looked("mysite", LookState.EQUAL),
        looked("by-one", LookState.UNKNOWN, error="not-a-repository"),
        looked("by-two", LookState.UNKNOWN, error="host-unreachable"),
    )
    found = await figures(metrics, store)
    assert found["sync_staging_unknown_environments"] == {
        ("staging", "", "mysite"): 0,
        ("staging", "not-a-repository", "by-*"): 1,
        ("staging", "host-unreachable", "by-*"): 1,
    }
    assert not any(found["sync_staging_drifted_environments"].values())


async def test_publishing_is_stuck_if_a_repository_was_busy_for_longer_than_patience(
    metrics: Metrics,
) -> None:
    store = Stored(
        looked("mysite", LookState.EQUAL, busy_since=NOW - 901),
        looked("by-one", LookState.EQUAL, busy_since=NOW - 30, looked_at=NOW - 10),
    )
    found = await figures(metrics, store)
    assert found["sync_staging_publishing_stuck_environments"] == {("staging", "mysite"): 1}
    metrics.watch(Watched(overdue=lambda: {("by-one", "staging")}))
    found = await figures(metrics, store)
    assert found["sync_staging_publishing_stuck_environments"] == {
        ("staging", "mysite"): 1,
        ("staging", "by-*"): 1,
    }


async def test_an_environment_fails_until_a_later_run_succeeds(metrics: Metrics) -> None:
    store = Stored()
    store.failed = {"mysite": NOW}
    found = await figures(metrics, store)
    assert found["sync_staging_failing_environments"] == {("staging", "mysite"): 1, ("staging", "by-*"): 0}
    store.succeeded = {"mysite": NOW + 1}
    found = await figures(metrics, store)
    assert found["sync_staging_failing_environments"] == {("staging", "mysite"): 0, ("staging", "by-*"): 0}


async def test_what_is_never_at_rest_is_told_as_it_stands_now(metrics: Metrics) -> None:
    waiting = {("by-one", "staging"), ("mysite", "staging")}
    metrics.watch(Watched(overdue=lambda: waiting))
    found = (await figures(metrics))["sync_staging_restless_environments"]
    assert found == {("staging", "by-*"): 1, ("staging", "mysite"): 1}
    waiting.clear()
    assert "sync_staging_restless_environments" not in await figures(metrics)


async def test_the_queue_is_told_as_the_store_has_it_now(metrics: Metrics) -> None:
    store = Stored()
    found = await figures(metrics, store)
    assert found["sync_staging_queued_runs"] == {(): 3}
    assert found["sync_staging_running_runs"] == {(): 1}
    assert found["sync_staging_oldest_queued_run_timestamp_seconds"] == {(): NOW - 60}
    assert found["sync_staging_store_up"] == {(): 1}
    store.away = True
    found = await figures(metrics, store)
    assert found["sync_staging_store_up"] == {(): 0}
    assert "sync_staging_queued_runs" not in found


async def test_a_host_tells_whether_it_answers_and_why_not(metrics: Metrics) -> None:
    health = HostHealth(lambda: NOW)
    metrics.watch(Watched(hosts=lambda: {"studio": health}))
    found = await figures(metrics)
    assert "sync_staging_host_up" not in found
    assert "sync_staging_host_last_answer_timestamp_seconds" not in found
    assert set(found["sync_staging_host_failures_total"].values()) == {0}
    health.answered()
    health.failed(StepTimedOutError())
    found = await figures(metrics)
    assert found["sync_staging_host_up"] == {("studio",): 1}
    assert found["sync_staging_host_last_answer_timestamp_seconds"] == {("studio",): NOW}
    health.failed(HostUnreachableError())
    found = await figures(metrics)
    assert found["sync_staging_host_up"] == {("studio",): 0}
    assert happened(found, "sync_staging_host_failures_total") == {
        ("host-unreachable", "studio"): 1,
        ("step-timed-out", "studio"): 1,
    }


async def test_tasks_looks_and_the_certificate_have_figures(metrics: Metrics) -> None:
    metrics.watch(Watched(tasks=lambda: {"worker": 0, "audit": 2}))
    log = metrics.counting(KeptLog())
    found = await figures(metrics)
    assert found["sync_staging_task_failures_total"] == {("worker",): 0, ("audit",): 2}
    assert found["sync_staging_last_looks_timestamp_seconds"] == {(): NOW}
    assert "sync_staging_certificate_expiry_timestamp_seconds" not in found
    log.info("certificate", expires="2023-11-14T22:13:20+00:00", days=0)
    log.error("certificate", kept="the old one", reason="x")
    log.debug("looked", site="mysite", environment="staging", state="differs")
    found = await figures(metrics, Stored(looked("mysite", LookState.EQUAL, looked_at=NOW + 5)))
    assert found["sync_staging_certificate_expiry_timestamp_seconds"] == {(): NOW}
    assert found["sync_staging_last_looks_timestamp_seconds"] == {(): NOW + 5}
    assert found["sync_staging_looks_total"] == {("differs",): 1, ("equal",): 0, ("unknown",): 0}


async def test_without_looks_in_the_background_none_is_missed() -> None:
    found = await figures(metrics_of(interval=0.0))
    assert found["sync_staging_looks_interval_seconds"] == {(): 0}
    assert "sync_staging_last_looks_timestamp_seconds" not in found


async def test_every_counter_begins_at_0(metrics: Metrics) -> None:
    metrics = metrics_of(routes={"GET /healthz": [200, 503]})
    found = await figures(metrics)
    assert found["sync_staging_runs_total"] == {
        ("staging", name, state): 0
        for name in ("mysite", "by-*")
        for state in ("succeeded", "failed", "cancelled")
    }
    assert found["sync_staging_refused_deliveries_total"]["forge", "signature-rejected"] == 0
    assert found["sync_staging_deliveries_total"]["forge", "accepted"] == 0
    assert found["sync_staging_secret_uses_total"] == {("forge", "old"): 0, ("forge", "new"): 0}
    assert found["sync_staging_refused_calls_total"]["unauthorized",] == 0
    assert found["sync_staging_failed_attempts_total"]["staging", "host-unreachable", "mysite"] == 0
    assert found["sync_staging_calls_total"]["staging", "api", "mysite"] == 0
    assert found["sync_staging_drifts_total"]["staging", "mysite"] == 0
    assert found["sync_staging_requests_total"] == {("GET /healthz", "200"): 0, ("GET /healthz", "503"): 0}
    for name, series in found.items():
        if name.endswith("_total") and name.startswith("sync_staging_"):
            assert set(series.values()) <= {0}, name


async def test_with_many_sites_the_figures_are_sums_and_the_worst_are_named() -> None:
    names = [f"site-{number:03}" for number in range(100)]
    metrics = metrics_of(sites=Sites.of(map(site, names)), most=99)
    store = Stored(*(looked(name, LookState.DIFFERS, looked_at=NOW + 1) for name in names[:60]))
    store.succeeded = {name: NOW - number for number, name in enumerate(names)}
    metrics.counting(KeptLog()).error("run", site="site-005", environment="staging", outcome="failed")
    found = await figures(metrics, store)
    drifted = found["sync_staging_drifted_environments"]
    worst = {("staging", name): 1.0 for name in names[40:60]}
    assert drifted == {**worst, ("*", "*"): 40}
    assert sum(drifted.values()) == 60
    successes = found["sync_staging_last_success_timestamp_seconds"]
    assert len(successes) == 21
    assert successes["*", "*"] == NOW - 79
    assert successes["staging", "site-099"] == NOW - 99
    assert happened(found, "sync_staging_runs_total") == {("*", "*", "failed"): 1}
    assert sum(found["sync_staging_unknown_environments"].values()) == 0
    assert sum(map(len, found.values())) < 700


async def test_with_many_sites_a_scrape_does_not_wait_for_a_slow_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = metrics_of(sites=Sites.of(map(site, ("one", "two"))), most=1)
    store: Any = Stored(looked("one", LookState.DIFFERS))
    readings = metrics.readings(store)
    await metrics.exposed(readings, "")
    store.slow = asyncio.Event()
    monkeypatch.setattr(stored, "YOUNG", 0.0)
    body, _ = await metrics.exposed(readings, "")
    assert b'sync_staging_drifted_environments{environment="staging",site="one"} 1.0' in body
    store.looks = [looked("one", LookState.EQUAL)]
    store.slow.set()
    while b'environment="staging",site="one"} 1.0' in body:
        body, _ = await metrics.exposed(readings, "")
    assert b'sync_staging_drifted_environments{environment="*",site="*"} 0.0' in body
    await readings.close()


async def test_a_scrape_lets_others_have_their_turn() -> None:
    names = [f"site-{number:03}" for number in range(50)]
    metrics = metrics_of(sites=Sites.of(map(site, names)), most=100)
    scrape = asyncio.create_task(exposed(metrics, STORED))
    turns = 0
    while not scrape.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > scrape.result().count("\n") / 200


async def test_both_forms_of_the_text_are_whole(metrics: Metrics) -> None:
    plain = await exposed(metrics, STORED)
    assert "# EOF" not in plain
    open_metrics = await exposed(metrics, STORED, "application/openmetrics-text; version=1.0.0")
    assert open_metrics.endswith("\n# EOF\n")
    assert open_metrics.count("# EOF") == 1
    assert list(openmetrics.text_string_to_metric_families(open_metrics))  # type: ignore[no-untyped-call]
    for name in re.findall(r"^# TYPE (\S+)", plain, re.MULTILINE):
        assert plain.count(f"# TYPE {name} ") == 1


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=20))
async def test_what_a_request_says_never_becomes_a_label(said: list[tuple[str, str, str, str]]) -> None:
    metrics = metrics_of()
    log = metrics.counting(KeptLog())
    for hook, site_id, environment, error in said:
        facts = {"hook": hook, "site": site_id, "environment": environment, "error": error}
        for event in ("delivery", "delivery refused", "drift", "again", "run"):
            log.info(event, **facts)
    found = await figures(metrics)
    few = {"", "forge", "mysite", "by-*", "staging", "accepted", "ignored", "repeated", *CODES, *State}
    for name in ("deliveries", "refused_deliveries", "drifts", "failed_attempts", "runs"):
        for labels in found.get(f"sync_staging_{name}_total", {}):
            assert set(labels) <= few


async def test_every_figure_is_documented(metrics: Metrics) -> None:
    store = Stored(looked("mysite", LookState.EQUAL))
    store.held, store.succeeded = {"mysite": NOW}, {"mysite": NOW}
    health = HostHealth(lambda: NOW)
    health.answered()
    metrics.watch(Watched(hosts=lambda: {"studio": health}))
    metrics.counting(KeptLog()).info("certificate", expires="2023-11-14T22:13:20+00:00")
    text = await exposed(metrics, store)
    told = set(re.findall(r"^# TYPE (sync_staging_\w+)", text, re.MULTILINE))
    assert told == set(re.findall(r"`(sync_staging_\w+)`", README))
    assert len(told) > 15


@pytest.mark.parametrize(
    "text", ["127.0.0.1:9787", "[::1]:0", "localhost:65535", "metrics.example.com:1", "off"]
)
def test_an_address_to_listen_on_has_a_port(text: str) -> None:
    assert listen_fault(text) == ""


@pytest.mark.parametrize(
    "text", ["", "9787", "127.0.0.1", "::1:9787", "a:65536", "a:x", "a:1\n", "http://a:1", "no"]
)
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    assert "127.0.0.1:9787" in listen_fault(text)


def test_an_address_is_split_as_it_is_bound() -> None:
    assert MetricsSection(listen="[::1]:9787").address == ("::1", 9787)
    assert MetricsSection(listen="localhost:0").address == ("localhost", 0)
    assert MetricsSection(listen="off").address is None
