"""Listeners to which everything happens under a load of deliveries: what they acknowledged is done.

In the suite each thing happens once; with `SYNC_STAGING_CHAOS` (seconds), as in `make soak`, one after the
other for so long, and what takes long as well.
"""

import asyncio
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests import chaos, figures
from tests.chaos import Chaos, Forge, Server
from tests.conftest import age
from tests.e2e.cli.shell import behind
from tests.listening import GITHUB_SECRET, Client, Daemon, client, configuration, daemon, push, written
from tests.proxy import Proxy

SECONDS = float(os.environ.get("SYNC_STAGING_CHAOS", "0"))
SENDERS = 8
SITES = ("one", "two", "three")


@pytest.fixture
def sites(published: Published, tmp_path: Path) -> dict[str, Published]:
    copies = {}
    for name in SITES:
        shutil.copytree(published.path, tmp_path / "sites" / name, symlinks=True)
        copies[name] = Published(tmp_path / "sites" / name)
        age(copies[name], 60)
    return copies


@dataclass
class Scene:
    """Listeners with a store of their own or a shared one, and the ways to what they need."""

    running: list[Daemon]
    hosts: Proxy
    server: Server | None


@pytest.fixture(params=["SQLite", "PostgreSQL, two listeners"])
async def scene(
    request: pytest.FixtureRequest, tmp_path: Path, sshd: Sshd, sites: dict[str, Published]
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as parts:
        hosts = await parts.enter_async_context(Proxy(sshd.port))
        server, stores = None, [f"sqlite:///{tmp_path}/listener.db"]
        if request.param != "SQLite":
            cluster = request.getfixturevalue("cluster")
            way = await parts.enter_async_context(Proxy(cluster.port))
            server = Server(cluster, cluster.database(), way)
            stores = [cluster.tcp_url(server.database, way.port)] * 2
        running = []
        for number, store in enumerate(stores):
            folder = tmp_path / f"listener-{number}"
            folder.mkdir()
            path = written(folder, behind(hosts, whole(folder, sshd, sites, store), folder))
            running.append(await parts.enter_async_context(daemon(path)))
        yield Scene(running, hosts, server)


def whole(folder: Path, sshd: Sshd, sites: dict[str, Published], store: str) -> dict[str, Any]:
    """The configuration of a listener for all sites, with a slot for each."""
    found = configuration(folder, sshd, folder, store=store)
    found["sync"] |= {"concurrency": len(SITES), "per_host": len(SITES)}
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


def events(happening: Chaos) -> Iterator[Callable[[], Any]]:
    """Everything once, in any order; in the long form again and again, until the time is over."""
    end = time.monotonic() + SECONDS
    kinds = happening.kinds(patient=SECONDS > 0)
    while True:
        yield from random.sample(kinds, len(kinds))
        if time.monotonic() >= end:
            return


async def let_happen(happening: Chaos, sites: Iterable[Published]) -> None:
    """Publish, let the listeners work for a moment, and let something happen in the middle of that."""
    for number, event in enumerate(events(happening)):
        for site in sites:
            await asyncio.to_thread(chaos.publish, site, number)
        await asyncio.sleep(random.uniform(0.05, 0.7))
        await event()


async def served(listener: Client, key: str, site: str) -> list[dict[str, Any]]:
    """The runs that a delivery was answered with, told by sending it again."""
    status, answer, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
    assert status == 200, "an acknowledged delivery is known"
    return [await listener.ended(run) for run in answer["runs"]]


async def uncovered(listeners: list[Client], acknowledged: dict[str, str]) -> list[str]:
    """The deliveries that no run has served."""
    found = []
    for key, site in acknowledged.items():
        serving = await served(random.choice(listeners), key, site)
        if len(serving) != 1 or serving[0]["state"] != "succeeded":
            found.append(key)
    return found


async def free_slots(scene: Scene, listener: Client) -> int:
    """How many syncs a listener begins side by side, while nothing that its hosts say arrives."""
    scene.hosts.freeze()
    for site in SITES:
        await listener.sync(site=site, headers={"Prefer": "respond-async"})
    running = 0
    while running < len(SITES):
        _, page, _ = await listener.call("GET", "/api/v1/runs?state=running")
        running = len(page["runs"])
    scene.hosts.thaw()
    for run in page["runs"]:
        assert (await listener.ended(run["id"]))["state"] == "succeeded"
    return running


async def test_what_was_acknowledged_is_done_whatever_happens_to_the_listeners(
    request: pytest.FixtureRequest, scene: Scene, sites: dict[str, Published]
) -> None:
    happening = Chaos(scene.running, scene.server)
    async with AsyncExitStack() as clients:
        listeners = [await clients.enter_async_context(client(each.url)) for each in scene.running]
        forge = Forge(listeners, SITES)
        async with asyncio.TaskGroup() as senders:
            for sender in range(SENDERS):
                senders.create_task(forge.send(sender))
            await let_happen(happening, sites.values())
            forge.stopped = True
        lost = await uncovered(listeners, forge.acknowledged)
        found = [span for each in scene.running for span in chaos.spans(each)]
        slots = []
        for each, listener in zip(scene.running, listeners, strict=True):
            others = [other for other in scene.running if other is not each]
            for other in others:
                assert await other.terminate() == 0
            slots.append(await free_slots(scene, listener))
            for other in others:
                await other.start()
    pairs = chaos.overlapping(found)
    overlaps = [pair for pair in pairs if not chaos.excused(pair, happening.stopped)]
    figures.tell(
        f"everything happens under load, {request.node.callspec.params['scene']}",
        **dict(sorted(Counter(happening.done).items())),
        acknowledged=len(forge.acknowledged),
        refused=forge.refused,
        attempts=len(found),
        lost=len(lost),
        overlapping=len(overlaps),
        overlapping_past_the_lease=len(pairs) - len(overlaps),
        free_slots=slots,
    )
    assert (lost, overlaps) == ([], [])
    assert slots == [len(SITES)] * len(slots)
    assert len(forge.acknowledged) > len(happening.done)
    for site in sites.values():
        assert site.tree("staging") == site.tree("live")
        assert site.is_clean()
        assert site.git("fsck", "--no-dangling", "--no-progress") == ""
