"""Rows about many: hosts, sites on one host, and a webhook beside a look at all of them."""

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listener.rehearsal.published import Published
from tests.bench.acks import drained, settled
from tests.bench.figures import milliseconds
from tests.bench.moved import Watched
from tests.bench.sides import SCRIPT
from tests.bench.stage import Stage, publish, worked
from tests.listening import Client, Daemon, client, push


async def hosts(stage: Stage) -> None:
    """One site on each of many hosts (one sshd, a connection for each): all of them synced, cold and warm."""
    count = stage.times(200, 3)
    async with AsyncExitStack() as parts:
        opened = []
        for tree in stage.trees:
            folder, whole = stage.whole()
            whole |= stage.many_sites(folder, count)
            studio = whole["hosts"]["studio"]
            whole["hosts"] = {f"host{number}": studio for number in range(count)}
            for number, site in enumerate(whole["sites"].values()):
                site["repository"] = {**site["repository"], "host": f"host{number}"}
            running = await parts.enter_async_context(stage.serving(tree, folder, whole))
            opened.append((tree, running, await parts.enter_async_context(client(running.url))))
        for case in ("cold", *(f"warm {number}" for number in range(stage.times(3, 1)))):
            for tree, running, listener in opened:
                before, began = worked(running.process.pid), time.perf_counter()
                await asyncio.gather(*(deliver(listener, f"{case}-{n}", f"site-{n}") for n in range(count)))
                assert len(await settled(listener)) >= count
                took, cpu = time.perf_counter() - began, worked(running.process.pid) - before
                name = f"{count} hosts, {case}"
                stage.figures.add("hosts", name, tree.name, "syncs/s", [count / took])
                stage.figures.add("hosts", name, tree.name, "ms CPU", [cpu / count * 1000])


SCRIPTS = (1, 3, 5)
"""Local scripts at a time: the listener has three shells a host, and `sync.per_host` is 5."""


async def sites(stage: Stage) -> None:
    """A forward commit on each of many sites of one host at once, beside local scripts, so many at a time."""
    count = stage.times(400, 3)
    async with AsyncExitStack() as parts:
        script = stage.new_folder() / "move.sh"
        script.write_text(SCRIPT)
        folder, _ = stage.whole()
        stage.many_sites(folder, count)
        sides: list[tuple[str, Path, Running | int]] = [
            (f"local script, {most} at a time", folder, most) for most in SCRIPTS
        ]
        for tree in stage.trees:
            for name, url in stage.stores(both=not stage.short).items():
                folder, whole = stage.whole(store=url)
                whole |= stage.many_sites(folder, count)
                running = await parts.enter_async_context(stage.serving(tree, folder, whole))
                listener = await parts.enter_async_context(client(running.url))
                sides.append((f"{tree.name}, {name}", folder, Running(running, listener)))
        found: dict[tuple[str, str, str], list[float]] = {}
        for case in ("cold", *("warm",) * stage.times(3, 1)):
            for name, folder, side in sides:
                await asyncio.to_thread(publish_all, folder, count)
                began = time.perf_counter()
                if isinstance(side, int):
                    await scripts(script, folder, count, side)
                else:
                    cpu = await side.deliver_all(count)
                    found.setdefault((case, name, "ms CPU"), []).append(cpu)
                rate = count / (time.perf_counter() - began)
                found.setdefault((case, name, "syncs/s"), []).append(rate)
    for (case, name, unit), values in found.items():
        stage.figures.add("sites", f"{count} sites on one host, {case}", name, unit, values)


def publish_all(folder: Path, count: int) -> None:
    for number in range(count):
        publish(Published(folder / f"site-{number}.git"))


async def scripts(script: Path, folder: Path, count: int, most: int) -> None:
    """Make staging of each site equal to live by a local script, so many at a time."""
    repositories = "".join(f"{folder}/site-{number}.git\n" for number in range(count))
    process = await asyncio.create_subprocess_exec(
        *("xargs", "-P", str(most), "-n", "1", "sh", str(script), "forward commit"),
        stdin=asyncio.subprocess.PIPE,
    )
    await process.communicate(repositories.encode())
    assert process.returncode == 0


@dataclass(frozen=True)
class Running:
    """A listener, and how it is asked."""

    daemon: Daemon
    client: Client

    async def deliver_all(self, count: int) -> float:
        """Sync all sites by a webhook each; return the milliseconds of CPU of each."""
        before, key = worked(self.daemon.process.pid), secrets.token_hex(4)
        await asyncio.gather(*(deliver(self.client, f"{key}-{n}", f"site-{n}") for n in range(count)))
        await drained(self.client)
        return (worked(self.daemon.process.pid) - before) / count * 1000


async def deliver(listener: Client, key: str, site: str) -> None:
    status, answer, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
    assert status == 202, answer


async def look(stage: Stage) -> None:
    """From a webhook to the moved branch, alone and while `GET /api/v1/sites?fresh` looks at many sites."""
    count = stage.times(1000, 5)
    cases = ("webhook alone", f"webhook beside a look at {count} sites", "the look")
    async with AsyncExitStack() as parts:
        opened = []
        found: dict[tuple[str, str], list[float]] = {}
        for tree in stage.trees:
            folder, whole = stage.whole()
            whole |= stage.many_sites(folder, count)
            running = await parts.enter_async_context(stage.serving(tree, folder, whole))
            opened.append((tree, folder, await parts.enter_async_context(client(running.url))))
            await webhook(opened[-1][2], folder, "first")
        for number in range(stage.times(5, 1)):
            for tree, folder, listener in opened:
                alone = await webhook(listener, folder, f"alone-{number}")
                began = time.perf_counter()
                looking = asyncio.create_task(look_at_all(listener))
                await asyncio.sleep(0 if stage.short else 0.3)
                beside = await webhook(listener, folder, f"beside-{number}")
                await looking
                for case, took in zip(cases, (alone, beside, time.perf_counter() - began), strict=True):
                    found.setdefault((case, tree.name), []).append(took)
    for case in cases:
        for tree in stage.trees:
            stage.figures.add("look", case, tree.name, "ms", milliseconds(found[case, tree.name]))


async def look_at_all(listener: Client) -> None:
    """Look at every site, page by page."""
    after: str | None = ""
    while after is not None:
        path = f"/api/v1/sites?fresh=true&limit=200&after={after}"
        status, page, _ = await listener.call("GET", path)
        assert status == 200, page
        after = page["next"]


async def webhook(listener: Client, folder: Path, key: str) -> float:
    """Seconds from a webhook to the moved branch of the first site, after a publish."""
    site = Published(folder / "site-0.git")
    await asyncio.to_thread(publish, site)
    with Watched(site.path) as watched:
        began = time.perf_counter()
        await deliver(listener, key, "site-0")
        took = await watched.at() - began
    await settled_first(listener)
    return took


async def settled_first(listener: Client) -> None:
    """Wait until no run of the first site waits or runs."""
    for state in ("queued", "running"):
        while await running_now(listener, state):
            await asyncio.sleep(0.01)


async def running_now(listener: Client, state: str) -> Any:
    return (await listener.call("GET", f"/api/v1/runs?site=site-0&state={state}&limit=1"))[1]["runs"]
