"""`GET /metrics`: what a running listener tells Prometheus, on an address of its own."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from listener.config.settings import load
from listener.queue import Hold
from listener.rehearsal.sshd import free_port
from listener.system import System
from tests.listening import ADMIN, GITHUB_SECRET, MEMBER, Client, client, push, signed
from tests.strangers import certificate


@pytest.fixture
async def told(configured: Callable[..., Path]) -> AsyncIterator[tuple[Client, Client]]:
    """A client of the listener, and one of its figures."""
    async with System(load(configured())) as system:
        await system.listen()
        async with (
            client(f"http://127.0.0.1:{system.port}") as listener,
            client(f"http://127.0.0.1:{system.metrics_port}") as metrics,
        ):
            yield listener, metrics


async def scraped(metrics: Client) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and its labels, whose names are sorted."""
    status, text, headers = await metrics.call("GET", "/metrics", token=None)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_delivery_and_its_run_are_counted(told: tuple[Client, Client]) -> None:
    listener, metrics = told
    before = await scraped(metrics)
    assert ("sync_staging_last_success_timestamp_seconds", "staging", "mysite") not in before
    _, accepted, _ = await listener.deliver("d-1")
    await listener.ended(accepted["runs"][0])
    await listener.deliver("d-1")
    await listener.deliver("d-2", push(ref="refs/tags/v1"))
    await listener.deliver("d-3", secret="wrong")
    await listener.sync()
    now = await scraped(metrics)
    for outcome in ("accepted", "repeated", "ignored"):
        assert now["sync_staging_deliveries_total", "forge", outcome] == 1
    assert now["sync_staging_refused_deliveries_total", "forge", "signature-rejected"] == 1
    assert now["sync_staging_secret_uses_total", "forge", "secret 1"] == 3
    assert now["sync_staging_calls_total", "staging", "api", "mysite"] == 1
    assert now["sync_staging_runs_total", "staging", "mysite", "succeeded"] == 2
    assert now["sync_staging_requests_total", "POST /hooks/{hook}", "202"] == 1
    assert now["sync_staging_requests_total", "POST /hooks/{hook}", "401"] == 1
    assert now["sync_staging_last_success_timestamp_seconds", "staging", "mysite"] > 1e9
    assert now["sync_staging_queued_runs",] == 0


async def test_the_figures_have_an_address_of_their_own(told: tuple[Client, Client]) -> None:
    listener, metrics = told
    assert (await listener.call("GET", "/metrics"))[0] == 404
    assert (await metrics.call("GET", "/api/v1/runs"))[0] == 404
    assert (await metrics.call("POST", "/metrics"))[0] == 405
    _, _, headers = await metrics.call("GET", "/metrics")
    assert (headers["Server"], headers["Cache-Control"]) == ("sync-staging", "no-store")


async def test_no_secret_and_nothing_that_a_stranger_says_is_in_the_figures(
    told: tuple[Client, Client],
) -> None:
    listener, metrics = told
    stranger = "Zx9Stranger"
    await listener.deliver("d-1")
    await listener.call("POST", f"/hooks/{stranger}", token=stranger, data=b"x")
    await listener.call("GET", f"/api/v1/runs/{stranger}?state={stranger}", token=stranger)
    await listener.call(stranger.upper(), "/hooks/forge")
    await listener.sync(stranger, stranger)
    body = push(ref=f"refs/heads/{stranger}", repository=f"{stranger}/{stranger}")
    await listener.call("POST", "/hooks/forge", data=body, headers=signed(body, stranger))
    _, text, _ = await metrics.call("GET", "/metrics", token=None)
    assert "sync_staging_requests_total" in text
    for secret in (ADMIN, MEMBER, GITHUB_SECRET, base64.b64encode(GITHUB_SECRET.encode()).decode(), stranger):
        assert secret.lower() not in text.lower()


def end_of(path: str) -> float:
    """When a certificate expires, in Unix seconds."""
    return x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc.timestamp()


async def test_a_hold_and_a_certificate_have_their_times(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    pair = certificate(tmp_path, days=5)
    server = {"host": "127.0.0.1", "port": free_port(), "drain": 1, "tls": pair}
    async with System(load(configured(server=server))) as system:
        await system.listen()
        await system.store.hold(Hold("mysite", "staging", "a test", "root", time.time()))
        async with client(f"http://127.0.0.1:{system.metrics_port}") as metrics:
            now = await scraped(metrics)
    assert now["sync_staging_certificate_expiry_timestamp_seconds",] == end_of(pair["certificate"])
    assert now["sync_staging_held_environments", "staging", "mysite"] == 1
    assert abs(now["sync_staging_hold_started_timestamp_seconds", "staging", "mysite"] - time.time()) < 60
    assert now["sync_staging_task_failures_total", "worker"] == 0
    assert now["sync_staging_task_failures_total", "certificates"] == 0


async def test_the_figures_can_be_switched_off(configured: Callable[..., Path]) -> None:
    settings = load(configured(metrics={"listen": "off"}))
    async with System(settings) as system:
        await system.listen()
        assert system.metrics_port is None
