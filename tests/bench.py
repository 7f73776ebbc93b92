"""What the way from webhook to moved ref costs, against its alternatives, measured in one run.

`make bench`. These machines are noisy: read the ratios, not the milliseconds.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from listener.progress import Progress
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd
from listener.runs import Origin, Reception, Run, State, Trigger, new_id
from listener.sites import Host, Policy, RepositoryAddress
from listener.store import open_store
from listener.sync import Synchronizer
from tests.legs import changed, environment_of, pool_of, unkept

TIMES = 60
DELIVERIES = 2000


class Silent:
    """Notes that go nowhere."""

    def note(self, event: str, level: str = "info", **facts: object) -> None:
        """Take nothing down."""


@dataclass
class Row:
    """One way, and the milliseconds that it took."""

    name: str
    milliseconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


async def measured(name: str, way: Callable[[], Awaitable[object]], times: int = TIMES) -> Row:
    """Go a way again and again; the first time is not counted."""
    await way()
    row = Row(name, [])
    for _ in range(times):
        started = time.perf_counter()
        await way()
        row.milliseconds.append((time.perf_counter() - started) * 1000)
    return row


def table(title: str, rows: list[Row]) -> None:
    """Print rows, each with its ratio to the first."""
    sys.stdout.write(f"\n{title}\n{'':56}{'median ms':>10}{'worst ms':>10}{'ratio':>8}\n")
    for row in rows:
        ratio = rows[0].median / row.median
        sys.stdout.write(f"{row.name:56}{row.median:10.2f}{max(row.milliseconds):10.2f}{ratio:7.1f}x\n")


async def sync_rows(sshd: Sshd, published: Published) -> list[Row]:
    """Measure one sync, and what else could have moved the ref."""
    host = Host("studio", "127.0.0.1", sshd.port, sshd.user, str(sshd.known_hosts), str(sshd.identity))
    address = RepositoryAddress("studio", str(published.path))
    environment = changed(environment_of(address), policy=Policy.RESET)
    live, older = published.commit("live"), published.commit("staging")
    command = f"git -C '{published.path}' update-ref refs/heads/probe {live}"
    client = [
        *(
            "ssh",
            "-p",
            str(sshd.port),
            "-i",
            str(sshd.identity),
            "-o",
            f"UserKnownHostsFile={sshd.known_hosts}",
        ),
        *("-F", "none", "-o", "BatchMode=yes", f"{sshd.user}@127.0.0.1", command),
    ]

    async def cold() -> None:
        process = await asyncio.create_subprocess_exec(*client, stderr=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0

    pool = pool_of([host], published.path / "unused")
    synchronizer = Synchronizer(pool, quiet=0, patience=900)
    connection = await asyncssh.connect(
        "127.0.0.1",
        sshd.port,
        username=sshd.user,
        client_keys=[str(sshd.identity)],
        known_hosts=str(sshd.known_hosts),
        config=None,
        agent_path=None,
    )

    async def session() -> None:
        done = await connection.run(command, encoding=None)
        assert done.exit_status == 0

    async def equal() -> None:
        await synchronizer.look(environment, Silent())

    async def moving() -> None:
        published.git("update-ref", "refs/heads/staging", older)
        run = Run(new_id(time.time()), "mysite", "staging", State.RUNNING, time.time(), 0.0)
        started = time.perf_counter()
        await synchronizer.sync(environment, run, Silent(), Progress(), unkept)
        spent.append((time.perf_counter() - started) * 1000)

    spent: list[float] = []
    rows = [
        await measured("OpenSSH client, cold: one blind git update-ref", cold),
        await measured("asyncssh, warm, a session for one blind git update-ref", session),
    ]
    await measured("", moving)
    rows.append(Row("this program: observed, checked, moved, confirmed", spent[1:]))
    rows.append(await measured("this program: already equal", equal))
    connection.close()
    await connection.wait_closed()
    await pool.close()
    return rows


async def store_rows(folder: Path) -> list[Row]:
    """Measure durable acknowledgements, one at a time and many at once."""
    store = open_store(f"sqlite:///{folder}/bench.db")
    await store.open()
    number = iter(range(10**9))

    async def accept() -> None:
        now, n = time.time(), next(number)
        trigger = Trigger(new_id(now), f"site-{n % 50}", "staging", Origin.HOOK, "forge", now)
        reception = Reception(new_id(now), "forge", f"d-{n}", now, 2, "0" * 64, {}, {})
        await store.accept([trigger], reception, now)

    single = await measured("one delivery at a time", accept, DELIVERIES // 10)
    started = time.perf_counter()
    await asyncio.gather(*(accept() for _ in range(DELIVERIES)))
    each = (time.perf_counter() - started) * 1000 / DELIVERIES
    await store.close()
    return [single, Row(f"{DELIVERIES} deliveries at once, each", [each])]


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="sync-staging-bench-") as name:
        folder = Path(name)
        (folder / "ssh").mkdir()
        published = build(folder / "mysite")
        with Sshd(folder / "ssh") as sshd:
            table("From a decision to a moved ref, over SSH on loopback", await sync_rows(sshd, published))
        table("From a verified delivery to its durable acknowledgement", await store_rows(folder))


if __name__ == "__main__":
    asyncio.run(main())
