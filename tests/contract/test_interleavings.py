"""Syncs let loose in the pauses of a publish: of Studio 5.x, which leaves few traces; over a slow line."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from listener.errors import BusyError
from listener.plans import Plan, PlanKind, Signing
from listener.progress import Progress
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import Environment, Policy, RepositoryAddress
from listener.ssh import HostPool
from listener.sync import Synchronizer
from tests.conftest import age
from tests.contract.test_repository import (
    CHANGES,
    PATIENCE,
    QUIET,
    UNMARKED,
    Notes,
    a_run,
    host_of,
    look,
    sync,
)
from tests.legs import changed, environment_of, pool_of
from tests.proxy import Proxy
from tests.publisher import STEPS_OF_5, Publisher, Studio5Publisher, StudioPublisher

LATENCY = 0.05
"""Seconds that everything takes to a host, and from it."""


@pytest.fixture
async def pool(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> AsyncIterator[HostPool]:
    """The pool of a host that a slow line leads to."""
    proxy.delay = LATENCY
    known_hosts = tmp_path / "known_hosts"
    sshd.trust(known_hosts, proxy.port)
    host = replace(host_of(sshd), port=proxy.port, known_hosts=str(known_hosts))
    pool = pool_of([host], tmp_path / "cache")
    yield pool
    await pool.close()


@pytest.fixture
def environment(published: Published) -> Environment:
    return environment_of(RepositoryAddress("studio", str(published.path)))


@pytest.fixture(params=[True, False], ids=["through the index", "in memory"])
def studio_5(published: Published, request: pytest.FixtureRequest) -> Studio5Publisher:
    return Studio5Publisher(published, index=request.param)


def finished(steps: Iterator[tuple[str, str]], number: int | None = None) -> None:
    """Let a publish go on, by so many steps or to its end."""
    for done, _ in enumerate(steps, start=1):
        if done == number:
            return


def published_well(published: Published, target: str, staged: set[str]) -> bool:
    """Whether a publish of `CHANGES` has its content, and live nothing that was only staged."""
    files = published.files(target)
    there = "site/website/news/index.xml" in files and "static-assets/css/part-0002.css" not in files
    return there and not staged & set(published.files("live"))


@pytest.mark.parametrize("target", ["staging", "live"])
@pytest.mark.parametrize("paused", STEPS_OF_5)
async def test_a_sync_let_loose_in_a_pause_of_studio_5_waits(
    pool: HostPool,
    environment: Environment,
    published: Published,
    studio_5: Studio5Publisher,
    target: str,
    paused: str,
) -> None:
    for number, step in enumerate(studio_5.steps(target, CHANGES)):
        if step == (target, paused) and number > 0:
            with pytest.raises(BusyError):
                await sync(pool, environment, quiet=30)
    assert {outcome for _, outcome in studio_5.updates} == {"moved"}


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
@pytest.mark.parametrize("begun", range(1, len(STEPS_OF_5)))
async def test_a_publish_of_studio_5_that_begins_after_the_look_is_not_overrun(
    pool: HostPool,
    environment: Environment,
    published: Published,
    studio_5: Studio5Publisher,
    begun: int,
    policy: Policy,
) -> None:
    environment = changed(environment, policy=policy)
    repository = pool.of(environment.legs[0], Notes())
    steps = studio_5.steps("staging", CHANGES)
    finished(steps, 1)
    observation, plan = await look(pool, environment)
    finished(steps, begun)
    assert (await repository.apply(plan, observation, Signing("r", 0))).changed
    finished(steps)
    assert studio_5.updates == [("staging", "moved")]
    assert "site/website/news/index.xml" in published.files("staging")


async def test_a_rollback_does_not_overrun_a_publish_of_studio_5_that_begins_after_its_look(
    pool: HostPool, environment: Environment, published: Published, studio_5: Studio5Publisher
) -> None:
    before = published.commit("staging")
    await sync(pool, environment)
    repository = pool.of(environment.legs[0], Notes())
    steps = studio_5.steps("staging", CHANGES)
    finished(steps, 1)
    observation = await repository.observe(target=before)
    plan = Plan(PlanKind.FORWARD_COMMIT)
    finished(steps, 4)
    assert (await repository.apply(plan, observation, Signing("r", 0))).changed
    finished(steps)
    assert studio_5.updates == [("staging", "moved")]


PUBLISHERS = {
    "4.x": (StudioPublisher, UNMARKED),
    "5.x": (Studio5Publisher, ("fetch",)),
}
"""Both publishers, and their steps before which nothing tells that a publish is under way."""


@pytest.mark.parametrize("at_once", [False, True], ids=["two requests", "one request"])
@pytest.mark.parametrize("target", ["staging", "live"])
@pytest.mark.parametrize(
    ("version", "paused"),
    [(version, step) for version, (_, steps) in PUBLISHERS.items() for step in sorted(steps)],
)
async def test_a_publish_that_goes_on_while_a_sync_is_on_its_way_loses_nothing(
    pool: HostPool,
    environment: Environment,
    published: Published,
    version: str,
    paused: str,
    target: str,
    *,
    at_once: bool,
) -> None:
    """The sync is made in a pause that outlasted quiet, and its move travels over a slow line."""
    staged = set(published.files("staging")) - set(published.files("live"))
    publisher: Publisher = PUBLISHERS[version][0](published)
    steps = publisher.steps(target, CHANGES)
    while next(steps) != (target, paused):
        pass
    age(published, 60)
    notes = Notes()
    synchronizer = Synchronizer(pool, quiet=QUIET, patience=PATIENCE)
    if at_once:
        await synchronizer.look(environment, notes)
    about_to_move = asyncio.Event()

    async def keep() -> None:
        about_to_move.set()

    syncing = asyncio.create_task(synchronizer.sync(environment, a_run(), notes, Progress(), keep))
    waiting = asyncio.create_task(about_to_move.wait())
    await asyncio.wait([syncing, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.to_thread(finished, steps)
    await asyncio.wait([syncing])
    assert syncing.exception() is None or isinstance(syncing.exception(), BusyError)
    if isinstance(publisher, Studio5Publisher):
        assert {outcome for _, outcome in publisher.updates} == {"moved"}
    if syncing.exception() is not None or target == "live":
        assert published_well(published, target, staged)
    age(published, 60)
    await sync(pool, environment)
    assert published.tree("staging") == published.tree("live")
    assert version != "4.x" or published.is_clean()
    publisher.publish("live", {"site/website/later/index.xml": "later\n"})
    assert "site/website/later/index.xml" in published.files("live")
