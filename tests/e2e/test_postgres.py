"""Two listeners on one database, over HTTP: either takes what comes, and nothing is accepted without it."""

import asyncio

import pytest

from listener.rehearsal.published import Published
from tests.cluster import Cluster
from tests.e2e.conftest import Start
from tests.listening import Client


@pytest.fixture
def store_url(cluster: Cluster) -> str:
    return cluster.tcp_url(cluster.database())


async def ready(listener: Client) -> None:
    async with asyncio.timeout(60):
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
