"""Connections that are slow in every way, from a process of their own: they slow nobody else down.

`python -m tests.attack.slow PLAN`, where the plan is JSON: the ports `port` and `metrics`, the `sources` of
the connections to the one and `at_metrics` to the other, whom a proxy names (`forwarded`), how `many` at a
time, `seconds` for each kind. Prints how many connections ended.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.strangers import connect, head

FORGED = (
    "Content-Type: application/json",
    "X-GitHub-Event: push",
    "X-GitHub-Delivery: d-forged",
    f"X-Hub-Signature-256: sha256={'0' * 64}",
)
LARGE = 20 << 20


def dripped(path: str, *headers: str, length: int = 20000) -> Callable[[list[str]], Iterator[bytes]]:
    """A request whose body comes byte by byte."""

    def drip(named: list[str]) -> Iterator[bytes]:
        yield head(path, *headers, *named, f"Content-Length: {length}")
        yield from itertools.repeat(b"x")

    return drip


def silent(_: list[str]) -> Iterator[bytes]:
    yield from itertools.repeat(b"")


def half_heads(named: list[str]) -> Iterator[bytes]:
    yield "\r\n".join(["POST /hooks/forge HTTP/1.1", "Host: x", *named, ""]).encode()
    yield from (f"X-{number}: 1\r\n".encode() for number in itertools.count())


def pieces(named: list[str]) -> Iterator[bytes]:
    yield head("/hooks/forge", *FORGED, *named, "Transfer-Encoding: chunked")
    yield from itertools.repeat(b"1\r\nx\r\n" * 20)


def uninvited(named: list[str]) -> Iterator[bytes]:
    yield head("/hooks/forge", *FORGED, *named, "Expect: 100-continue", "Content-Length: 20000")
    yield from itertools.repeat(b"")


def idle(named: list[str]) -> Iterator[bytes]:
    yield "\r\n".join(["GET /healthz HTTP/1.1", "Host: x", *named, "", ""]).encode()
    yield from itertools.repeat(b"")


def unread(named: list[str]) -> Iterator[bytes]:
    asked = "\r\n".join(["GET /openapi.json HTTP/1.1", "Host: x", *named, "", ""]).encode()
    yield from itertools.repeat(asked * 20)


def large(named: list[str]) -> Iterator[bytes]:
    yield head("/hooks/forge", *FORGED, *named, f"Content-Length: {LARGE}")
    yield b"x" * (1 << 20)
    yield from itertools.repeat(b"x" * 1000)


KINDS: dict[str, Callable[[list[str]], Iterator[bytes]]] = {
    "silent": silent,
    "half a head": half_heads,
    "slow body": dripped("/hooks/forge", *FORGED),
    "slow call": dripped("/api/1/services/api/1/publish/sync-staging.json", "Authorization: Bearer x"),
    "slow sign-in": dripped("/session", "Sec-Fetch-Site: same-origin", "Content-Type: application/json"),
    "pieces": pieces,
    "Expect": uninvited,
    "idle": idle,
    "unread answers": unread,
    "large body": large,
}


AT_METRICS = (silent, half_heads, idle)


async def attacking(port: int, source: str, named: list[str], kind: Any, cut: list[int]) -> None:
    """Be slow on one connection after the other."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await connect(port, source)
            if kind is unread:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            try:
                for sent in kind(named):
                    writer.write(sent)
                    await writer.drain()
                    await asyncio.sleep(0.1)
                    if reader.at_eof() or writer.is_closing():
                        break
            finally:
                cut[0] += 1
                writer.transport.abort()
        await asyncio.sleep(1)


async def attack(port: int, plan: dict[str, Any], kind: Any, cut: list[int]) -> None:
    """Let many be slow in one way for a while, each from its address, or named by a proxy."""
    sources, forwarded = plan["sources"], plan["forwarded"]
    tasks = [
        asyncio.create_task(
            attacking(
                port,
                sources[number % len(sources)],
                [f"X-Forwarded-For: {forwarded[number % len(forwarded)]}"] if forwarded else [],
                kind,
                cut,
            )
        )
        for number in range(plan["many"])
    ]
    await asyncio.sleep(plan["seconds"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_kinds(plan: dict[str, Any]) -> None:
    cut = [0]
    for kind in KINDS.values():
        await attack(plan["port"], plan, kind, cut)
    for kind in AT_METRICS:
        await attack(plan["metrics"], {**plan, "sources": plan["at_metrics"]}, kind, cut)
    sys.stdout.write(f"{cut[0]}\n")


if __name__ == "__main__":
    asyncio.run(all_kinds(json.loads(sys.argv[1])))
