"""A listener that is killed again and again under a load of deliveries: what it acknowledged is done.

Three rounds in the suite; thirty with `make soak`.
"""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
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
    """Sends deliveries without end, and counts those that were acknowledged."""

    listener: Client
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
        try:
            status, _, _ = await self.listener.deliver(key, push(repository=f"acme/{site}"))
        except aiohttp.ClientError:
            self.refused += 1
            await asyncio.sleep(0.02)
            return
        assert status == 202
        self.acknowledged[key] = site


@pytest.fixture
def sites(published: Published, tmp_path: Path) -> dict[str, Published]:
    copies = {}
    for name in SITES:
        shutil.copytree(published.path, tmp_path / "sites" / name, symlinks=True)
        copies[name] = Published(tmp_path / "sites" / name)
        age(copies[name], 60)
    return copies


@pytest.fixture
async def running(tmp_path: Path, sshd: Sshd, sites: dict[str, Published]) -> AsyncIterator[Daemon]:
    whole = configuration(tmp_path, sshd, tmp_path)
    environments = {"staging": {"follow": True}}
    whole["sites"] = {
        name: {
            "repository": {"host": "studio", "path": str(site.path)},
            "environments": dict(environments),
        }
        for name, site in sites.items()
    }
    whole["hooks"]["forge"] = {
        "scheme": "github",
        "secrets": [GITHUB_SECRET],
        "repositories": {f"acme/{name}": name for name in SITES},
    }
    whole["tokens"] = whole["tokens"][:1]
    async with daemon(written(tmp_path, whole)) as started:
        yield started


def publish(site: Published, number: int) -> None:
    """Let live move on by a commit, as an editor would see it."""
    blob = site.git("hash-object", "-w", "--stdin", stdin=f"{number}\n".encode())
    tree = site.git("mktree", stdin=f"100644 blob {blob}\tnews.xml\n".encode())
    site.git("update-ref", "refs/heads/live", site.git("commit-tree", tree, "-p", "live", "-m", str(number)))


async def killed(running: Daemon, sites: dict[str, Published]) -> None:
    """Publish, let it work for a moment, and kill it in the middle of that."""
    for number in range(ROUNDS):
        for site in sites.values():
            publish(site, number)
        await asyncio.sleep(random.uniform(0.05, 0.7))
        await running.kill()
        await running.start()


async def served(listener: Client, key: str, site: str) -> list[dict[str, Any]]:
    """The runs that a delivery was answered with, told by sending it again."""
    status, answer, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
    assert status == 200, "an acknowledged delivery is known"
    return [await listener.ended(run) for run in answer["runs"]]


async def test_what_was_acknowledged_is_done_however_often_the_listener_is_killed(
    running: Daemon, sites: dict[str, Published]
) -> None:
    async with client(running.url) as listener:
        forge = Forge(listener)
        async with asyncio.TaskGroup() as senders:
            for sender in range(SENDERS):
                senders.create_task(forge.send(sender))
            await killed(running, sites)
            forge.stopped = True
        uncovered = []
        for key, name in forge.acknowledged.items():
            runs = await served(listener, key, name)
            if not runs or any(run["state"] != "succeeded" for run in runs):
                uncovered.append(key)
    figures.tell(
        "kill -9 under load, SQLite",
        rounds=ROUNDS,
        acknowledged=len(forge.acknowledged),
        refused=forge.refused,
        uncovered=len(uncovered),
    )
    assert uncovered == []
    assert len(forge.acknowledged) > ROUNDS
    for site in sites.values():
        assert site.tree("staging") == site.tree("live")
        assert site.is_clean()
        assert site.git("fsck", "--no-dangling", "--no-progress") == ""
