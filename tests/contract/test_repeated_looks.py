"""A busy repository is looked at many times a minute: what a look repeats is counted, not written down."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from listener import runs as rules
from listener.errors import SyncError
from listener.observations import Branch, Observation
from listener.outcomes import Outcome
from listener.plans import Applied, Plan, PriorMove, Signing
from listener.queue import Acceptance
from listener.redaction import Cleaner
from listener.runs import RetryPolicy, Run, State
from listener.sites import Environment, Leg, Policy, RepositoryAddress, Site, Sites
from listener.store import Store
from listener.sync import Synchronizer
from listener.worker import Worker
from tests.kept_log import KeptLog

QUIET, PATIENCE = 2.0, 900.0
HOME = RepositoryAddress("studio", "/srv/site")
STAGING = Environment.of("site", "staging", HOME, "live", Policy.FORWARD, [(HOME, "staging")], follow=True)
SITES = Sites.of([Site("site", HOME, "live", {"staging": STAGING})])
LIVE, OLD = Branch("1" * 40, "T"), Branch("2" * 40, "S")

Ask = Callable[..., Awaitable[Acceptance]]


def at_rest(now: float = 1e6) -> Observation:
    return Observation(LIVE, OLD, "", bare=False, worktree="", now=now, times={"index": now - 60})


def touched(now: float = 1e6) -> Observation:
    """Somebody was at work a moment ago, and left no mark."""
    return replace(at_rest(now), times={"index": now - 0.1})


def publishing(now: float = 1e6) -> Observation:
    return replace(touched(now), in_progress={"staging_in_progress": "3" * 40}, times={"index": now})


@dataclass
class Seen:
    """A repository that looks as it is told to, one look after the other; the last one stays."""

    looks: Iterable[Observation]
    count: int = 0
    now: Observation = field(default_factory=at_rest)
    studio: list[str] = field(default_factory=list)

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        self.count += 1
        self.now = next(iter(self.looks), self.now)
        return self.now

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        self.now = replace(self.now, branch=LIVE)
        return Applied(changed=False, live=LIVE, branch=LIVE)

    async def check(self, site: str) -> str:
        return self.studio.pop(0) if self.studio else ""

    def of(self, leg: Leg, notes: object) -> Any:
        return self

    async def survey(self, legs: Sequence[Leg], notes: object) -> list[Observation | SyncError]:
        return [self.now for _ in legs]

    async def present(self, *_: object) -> list[str]:
        raise NotImplementedError

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        raise NotImplementedError

    async def expire(self, before: str) -> int:
        raise NotImplementedError


@asynccontextmanager
async def working(store: Store, seen: Seen, synchronizer: Synchronizer) -> AsyncIterator[Worker]:
    worker = Worker(
        store,
        SITES,
        synchronizer,
        concurrency=2,
        per_host=2,
        policy=RetryPolicy(),
        clock=time.time,
        log=KeptLog(),
        clean=Cleaner(),
    )
    task = asyncio.create_task(worker.work())
    yield worker
    task.cancel()
    await asyncio.wait([task])
    await worker.drain(10)


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BUSY_MOST", 0.002)


def synchronizer_of(seen: Seen) -> Synchronizer:
    return Synchronizer(seen, quiet=QUIET, patience=PATIENCE, studio=seen)


async def ended(store: Store, run: str) -> Run:
    while (found := await store.run(run)).state not in rules.ENDED:
        await asyncio.sleep(0.005)
    return found


async def written(store: Store, run: str) -> list[dict[str, Any]]:
    return [json.loads(line.text) for line in await store.lines(run, 0)]


async def carried_out(store: Store, call: Ask, seen: Seen) -> tuple[Run, list[dict[str, Any]]]:
    (run,) = (await call(store, "staging")).runs
    async with working(store, seen, synchronizer_of(seen)):
        done = await ended(store, run)
    return done, await written(store, run)


LOOK = ["start", "observe", "plan"]


async def test_equal_looks_write_no_line_and_their_count_is_told_when_something_changes(
    store: Store, call: Ask
) -> None:
    busy = (touched(1e6 + 5 * number) for number in range(20))
    done, lines = await carried_out(store, call, Seen(itertools.chain(busy, [at_rest()])))
    moving = [*LOOK, "apply", "confirm", "run"]
    assert [line["event"] for line in lines] == [*LOOK, "again", *moving]
    assert lines[4]["equal_looks"] == 19
    assert lines[4]["attempt"] == done.attempt == 21
    assert "equal_looks" not in lines[0]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


async def test_a_look_that_finds_something_else_to_wait_for_is_written(store: Store, call: Ask) -> None:
    looks = [touched(), touched(), publishing(), publishing(), publishing(), touched(), at_rest()]
    _, lines = await carried_out(store, call, Seen(iter(looks)))
    plans = [line for line in lines if line["event"] == "plan"]
    assert [plan["plan"] for plan in plans] == ["busy", "busy", "busy", "forward-commit"]
    assert "staging_in_progress" in plans[1]["reason"]
    told = [line.get("equal_looks", 0) for line in lines if line["event"] == "start"]
    assert told == [0, 1, 2, 0]


async def test_a_studio_that_goes_on_publishing_is_told_once(store: Store, call: Ask) -> None:
    seen = Seen([], studio=["Studio is publishing"] * 9 + ["Studio is publishing a package"] * 2)
    _, lines = await carried_out(store, call, seen)
    again = [line["message"] for line in lines if line["event"] == "again"]
    assert again == ["Studio is publishing", "Studio is publishing a package"]
    told = [line["equal_looks"] for line in lines if "equal_looks" in line]
    assert told == [8, 1]


async def test_what_is_not_written_is_counted_across_a_restart(store: Store, call: Ask) -> None:
    (run,) = (await call(store, "staging")).runs
    seen = Seen([touched()])
    for looks in (5, 10):
        async with working(store, seen, synchronizer_of(seen)):
            while seen.count < looks:
                await asyncio.sleep(0.002)
    outcome = (await store.run(run)).outcome
    assert outcome is not None
    assert outcome.equal_looks == seen.count - 1
    assert [line["event"] for line in await written(store, run)] == [*LOOK, "again"]


# A repository that something keeps touching.


def overdue(outcome: Outcome | None) -> list[str]:
    return [text for text in (outcome.warnings if outcome else ()) if "has not been at rest since" in text]


async def test_a_repository_that_is_never_at_rest_is_told_once_patience_is_over(
    store: Store, call: Ask
) -> None:
    seen = Seen(touched(1e6 + 100 * number) for number in range(20))
    (run,) = (await call(store, "staging")).runs
    synchronizer = synchronizer_of(seen)
    async with working(store, seen, synchronizer):
        while not overdue((await store.run(run)).outcome):
            await asyncio.sleep(0.002)
        assert (await store.run(run)).state in {State.QUEUED, State.RUNNING}, "it keeps waiting"
        assert synchronizer.waits.overdue() == {("site", "staging")}
        ((look,),) = await synchronizer.survey([STAGING], KeptLog())  # type: ignore[arg-type]
        assert look.plan is not None
        assert "has not been at rest since 1970-01-12T13:46:40" in look.plan.warnings[0]
        seen.now, seen.looks = at_rest(), ()
        assert (await ended(store, run)).state is State.SUCCEEDED
        assert not synchronizer.waits.overdue()
    lines = await written(store, run)
    warned = [line for line in lines if "warnings" in line and line["event"] == "plan"]
    assert [(line["level"], len(line["warnings"])) for line in warned] == [("warning", 1)]
    assert seen.count > 10


async def test_a_restarted_listener_knows_since_when_a_run_has_waited(store: Store, call: Ask) -> None:
    (run,) = (await call(store, "staging")).runs
    first, late = Seen([touched()]), Seen([touched(1e6 + PATIENCE + 1)])
    async with working(store, first, synchronizer_of(first)):
        while not first.count:
            await asyncio.sleep(0.002)
    async with working(store, late, synchronizer_of(late)):
        while not overdue((await store.run(run)).outcome):
            await asyncio.sleep(0.002)


async def test_a_successor_goes_on_waiting_where_its_predecessor_began(store: Store, call: Ask) -> None:
    seen = Seen([touched()])
    (first,) = (await call(store, "staging")).runs
    async with working(store, seen, synchronizer_of(seen)):
        while (found := await store.run(first)).state is not State.SUPERSEDED:
            await call(store, "staging")
            await asyncio.sleep(0.002)
        assert found.successor is not None
        seen.now, seen.looks = touched(1e6 + PATIENCE + 1), ()
        latest = found
        while not overdue(latest.outcome):
            latest = await store.run(latest.successor or latest.id)
            await asyncio.sleep(0.002)
