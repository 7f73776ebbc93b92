"""What was accepted happens: killed, stopped, cut off or locked out in between."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.conftest import Start
from tests.listening import ADMIN, GITHUB_SECRET, Client, client, daemon, push

Configured = Callable[..., Path]


async def equal(published: Published) -> None:
    """Wait until both trees are equal."""
    async with asyncio.timeout(300):
        while published.tree("staging") != published.tree("live"):
            await asyncio.sleep(0.02)


async def all_ended(listener: Client) -> list[dict[str, Any]]:
    """Every run, once all have ended."""
    async with asyncio.timeout(300):
        while True:
            _, page, _ = await listener.call("GET", "/api/v1/runs?limit=200")
            if not any(run["state"] in {"queued", "running"} for run in page["runs"]):
                runs: list[dict[str, Any]] = page["runs"]
                return runs
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3])
async def test_a_listener_killed_after_its_202_syncs_when_it_is_started_again(
    configured: Configured, published: Published, delay: float
) -> None:
    path, old = configured(), published.commit("staging")
    async with daemon(path) as running, client(running.url) as listener:
        assert (await listener.deliver("d-1"))[0] == 202
        await asyncio.sleep(delay)
        await running.kill()
        await running.start()
        await equal(published)
        runs = await all_ended(listener)
        assert [run["state"] for run in runs] == ["succeeded"]
        assert (runs[0]["outcome"]["old"], runs[0]["outcome"]["removed_count"]) == (old, 1)
        assert (await listener.deliver("d-1"))[0] == 200
    assert published.is_clean()
    assert published.git("fsck", "--no-dangling", "--no-progress") == ""


async def test_a_listener_killed_with_a_step_under_way_goes_on_where_it_was(
    configured: Configured, published: Published
) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    async with daemon(configured()) as running, client(running.url) as listener:
        _, answer, _ = await listener.deliver("d-1")
        assert (await listener.first_event(answer["runs"][0]))["event"] == "start"
        await running.kill()
        slow.unlink()
        await running.start()
        run = await listener.ended(answer["runs"][0])
        assert (run["state"], run["attempt"]) == ("succeeded", 2)
        events = await listener.events(run["id"])
        assert [event["event"] for event in events].count("start") == 2
    assert published.tree("staging") == published.tree("live")


async def test_a_host_that_is_down_is_tried_again_until_it_is_back(
    listening: Start, own_sshd: Sshd, published: Published
) -> None:
    own_sshd.stop()
    async with listening(sshd=own_sshd) as listener:
        status, answer, _ = await listener.deliver("d-1")
        assert status == 202
        run = answer["runs"][0]
        async with asyncio.timeout(300):
            while (await listener.call("GET", f"/api/v1/runs/{run}"))[1]["failures"] < 2:
                await asyncio.sleep(0.02)
        waiting = (await listener.call("GET", f"/api/v1/runs/{run}"))[1]
        assert waiting["outcome"]["error"] == "host-unreachable"
        own_sshd.start()
        assert (await listener.ended(run))["state"] == "succeeded"
    assert published.tree("staging") == published.tree("live")


async def test_a_changed_host_key_fails_at_once_and_says_what_to_do(
    listening: Start, own_sshd: Sshd, published: Published
) -> None:
    before = published.commit("staging")
    own_sshd.new_host_key()
    async with listening(sshd=own_sshd) as listener:
        _, answer, _ = await listener.deliver("d-1")
        run = await listener.ended(answer["runs"][0])
        assert (run["state"], run["attempt"]) == ("failed", 1)
        assert run["outcome"]["error"] == "host-key-rejected"
        assert "known_hosts" in run["outcome"]["remedy"]
    assert published.commit("staging") == before


async def test_sigterm_lets_a_running_sync_end(configured: Configured, published: Published) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    async with daemon(configured()) as running, client(running.url) as listener:
        _, answer, _ = await listener.deliver("d-1")
        while (await listener.call("GET", f"/api/v1/runs/{answer['runs'][0]}"))[1]["state"] != "running":
            await asyncio.sleep(0.01)
        ending = asyncio.create_task(running.terminate())
        while not any(event["event"] == "stopping" for event in running.events()):
            await asyncio.sleep(0.02)
        await asyncio.to_thread(let_go, slow)
        assert await ending == 0
        assert running.events()[-1]["handed_back"] == 0
    assert published.tree("staging") == published.tree("live")


def let_go(fifo: Path) -> None:
    """Let the git that waits for this ref go on."""
    with fifo.open("w") as end:
        end.write("no ref\n")
    fifo.unlink()


async def test_sigterm_hands_back_what_does_not_end_and_ends_it_on_the_host(
    configured: Configured, published: Published
) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    path = configured()
    path.write_text(path.read_text().replace("drain: 5", "drain: 0.3"))
    async with daemon(path) as running, client(running.url) as listener:
        _, answer, _ = await listener.deliver("d-1")
        while (await listener.call("GET", f"/api/v1/runs/{answer['runs'][0]}"))[1]["state"] != "running":
            await asyncio.sleep(0.01)
        assert await running.terminate() == 0
        assert running.events()[-1]["handed_back"] == 1
        assert not waits_for_ref(published)
        slow.unlink()
        await running.start()
        assert (await listener.ended(answer["runs"][0]))["state"] == "succeeded"
    assert published.tree("staging") == published.tree("live")


def waits_for_ref(published: Published) -> list[str]:
    """The git processes that still run in the repository."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            at = str((entry / "cwd").readlink())
        except OSError:
            continue
        if at.startswith(str(published.path)):
            found.append((entry / "cmdline").read_text())
    return found


async def test_a_running_sync_is_cancelled_on_the_host_too(listening: Start, published: Published) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    before = published.commit("staging")
    async with listening() as listener:
        _, answer, _ = await listener.deliver("d-1")
        run = answer["runs"][0]
        while (await listener.call("GET", f"/api/v1/runs/{run}"))[1]["state"] != "running":
            await asyncio.sleep(0.01)
        async with asyncio.timeout(300):
            while not waits_for_ref(published):
                await asyncio.sleep(0.02)
        status, view, _ = await listener.call("POST", f"/api/v1/runs/{run}/cancel")
        assert (status, view["state"]) == (200, "cancelled")
        async with asyncio.timeout(300):
            while waits_for_ref(published):
                await asyncio.sleep(0.02)
    slow.unlink()
    assert published.commit("staging") == before
    assert published.is_clean()


async def test_a_second_listener_on_the_same_store_is_refused(configured: Configured) -> None:
    path = configured()
    async with daemon(path) as running:
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "listener", "serve", "--config", str(path)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 1
        assert str(running.process.pid) in said.decode()


async def test_no_secret_and_no_control_character_is_in_any_line(configured: Configured) -> None:
    hostile = 'a\x1b]0;owned\x07\r\n{"event": "forged"}\u202e'
    async with daemon(configured()) as running, client(running.url) as listener:
        await listener.sync()
        await listener.call("GET", "/%1b%5b31m%0aforged")
        await listener.deliver("d-1", push(repository=hostile))
        await listener.call(
            "POST", "/api/v1/sites/mysite/environments/staging/hold", json={"reason": hostile}
        )
        await listener.call("GET", f"/{GITHUB_SECRET}?token={ADMIN}")
        await running.terminate()
        raw = running.log.read_text()
    assert all(line.isprintable() for line in raw.splitlines())
    assert GITHUB_SECRET not in raw
    assert ADMIN not in raw
    assert not any(event["event"] == "forged" for event in running.events())


async def test_a_log_that_nobody_takes_stops_no_sync(configured: Configured, published: Published) -> None:
    path = configured()
    reading, writing = os.pipe()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "listener", "serve", "--config", str(path)), stderr=writing
    )
    os.close(writing)
    os.close(reading)
    url = f"http://127.0.0.1:{yaml.safe_load(path.read_text())['server']['port']}"
    async with client(url) as listener, asyncio.timeout(300):
        while True:
            try:
                status, answer, _ = await listener.deliver("d-1")
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        assert status == 202
        assert (await listener.ended(answer["runs"][0]))["state"] == "succeeded"
        running.terminate()
        assert await running.wait() == 0
    assert published.tree("staging") == published.tree("live")


async def test_sigterm_is_heeded_while_the_store_is_held_by_somebody_else(configured: Configured) -> None:
    async with daemon(configured()) as running, client(running.url) as listener:
        await listener.sync()
        database = next(running.configuration.parent.glob("listener.db"))
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.5)
            async with asyncio.timeout(300):
                assert await running.terminate() == 0


async def test_who_waits_when_the_listener_stops_is_answered_and_the_run_goes_on_afterwards(
    configured: Configured, published: Published
) -> None:
    lock = published.path / ".git" / "index.lock"
    lock.touch()
    waiting = {"quiet": 0.2, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}
    async with daemon(configured(sync=waiting)) as running, client(running.url) as listener:
        call = asyncio.create_task(listener.sync())
        stream = asyncio.create_task(listener.sync(headers={"Accept": "application/x-ndjson"}))
        while len((await listener.call("GET", "/api/v1/runs"))[1]["runs"]) < 1:
            await asyncio.sleep(0.02)
        assert await running.terminate() == 0
        status, body, headers = await call
        assert (status, body) == (503, {"message": "Service unavailable"})
        assert int(headers["Retry-After"]) > 0
        assert json.loads((await stream)[1].splitlines()[-1])["status"] == 503
        lock.unlink()
        await running.start()
        assert (await listener.ended(headers["X-Run-Id"]))["state"] == "succeeded"
