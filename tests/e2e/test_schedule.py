"""The net under lost webhooks, the time to settle, and one host that must not hold up another."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from listener.config.settings import load
from listener.queue import Hold
from listener.rehearsal.published import Published
from listener.schedule import SLICES, Schedule
from listener.system import System
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import ADMIN, Client

ONE = "/api/v1/sites/mysite/environments/staging"

QUICK = {"quiet": 0.2, "patience": 300, "backoff": 0.05, "backoff_most": 0.1}


@dataclass
class Round:
    """A running system, and its schedule to be gone round by hand."""

    system: System
    schedule: Schedule


@pytest.fixture
async def going(configured: Callable[..., Path]) -> Any:
    async with System(load(configured(sync={**QUICK, "interval": 0}))) as system:
        schedule = Schedule(
            system.directory,
            system.surveys,
            system.intake,
            system.store,
            interval=0,
            clock=lambda: 0.0,
            log=structlog.get_logger(),
        )
        yield Round(system, schedule)


async def equal(published: Published) -> None:
    async with asyncio.timeout(300):
        while published.tree("staging") != published.tree("live"):
            await asyncio.sleep(0.02)


async def test_a_publish_that_no_webhook_told_of_is_synced(listening: Start, published: Published) -> None:
    async with listening(sync={**QUICK, "interval": 0.3}) as listener:
        await equal(published)
        _, page, _ = await listener.call("GET", "/api/v1/runs")
        _, run, _ = await listener.call("GET", f"/api/v1/runs/{page['runs'][-1]['id']}")
        assert [(trigger["origin"], trigger["actor"]) for trigger in run["triggers"]] == [
            ("schedule", "schedule")
        ]


async def test_what_is_equal_held_or_does_not_follow_is_left_alone(
    going: Round, published: Published
) -> None:
    hold = Hold("mysite", "staging", "acceptance test", "root", 1.0)
    await going.system.store.hold(hold)
    assert await going.schedule.round() == 0
    await going.system.store.release("mysite", "staging")
    assert await going.schedule.round() == 1
    await equal(published)
    assert await going.schedule.round() == 0


async def test_a_rollback_is_left_alone_until_live_moves(going: Round, published: Published) -> None:
    hold = Hold("mysite", "staging", "rolled back", "root", 1.0, published.commit("live"))
    await going.system.store.hold(hold)
    assert await going.schedule.round() == 0
    moved = published.git("commit-tree", published.tree("live"), "-p", "live", "-m", "Publish to live")
    published.git("update-ref", "refs/heads/live", moved)
    age(published, 60)
    assert await going.schedule.round() == 1


async def test_every_site_has_one_moment_in_an_interval(going: Round) -> None:
    assert sum([await going.schedule.round(part) for part in range(SLICES)]) == 1


async def test_many_publishes_that_settle_are_one_sync(listening: Start, published: Published) -> None:
    async with listening(sync={**QUICK, "settle": 3, "settle_most": 300}) as listener:
        runs = set()
        for number in range(5):
            runs.update((await listener.deliver(f"d-{number}"))[1]["runs"])
        (run,) = runs
        assert (await listener.call("GET", f"/api/v1/runs/{run}"))[1]["queue"]["ahead"] == 0
        assert (await listener.ended(run))["state"] == "succeeded"
        assert published.tree("staging") == published.tree("live")


async def test_a_call_does_not_wait_for_others_to_settle(listening: Start, published: Published) -> None:
    async with listening(sync={**QUICK, "settle": 3600, "settle_most": 3600}) as listener:
        _, answer, _ = await listener.deliver("d-1")
        status, _, headers = await listener.sync()
        assert (status, headers["X-Run-Id"]) == (200, answer["runs"][0])


async def test_a_slow_host_does_not_hold_up_another(
    listening: Start, published: Published, sshd: Any, tmp_path: Path
) -> None:
    sites: dict[str, Any] = {}
    slow = []
    for name in ("a", "b", "c", "d", "quick"):
        copy = tmp_path / "copies" / name
        shutil.copytree(published.path, copy, symlinks=True)
        age(Published(copy), 60)
        if name != "quick":
            slow.append(copy / ".git" / "refs" / "heads" / "slow_in_progress")
            os.mkfifo(slow[-1])
        host = "studio" if name == "quick" else "slow"
        sites[name] = {
            "repository": {"host": host, "path": str(copy)},
            "environments": {"staging": {"follow": True}},
        }
    place = {"address": "127.0.0.1", "port": sshd.port, "user": sshd.user}
    async with listening(
        sites=sites,
        hosts={"studio": place, "slow": dict(place)},
        hooks={},
        tokens=[{"name": "root", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest(), "role": "admin"}],
        sync={**QUICK, "concurrency": 3, "per_host": 2, "interval": 0},
    ) as listener:
        waiting = [await started(listener, name) for name in "abcd"]
        assert (await listener.sync(site="quick"))[0] == 200
        states = [(await listener.call("GET", f"/api/v1/runs/{run}"))[1]["state"] for run in waiting]
        assert states == ["running", "running", "queued", "queued"]
        for fifo in slow:
            fifo.unlink()
            fifo.touch()
            fifo.unlink()


async def started(listener: Client, site: str) -> str:
    _, _, headers = await listener.sync(site=site, headers={"Prefer": "respond-async"})
    return str(headers["X-Run-Id"])
