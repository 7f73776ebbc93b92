"""A leg's way, step by step: what is durable when, when Studio is asked, and what stops it in between."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from listener.errors import (
    BusyError,
    FencedError,
    HostUnreachableError,
    ListenerError,
    StudioUnavailableError,
    SyncError,
)
from listener.observations import Branch, Observation
from listener.outcomes import LegState, Outcome
from listener.plans import Applied, Plan, Signing
from listener.progress import Progress
from listener.runs import Run, State
from listener.sites import Environment, Leg, RepositoryAddress
from listener.sync import Synchronizer
from tests.legs import environment_of, only

QUIET, PATIENCE, NOW = 2.0, 900.0, 1_000_000.0
LIVE, OLD = Branch("1" * 40, "T"), Branch("2" * 40, "S")
RUN = Run("r", "mysite", "staging", State.RUNNING, 0.0, 0.0)
OWN = RepositoryAddress("studio", "/srv/mysite")


@dataclass
class Bench:
    """A repository, a store and a Studio that take down in which order they are asked."""

    branch: Branch = OLD
    steps: list[str] = field(default_factory=list)
    kept: list[Outcome] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    studio: list[str | ListenerError] = field(default_factory=list)
    """What Studio says each time; nothing more is said after that."""
    store: list[ListenerError] = field(default_factory=list)
    """What the store says instead of keeping."""
    stop_at: str = ""
    """The step in the middle of which a cancel comes."""
    touched: float = NOW - 60

    async def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.stop_at:
            await asyncio.Event().wait()

    async def observe(self, *, counting: bool = False, target: str = "") -> Observation:
        await self.step("look")
        return Observation(
            LIVE, self.branch, "", bare=False, worktree="", now=NOW, times={"index": self.touched}
        )

    async def apply(self, plan: Plan, observation: Observation, signing: Signing) -> Applied:
        await self.step("move")
        self.branch = LIVE
        return Applied(changed=False, live=LIVE, branch=LIVE)

    async def expire(self, before: str) -> int:
        raise NotImplementedError

    async def check(self, site: str) -> str:
        await self.step("ask Studio")
        said = self.studio.pop(0) if self.studio else ""
        if isinstance(said, ListenerError):
            raise said
        return said

    async def keep(self) -> None:
        await self.step("keep")
        if self.store:
            raise self.store.pop(0)
        self.kept.append(self.progress.outcome())

    def of(self, leg: Leg, notes: object) -> "Bench":
        return self

    async def survey(self, legs: Sequence[Leg], notes: object) -> list[Observation | SyncError]:
        raise NotImplementedError

    async def present(self, *_: object) -> list[str]:
        raise NotImplementedError

    def note(self, event: str, level: str = "info", **facts: Any) -> None:
        """Take down nothing."""

    async def sync(self, environment: Environment | None = None) -> None:
        synchronizer = Synchronizer(self, quiet=QUIET, patience=PATIENCE, studio=self)
        await synchronizer.sync(environment or environment_of(OWN), RUN, self, self.progress, self.keep)


async def test_studio_is_asked_after_the_move_is_durable_and_directly_before_it() -> None:
    bench = Bench()
    await bench.sync()
    assert bench.steps == ["look", "keep", "ask Studio", "move"]
    assert bench.kept[0].moved, "a listener that is killed now must not forget it"
    assert only(bench.progress).state is LegState.MADE_EQUAL


async def test_studio_is_not_asked_about_a_repository_that_is_not_live_s_own() -> None:
    bench = Bench()
    await bench.sync(environment_of(RepositoryAddress("eu1", "/srv/mysite.git"), source=OWN))
    assert bench.steps == ["look", "keep", "move"]


STOPS: dict[str, tuple[Bench, type[ListenerError]]] = {
    "Studio publishes": (Bench(studio=["Studio is publishing"]), BusyError),
    "Studio is silent": (Bench(studio=[StudioUnavailableError()]), StudioUnavailableError),
    "the store has given the run to another": (Bench(store=[FencedError()]), FencedError),
    "a host is lost": (Bench(studio=[HostUnreachableError()]), HostUnreachableError),
}


@pytest.mark.parametrize("stop", STOPS)
async def test_a_run_that_is_stopped_before_its_move_does_not_look_as_if_it_may_have_moved(stop: str) -> None:
    bench, error = STOPS[stop]
    with pytest.raises(error):
        await bench.sync()
    assert "move" not in bench.steps
    assert bench.branch == OLD
    outcome = bench.progress.outcome()
    assert not outcome.moved
    assert only(bench.progress).state is LegState.WAITING


@pytest.mark.parametrize("step", ["look", "keep", "ask Studio"])
async def test_a_cancel_before_the_move_leaves_no_doubt(step: str) -> None:
    bench = Bench(stop_at=step)
    running = asyncio.create_task(bench.sync())
    while step not in bench.steps:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not bench.progress.outcome().moved


async def test_a_run_that_waited_for_studio_moves_when_studio_is_done() -> None:
    bench = Bench(studio=["Studio is publishing", "Studio is publishing"])
    for _ in range(2):
        with pytest.raises(BusyError):
            await bench.sync()
    await bench.sync()
    assert only(bench.progress).state is LegState.MADE_EQUAL
    assert bench.branch == LIVE


async def test_what_may_be_under_way_from_before_stays_in_doubt_when_studio_is_busy() -> None:
    bench = Bench(studio=["Studio is publishing"])
    leg = environment_of(OWN).legs[0]
    bench.progress[leg] = bench.progress[leg].__class__(
        *leg.key, plan="forward-commit", state=LegState.SENT, old=OLD.commit, new=OLD.commit
    )
    with pytest.raises(BusyError):
        await bench.sync()
    assert only(bench.progress).state is LegState.DOUBTED
    assert bench.progress.outcome().moved
