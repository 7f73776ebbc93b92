"""The figures: counted from events, told with few labels, documented."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from listener.config.names import listen_fault
from listener.config.sections import MetricsSection
from listener.errors import StoreUnavailableError
from listener.metrics import CODES, Metrics
from listener.queue import Backlog, Hold, Success
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites
from tests.kept_log import KeptLog

README = (Path(__file__).parents[2] / "config" / "README.md").read_text()
NOW = 1_700_000_000.0
AT = RepositoryAddress("studio", "/srv/{site}")


def site(name: str) -> Site:
    staging = Environment.of(name, "staging", AT, "live", Policy.FORWARD, [(AT, "staging")], follow=True)
    return Site(name, AT, "live", {"staging": staging})


SITES = Sites.of([site("mysite")], [SitePattern("by-*", site("by-*"))])


class Stored:
    """What a scrape asks a store; it answers, or is away."""

    away = False

    async def backlog(self) -> Backlog:
        if self.away:
            raise StoreUnavailableError
        return Backlog(3, 1, NOW - 60)

    async def holds(self) -> list[Hold]:
        return [Hold("by-one", "staging", "a test", "root", NOW), Hold("by-two", "staging", "x", "root", NOW)]

    async def kept(self, most: int) -> dict[str, int]:
        return {"forge": most, "gone": 1}

    async def last_successes(
        self, environments: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Success]:
        return {each: Success("r", NOW) for each in environments if each[0] == "mysite"}


STORED = Stored()


async def exposed(metrics: Metrics, store: Any) -> str:
    body, _ = await metrics.exposed(store, "")
    return body.decode()


async def figures(metrics: Metrics, store: Stored = STORED) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample, by its name and the values of its labels, whose names are sorted."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(await exposed(metrics, store)):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(SITES, ["forge"], lambda: NOW, 100)


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
    assert found["sync_staging_deliveries_total"] == {
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
    runs = found["sync_staging_runs_total"]
    assert runs == {("staging", "mysite", "failed"): 1, ("staging", "mysite", "succeeded"): 1}
    assert found["sync_staging_failed_attempts_total"] == {
        ("staging", "host-unreachable", "mysite"): 1,
        ("staging", "diverged", "mysite"): 1,
    }
    assert found["sync_staging_run_wait_seconds_count"] == {(): 1}
    assert found["sync_staging_run_step_seconds_count"] == {("observe",): 2, ("apply",): 1}


async def test_an_environment_that_drifted_has_not_any_more_once_it_was_synced(metrics: Metrics) -> None:
    log = metrics.counting(KeptLog())
    for name, drifted in (("mysite", True), ("by-one", True), ("by-two", True), ("by-three", False)):
        log.debug("looked", site=name, environment="staging", drifted=drifted)
    found = (await figures(metrics))["sync_staging_drifted_environments"]
    assert found == {("staging", "mysite"): 1, ("staging", "by-*"): 2}
    log.info("run", site="by-two", environment="staging", outcome="succeeded", durations={})
    log.info("run", site="mysite", environment="staging", outcome="failed", durations={})
    log.info("run", site="by-one", environment="staging", outcome="succeeded", durations={}, undoes="x")
    found = (await figures(metrics))["sync_staging_drifted_environments"]
    assert found == {("staging", "mysite"): 1, ("staging", "by-*"): 1}


async def test_what_is_never_at_rest_is_told_as_it_stands_now(metrics: Metrics) -> None:
    waiting = {("by-one", "staging"), ("mysite", "staging")}
    metrics.watch(lambda: waiting)
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
    assert found["sync_staging_held_environments"] == {("staging", "by-*"): 2}
    assert found["sync_staging_store_up"] == {(): 1}
    store.away = True
    found = await figures(metrics, store)
    assert found["sync_staging_store_up"] == {(): 0}
    assert "sync_staging_queued_runs" not in found


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=20))
async def test_what_a_request_says_never_becomes_a_label(said: list[tuple[str, str, str, str]]) -> None:
    metrics = Metrics(SITES, ["forge"], lambda: NOW, 100)
    log = metrics.counting(KeptLog())
    for hook, site_id, environment, error in said:
        facts = {"hook": hook, "site": site_id, "environment": environment, "error": error}
        for event in ("delivery", "delivery refused", "drift", "again", "run"):
            log.info(event, **facts)
    found = await figures(metrics)
    few = {"", "forge", "mysite", "by-*", "staging", "accepted", *CODES}
    for name in ("deliveries", "refused_deliveries", "drifts", "failed_attempts", "runs"):
        for labels in found.get(f"sync_staging_{name}_total", {}):
            assert set(labels) <= few


async def test_every_figure_is_documented(metrics: Metrics) -> None:
    text = await exposed(metrics, STORED)
    names = set(re.findall(r"^# TYPE (sync_staging_\w+)", text, re.MULTILINE))
    told = {name for name in names if not name.endswith("_created")}
    documented = set(re.findall(r"`(sync_staging_\w+)`", README))
    assert told == documented
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
