"""A line that takes its time, in its own process: `python -m tests.bench.line PORT SECONDS` (one way)."""

import asyncio
import sys

from tests.proxy import Proxy


async def main(port: int, delay: float) -> None:
    async with Proxy(port) as proxy:
        proxy.delay = delay
        sys.stdout.write(f"{proxy.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
