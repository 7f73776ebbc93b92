"""Bytes that are not HTTP, behind answers that nobody reads: what they cost, and who waits for it."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from listener.rehearsal.sshd import free_port
from tests import figures
from tests.attack.good import Good
from tests.listening import daemon
from tests.strangers import certificate, connections, loopback, resident, trusting, worked

SECONDS = 60.0 if os.environ.get("SYNC_STAGING_ATTACK") else 2.0

ALLOWED = 64.0
"""MiB over an idle listener."""

HANDSHAKE = 0.128
"""MiB of each connection that is silent where a handshake is due."""


async def watched(pid: int, peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], resident(pid))
        await asyncio.sleep(0.02)


async def given_back(pid: int, before: float) -> None:
    """Wait until a process has at most half of what it may take more than before."""
    async with asyncio.timeout(10):
        while resident(pid) - before > ALLOWED / 2:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("many", [50, 200])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_a_flood_of_what_is_not_http_takes_no_memory_and_keeps_nobody_waiting(
    configured: Callable[..., Path], tmp_path: Path, many: int, encrypted: bool
) -> None:
    server = {"host": "127.0.0.1", "port": free_port(), "drain": 1}
    pair = {"tls": certificate(tmp_path)} if encrypted else {}
    tls = trusting() if encrypted else None
    async with daemon(configured(server={**server, **pair})) as running:
        pid, port = running.process.pid, int(str(server["port"]))
        good = Good(port, None, tls)
        async with good.going_on():
            await asyncio.sleep(1)
        before, began = resident(pid), worked(pid)
        peak = [before]
        attack = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.attack.flood", str(port), str(many), str(SECONDS)),
            *(["tls"] if encrypted else []),
            stdout=asyncio.subprocess.PIPE,
        )
        watch = asyncio.create_task(watched(pid, peak))
        good = Good(port, None, tls)
        async with good.going_on():
            sent, _ = await attack.communicate()
        assert attack.returncode == 0
        watch.cancel()
        await given_back(pid, before)
        took = worked(pid) - began
        after = resident(pid)
        text = running.log.read_text()
    figures.tell(
        f"flood of what is not HTTP, {many} connections, {'TLS' if encrypted else 'plain'}",
        seconds=SECONDS,
        sent=f"{sent.decode().strip()} MiB",
        memory=f"+{peak[0] - before:.1f} MiB",
        afterwards=f"{after - before:+.1f} MiB",
        processor=f"{took:.1f} s",
        good=sum(good.counted.values()),
        refused=len(good.refused),
        p99=good.p99,
    )
    assert good.refused == []
    assert min(good.counted["deliveries"], good.counted["calls"]) > 0
    assert peak[0] - before <= ALLOWED
    assert "Traceback" not in text


async def test_a_thousand_silent_handshakes_take_little_memory_and_give_it_back(
    configured: Callable[..., Path], tmp_path: Path
) -> None:
    server = {"host": "127.0.0.1", "port": free_port(), "drain": 1, "tls": certificate(tmp_path)}
    async with daemon(configured(server=server)) as running:
        pid, port, tls = running.process.pid, int(str(server["port"])), trusting()
        good = Good(port, None, tls)
        async with good.going_on():
            await asyncio.sleep(1)
        before = resident(pid)
        async with connections(port, [loopback(number % 200) for number in range(1000)]), good.going_on():
            peak = resident(pid)
        await given_back(pid, before)
        after = resident(pid)
    figures.tell(
        "silent handshakes of TLS",
        connections=1000,
        memory=f"+{peak - before:.1f} MiB",
        afterwards=f"{after - before:+.1f} MiB",
        refused=len(good.refused),
    )
    assert good.refused == []
    assert peak - before < 1000 * HANDSHAKE
