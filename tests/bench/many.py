"""Rows about many: hosts, sites on one host, and a webhook beside a look at all of them."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from listener.rehearsal.published import Published
from tests.bench.acks import settled
from tests.bench.figures import milliseconds
from tests.bench.moved import Watched
from tests.bench.stage import Stage, publish, worked
from tests.listening import Client, client, push


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
                await asyncio.gather(*(deliver(listener, f"{case}-{n}", f"site{n}") for n in range(count)))
                assert len(await settled(listener)) >= count
                took, cpu = time.perf_counter() - began, worked(running.process.pid) - before
                name = f"{count} hosts, {case}"
                stage.figures.add("hosts", name, tree.name, "syncs/s", [count / took])
                stage.figures.add("hosts", name, tree.name, "ms CPU", [cpu / count * 1000])


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
                looking = asyncio.create_task(listener.call("GET", "/api/v1/sites?fresh"))
                await asyncio.sleep(0 if stage.short else 0.3)
                beside = await webhook(listener, folder, f"beside-{number}")
                await looking
                for case, took in zip(cases, (alone, beside, time.perf_counter() - began), strict=True):
                    found.setdefault((case, tree.name), []).append(took)
    for case in cases:
        for tree in stage.trees:
            stage.figures.add("look", case, tree.name, "ms", milliseconds(found[case, tree.name]))


async def webhook(listener: Client, folder: Path, key: str) -> float:
    """Seconds from a webhook to the moved branch of the first site, after a publish."""
    site = Published(folder / "site0.git")
    await asyncio.to_thread(publish, site)
    with Watched(site.path) as watched:
        began = time.perf_counter()
        await deliver(listener, key, "site0")
        took = await watched.at() - began
    await settled_first(listener)
    return took


async def settled_first(listener: Client) -> None:
    """Wait until no run of the first site waits or runs."""
    for state in ("queued", "running"):
        while await running_now(listener, state):
            await asyncio.sleep(0.01)


async def running_now(listener: Client, state: str) -> Any:
    return (await listener.call("GET", f"/api/v1/runs?site=site0&state={state}&limit=1"))[1]["runs"]
