"""Deliveries as fast as they are answered, from a process of their own: `python -m tests.bench.load PLAN`.

The plan is JSON: `port`, `path`, `connections`, `count`, `size` of each body in bytes, and the `repositories`
that they name in turns. What comes of it is JSON on standard output: how many seconds each took (`each`), how
many all of them together (`seconds`), and how often each status was answered (`statuses`).
"""

import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.listening import push, signed


def requests(plan: dict[str, Any]) -> Iterator[bytes]:
    """Requests that are made before the time begins."""
    mark = secrets.token_hex(4)
    for number in range(plan["count"]):
        name = plan["repositories"][number % len(plan["repositories"])]
        body = push(repository=name, more="")
        body = push(repository=name, more="x" * max(0, plan["size"] - len(body)))
        headers = {"Host": "x", "Content-Length": str(len(body)), **signed(body, f"{mark}-{number}")}
        lines = [f"POST {plan['path']} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
        yield "\r\n".join([*lines, "", ""]).encode() + body


async def send(port: int, waiting: list[bytes], each: list[float], statuses: Counter[str]) -> None:
    """Send what waits, one after the other, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while waiting:
        began = time.perf_counter()
        writer.write(waiting.pop())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        each.append(time.perf_counter() - began)
        statuses[head.split()[1].decode()] += 1
    writer.close()


async def main(plan: dict[str, Any]) -> dict[str, Any]:
    waiting, each, statuses = list(requests(plan)), list[float](), Counter[str]()
    began = time.perf_counter()
    await asyncio.gather(*(send(plan["port"], waiting, each, statuses) for _ in range(plan["connections"])))
    return {"seconds": time.perf_counter() - began, "each": each, "statuses": statuses}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
