"""A flood of what is not HTTP, from a process of its own.

`python -m tests.attack.flood PORT MANY SECONDS [tls]` prints how many MiB were taken.
"""

import asyncio
import contextlib
import socket
import sys

from tests.strangers import Tls, connect, loopback, trusting

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


async def flood(port: int, many: int, seconds: float, tls: Tls) -> None:
    """Let many connections flood a listener for a while."""
    taken = [0]
    tasks = [asyncio.create_task(flooding(port, loopback(each % 7), tls, taken)) for each in range(many)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(f"{taken[0] >> 20}\n")


if __name__ == "__main__":
    ends = trusting() if sys.argv[4:] == ["tls"] else None
    asyncio.run(flood(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), ends))
