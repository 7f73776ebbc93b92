"""Every kind of slowness, from few and many addresses: nobody who is known is refused for it."""

import asyncio
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.sshd import free_port
from tests import figures
from tests.attack.good import Good
from tests.attack.slow import AT_METRICS, KINDS
from tests.listening import Daemon, daemon
from tests.strangers import connections, descriptors, loopback

LONG = bool(os.environ.get("SYNC_STAGING_ATTACK"))
SECONDS = 5.0 if LONG else 0.5
"""For each kind."""

ADDRESSES = (4, 16, 64) if LONG else (4, 64)
"""From how many at a time."""

PLACES = 120
ATTACKERS = 160
"""Connections at a time, more than there are places."""

Write = Callable[..., Path]


async def kept_out(
    configured: Write, sources: Sequence[str], forwarded: Sequence[str] = (), client: str = "", **server: Any
) -> Good:
    """Who was kept out by any kind of slowness, at the listener's own door and at that of its figures."""
    port = free_port()
    whole = {"host": "127.0.0.1", "port": port, "drain": 1, "connections": PLACES, **server}
    async with daemon(configured(server=whole)) as running:
        metrics = await running.metrics_port()
        good = Good(port, metrics, client=client)
        plan = {
            "port": port,
            "metrics": metrics,
            "sources": sources,
            "at_metrics": sources if not forwarded else [loopback(number) for number in range(16)],
            "forwarded": forwarded,
            "many": ATTACKERS,
            "seconds": SECONDS,
        }
        attack = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.attack.slow", json.dumps(plan), stdout=asyncio.subprocess.PIPE
        )
        async with good.going_on():
            cut, _ = await attack.communicate()
        assert attack.returncode == 0
        assert "Traceback" not in running.log.read_text()
    figures.tell(
        f"slowness, {len(forwarded or sources)} addresses{' behind a proxy' if forwarded else ''}",
        kinds=len(KINDS) + len(AT_METRICS),
        connections=ATTACKERS,
        places=PLACES,
        had_to_leave=cut.decode().strip(),
        **good.counted,
        refused=len(good.refused),
        p99=good.p99,
    )
    return good


@pytest.mark.parametrize("addresses", ADDRESSES)
async def test_no_kind_of_slowness_keeps_out_who_is_known(configured: Write, addresses: int) -> None:
    good = await kept_out(configured, [loopback(number * 7) for number in range(addresses)])
    assert good.refused == []
    assert min(good.counted.values()) > 0


@pytest.mark.parametrize("addresses", ADDRESSES)
async def test_no_kind_of_slowness_behind_a_trusted_proxy_keeps_out_who_is_known(
    configured: Write, addresses: int
) -> None:
    good = await kept_out(
        configured,
        ["127.0.0.1"],
        [f"192.0.{number}.7" for number in range(addresses)],
        "198.51.100.9",
        trusted_proxies=["127.0.0.1"],
    )
    assert good.refused == []
    assert min(good.counted.values()) > 0


@contextmanager
def limited_files(most: int) -> Iterator[None]:
    """What is started meanwhile may open so many files, as systemd has it by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_idle_connections_at_both_doors_leave_syncs_the_descriptors_that_they_need(
    configured: Write,
) -> None:
    port = free_port()
    running = Daemon(configured(server={"host": "127.0.0.1", "port": port, "drain": 1}), anew=True)
    with limited_files(1024):
        await running.start()
    try:
        metrics = await running.metrics_port()
        good, most = Good(port, metrics), 0
        async with (
            connections(metrics, [loopback(number % 300) for number in range(1030)]),
            connections(port, [loopback(number % 300) for number in range(1100)]),
            good.going_on(),
        ):
            for _ in range(30):
                most = max(most, descriptors(running.process.pid))
                await asyncio.sleep(0.05)
        events = await running.logged()
    finally:
        await running.kill()
    assert good.refused == []
    assert min(good.counted.values()) > 0
    assert most < 1024
    assert [event for event in events if event["event"] in {"connections wait", "defect"}] == []
    warned = [event for event in events if event["event"] == "connections"]
    assert [event["configured"] for event in warned] == [1000]
    figures.tell(
        "idle connections at both doors, 1,024 descriptors",
        connections=2130,
        descriptors=most,
        **good.counted,
        refused=len(good.refused),
    )
