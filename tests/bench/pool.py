"""What many hosts cost: memory for each that is configured, time and memory for each that is connected.

`make bench-pool`. One sshd stands for all of them, on the same machine: it takes its share of the cores.
"""

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from listener.rehearsal.sshd import Sshd
from listener.sites import Host
from listener.ssh import HostPool
from tests.legs import pool_of

CONFIGURED = 1000
CONNECTED = 200


class Silent:
    """Notes that go nowhere."""

    def note(self, event: str, level: str = "info", **facts: object) -> None:
        """Take nothing down."""


ROOMY = "MaxStartups 1000\n"
"""sshd's own limit is for strangers; here, all hosts are one."""


def hosts_on(sshd: Sshd, known_hosts: Path, number: int = CONFIGURED) -> dict[str, Host]:
    """Return so many hosts that are all one, in a known_hosts file with a line for each."""
    public = sshd.known_hosts.read_text().split(maxsplit=1)[1]
    lines = [f"host-{n}.example.com {public}" for n in range(1, number)]
    known_hosts.write_text("".join([*lines, sshd.known_hosts.read_text()]))
    return {
        f"host-{n}": Host(
            f"host-{n}", sshd.address, sshd.port, sshd.user, str(known_hosts), str(sshd.identity)
        )
        for n in range(number)
    }


def resident() -> float:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def said(text: str, figure: float, unit: str) -> None:
    """Print one figure."""
    sys.stdout.write(f"{text:56}{figure:10.2f} {unit}\n")


async def warm(pool: HostPool, names: list[str]) -> None:
    """Connect to hosts at once, each with a loaded shell."""
    await asyncio.gather(*(pool.warm(name, Silent()) for name in names))


async def measure(sshd: Sshd, folder: Path) -> None:
    """Measure and print."""
    first = pool_of(hosts_on(sshd, folder / "known_hosts", 1).values(), folder / "unused", connect_timeout=60)
    # What a first connection loads for all that follow is nobody's share.
    await warm(first, ["host-0"])
    before = resident()
    hosts = hosts_on(sshd, folder / "known_hosts")
    started = time.perf_counter()
    pool = pool_of(hosts.values(), folder / "unused", connect_timeout=60)
    said(f"to build the pool of {CONFIGURED} hosts", (time.perf_counter() - started) * 1000, "ms")
    built = resident()
    said("memory for each configured host", (built - before) / CONFIGURED / 1024, "KiB")
    names = list(hosts)[:CONNECTED]
    started = time.perf_counter()
    await warm(pool, names)
    took = time.perf_counter() - started
    said(f"until {CONNECTED} of them are connected, a shell loaded in each", took, "s")
    said("memory for each connected host", (resident() - built) / CONNECTED / 1024, "KiB")
    spent = []
    for name in names:
        started = time.perf_counter()
        await pool._connections[name].call(Silent(), 30, "hello")
        spent.append((time.perf_counter() - started) * 1000)
    said("median time of a call on them", statistics.median(spent), "ms")
    await pool.close()
    await first.close()


async def main() -> None:
    """Start an sshd and measure."""
    with tempfile.TemporaryDirectory(prefix="sync-staging-bench-") as name:
        folder = Path(name)
        (folder / "ssh").mkdir()
        with Sshd(folder / "ssh", ROOMY) as sshd:
            await measure(sshd, folder)


if __name__ == "__main__":
    asyncio.run(main())
