"""Rows about growth and starts: the same figures with one site and 10,000, with no ended run and 200,000."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests import past
from tests.bench.figures import milliseconds, told
from tests.bench.many import webhook
from tests.bench.stage import ROOT, Stage, Tree, resident, worked
from tests.listening import ADMIN, Client, Daemon, client, push

PATHS = (
    "/readyz",
    "/api/v1/sites",
    "/api/v1/sites/site-0",
    "/api/v1/runs?limit=2",
    "/api/v1/runs?site=site-0&limit=2",
    "/api/v1/runs?site=site-0&environment=staging&limit=2",
    "/api/v1/runs?site=site-0&state=failed&limit=2",
    "/api/v1/runs?environment=staging&limit=2",
    "/api/v1/runs?state=failed&limit=2",
    "/api/v1/runs?state=superseded&limit=2",
    "/api/v1/runs?state=queued&limit=2",
    "/api/v1/deliveries?limit=2",
    "/api/v1/deliveries?hook=forge-1&limit=2",
    "/api/v1/deliveries?outcome=ignored&limit=2",
)


@dataclass(frozen=True)
class Grown:
    """A listener with so many sites and ended runs."""

    name: str
    tree: Tree
    folder: Path
    running: Daemon
    listener: Client
    metrics: Client

    async def get(self, path: str) -> float:
        return await got(self.listener, path)

    async def acknowledged(self, key: str) -> float:
        """Seconds of a delivery that is kept, and starts nothing."""
        began = time.perf_counter()
        status, _, _ = await self.listener.deliver(
            key, push(ref="refs/heads/other", repository="acme/site-0")
        )
        assert status == 200
        return time.perf_counter() - began


async def growth(stage: Stage) -> None:
    """Everything that must not grow, with few and many sites, without and with ended runs, in turns."""
    many, past_runs = (3, 200) if stage.short else (10_000, past.RUNS)
    # Not none: a page of the same length is compared with.
    few = past_runs // 100
    sizes = {
        "SQLite": ((1, few), (max(2, many // 10), few), (many, few), (1, past_runs), (many, past_runs)),
        "PostgreSQL": ((1, few), (many, past_runs)),
    }
    for store in sizes if not stage.short and stage.cluster is not None else ("SQLite",):
        async with AsyncExitStack() as parts:
            opened = []
            for sites, runs in sizes[store]:
                for tree in stage.trees:
                    name = f"{tree.name}, {sites} sites, {runs} runs"
                    try:
                        part = grown(stage, tree, name, store, sites, runs)
                        opened.append(await parts.enter_async_context(part))
                    except RuntimeError as error:
                        stage.figures.missing.append(f"growth: {name}: {str(error)[-300:]}")
            await in_turns(stage, store, opened)


@asynccontextmanager
async def grown(
    stage: Stage, tree: Tree, name: str, store: str, sites: int, runs: int
) -> AsyncIterator[Grown]:
    folder, whole = stage.whole(
        metrics={"listen": "127.0.0.1:0"}, store=stage.stores(both=store != "SQLite")[store]
    )
    whole |= stage.many_sites(folder, sites, there=1)
    if runs:
        async with stage.serving(tree, folder, whole):
            pass
        await asyncio.to_thread(fill, stage, whole["store"], runs)
    began = time.perf_counter()
    async with stage.serving(tree, folder, whole) as running, client(running.url) as listener:
        ready = (time.perf_counter() - began) * 1000
        stage.figures.add("growth", f"{store}: serve, until it is ready", name, "ms", [ready])
        port = await running.metrics_port()
        await webhook(listener, folder, "first")
        yield Grown(
            name, tree, folder, running, listener, Client(listener.session, f"http://127.0.0.1:{port}")
        )


def fill(stage: Stage, store: str, runs: int) -> None:
    """Give a store a past."""
    told(f"filling a store with {runs} ended runs")
    if store.startswith("sqlite"):
        with closing(sqlite3.connect(store.removeprefix("sqlite://"))) as connection:
            connection.executescript(past.for_sqlite(waiting=False, runs=runs))
    elif stage.cluster is not None:
        database = urlsplit(store).path.lstrip("/")
        stage.cluster.sql(past.for_postgres(waiting=False, runs=runs), database)
        stage.cluster.sql("VACUUM ANALYZE", database)


async def in_turns(stage: Stage, store: str, opened: list[Grown]) -> None:
    async def add(case: str, times: int, way: Callable[[Grown, int], Awaitable[float]]) -> None:
        found: dict[str, list[float]] = {each.name: [] for each in opened}
        for number in range(times):
            for each in opened:
                found[each.name].append(await way(each, number))
        for name, took in found.items():
            stage.figures.add("growth", f"{store}: {case}", name, "ms", milliseconds(took))

    await add(
        "webhook to moved branch", stage.times(20), lambda on, n: webhook(on.listener, on.folder, f"m-{n}")
    )
    await add("acknowledgement", stage.times(100), lambda on, n: on.acknowledged(f"a-{n}"))
    for path in PATHS:
        await add(f"GET {path}", stage.times(10, 1), lambda on, _, path=path: on.get(path))  # type: ignore[misc]
    await add("GET /metrics", stage.times(5, 1), lambda on, _: got(on.metrics, "/metrics"))
    await add("sync-staging status SITE", stage.times(5, 1), lambda on, _: command(on, "status", "site-0"))
    seconds = 0.2 if stage.short else 10
    before = [worked(each.running.process.pid) for each in opened]
    await asyncio.sleep(seconds)
    for each, then in zip(opened, before, strict=True):
        pid = each.running.process.pid
        stage.figures.add(
            "growth", f"{store}: idle", each.name, "% CPU", [(worked(pid) - then) / seconds * 100]
        )
        stage.figures.add("growth", f"{store}: memory", each.name, "MiB", [resident(pid)])


async def got(listener: Client, path: str) -> float:
    began = time.perf_counter()
    status, _, _ = await listener.call("GET", path)
    assert status == 200, path
    return time.perf_counter() - began


async def command(on: Grown, *words: str) -> float:
    """Seconds of a command of the tree's."""
    file = str(on.running.configuration)
    environ = {**os.environ, "SYNC_STAGING_TOKEN": ADMIN, "SYNC_STAGING_CONFIG": file}
    return await asyncio.to_thread(timed, on.tree.folder, environ, [sys.executable, "-m", "listener", *words])


def timed(folder: Path, environ: dict[str, str], words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, cwd=folder, env=environ, capture_output=True, check=True)
    return time.perf_counter() - began


async def start(stage: Stage) -> None:
    """What a start costs: of commands beside one of Python's that does nothing, and of the daemon."""
    folder, whole = stage.whole()
    whole |= stage.many_sites(folder, 1)
    found: dict[tuple[str, str], list[float]] = {}
    environ = {**os.environ, "SYNC_STAGING_CONFIG": str(folder / "listener.yaml")}
    for _ in range(stage.times(15, 1)):
        for tree in stage.trees:
            began = time.perf_counter()
            async with stage.serving(tree, folder, whole):
                took = time.perf_counter() - began
            found.setdefault(("serve, until it is ready", tree.name), []).append(took)
        for case in ("--version", "--help", "check-config"):
            ways = [("python3 -c pass", ROOT, ["-c", "pass"])]
            ways += [(tree.name, tree.folder, ["-m", "listener", case]) for tree in stage.trees]
            for side, at, words in ways:
                took = await asyncio.to_thread(timed, at, environ, [sys.executable, *words])
                found.setdefault((case, side), []).append(took)
    for (case, side), each in found.items():
        stage.figures.add("start", case, side, "ms", milliseconds(each))
