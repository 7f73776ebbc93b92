"""What the way from webhook to moved ref costs, against its alternatives, measured in one run.

`make bench`. These machines are noisy: read the ratios, not the milliseconds.
"""

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import asyncssh

from listener.progress import Progress
from listener.queue import DeliveryRecord
from listener.rehearsal.git import git
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd, free_port
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.sites import Access, Environment, Host, Policy, RepositoryAddress
from listener.store import open_store
from listener.sync import Synchronizer
from tests.conftest import GIT_SHELL
from tests.legs import changed, environment_of, pool_of, unkept
from tests.listening import GITHUB_SECRET, client, configuration, daemon, push, written

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


def host_of(name: str, sshd: Sshd) -> Host:
    """Return an sshd as a host."""
    return Host(name, "127.0.0.1", sshd.port, sshd.user, str(sshd.known_hosts), str(sshd.identity))


async def sync_rows(sshd: Sshd, published: Published) -> list[Row]:
    """Measure one sync, and what else could have moved the ref."""
    host = host_of("studio", sshd)
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


def publish(published: Published) -> None:
    """Let live move on by a commit with one new file."""
    blob = published.git("hash-object", "-w", "--stdin", stdin=secrets.token_bytes(64))
    tree = published.git("ls-tree", "live") + f"\n100644 blob {blob}\tnews-{blob[:12]}.xml\n"
    made = published.git("mktree", stdin=tree.encode())
    commit = published.git("commit-tree", made, "-p", "live", "-m", "Publish to live")
    published.git("update-ref", "refs/heads/live", commit)


async def leg_rows(sshd: Sshd, git_sshd: Sshd, published: Published, folder: Path) -> list[Row]:
    """Measure how a new commit comes to a repository on another host."""
    source = RepositoryAddress("studio", str(published.path))
    hosts = [host_of("studio", sshd), host_of("other", sshd)]
    hosts.append(replace(host_of("forge", git_sshd), access=Access.GIT))
    pool = pool_of(hosts, folder / "cache")
    synchronizer = Synchronizer(pool, quiet=0, patience=900)
    ssh = f"ssh -p {sshd.port} -i {sshd.identity} -o UserKnownHostsFile={sshd.known_hosts} -F none"
    mirror = folder / "mirror.git"
    git(folder, "init", "--quiet", "--bare", str(mirror))

    def carrier(name: str) -> Path:
        git(folder, "clone", "--quiet", "--bare", str(published.path), name)
        return folder / name

    def url(path: Path) -> str:
        return f"ssh://{sshd.user}@127.0.0.1{path}"

    async def cold(target: Path) -> None:
        for words in (
            ("fetch", "--quiet", url(published.path), "+refs/heads/live:refs/heads/live"),
            ("push", "--quiet", url(target), "+refs/heads/live:refs/heads/staging"),
        ):
            process = await asyncio.create_subprocess_exec(
                "git", "-C", str(mirror), *words, env={**os.environ, "GIT_SSH_COMMAND": ssh}
            )
            assert await process.wait() == 0

    async def ours(environment: Environment) -> None:
        run = Run(new_id(time.time()), "mysite", "staging", State.RUNNING, time.time(), 0.0)
        await synchronizer.sync(environment, run, Silent(), Progress(), unkept)

    rows = []
    ways: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("git over OpenSSH, cold: a blind fetch and a blind push", partial(cold, carrier("cold.git"))),
    ]
    for host, name in (
        ("other", "this program, a host with a shell"),
        ("forge", "this program, access: git"),
    ):
        address = RepositoryAddress(host, str(carrier(f"{host}.git")))
        environment = changed(environment_of(address), source=source, policy=Policy.RESET)
        ways.append((name, partial(ours, environment)))
    for name, way in ways:
        spent = []
        for _ in range(TIMES // 4):
            publish(published)
            started = time.perf_counter()
            await way()
            spent.append((time.perf_counter() - started) * 1000)
        rows.append(Row(name, spent[1:]))
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
        record = DeliveryRecord(new_id(now), "forge", f"d-{n}", now, 2, "0" * 64, {}, {})
        await store.accept([trigger], record, now)

    single = await measured("one delivery at a time", accept, DELIVERIES // 10)
    started = time.perf_counter()
    await asyncio.gather(*(accept() for _ in range(DELIVERIES)))
    each = (time.perf_counter() - started) * 1000 / DELIVERIES
    await store.close()
    return [single, Row(f"{DELIVERIES} deliveries at once, each", [each])]


async def refusal_rows(sshd: Sshd, published: Published, folder: Path) -> list[Row]:
    """Measure deliveries over HTTP: taken in, refused, and refused too often."""
    body, number = push(ref="refs/heads/other"), iter(range(10**9))

    async def row(name: str, secret: str, refusals: int, before: int = 0) -> Row:
        server = {"host": "127.0.0.1", "port": free_port(), "refusals": refusals}
        whole = configuration(folder, sshd, published.path, server=server)
        async with daemon(written(folder, whole)) as running, client(running.url) as sender:

            async def deliver() -> None:
                await sender.deliver(f"d-{next(number)}", body, secret=secret)

            for _ in range(before):
                await deliver()
            return await measured(name, deliver, TIMES * 5)

    return [
        await row("taken in, and durable", GITHUB_SECRET, 10**6),
        await row("refused: 401", "wrong", 10**6),
        await row("refused too often: 429, each on a new connection", "wrong", 1, before=2),
    ]


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="sync-staging-bench-") as name:
        folder = Path(name)
        (folder / "ssh").mkdir()
        (folder / "git-ssh").mkdir()
        published = build(folder / "mysite")
        with Sshd(folder / "ssh") as sshd:
            table("From a decision to a moved ref, over SSH on loopback", await sync_rows(sshd, published))
            with Sshd(folder / "git-ssh", GIT_SHELL) as git_sshd:
                rows = await leg_rows(sshd, git_sshd, published, folder)
            table("A new commit of live, brought to another host and checked there", rows)
            table("A delivery over HTTP", await refusal_rows(sshd, published, folder))
        table("From a verified delivery to its durable acknowledgement", await store_rows(folder))


if __name__ == "__main__":
    asyncio.run(main())
