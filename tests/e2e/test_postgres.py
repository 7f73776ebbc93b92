"""Two listeners on one database, over HTTP: either takes what comes, and nothing is accepted without it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from tests.cluster import Cluster
from tests.e2e.conftest import Start
from tests.listening import Client, client, daemon


@pytest.fixture
def store_url(cluster: Cluster) -> str:
    return cluster.tcp_url(cluster.database())


async def ready(listener: Client) -> None:
    async with asyncio.timeout(300):
        while (await listener.call("GET", "/readyz"))[0] != 200:
            await asyncio.sleep(0.05)


async def test_a_delivery_to_two_listeners_is_one_run_which_both_tell_of(
    listening: Start, published: Published, store_url: str
) -> None:
    async with listening(store=store_url) as one, listening(store=store_url) as other:
        answers = await asyncio.gather(*(listener.deliver("d-1") for listener in (one, other) * 5))
        assert sorted(status for status, _, _ in answers) == [200] * 9 + [202]
        (run,) = {answer["runs"][0] for _, answer, _ in answers}
        assert (await one.ended(run))["state"] == (await other.ended(run))["state"] == "succeeded"
        assert await one.events(run) == await other.events(run) != []
        assert published.tree("staging") == published.tree("live")


async def test_while_the_database_is_away_nothing_is_accepted_and_afterwards_everything_goes_on(
    listening: Start, published: Published, store_url: str, cluster: Cluster
) -> None:
    async with listening(store=store_url) as listener:
        await asyncio.to_thread(cluster.stop)
        try:
            status, _, headers = await listener.deliver("d-1")
            assert status == 503
            assert int(headers["Retry-After"]) > 0
            assert (await listener.call("GET", "/readyz"))[0] == 503
        finally:
            await asyncio.to_thread(cluster.start)
        await ready(listener)
        status, answer, _ = await listener.deliver("d-1")
        assert status == 202
        assert (await listener.ended(answer["runs"][0]))["state"] == "succeeded"
        assert published.tree("staging") == published.tree("live")


async def test_the_run_of_a_listener_that_died_is_taken_over_by_another(
    configured: Callable[..., Path], listening: Start, published: Published, store_url: str
) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    async with daemon(configured(store=store_url)) as dying, client(dying.url) as asked:
        _, answer, _ = await asked.deliver("d-1")
        assert (await asked.first_event(answer["runs"][0]))["event"] == "start"
        async with listening(store=store_url) as living:
            await dying.kill()
            slow.unlink()
            async with asyncio.timeout(300):
                run = await living.ended(answer["runs"][0])
            assert (run["state"], run["attempt"]) == ("succeeded", 2)
            events = [event["event"] for event in await living.events(run["id"])]
            assert events.count("start") == 2
    assert published.tree("staging") == published.tree("live")


async def test_a_listener_that_slept_past_its_lease_does_no_harm_when_it_wakes(
    configured: Callable[..., Path], listening: Start, published: Published, store_url: str
) -> None:
    slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
    os.mkfifo(slow)
    async with daemon(configured(store=store_url)) as sleeping, client(sleeping.url) as asked:
        _, answer, _ = await asked.deliver("d-1")
        while (await asked.call("GET", f"/api/v1/runs/{answer['runs'][0]}"))[1]["state"] != "running":
            await asyncio.sleep(0.01)
        sleeping.process.send_signal(signal.SIGSTOP)
        async with listening(store=store_url) as living:
            slow.unlink()
            run = await living.ended(answer["runs"][0])
            lines = await living.events(run["id"])
            sleeping.process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(300):
                while not {"lost", "fenced"} & {event["event"] for event in sleeping.events()}:
                    await asyncio.sleep(0.05)
            assert await living.events(run["id"]) == lines
            assert (await asked.sync())[0] == 200
    assert (run["state"], run["attempt"]) == ("succeeded", 2)
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()
