"""Listeners that are killed again and again under a load of deliveries: what they acknowledged is done.

Three rounds in the suite; thirty with `make soak`.
"""

import asyncio
import itertools
import os
import random
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests import figures
from tests.conftest import age
from tests.listening import GITHUB_SECRET, Client, Daemon, client, configuration, daemon, push, written

ROUNDS = 30 if "SYNC_STAGING_SOAK" in os.environ else 3
SENDERS = 8
SITES = ("one", "two", "three")


@dataclass
class Forge:
    """Sends deliveries without end, to whichever listener, and counts those that were acknowledged."""

    listeners: list[Client]
    acknowledged: dict[str, str] = field(default_factory=dict)
    """The deliveries' ids, each with its site."""
    refused: int = 0
    stopped: bool = False

    async def send(self, sender: int) -> None:
        number = 0
        while not self.stopped:
            number += 1
            await self._deliver(f"{sender}-{number}", random.choice(SITES))

    async def _deliver(self, key: str, site: str) -> None:
        listener = random.choice(self.listeners)
        try:
            status, _, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
        except aiohttp.ClientError:
            self.refused += 1
            await asyncio.sleep(0.02)
            return
        assert status in {202, 503}
        if status == 202:
            self.acknowledged[key] = site
        else:
            self.refused += 1


@pytest.fixture
def sites(published: Published, tmp_path: Path) -> dict[str, Published]:
    copies = {}
    for name in SITES:
        shutil.copytree(published.path, tmp_path / "sites" / name, symlinks=True)
        copies[name] = Published(tmp_path / "sites" / name)
        age(copies[name], 60)
    return copies


@pytest.fixture(params=["SQLite", "PostgreSQL, two listeners"])
async def running(
    request: pytest.FixtureRequest, tmp_path: Path, sshd: Sshd, sites: dict[str, Published]
) -> AsyncIterator[list[Daemon]]:
    """One listener with a store of its own, or two that share one."""
    stores = [f"sqlite:///{tmp_path}/listener.db"]
    if request.param != "SQLite":
        cluster = request.getfixturevalue("cluster")
        stores = [cluster.tcp_url(cluster.database())] * 2
    async with AsyncExitStack() as daemons:
        started = []
        for number, store in enumerate(stores):
            folder = tmp_path / f"listener-{number}"
            folder.mkdir()
            path = written(folder, whole(folder, sshd, sites) | {"store": store})
            started.append(await daemons.enter_async_context(daemon(path)))
        yield started


def whole(folder: Path, sshd: Sshd, sites: dict[str, Published]) -> dict[str, Any]:
    """The configuration of a listener for all sites."""
    found = configuration(folder, sshd, folder)
    found["sites"] = {
        name: {
            "repository": {"host": "studio", "path": str(site.path)},
            "environments": {"staging": {"follow": True}},
        }
        for name, site in sites.items()
    }
    repositories = {f"acme/{name}": name for name in SITES}
    found["hooks"]["forge"] = {
        "scheme": "github",
        "secrets": [GITHUB_SECRET],
        "repositories": repositories,
    }
    found["tokens"] = found["tokens"][:1]
    return found


def publish(site: Published, number: int) -> None:
    """Let live move on by a commit, as an editor would see it."""
    blob = site.git("hash-object", "-w", "--stdin", stdin=f"{number}\n".encode())
    tree = site.git("mktree", stdin=f"100644 blob {blob}\tnews.xml\n".encode())
    site.git("update-ref", "refs/heads/live", site.git("commit-tree", tree, "-p", "live", "-m", str(number)))


async def killed(running: list[Daemon], sites: dict[str, Published]) -> None:
    """Publish, let them work for a moment, and kill one in the middle of that, one after the other."""
    for number in range(ROUNDS):
        for site in sites.values():
            publish(site, number)
        await asyncio.sleep(random.uniform(0.05, 0.7))
        victim = running[number % len(running)]
        await victim.kill()
        await victim.start()


async def served(listener: Client, key: str, site: str) -> list[dict[str, Any]]:
    """The runs that a delivery was answered with, told by sending it again."""
    status, answer, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
    assert status == 200, "an acknowledged delivery is known"
    return [await listener.ended(run) for run in answer["runs"]]


async def span(listener: Client, run: str) -> tuple[float, float]:
    """When the last attempt of a run was under way for certain: from its first log line to its last one."""
    events = await listener.events(run)
    began = [event["at"] for event in events if event["event"] == "start"][-1]
    return datetime.fromisoformat(began).timestamp(), datetime.fromisoformat(events[-1]["at"]).timestamp()


def overlapping(spans: Iterable[tuple[float, float]]) -> int:
    """How many spans begin before the one before has ended."""
    return sum(later < earlier for (_, earlier), (later, _) in itertools.pairwise(sorted(spans)))


async def test_what_was_acknowledged_is_done_however_often_listeners_are_killed(
    request: pytest.FixtureRequest, running: list[Daemon], sites: dict[str, Published]
) -> None:
    async with AsyncExitStack() as clients:
        listeners = [await clients.enter_async_context(client(each.url)) for each in running]
        forge = Forge(listeners)
        async with asyncio.TaskGroup() as senders:
            for sender in range(SENDERS):
                senders.create_task(forge.send(sender))
            await killed(running, sites)
            forge.stopped = True
        uncovered: list[str] = []
        runs: dict[str, dict[str, Any]] = {}
        for key, name in forge.acknowledged.items():
            serving = await served(random.choice(listeners), key, name)
            runs |= {run["id"]: run for run in serving}
            if not serving or any(run["state"] != "succeeded" for run in serving):
                uncovered.append(key)
        spans: dict[str, list[tuple[float, float]]] = {site: [] for site in SITES}
        for run in runs.values():
            spans[run["site"]].append(await span(listeners[0], run["id"]))
    overlaps = sum(map(overlapping, spans.values()))
    figures.tell(
        f"kill -9 under load, {request.node.callspec.params['running']}",
        rounds=ROUNDS,
        acknowledged=len(forge.acknowledged),
        refused=forge.refused,
        runs=len(runs),
        uncovered=len(uncovered),
        overlapping=overlaps,
    )
    assert (uncovered, overlaps) == ([], 0)
    assert len(forge.acknowledged) > ROUNDS
    for site in sites.values():
        assert site.tree("staging") == site.tree("live")
        assert site.is_clean()
        assert site.git("fsck", "--no-dangling", "--no-progress") == ""
