"""Attacks on the door of a daemon, each with its figures; in the middle of each a genuine delivery passes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from listener.rehearsal.sshd import free_port
from tests import figures
from tests.listening import Daemon, daemon
from tests.strangers import (
    Ends,
    answers,
    connect,
    connections,
    cut,
    delivered,
    delivery,
    descriptors,
    head,
    loopback,
    resident,
    status_of,
)

Write = Callable[..., Path]

ALLOWED = 160.0
"""MiB that a daemon may grow by under any of these attacks."""


class Attacked:
    """A daemon under attack, and what that costs it."""

    def __init__(self, running: Daemon) -> None:
        self.port = int(running.url.rpartition(":")[2])
        self.pid = running.process.pid
        self.running = running
        self._before = resident(self.pid)
        self._peak = self._before
        self._since = time.monotonic()

    def look(self) -> float:
        """How much the daemon has grown at most, in MiB."""
        self._peak = max(self._peak, resident(self.pid))
        return self._peak - self._before

    async def genuine(self, key: str, source: str = "127.0.0.9") -> None:
        """A genuine delivery is accepted now."""
        async with asyncio.timeout(300):
            assert await delivered(self.port, key, source)
        assert self.look() < ALLOWED

    async def closed_down_to(self, descriptors_most: int) -> None:
        """Wait until what had to make room is closed: that takes the daemon a moment."""
        async with asyncio.timeout(300):
            while descriptors(self.pid) >= descriptors_most:
                await asyncio.sleep(0.01)

    def tell(self, test: str, **counted: object) -> None:
        """Keep the figures of this attack."""
        seconds = f"{time.monotonic() - self._since:.1f} s"
        figures.tell(test, **counted, memory=f"+{self.look():.1f} MiB", time=seconds)
        assert "Traceback" not in self.running.log.read_text()


@asynccontextmanager
async def attacked(configured: Write, **server: object) -> AsyncIterator[Attacked]:
    whole = {"host": "127.0.0.1", "port": free_port(), "drain": 1, **server}
    async with daemon(configured(server=whole)) as running:
        yield Attacked(running)


async def test_slowloris_half_sent_heads_give_way_to_who_asks(configured: Write) -> None:
    async with attacked(configured, connections=400, head_timeout=3) as under:
        sources = [loopback(number % 40) for number in range(800)]
        async with connections(under.port, sources) as dripping:
            for _, writer in dripping:
                writer.write(b"POST /hooks/forge HTTP/1.1\r\nHost: x\r\n")
            await under.closed_down_to(500)
            await under.genuine("d-1")
            for round_ in range(3):
                for _, writer in dripping:
                    writer.write(f"X-Drip-{round_}: {round_}\r\n".encode())
                await under.genuine(f"d-drip-{round_}")
            async with asyncio.timeout(300):
                assert all([await cut(reader) for reader, _ in dripping])
        await under.genuine("d-2")
        under.tell("slowloris", half_sent_heads=len(sources))


async def test_thousands_of_half_open_connections_do_not_keep_anybody_out(configured: Write) -> None:
    async with attacked(configured) as under:
        sources = [loopback(number % 1500) for number in range(6000)]
        async with connections(under.port, sources[:3000]):
            await under.genuine("d-1")
            async with connections(under.port, sources[3000:]):
                await under.closed_down_to(1200)
                await under.genuine("d-2")
        under.tell("half-open connections", connections=len(sources), addresses=1500, kept_at_most=1000)


async def poured(port: int, sent: bytes, chunk: bytes, times: int, source: str) -> tuple[int, int]:
    """Send a head and a chunk so many times; how many bytes were taken, and the status of the answer."""
    reader, writer = await connect(port, source)
    taken = 0
    try:
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                writer.write(chunk)
                await writer.drain()
                taken += len(chunk)
                if reader.at_eof() or writer.is_closing():
                    break
        line = b""
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
        return taken, status_of(line) if line else 0
    finally:
        await hung_up((reader, writer))


async def hung_up(ends: Ends) -> None:
    ends[1].close()
    with contextlib.suppress(OSError):
        await ends[1].wait_closed()


@pytest.mark.parametrize("framing", ["Content-Length: 314572800", "Transfer-Encoding: chunked"])
async def test_bodies_of_300_mb_are_not_held(configured: Write, framing: str) -> None:
    data = b"x" * (1 << 20)
    chunk = data if framing.startswith("Content") else b"100000\r\n" + data + b"\r\n"
    async with attacked(configured) as under:
        pouring = [
            asyncio.create_task(
                poured(under.port, head("/hooks/forge", framing), chunk, 300, loopback(number))
            )
            for number in range(4)
        ]
        await under.genuine("d-1")
        while not all(task.done() for task in pouring):
            under.look()
            await asyncio.sleep(0.02)
        taken = [task.result()[0] for task in pouring]
        assert {task.result()[1] for task in pouring} <= {413, 0}
        await under.genuine("d-2")
        # What had arrived is given back.
        under.tell(f"300 MB bodies, {framing.partition(':')[0]}", bodies=4, sent=f"{sum(taken) >> 20} MiB")


async def test_slow_bodies_hold_no_more_than_what_they_send(configured: Write) -> None:
    async with attacked(configured, body_timeout=3) as under:
        sources = [loopback(number) for number in range(300)]
        declared = head("/hooks/forge", "Content-Length: 26000000")
        async with connections(under.port, sources) as slow:
            for _, writer in slow:
                writer.write(declared + b"x" * 1000)
            for round_ in range(3):
                await under.genuine(f"d-{round_}")
                for _, writer in slow:
                    writer.write(b"x")
            async with asyncio.timeout(300):
                lines = [await reader.readline() for reader, _ in slow]
        assert {status_of(line) for line in lines} == {408}
        under.tell("slow bodies", bodies=300, declared="7.3 GiB")


async def test_many_large_bodies_share_a_bounded_room(configured: Write) -> None:
    async with attacked(configured, unverified_bytes=128 << 20, body_timeout=4) as under:
        length = 24 << 20
        sent = head("/hooks/forge", f"Content-Length: {length}")
        pouring = [
            asyncio.create_task(poured(under.port, sent, b"x" * (1 << 20), 23, loopback(number)))
            for number in range(30)
        ]
        count = 0
        while not all(task.done() for task in pouring):
            count += 1
            async with asyncio.timeout(300):
                assert await delivered(under.port, f"d-{count}", "127.0.0.9")
            under.look()
            await asyncio.sleep(0.2)
        assert {task.result()[1] for task in pouring} <= {408, 503, 0}
        # The room, what may arrive without any, and what is on its way through the sockets.
        assert under.look() < 128 + 30 + ALLOWED
        under.tell("large bodies at once", bodies=30, declared="720 MiB", room="128 MiB")


SMUGGLED = {
    "length and chunks": head("/hooks/forge", "Content-Length: 4", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "two lengths": head("/hooks/forge", "Content-Length: 4", "Content-Length: 5") + b"abcde",
    "the same length twice": head("/hooks/forge", "Content-Length: 4", "Content-Length: 4") + b"abcd",
    "lengths in a list": head("/hooks/forge", "Content-Length: 4, 4") + b"abcd",
    "a signed length": head("/hooks/forge", "Content-Length: +4") + b"abcd",
    "a negative length": head("/hooks/forge", "Content-Length: -4") + b"abcd",
    "a hexadecimal length": head("/hooks/forge", "Content-Length: 0x4") + b"abcd",
    "an unknown coding": head("/hooks/forge", "Transfer-Encoding: cow") + b"abcd",
    "chunked, and something": head("/hooks/forge", "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
    "two codings": head("/hooks/forge", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "a space before the colon": head("/hooks/forge", "Content-Length : 4") + b"abcd",
    "a folded line": head("/hooks/forge", "X-A: 1\r\n Content-Length: 4") + b"abcd",
    "a NUL": head("/hooks/forge", "X-A: a\0b", "Content-Length: 0"),
    "a bare CR": head("/hooks/forge", "X-A: a\rContent-Length: 4", "Content-Length: 0"),
    "bare LFs": head("/hooks/forge", "Content-Length: 0").replace(b"\r\n", b"\n"),
    "no host": b"POST /hooks/forge HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "a huge header": head("/hooks/forge", "X-A: " + "a" * 100_000, "Content-Length: 0"),
    "a huge path": head("/" + "a" * 100_000, "Content-Length: 0"),
    "10,000 headers": head("/hooks/forge", *(f"X-{number}: 1" for number in range(10_000))),
    "a chunk size that overflows": head("/hooks/forge", "Transfer-Encoding: chunked")
    + b"fffffffffffffffff\r\n",
    "a chunk without a size": head("/hooks/forge", "Transfer-Encoding: chunked") + b"xyz\r\nabc\r\n",
}

LENIENT = {"no host"}
"""What aiohttp reads; it only leads to the answer that it would have led to anyway."""


async def test_no_request_is_smuggled_in_another(configured: Write) -> None:
    async with attacked(configured, refusals=10**6) as under:
        for name, sent in SMUGGLED.items():
            # Were the head read otherwise than a proxy reads it, the request behind it would be answered too.
            said = await answers(under.port, sent + head("/healthz", method="GET"))
            statuses = [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
            assert len(statuses) <= 1, name
            assert set(statuses) <= ({401} if name in LENIENT else {400}), (name, said)
            await under.genuine(f"d-{name}")
        under.tell("header smuggling", requests=len(SMUGGLED))


async def test_a_head_of_endless_lines_is_ended(configured: Write) -> None:
    async with attacked(configured) as under:
        sources = [loopback(number) for number in range(100)]
        part = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 8000) for number in range(120))
        async with connections(under.port, sources) as endless:
            for _, writer in endless:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + part)
            async with asyncio.timeout(300):
                assert all([await cut(reader) for reader, _ in endless])
            await under.genuine("d-1")
        under.tell("endless heads", heads=len(sources), sent=f"{len(part) * len(sources) >> 20} MiB")


async def test_pipelined_requests_that_are_refused_end_with_the_first_429(configured: Write) -> None:
    async with attacked(configured) as under:
        one = b"POST /hooks/none HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        said = await answers(under.port, one * 5000)
        # One more is allowed every 2 s.
        assert 30 <= said.count(b"HTTP/1.1 404") < 60
        assert said.count(b"HTTP/1.1 429") == 1
        await under.genuine("d-1", "127.0.0.1")
        under.tell("pipelined refusals", requests=5000, answered=31)


async def test_a_flood_of_refused_requests_keeps_no_good_one_out(configured: Write) -> None:
    async with attacked(configured) as under:
        wrong = delivery("d-0", secret="wrong")
        counted = 0

        async def flood(until: float) -> None:
            nonlocal counted
            while time.monotonic() < until:
                assert status_of(await answers(under.port, wrong)) in {401, 429}
                counted += 1

        began = time.monotonic()
        until = began + 3
        flooding = [asyncio.create_task(flood(until)) for _ in range(8)]
        passed = 0
        while not all(task.done() for task in flooding):
            # From the very address of the flood.
            await under.genuine(f"d-good-{passed}", "127.0.0.1")
            passed += 1
        await asyncio.gather(*flooding)
        lines = [each for each in await under.running.logged() if each["event"] == "delivery refused"]
        # A few were under way when the last refusal was counted, and one more is allowed every 2 s.
        assert len(lines) < 45 + (time.monotonic() - began - 3) / 2
        under.tell("flood of refusals", refused=counted, passed=passed, log_lines=len(lines))


async def test_garbage_is_refused_and_leaves_nothing_behind(configured: Write) -> None:
    async with attacked(configured, head_timeout=1) as under:
        sent = [bytes([number]) * 40 + b"\r\n\r\n" for number in range(256)]
        asked = (answers(under.port, each, loopback(number)) for number, each in enumerate(sent))
        said = await asyncio.gather(*asked)
        # What only might become a request is given up when its time is over.
        assert {status_of(each) for each in said if each} == {400}
        await under.genuine("d-1")
        assert descriptors(under.pid) < 60
        under.tell("garbage", requests=256)
