"""Publishes and syncs side by side: nothing is lost, nothing leaks, and Studio is not disturbed.

Some seconds in the suite; a minute and more with `SYNC_STAGING_SOAK=60`.
"""

import asyncio
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.conftest import Start
from tests.listening import Client
from tests.proxy import Proxy
from tests.publisher import Publisher, PublishError, Studio5Publisher, StudioPublisher

SECONDS = float(os.environ.get("SYNC_STAGING_SOAK", "6"))
QUIET = 0.3


@dataclass
class Editor:
    """Publishes at random for a while, and remembers what live must have."""

    publisher: Publisher
    pause: float
    live: dict[str, str] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)
    publishes: int = 0
    failures: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        dice = random.Random(7)
        while not self.done.is_set():
            self._publish(dice)
            time.sleep(self.pause)

    def _publish(self, dice: random.Random) -> None:
        self.publishes += 1
        name = f"site/website/item-{dice.randrange(30)}/index.xml"
        text = f"{self.publishes}\n"
        try:
            if dice.random() < 0.4:
                name = f"site/website/staged-{self.publishes}/index.xml"
                self.staged.add(name)
                self.publisher.publish("staging", {name: text})
            else:
                self.publisher.publish("live", {name: text})
                self.live[name] = text
        except PublishError as error:
            self.failures.append(str(error))


async def sync_beside(editor: Editor, listener: Client, wanted: int) -> None:
    """Deliver webhooks for a while, and until there were some publishes and so many runs have succeeded."""
    until, synced = time.monotonic() + SECONDS, 0
    try:
        while time.monotonic() < until or synced < wanted or editor.publishes <= wanted:
            await listener.deliver(secrets.token_hex(8))
            await asyncio.sleep(0.05)
            _, page, _ = await listener.call("GET", "/api/v1/runs?limit=200&state=succeeded")
            synced = len(page["runs"])
            if time.monotonic() > until:
                # A sync must fit into a pause, however slow the machine is.
                editor.pause += 0.02
    finally:
        editor.done.set()


def content(published: Published, branch: str, names: set[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        yield name, published.git("show", f"{branch}:{name}") + "\n"


@pytest.mark.parametrize("pause", [0.0, QUIET + 0.3], ids=["back to back", "pausing for quiet"])
async def test_nothing_is_lost_or_leaks_however_publishes_and_syncs_meet(
    listening: Start, publisher: StudioPublisher, published: Published, pause: float
) -> None:
    original = published.files("live")
    # Who never pauses may leave no moment to sync in.
    wanted = 3 if pause else 0
    sync = {"quiet": QUIET, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}
    async with listening(sync=sync) as listener:
        editor = Editor(publisher, pause)
        working = asyncio.create_task(asyncio.to_thread(editor.work))
        await sync_beside(editor, listener, wanted)
        await working
        assert (await listener.sync())[0] == 200
    files = published.files("live")
    assert editor.failures == []
    assert dict(content(published, "live", set(editor.live))) == editor.live
    assert original.items() <= files.items()
    assert not editor.staged & set(files)
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()


@pytest.mark.parametrize("index", [True, False], ids=["through the index", "in memory"])
async def test_studio_5_is_not_overrun_by_syncs_that_come_over_a_slow_line(
    listening: Start, published: Published, sshd: Sshd, proxy: Proxy, tmp_path: Path, *, index: bool
) -> None:
    """It is silent from its last trace to the move of its branch, but for less than `quiet`."""
    proxy.delay = 0.05
    known_hosts = tmp_path / "known_hosts"
    sshd.trust(known_hosts, proxy.port)
    ssh = {"known_hosts": str(known_hosts), "identity": str(sshd.identity)}
    studio = {"address": "127.0.0.1", "port": proxy.port, "user": sshd.user}
    sync = {"quiet": QUIET, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}
    publisher = Studio5Publisher(published, index=index)
    async with listening(sync=sync, ssh=ssh, hosts={"studio": studio}) as listener:
        editor = Editor(publisher, QUIET + 0.1)
        working = asyncio.create_task(asyncio.to_thread(editor.work))
        await sync_beside(editor, listener, 3)
        await working
        assert (await listener.sync())[0] == 200
    assert [silent for silent in publisher.overrun if silent < QUIET] == []
    assert editor.failures == []
    assert dict(content(published, "live", set(editor.live))) == editor.live
    assert not editor.staged & set(published.files("live"))
    assert published.tree("staging") == published.tree("live")
