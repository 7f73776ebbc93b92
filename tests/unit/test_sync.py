"""A leg's way, step by step: what is durable when, when Studio is asked, and what stops it in between."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from listener.errors import (
    BusyError,
    DivergedError,
    FencedError,
    HostUnreachableError,
    ListenerError,
    StudioUnavailableError,
    SyncError,
    UnexpectedMoveError,
)
from listener.expectations import Expectations
from listener.observations import Branch, Drift, Observation
from listener.outcomes import LegState, Outcome
from listener.plans import Applied, Plan, PlanKind, PriorMove, Signing
from listener.progress import Progress
from listener.runs import Run, State
from listener.sites import Environment, Leg, Policy, RepositoryAddress
from listener.sync import Synchronizer
from tests.legs import changed, environment_of, only

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
    standing: str = ""
    """What is as the last look has left it; empty where each move needs a look."""
    advanced: PlanKind = PlanKind.FORWARD_COMMIT
    """What the host does without a look."""
    synchronizer: Synchronizer = field(init=False)

    def __post_init__(self) -> None:
        self.synchronizer = Synchronizer(self, quiet=QUIET, patience=PATIENCE, studio=self)

    async def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.stop_at:
            await asyncio.Event().wait()

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        await self.step("look")
        return self.seen()

    def seen(self) -> Observation:
        return Observation(
            LIVE,
            self.branch,
            "",
            bare=False,
            worktree="",
            now=NOW,
            times={"index": self.touched},
            standing=self.standing,
        )

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        await self.step("move")
        self.branch = LIVE
        return Applied(changed=False, live=LIVE, branch=LIVE)

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        if not await may_move:
            return Applied(changed=True, seen=await self.observe())
        await self.step("look and move")
        seen = self.seen()
        self.branch = LIVE
        return Applied(changed=False, seen=seen, kind=self.advanced, live=LIVE, branch=LIVE, drift=Drift())

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
        await self.synchronizer.sync(environment or environment_of(OWN), RUN, self, self.progress, self.keep)


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


async def at_once(bench: Bench) -> Bench:
    """Let one look be made, after which a move needs none."""
    bench.standing = "as it was"
    await bench.synchronizer.look(environment_of(OWN), bench)
    bench.steps.clear()
    return bench


async def test_without_a_look_too_studio_is_asked_after_the_move_is_durable_and_directly_before_it() -> None:
    bench = await at_once(Bench())
    await bench.sync()
    assert bench.steps == ["keep", "ask Studio", "look and move"]
    (kept,) = bench.kept
    assert (kept.legs[0].old, kept.moved) == (OLD.commit, True)


async def test_where_studio_publishes_a_run_looks_before_it_waits() -> None:
    bench = await at_once(Bench(studio=["it publishes", "it publishes"]))
    with pytest.raises(BusyError, match="it publishes"):
        await bench.sync()
    assert bench.steps == ["keep", "ask Studio", "look", "keep", "ask Studio"]
    assert not bench.progress.outcome().moved
    bench.steps.clear()
    await bench.sync()
    assert bench.steps == ["look", "keep", "ask Studio", "move"]


@pytest.mark.parametrize("policy", [Policy.RESET, Policy.FAST_FORWARD])
async def test_only_the_policy_forward_moves_without_a_look(policy: Policy) -> None:
    bench = await at_once(Bench())
    with contextlib.suppress(DivergedError):
        await bench.sync(changed(environment_of(OWN), policy=policy))
    assert bench.steps[0] == "look"


@pytest.mark.parametrize(("advanced", "touched"), [("fast-forward", NOW - 60), ("forward-commit", NOW)])
async def test_a_move_that_is_not_what_is_decided_fails_its_run_and_the_next_run_looks(
    advanced: str, touched: float
) -> None:
    bench = await at_once(Bench(advanced=PlanKind(advanced), touched=touched))
    with pytest.raises(UnexpectedMoveError, match=f"has done {advanced}, but the plan is"):
        await bench.sync()
    assert bench.progress.outcome(UnexpectedMoveError()).moved
    bench.progress, bench.branch, bench.touched = Progress(), OLD, NOW - 60
    bench.steps.clear()
    await bench.sync()
    assert bench.steps == ["look", "keep", "ask Studio", "move"]


async def test_what_is_remembered_of_repositories_has_a_bound() -> None:
    expectations = Expectations(2)
    seen = replace(Bench(standing="x").seen(), live=None)
    legs = [replace(environment_of(OWN).legs[0], branch=name) for name in "abc"]
    for leg in legs:
        expectations.remember(leg, seen)
    assert [expectations.of(leg) is not None for leg in legs] == [False, True, True]
    expectations.remember(legs[1], replace(seen, branch=None))
    assert expectations.of(legs[1]) is None
