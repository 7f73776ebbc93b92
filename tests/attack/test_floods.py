"""Bytes that are not HTTP, behind answers that nobody reads: what they cost, and who waits for it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import figures
from tests.attack.good import Good
from tests.listening import daemon, free_port
from tests.strangers import Tls, certificate, connect, loopback, resident, trusting, worked

SECONDS = 60.0 if os.environ.get("SYNC_STAGING_ATTACK") else 3.0

ALLOWED = 64.0
"""MiB over an idle listener."""

GARBAGE = b"\x00\xffnot HTTP\r\n" * 5000

ASKED = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 40


async def flooding(port: int, source: str, tls: Tls, taken: list[int]) -> None:
    """Ask for much, read nothing, then send what is not HTTP for as long as it is taken; and again."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await connect(port, source, tls)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            try:
                writer.write(ASKED)
                await asyncio.sleep(0.2)
                while not writer.is_closing():
                    writer.write(GARBAGE)
                    async with asyncio.timeout(1):
                        await writer.drain()
                    taken[0] += len(GARBAGE)
            except TimeoutError:
                # It is not read any more. The connection is kept, for what the listener keeps of it.
                await asyncio.sleep(5)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.01)


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
        peak, taken = [before], [0]
        flood = [
            asyncio.create_task(flooding(port, loopback(number % 7), tls, taken)) for number in range(many)
        ]
        watch = asyncio.create_task(watched(pid, peak))
        good = Good(port, None, tls)
        async with good.going_on():
            await asyncio.sleep(SECONDS)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        watch.cancel()
        await given_back(pid, before)
        took = worked(pid) - began
        after = resident(pid)
        text = running.log.read_text()
    figures.tell(
        f"flood of what is not HTTP, {many} connections, {'TLS' if encrypted else 'plain'}",
        seconds=SECONDS,
        sent=f"{taken[0] >> 20} MiB",
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
