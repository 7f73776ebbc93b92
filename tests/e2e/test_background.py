"""What goes on in the background: it is kept up, and what fails there again and again is told."""

import asyncio
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from listener import audit, supervision
from listener import worker as working
from listener.config.settings import load
from listener.runs import Run
from listener.system import System
from tests.e2e.test_metrics import scraped
from tests.listening import client
from tests.strangers import connections, head, status_of


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE", 0.01)
    monkeypatch.setattr(supervision, "PAUSE_MOST", 0.05)
    monkeypatch.setattr(supervision, "STEADY", 0.5)
    monkeypatch.setattr(audit, "EVERY", 0.02)
    monkeypatch.setattr(working, "BEAT", 0.05)
    monkeypatch.setattr(working, "POLL", 0.05)


@pytest.fixture
def settings(configured: Callable[..., Path]) -> Any:
    return load(configured())


LENGTHS = [2**63 - 1, 2**63, 2**64 - 1]


async def test_no_announced_length_ends_the_writing_down_of_refusals(settings: Any) -> None:
    async with System(settings) as system:
        await system.listen()
        for length in LENGTHS:
            async with connections(system.port, ["127.0.0.1"]) as [(reader, writer)]:
                writer.write(head("/hooks/nothing", f"Content-Length: {length}"))
                assert status_of(await reader.read(999)) == 404
        async with client(f"http://127.0.0.1:{system.port}") as api:
            await api.call("POST", "/hooks/other", token=None)
            hooks: list[str] = []
            while "other" not in hooks:
                _, page, _ = await api.call("GET", "/api/v1/deliveries")
                hooks = [each["hook"] for each in page["deliveries"]]
            assert hooks.count("nothing") == len(LENGTHS)


async def test_no_announced_length_ends_anything_on_any_route(settings: Any) -> None:
    async with System(settings) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as api:
            _, described, _ = await api.call("GET", "/openapi.json")
            paths = [path.replace("{", "").replace("}", "") for path in described["paths"]]
            for path in ["/", "/hooks/nothing", "/healthz", "/readyz", *paths]:
                async with connections(system.port, ["127.0.0.1"]) as [(reader, writer)]:
                    writer.write(head(path, f"Content-Length: {2**63}"))
                    assert status_of(await reader.read(999)) < 500, path
            assert (await api.call("GET", "/readyz", token=None))[0] == 200
            await system.audit.flush()
            _, page, _ = await api.call("GET", "/api/v1/deliveries")
            assert "nothing" in [each["hook"] for each in page["deliveries"]]


@pytest.mark.parametrize("name", ["worker", "beat", "audit"])
async def test_a_task_that_fails_again_and_again_is_told_counted_and_heals(
    settings: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broken = True

    async with System(settings) as system:
        # Each is what the task calls time and again.
        part, method = {
            "worker": (system.store, "claim"),
            "beat": (system.store, "take_over"),
            "audit": (system.audit, "flush"),
        }[name]
        whole = getattr(part, method)

        async def perhaps(*words: Any) -> Any:
            if broken:
                raise RuntimeError("a defect")
            return await whole(*words)

        monkeypatch.setattr(part, method, perhaps)
        await system.listen()
        async with (
            client(f"http://127.0.0.1:{system.port}") as api,
            client(f"http://127.0.0.1:{system.metrics_port}") as figures,
        ):
            while (answer := await api.call("GET", "/readyz", token=None))[0] != 503:
                await asyncio.sleep(0.01)
            assert answer[1]["reason"].endswith(f": {name}.")
            broken = False
            while (await api.call("GET", "/readyz", token=None))[0] != 200:
                await asyncio.sleep(0.01)
            assert (await scraped(figures))["sync_staging_task_failures_total", name] >= 2
            assert (await api.sync())[0] == 200


async def test_systemd_is_told_what_fails_and_gets_no_sign_of_life_from_a_listener_that_can_not_sync(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    broken, looks = True, 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def told(state: str) -> None:
            while not (await asyncio.get_running_loop().sock_recv(manager, 999)).startswith(state.encode()):
                pass

        async with System(settings) as system:
            claim, ping = system.store.claim, system.store.ping

            async def perhaps(*words: Any) -> Run | None:
                if broken:
                    raise RuntimeError("a defect")
                return await claim(*words)

            async def looked() -> None:
                nonlocal looks
                looks += 1
                await ping()

            monkeypatch.setattr(system.store, "claim", perhaps)
            monkeypatch.setattr(system.store, "ping", looked)
            await system.listen()
            await told("STATUS=These tasks keep failing, and the log says why: worker.")
            before = looks
            while looks < before + 5:
                await asyncio.sleep(0.01)
            with pytest.raises(BlockingIOError):
                manager.recv(999)
            broken = False
            await told("STATUS=listening on")
            await told("WATCHDOG=1")


async def test_a_listener_that_drains_goes_on_to_say_that_its_runs_are_its_own(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, heard = asyncio.Event(), asyncio.Event()
    stopping = False
    system = System(settings)
    beats = 0

    async def slow(*_: Any) -> None:
        begun.set()
        await heard.wait()

    beat = system.store.beat

    async def listened(held: Collection[Run]) -> frozenset[str]:
        nonlocal beats
        beats += stopping and bool(held)
        if beats >= 3:
            heard.set()
        return await beat(held)

    monkeypatch.setattr(system.synchronizer, "sync", slow)
    monkeypatch.setattr(system.store, "beat", listened)
    async with system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as api:
            _, accepted, _ = await api.deliver("d-1")
        await begun.wait()
        stopping = True
    assert beats >= 3
    async with System(settings) as again:
        assert (await again.store.run(accepted["runs"][0])).state == "succeeded"
