"""The worker over each store, also over one whose replies are lost: slots, entries and owners stay right."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from listener import worker as working
from listener.errors import HostUnreachableError, StoreUnavailableError
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.queue import Acceptance
from listener.redaction import Cleaner
from listener.runs import Origin, RetryPolicy, Run, State
from listener.sites import Environment, Policy, RepositoryAddress, Site, Sites
from listener.store import Store, ruled
from listener.store.sqlite import SqliteStore
from listener.worker import Worker
from tests.kept_log import KeptLog

HOME = RepositoryAddress("studio", "/srv/site")
NAMES = ("staging", "qa", "demo")
ENVIRONMENTS = {
    name: Environment.of("site", name, HOME, "live", Policy.FORWARD, [(HOME, name)], follow=True)
    for name in NAMES
}
SITES = Sites.of([Site("site", HOME, "live", ENVIRONMENTS)])
SLOTS = 2

Ask = Callable[..., Awaitable[Acceptance]]


class Lossy:
    """A store that carries everything out, and loses replies: as many of each method as `lost` says."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lost: Counter[str] = Counter()
        self.beats: list[tuple[str, int]] = []
        """The run and attempt of each sign of life."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def _reply(self, name: str, reply: Any) -> Any:
        if self.lost[name] > 0:
            self.lost[name] -= 1
            raise StoreUnavailableError
        return reply

    async def requeue(self, *words: Any, **more: Any) -> Any:
        return await self._reply("requeue", await self.store.requeue(*words, **more))

    async def finish(self, *words: Any) -> Any:
        await self.store.finish(*words)
        return await self._reply("finish", None)

    async def finish_and_claim(self, *words: Any) -> Any:
        return await self._reply("finish", await self.store.finish_and_claim(*words))

    async def keep(self, *words: Any) -> Any:
        await self.store.keep(*words)
        return await self._reply("keep", None)

    async def beat(self, held: Collection[Run]) -> Any:
        self.beats += [(run.id, run.attempt) for run in held]
        return await self._reply("beat", await self.store.beat(held))


@dataclass
class Begun:
    """What has begun for a run; it must not wait for ever."""

    run: str
    withdrawn: bool = False

    def withdraw(self) -> None:
        self.withdrawn = True


class Syncs:
    """Syncs that last until they are let go; counts those of one environment that go on side by side."""

    def __init__(self) -> None:
        self.going: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.began: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        """How many syncs of an environment still fail, because its host is away."""
        self.intended: Outcome | None = None
        self.begun: list[Begun] = []
        """What has begun while a run was being claimed."""
        self.early: list[Begun | None] = []
        """What each sync was given of that."""
        self.let_go = asyncio.Event()
        self.ended = asyncio.Event()
        """Set to let what was cancelled come to its end."""
        self.ended.set()

    def intent(self, _environment: Environment, _run: Run) -> Outcome | None:
        return self.intended

    def begin(self, _environment: Environment, run: Run) -> "Begun":
        self.begun.append(Begun(run.id))
        return self.begun[-1]

    async def sync(
        self,
        environment: Environment,
        run: Run,
        _notes: Any,
        progress: Any,
        keep: Callable[[], Awaitable[None]],
        early: "Begun | None",
    ) -> None:
        assert early is None or (early.run == run.id and not early.withdrawn)
        self.early.append(early)
        name = environment.name
        assert progress.legs == {}, "nothing was done before"
        if self.intended is not None:
            progress.legs.update({leg.key: leg for leg in self.intended.legs})
        self.going[name] += 1
        self.began[name] += 1
        self.most[name] = max(self.most[name], self.going[name])
        try:
            await keep()
            if self.failing[name] > 0:
                self.failing[name] -= 1
                raise HostUnreachableError
            await self.let_go.wait()
        finally:
            await self.ended.wait()
            self.going[name] -= 1


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something is true; the test's own time limit ends what never is."""
    while not holds():
        await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "BEAT", 0.02)
    monkeypatch.setattr(working, "POLL", 0.05)


class Scene:
    """A worker at work."""

    def __init__(self, store: Store, concurrency: int) -> None:
        self.store: Any = Lossy(store)
        self.syncs = Syncs()
        self.log = KeptLog()
        self.worker = Worker(
            self.store,
            SITES,
            self.syncs,  # type: ignore[arg-type]  # a run that is no rollback needs no more
            concurrency=concurrency,
            per_host=SLOTS,
            policy=RetryPolicy(attempts=99, first=0.001, most=0.001),
            clock=time.time,
            log=self.log,
            clean=Cleaner(),
        )

    async def state(self, accepted: Acceptance) -> State:
        run: Run = await self.store.run(accepted.runs[0])
        return run.state

    async def succeeds(self, accepted: Acceptance) -> None:
        while await self.state(accepted) is not State.SUCCEEDED:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def at_work(store: Store, concurrency: int = SLOTS) -> AsyncIterator[Scene]:
    scene = Scene(store, concurrency)
    tasks = [asyncio.create_task(scene.worker.work()), asyncio.create_task(scene.worker.beat())]
    try:
        yield scene
    finally:
        scene.syncs.let_go.set()
        scene.syncs.ended.set()
        await scene.worker.drain(60)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), "no task died"


@pytest.fixture
async def scene(store: Store) -> AsyncIterator[Scene]:
    async with at_work(store) as working:
        yield working


async def all_slots_are_free(scene: Scene, call: Ask) -> None:
    """As many syncs as there are slots go on side by side."""
    scene.syncs.let_go.clear()
    asked = [await call(scene.store.store, name, now=time.time()) for name in NAMES[-SLOTS:]]
    await until(lambda: sum(scene.syncs.going.values()) == SLOTS)
    scene.syncs.let_go.set()
    for accepted in asked:
        await scene.succeeds(accepted)


async def test_what_began_while_a_run_was_claimed_goes_to_that_run_and_is_withdrawn_when_it_ends(
    scene: Scene, call: Ask
) -> None:
    scene.syncs.intended = Outcome()
    scene.syncs.let_go.set()
    accepted = await call(scene.store.store, "staging")
    await scene.succeeds(accepted)
    await until(lambda: scene.syncs.begun[0].withdrawn)
    assert scene.syncs.early == scene.syncs.begun
    assert [each.run for each in scene.syncs.begun] == list(accepted.runs)


async def test_a_run_that_is_claimed_again_while_its_old_attempt_still_settles_stays_this_workers(
    scene: Scene, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "STORE_PAUSE", 0.3)
    scene.store.lost["requeue"] = 1
    scene.syncs.failing["staging"] = 1
    accepted = await call(scene.store.store, "staging")
    await until(lambda: scene.syncs.began["staging"] == 2)
    await until(lambda: "fenced" in scene.log.events)
    scene.store.beats.clear()
    await until(lambda: (accepted.runs[0], 2) in scene.store.beats)
    scene.syncs.let_go.set()
    await scene.succeeds(accepted)
    assert scene.syncs.most["staging"] == 1
    await all_slots_are_free(scene, call)


async def test_a_drain_waits_for_an_attempt_whose_older_one_has_gone(
    scene: Scene, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "STORE_PAUSE", 0.1)
    scene.store.lost["requeue"] = 1
    scene.syncs.failing["staging"] = 1
    accepted = await call(scene.store.store, "staging")
    await until(lambda: "fenced" in scene.log.events)
    draining = asyncio.create_task(scene.worker.drain(60))
    scene.store.beats.clear()
    await until(lambda: scene.store.beats)
    assert not draining.done()
    scene.syncs.let_go.set()
    assert await draining == 0
    assert await scene.state(accepted) is State.SUCCEEDED


async def begun(scene: Scene, call: Ask) -> Acceptance:
    """A sync that has begun, and whose end is held up."""
    accepted = await call(scene.store.store, "staging")
    await until(lambda: scene.syncs.going["staging"] == 1)
    scene.syncs.ended.clear()
    return accepted


async def test_a_run_that_was_taken_over_and_came_back_is_not_synced_side_by_side_with_its_old_attempt(
    scene: Scene, call: Ask
) -> None:
    accepted = await begun(scene, call)
    now = time.time()
    run = await scene.store.run(accepted.runs[0])
    await scene.store.store.requeue(run, Outcome(), now, now, failed=False)
    while (await scene.store.run(run.id)).attempt == run.attempt:
        await asyncio.sleep(0.005)
    scene.store.beats.clear()
    await until(lambda: scene.store.beats.count((run.id, run.attempt + 1)) > 2)
    assert scene.syncs.going["staging"] == 1, "the new attempt is held, and waits for the old one's end"
    scene.syncs.ended.set()
    scene.syncs.let_go.set()
    await scene.succeeds(accepted)
    assert scene.syncs.most["staging"] == 1
    await all_slots_are_free(scene, call)


async def test_a_successor_waits_for_the_end_of_a_run_that_was_lost(scene: Scene, call: Ask) -> None:
    first = await begun(scene, call)
    successor = await call(scene.store.store, "staging", origin=Origin.HOOK)
    now = time.time()
    await scene.store.store.finish(await scene.store.run(first.runs[0]), State.FAILED, Outcome(), now)
    await until(lambda: (successor.runs[0], 1) in scene.store.beats)
    assert scene.syncs.going["staging"] == 1
    scene.syncs.ended.set()
    scene.syncs.let_go.set()
    await scene.succeeds(successor)
    assert scene.syncs.most["staging"] == 1


@pytest.mark.parametrize("method", ["requeue", "finish", "keep", "beat"])
async def test_whichever_reply_is_lost_the_run_ends_and_the_slots_are_free(
    scene: Scene, call: Ask, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(working, "STORE_PAUSE", 0.02)
    scene.store.lost[method] = 3
    scene.syncs.failing["staging"] = 2
    scene.syncs.let_go.set()
    for _ in range(3):
        accepted = await call(scene.store.store, "staging", now=time.time())
        await scene.succeeds(accepted)
    assert scene.syncs.most["staging"] == 1
    await all_slots_are_free(scene, call)


async def test_a_lost_run_that_is_cancelled_before_it_began_here_never_syncs(scene: Scene, call: Ask) -> None:
    accepted = await begun(scene, call)
    now = time.time()
    run = await scene.store.run(accepted.runs[0])
    await scene.store.store.requeue(run, Outcome(), now, now, failed=False)
    await until(lambda: (run.id, run.attempt + 1) in scene.store.beats)
    cancelling = asyncio.create_task(scene.worker.cancel(run.id))
    await asyncio.sleep(0)
    scene.syncs.ended.set()
    assert (await cancelling).state is State.CANCELLED
    assert scene.syncs.began["staging"] == 1


INTENDED = Outcome(legs=(LegOutcome("studio:/srv/site", "staging", state=LegState.SENT, sent_for=("",)),))


@pytest.mark.parametrize(
    ("intended", "cost"), [(None, 3), (INTENDED, 2)], ids=["it-looks-first", "what-it-will-do-is-known"]
)
async def test_a_run_costs_a_commit_to_begin_and_one_to_end_and_one_before_it_moves_if_it_had_to_look_first(
    tmp_path: Path, call: Ask, monkeypatch: pytest.MonkeyPatch, intended: Outcome | None, cost: int
) -> None:
    monkeypatch.setattr(ruled, "LINES_WAIT", 600.0)
    store = SqliteStore(tmp_path / "listener.db")
    await store.open()
    committed: list[int] = []

    def traced(sql: str) -> None:
        if sql == "COMMIT":
            committed.append(store._writing.total_changes)

    try:
        async with at_work(store) as scene:
            scene.syncs.let_go.set()
            scene.syncs.intended = intended
            for number in range(5):
                await until(lambda: store._offer is not None and store._offer.stands)
                store._writing.set_trace_callback(traced)
                committed[:] = [store._writing.total_changes]
                accepted = await call(store, "staging", now=time.time())
                await scene.succeeds(accepted)
                await until(lambda: not len(scene.worker._active))
                store._writing.set_trace_callback(None)
                assert len(set(committed)) - 1 == cost, number
                assert len(committed) - 1 == cost, "nor does it open a transaction for nothing"
    finally:
        await store.close()


async def test_runs_that_wait_for_a_place_get_the_place_of_one_that_ends(
    scene: Scene, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "POLL", 600.0)
    asked = [await call(scene.store.store, name, now=time.time()) for name in NAMES]
    await until(lambda: sum(scene.syncs.going.values()) == SLOTS)
    most = 0

    async def sync(*words: Any) -> None:
        nonlocal most
        await begin(*words)
        most = max(most, sum(scene.syncs.going.values()) + 1)

    begin = scene.syncs.sync
    monkeypatch.setattr(scene.syncs, "sync", sync)
    scene.syncs.let_go.set()
    for accepted in asked:
        await scene.succeeds(accepted)
    assert most <= SLOTS
    await all_slots_are_free(scene, call)


async def test_a_run_that_ends_in_a_drain_hands_its_place_to_nobody(store: Store, call: Ask) -> None:
    scene = Scene(store, SLOTS)
    working_on = asyncio.create_task(scene.worker.work())
    asked = [await call(store, name, now=time.time()) for name in NAMES[: SLOTS + 1]]
    await until(lambda: sum(scene.syncs.going.values()) == SLOTS)
    working_on.cancel()
    await asyncio.wait({working_on})
    scene.syncs.let_go.set()
    assert await scene.worker.drain(60) == 0
    assert Counter([await scene.state(each) for each in asked]) == {State.SUCCEEDED: SLOTS, State.QUEUED: 1}


async def test_a_run_that_is_claimed_for_a_place_as_a_drain_begins_goes_back_to_the_queue(
    store: Store, call: Ask
) -> None:
    scene = Scene(store, SLOTS)
    working_on = asyncio.create_task(scene.worker.work())
    asked = [await call(store, name, now=time.time()) for name in NAMES[: SLOTS + 1]]
    await until(lambda: sum(scene.syncs.going.values()) == SLOTS)

    async def interrupted(*words: Any) -> Run | None:
        claimed: Run | None = await store.finish_and_claim(*words)
        working_on.cancel()
        await asyncio.wait({working_on})
        return claimed

    scene.store.finish_and_claim = interrupted
    scene.syncs.let_go.set()
    await until(working_on.done)
    await scene.worker.drain(60)
    assert Counter([await scene.state(each) for each in asked]) == {State.SUCCEEDED: SLOTS, State.QUEUED: 1}


def counted(asked: list[str], method: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*words: Any) -> Any:
        asked.append(repr(words))
        return method(*words)

    return ask


@pytest.mark.parametrize("concurrency", [SLOTS + 3, SLOTS])
async def test_what_comes_while_all_hosts_are_full_costs_no_look_at_the_queue(
    store: Store, call: Ask, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    looks: list[str] = []
    async with at_work(store, concurrency) as scene:
        for name in NAMES[:SLOTS]:
            await call(store, name, now=time.time())
        await until(lambda: sum(scene.syncs.going.values()) == SLOTS)
        monkeypatch.setattr(working, "POLL", 600.0)
        monkeypatch.setattr(scene.store, "claim", counted(looks, store.claim), raising=False)
        monkeypatch.setattr(scene.store, "next_due", counted(looks, store.next_due), raising=False)
        waiting = [await call(store, name, now=time.time()) for name in NAMES]
        await store.ping()
        assert looks == []
        scene.syncs.let_go.set()
        for accepted in waiting:
            await scene.succeeds(accepted)
