"""Rows about acknowledgements: how many, how fast, and how many syncs come of a burst."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.bench.figures import milliseconds
from tests.bench.sides import PLANS, hooked, place, product
from tests.bench.stage import ROOT, Stage, worked
from tests.listening import Client, Daemon, client

CONNECTIONS = (1, 16, 64)
SIZES = (1 << 10, 20 << 10)


async def loaded(plan: dict[str, Any]) -> dict[str, Any]:
    """Send deliveries from another process; what came of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", json.dumps(plan)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(told)
    return found


@dataclass
class Counter:
    """Somebody who acknowledges."""

    name: str
    port: int
    path: str
    pid: int
    repository: str


async def ack(stage: Stage) -> None:
    """Acknowledgements a second, by connections and by the size of a body; seconds and CPU of each."""
    async with AsyncExitStack() as parts:
        counters = []
        for tree in stage.trees:
            for store in stage.stores().items():
                places = {PLANS[0]: place(stage, PLANS[0])}
                opened = product(stage, tree, places, stage.sshd.port, store)
                side = await parts.enter_async_context(opened)
                port, name = int(side.running.url.rpartition(":")[2]), f"acme/{places[PLANS[0]].site}"
                counters.append(Counter(side.name, port, "/hooks/forge", side.running.process.pid, name))
        if shutil.which("webhook"):
            bare_one = await parts.enter_async_context(hooked(stage, {}, 0, stage.folder))
            pid = bare_one.pid
            counters.insert(0, Counter("webhook, nothing kept", bare_one.port, "/hooks/nothing", pid, "x"))
        for size in SIZES:
            for connections in CONNECTIONS[1:2] if stage.short else CONNECTIONS:
                await at_once(stage, counters, size, connections)


async def at_once(stage: Stage, counters: list[Counter], size: int, connections: int) -> None:
    """Ask each in turns, so many at a time."""
    count = stage.times(400 if connections == 1 else 1500, 20)
    rates: dict[str, list[float]] = {each.name: [] for each in counters}
    times: dict[str, list[float]] = {each.name: [] for each in counters}
    cpus: dict[str, list[float]] = {each.name: [] for each in counters}
    for _ in range(stage.times(3, 1)):
        for each in counters:
            before = worked(each.pid)
            plan = {"port": each.port, "path": each.path, "connections": connections, "count": count}
            found = await loaded({**plan, "size": size, "repositories": [each.repository]})
            assert set(found["statuses"]) <= {"200", "202"}, found["statuses"]
            rates[each.name].append(count / found["seconds"])
            times[each.name] += found["each"]
            cpus[each.name].append((worked(each.pid) - before) / count * 1000)
    case = f"{connections} connections, {size >> 10} KB"
    for each in counters:
        stage.figures.add("ack", case, each.name, "/s", rates[each.name])
        stage.figures.add("ack", case, each.name, "ms", milliseconds(times[each.name]))
        stage.figures.add("ack", case, each.name, "ms CPU", cpus[each.name])


async def burst(stage: Stage) -> None:
    """Many deliveries for one site, and for many: how fast they are taken, what is done after the last."""
    for sites, count in ((1, stage.times(10_000, 50)), (stage.times(1000, 5), stage.times(2000, 10))):
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(stage.times(2, 1)):
            for tree in stage.trees:
                for name, url in stage.stores().items():
                    folder, whole = stage.whole(store=url)
                    whole |= stage.many_sites(folder, sites)
                    async with stage.serving(tree, folder, whole) as running:
                        for unit, values in (await a_burst(running, count)).items():
                            found.setdefault((f"{tree.name}, {name}", unit), []).extend(values)
                    shutil.rmtree(folder)
        for (side, unit), values in found.items():
            stage.figures.add("burst", f"{count} deliveries for {sites} sites", side, unit, values)


async def a_burst(running: Daemon, count: int) -> dict[str, Sequence[float]]:
    """What came of so many deliveries, until all that they asked for is done."""
    pid, port = running.process.pid, int(running.url.rpartition(":")[2])
    repositories = list(json.loads(running.configuration.read_text())["hooks"]["forge"]["repositories"])
    plan = {"port": port, "path": "/hooks/forge", "connections": min(64, count), "count": count, "size": 0}
    began, before = time.perf_counter(), worked(pid)
    async with client(running.url) as listener:
        found = await loaded({**plan, "repositories": repositories})
        last = datetime.now(UTC)
        runs = await settled(listener)
    took = time.perf_counter() - began
    later = [run for run in runs if run["started_at"] and datetime.fromisoformat(run["started_at"]) > last]
    return {
        "acks/s": [count / found["seconds"]],
        "ms": milliseconds(found["each"]),
        "runs": [len(runs)],
        "begun after": [len(later)],
        "runs/s": [len(runs) / took],
        "ms CPU": [(worked(pid) - before) / len(runs) * 1000],
    }


async def settled(listener: Client) -> list[dict[str, Any]]:
    """All runs, once none waits or runs any more."""
    await drained(listener)
    runs: list[dict[str, Any]] = []
    page: dict[str, Any] = {"runs": [{"id": ""}]}
    while page["runs"]:
        before = f"&before={runs[-1]['id']}" if runs else ""
        page = (await listener.call("GET", f"/api/v1/runs?limit=200{before}"))[1]
        runs += page["runs"]
    return runs


async def drained(listener: Client) -> None:
    """Wait until no run waits or runs any more."""
    for state in ("queued", "running", "queued"):
        while (await listener.call("GET", f"/api/v1/runs?state={state}&limit=1"))[1]["runs"]:
            await asyncio.sleep(0.05)
