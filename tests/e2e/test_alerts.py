"""A person on call: what is wrong fires an alert that says where, and nothing else does."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener.config.settings import load
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
from listener.system import System
from tests.listening import Client, client, configuration, written
from tests.prometheus import (
    NAME,
    Scene,
    assert_alerts,
    exposed_names,
    program,
    prometheus,
    promtool,
    queries,
    rules,
    sources,
)

UNKNOWN = "sync_staging_unknown_environments"
WHERE = (("environment", "staging"), ("site", "mysite"))


@asynccontextmanager
async def listening(file: Path) -> AsyncIterator[tuple[System, Client, Client]]:
    """A listener, a client of it, and one of its figures."""
    async with System(load(file)) as system:
        await system.listen()
        async with (
            client(f"http://127.0.0.1:{system.port}") as listener,
            client(f"http://127.0.0.1:{system.metrics_port}") as figures,
        ):
            yield system, listener, figures


async def scraped(figures: Client) -> str:
    status, text, _ = await figures.call("GET", "/metrics", token=None)
    assert status == 200
    return str(text)


async def until(figures: Client, *lines: str) -> str:
    """The first scrape that has all these lines."""
    deadline = time.monotonic() + 60
    text = await scraped(figures)
    while missing := [line for line in lines if f"\n{line}" not in text]:
        assert time.monotonic() < deadline, missing
        await asyncio.sleep(0.1)
        text = await scraped(figures)
    return text


@pytest.fixture
def promtool_there() -> None:
    program("promtool")
    program("prometheus")


@pytest.fixture
def faulty(tmp_path: Path, sshd: Sshd, published: Published) -> Callable[..., Path]:
    """Writes a configuration with a diverged environment, a missing repository, and a host that is down."""

    def write(**overrides: Any) -> Path:
        whole = configuration(tmp_path, sshd, published.path, **overrides)
        whole["sync"] = {**whole["sync"], "interval": 900}
        port = free_port()
        known = Path(whole["ssh"]["known_hosts"]).read_text().split(maxsplit=1)[1]
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(Path(whole["ssh"]["known_hosts"]).read_text() + f"[127.0.0.1]:{port} {known}")
        whole["ssh"] = {**whole["ssh"], "known_hosts": str(known_hosts)}
        whole["hosts"]["down"] = {**whole["hosts"]["studio"], "port": port}
        whole["sites"]["mysite"]["environments"]["staging"]["policy"] = "fast-forward"
        for site, host, path in (
            ("missing", "studio", tmp_path / "missing"),
            ("far", "down", published.path),
        ):
            whole["sites"][site] = {
                "repository": {"host": host, "path": str(path)},
                "environments": {"staging": {"follow": True}},
            }
        return written(tmp_path, whole)

    return write


@pytest.mark.usefixtures("promtool_there")
async def test_every_fault_fires_its_alert_and_nothing_else_does(
    faulty: Callable[..., Path], tmp_path: Path
) -> None:
    async with listening(faulty()) as (_, listener, figures):
        before = await scraped(figures)
        for number in range(3):
            await listener.deliver(f"wrong-{number}", secret="wrong")
        _, accepted, _ = await listener.deliver("right")
        assert (await listener.ended(accepted["runs"][0]))["state"] == "failed"
        after = await until(
            figures,
            'sync_staging_behind_environments{environment="staging",site="mysite"} 1.0',
            'sync_staging_failing_environments{environment="staging",site="mysite"} 1.0',
            f'{UNKNOWN}{{environment="staging",error="host-unreachable",site="far"}} 1.0',
            f'{UNKNOWN}{{environment="staging",error="not-a-repository",site="missing"}} 1.0',
            'sync_staging_host_up{host="down"} 0.0',
            'sync_staging_host_up{host="studio"} 1.0',
        )
        scene = Scene(before, after, time.time())
    labels = (("environment", "staging"), ("error", "not-a-repository"), ("site", "missing"))
    soon = [
        ("SyncsFail", WHERE),
        ("DeliveriesRefused", (("hook", "forge"), ("reason", "signature-rejected"))),
        ("HostDown", (("host", "down"),)),
        ("RepositoryMissing", labels),
    ]
    assert_alerts(scene, tmp_path, 2)
    assert_alerts(scene, tmp_path, 20, *soon)
    later = [each for each in soon if each[0] != "DeliveriesRefused"]
    assert_alerts(scene, tmp_path, 100, *later, ("StagingFallsBehind", WHERE))


async def test_a_restarted_listener_shows_what_was_found_before(
    faulty: Callable[..., Path], tmp_path: Path
) -> None:
    file = faulty()
    found = (
        'sync_staging_behind_environments{environment="staging",site="mysite"} 1.0',
        'sync_staging_failing_environments{environment="staging",site="mysite"} 1.0',
        f'{UNKNOWN}{{environment="staging",error="not-a-repository",site="missing"}} 1.0',
    )
    async with listening(file) as (_, listener, figures):
        _, accepted, _ = await listener.deliver("right")
        await listener.ended(accepted["runs"][0])
        await until(figures, *found)
    whole = yaml.safe_load(file.read_text())
    whole["sync"]["interval"] = 0
    async with listening(written(tmp_path, whole)) as (_, _, figures):
        text = await scraped(figures)
    assert [line for line in found if f"\n{line}" not in text] == []


@pytest.mark.usefixtures("promtool_there")
async def test_a_listener_in_order_fires_nothing_and_its_figures_are_well_formed(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    async with listening(configured()) as (_, listener, figures):
        before = await scraped(figures)
        _, accepted, _ = await listener.deliver("right")
        assert (await listener.ended(accepted["runs"][0]))["state"] == "succeeded"
        await listener.deliver("wrong", secret="wrong")
        after = await until(figures, 'sync_staging_host_up{host="studio"} 1.0')
    assert_alerts(Scene(before, after, time.time()), tmp_path, 100)
    promtool("check", "metrics", text=after)


@pytest.mark.usefixtures("promtool_there")
async def test_prometheus_answers_every_query_and_fires_what_is_true(
    faulty: Callable[..., Path], tmp_path: Path
) -> None:
    async with (
        listening(faulty()) as (system, listener, figures),
        prometheus(tmp_path / "prometheus", [system.metrics_port or 0]) as server,
    ):
        for query in (*queries(), *(rule["expr"] for rule in rules())):
            await server.query(query)
        for number in range(3):
            await listener.deliver(f"wrong-{number}", secret="wrong")
        _, accepted, _ = await listener.deliver("right")
        await listener.ended(accepted["runs"][0])
        names = exposed_names(await scraped(figures))
        used = {
            name for text in (*queries(), *(rule["expr"] for rule in rules())) for name in NAME.findall(text)
        }
        # promtool's text names an info figure by its samples.
        assert sources(used) <= names
        (drifted,) = await server.until('sync_staging_drifted_environments{site="mysite"} > 0')
        assert drifted["metric"]["environment"] == "staging"
        async with asyncio.timeout(60):
            while await server.firing() != {"SyncsFail", "DeliveriesRefused"}:
                await asyncio.sleep(0.5)
