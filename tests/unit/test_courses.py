"""Every course that a run may take over its legs, with all that can go wrong: what it tells is true.

The hosts are a model: a branch, live, and plans that were sent. The oracle is what really became of them.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from listener.errors import (
    ConnectionLostError,
    HandedBackError,
    ListenerError,
    OnHoldError,
    StepTimedOutError,
    SyncError,
)
from listener.observations import COMMITTER_EMAIL, Branch, Drift, Observation
from listener.outcomes import LegOutcome, Outcome
from listener.plans import Applied, Plan, PlanKind, PriorMove, Signing, equal
from listener.progress import Progress
from listener.runs import Run, State
from listener.sites import Environment, Leg, Policy, RepositoryAddress
from listener.store.rows import _outcome_of, outcome_text
from listener.sync import Synchronizer
from tests.legs import changed, environment_of

NOW = 1_000_000.0
RUN = Run("r", "mysite", "staging", State.RUNNING, 0.0, 0.0)
OWN, OTHER = RepositoryAddress("studio", "/srv/mysite"), RepositoryAddress("eu1", "/srv/mysite.git")
ATTEMPTS = 12

LATE = {"late": 0, "later": 1, "much later": 2}
FATES = ("done", "changed", "busy", "lost", "lost when done", "timed out", *LATE)
"""What becomes of a plan that is sent: some are carried out late, after so many more looks."""


@dataclass
class Carrier:
    """One repository that carries the branch."""

    world: "World"
    name: str
    fates: list[str]
    branch: Branch | None
    moves: list[tuple[str, str]] = field(default_factory=list)
    """The commits from and to which this run has really moved it."""
    pending: list[tuple[int, Branch | None, Branch]] = field(default_factory=list)
    """Plans whose replies are lost: after how many looks each comes through, from where, to where."""

    @property
    def tip(self) -> str:
        return self.branch.commit if self.branch else ""

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        await self.world.step(f"look {self.name}")
        due, self.pending = self.pending, [(n - 1, old, new) for n, old, new in self.pending if n > 0]
        for looks, old, new in due:
            if looks == 0:
                self.move(old, new)
        seen = replace(self.seen(), target=self.world.commits[target] if target else None)
        if prior is None:
            return seen
        return replace(seen, recognised=bool(self.moves), moved=Drift())

    def seen(self) -> Observation:
        """What a look finds now; only where one request may do all is what changes listed after a move."""
        at_once = self.world.at_once
        return Observation(
            self.world.live,
            self.branch,
            "",
            bare=False,
            worktree="",
            now=NOW,
            times={"index": NOW - 60},
            listed=not at_once,
            standing=f"branch {self.tip}" if at_once else "",
        )

    def move(self, old: Branch | None, new: Branch) -> bool:
        """Move the branch, if it still is where it was."""
        if self.branch != old:
            return False
        self.moves.append((old.commit if old else "", new.commit))
        self.branch = new
        return True

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        await self.world.step(f"move {self.name}")
        return await self.carry_out(plan, observation)

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        if not await may_move:
            return Applied(changed=True, seen=self.seen())
        await self.world.step(f"look and move {self.name}")
        seen = self.seen()
        if seen.standing != expected.standing or equal(self.world.leg, seen.live, seen.branch):
            return Applied(changed=True, seen=seen)
        done = await self.carry_out(Plan(PlanKind.FORWARD_COMMIT), seen)
        if done.changed or done.busy:
            return done
        return replace(done, seen=seen, kind=PlanKind.FORWARD_COMMIT, left=self.seen())

    async def carry_out(self, plan: Plan, observation: Observation) -> Applied:
        fate = self.fates.pop(0) if self.fates else "done"
        new = self.world.commit_for(plan, observation)
        if fate in LATE:
            self.pending.append((LATE[fate], observation.branch, new))
        self.world.live_moves()
        if fate == "lost" or fate in LATE:
            raise ConnectionLostError
        if fate == "timed out":
            raise StepTimedOutError
        if fate == "busy":
            return Applied(changed=False, busy="index.lock")
        if fate == "changed" or not self.move(observation.branch, new):
            return Applied(changed=True)
        await self.world.step(f"moved {self.name}")
        if fate == "lost when done":
            raise ConnectionLostError
        drift = None if observation.listed else Drift()
        return Applied(changed=False, live=self.world.live, branch=self.branch, drift=drift)

    async def expire(self, before: str) -> int:
        raise NotImplementedError


class World:
    """All repositories of an environment, and the run that makes them equal to live."""

    def __init__(
        self,
        environment: Environment,
        fates: Sequence[Sequence[str]],
        lives: Sequence[bool] = (),
        *,
        missing: bool = False,
        at_once: bool = False,
    ) -> None:
        self.environment = environment
        self.at_once = at_once
        """Whether one request may look and move, if all is as the last look has left it."""
        self.leg = environment.legs[0]
        self.synchronizer = Synchronizer(self, quiet=2.0, patience=900.0, studio=self)
        self.commits: dict[str, Branch] = {}
        self.lives = list(lives)
        """Whether live moves, each time that a plan is sent."""
        self.live = self._commit("live", "L0")
        old = None if missing else self._commit("old", "S")
        self.carriers = {
            leg: Carrier(self, str(leg), list(each), old)
            for leg, each in zip(environment.legs, fates, strict=True)
        }
        self.stop_at: int | None = None
        self.steps: list[str] = []
        self.stopped, self.released = asyncio.Event(), asyncio.Event()
        self.progress = Progress()
        self.outcome: Outcome | None = None
        self.held_live = ""
        self.undone: Run | None = None
        if at_once:
            self.synchronizer.judge(self.leg, self.carriers[self.leg].seen())

    def _commit(self, name: str, tree: str, email: str = "") -> Branch:
        commit = Branch(f"{name}{len(self.commits)}", tree, committer_email=email)
        self.commits[commit.commit] = commit
        return commit

    def commit_for(self, plan: Plan, observation: Observation) -> Branch:
        goal = observation.target or observation.live
        assert goal is not None
        if plan.kind is PlanKind.FORWARD_COMMIT:
            return self._commit("forward", goal.tree, COMMITTER_EMAIL)
        return goal

    def live_moves(self) -> None:
        if self.lives and self.lives.pop(0):
            self.live = self._commit("live", f"L{len(self.commits)}")

    async def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) - 1 == self.stop_at:
            self.stopped.set()
            await self.released.wait()

    # What a synchronizer and a worker ask for.

    def of(self, leg: Leg, notes: object) -> Carrier:
        return self.carriers[leg]

    async def survey(self, legs: Sequence[Leg], notes: object) -> list[Observation | SyncError]:
        raise NotImplementedError

    async def present(self, *_: object) -> list[str]:
        raise NotImplementedError

    async def check(self, site: str) -> str:
        await self.step("ask Studio")
        return ""

    async def keep(self) -> None:
        self.outcome = stored(self.progress.outcome())
        await self.step("keep")

    def note(self, event: str, level: str = "info", **facts: Any) -> None:
        """Take down nothing."""

    async def attempt(self) -> None:
        """Make one attempt, as a worker does; raise what ended it."""
        run = replace(RUN, outcome=self.outcome, held_live=self.held_live)
        self.progress = Progress.of(run)
        synchronizer = self.synchronizer
        try:
            if self.undone is None:
                await synchronizer.sync(self.environment, run, self, self.progress, self.keep)
            else:
                await synchronizer.roll_back(
                    self.environment, run, self.undone, self, self.progress, self.keep
                )
        finally:
            self.outcome = stored(self.progress.outcome())

    async def carried_out(self) -> Outcome:
        """Make attempts until one succeeds; check after each what is told so far."""
        for _ in range(ATTEMPTS):
            error: ListenerError | None = None
            try:
                await self.attempt()
            except SyncError as failed:
                error = failed
            assert error is None or not error.permanent
            self.check_nothing_denied()
            if error is None:
                assert self.outcome is not None
                return self.outcome
        raise AssertionError("the run comes to no end")

    # What is true.

    def check_nothing_denied(self) -> None:
        """Whatever has moved, or may, is told as such."""
        told = {leg.key: leg for leg in self.outcome.legs} if self.outcome else {}
        for leg, carrier in self.carriers.items():
            may_come = any(old == carrier.branch for _, old, _ in carrier.pending)
            if carrier.moves or may_come:
                assert told[leg.key].moved, (leg, carrier)

    def check_end(self, outcome: Outcome) -> None:
        """Every leg is equal to live, and each move is told with its beginning and its end."""
        told = {leg.key: leg for leg in outcome.legs}
        for leg, carrier in self.carriers.items():
            assert carrier.branch is not None
            if leg.policy is Policy.RESET:
                assert carrier.branch == self.live
            assert carrier.branch.tree == self.live.tree
            check_told(told[leg.key], carrier, self.live)


def check_told(told: LegOutcome, carrier: Carrier, goal: Branch) -> None:
    assert (told.done, told.listed) == (True, True)
    assert (told.new, told.live) == (carrier.tip, goal.commit)
    assert told.has_moved == told.moved == bool(carrier.moves), (told, carrier)
    if carrier.moves:
        assert told.old == carrier.moves[0][0], (told, carrier)
        assert told.plan in {PlanKind.FORWARD_COMMIT, PlanKind.RESET, PlanKind.CREATE}


def stored(outcome: Outcome) -> Outcome:
    """What is left of an outcome when a listener is started anew."""
    read = _outcome_of(outcome_text(outcome))
    assert read is not None
    return read


def one(policy: Policy = Policy.FORWARD) -> Environment:
    return changed(environment_of(OWN), policy=policy)


def two(policy: Policy = Policy.FORWARD) -> Environment:
    return changed(environment_of(OWN, OTHER), policy=policy)


def courses(length: int) -> Iterator[tuple[str, ...]]:
    return itertools.product(FATES, repeat=length)


@pytest.mark.parametrize(("length", "lives"), [(3, ()), (3, (True,)), (2, (False, True)), (3, (True, True))])
async def test_a_run_that_looks_and_moves_at_once_tells_what_it_did_whatever_becomes_of_that(
    length: int, lives: tuple[bool, ...]
) -> None:
    for fates in courses(length):
        world = World(one(), [fates], lives, at_once=True)
        world.check_end(await world.carried_out())
        assert world.steps[:3] == ["keep", "ask Studio", f"look and move {world.leg}"]


@pytest.mark.parametrize("missing", [False, True], ids=["moved", "made"])
@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
@pytest.mark.parametrize(("length", "lives"), [(2, ()), (2, (True,)), (2, (False, True)), (2, (True, True))])
async def test_a_run_tells_what_it_did_whatever_becomes_of_its_plans(
    policy: Policy, length: int, lives: tuple[bool, ...], *, missing: bool
) -> None:
    for fates in courses(length):
        world = World(one(policy), [fates], lives, missing=missing)
        world.check_end(await world.carried_out())


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
async def test_three_plans_in_a_row_may_go_wrong(policy: Policy) -> None:
    for fates in courses(3):
        world = World(one(policy), [fates])
        world.check_end(await world.carried_out())


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
@pytest.mark.parametrize("lives", [(), (True,), (False, True)])
async def test_several_legs_are_told_each_by_what_became_of_its_own_plans(
    policy: Policy, lives: tuple[bool, ...]
) -> None:
    for first, second in itertools.product(courses(1), courses(1)):
        world = World(two(policy), [first, second], lives)
        world.check_end(await world.carried_out())


async def cancelled(world: World, *, drained: bool) -> bool:
    """Cancel an attempt in the middle of a step, as a person or a stop of the listener does.

    Returns whether the run ends by it.
    """
    attempt = asyncio.create_task(world.attempt())
    stopping = asyncio.create_task(world.stopped.wait())
    await asyncio.wait([attempt, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if drained or not world.progress.moved:
        world.progress.cancelled = not drained
        attempt.cancel()
    world.released.set()
    try:
        await attempt
    except asyncio.CancelledError:
        return not drained
    except SyncError:
        return False
    return False


@pytest.mark.parametrize("drained", [False, True], ids=["by a person", "by a stop"])
@pytest.mark.parametrize(
    ("environment", "at_once"),
    [(one(), False), (one(), True), (two(), False), (two(Policy.RESET), False)],
    ids=["one", "one at once", "two", "two by reset"],
)
async def test_a_cancel_in_any_step_leaves_nothing_untold(
    environment: Environment, *, at_once: bool, drained: bool
) -> None:
    for fates in courses(1):
        for stop_at in range(20):
            world = World(environment, [fates, ("done",)][: len(environment.legs)], at_once=at_once)
            world.stop_at = stop_at
            over = await cancelled(world, drained=drained)
            world.check_nothing_denied()
            if over:
                assert not any(leg.has_moved for leg in world.progress.legs.values()), "it was refused"
                assert not any(carrier.moves for carrier in world.carriers.values())
                continue
            world.stop_at = None
            world.check_end(await world.carried_out())


@pytest.mark.parametrize(
    ("environment", "at_once"),
    [(one(), False), (one(), True), (two(), False)],
    ids=["one", "one at once", "two"],
)
async def test_a_listener_that_is_killed_in_any_step_knows_at_its_next_start_what_may_have_moved(
    environment: Environment, *, at_once: bool
) -> None:
    for fates in courses(1):
        for stop_at in range(20):
            world = World(environment, [fates, ("done",)][: len(environment.legs)], at_once=at_once)
            world.stop_at = stop_at
            attempt = asyncio.create_task(world.attempt())
            stopping = asyncio.create_task(world.stopped.wait())
            await asyncio.wait([attempt, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            durable = world.outcome
            killed = not attempt.done()
            world.stop_at = None
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            if killed:
                world.outcome = durable
            world.check_nothing_denied()
            world.check_end(await world.carried_out())


@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
@pytest.mark.parametrize("environment", [one(), two()], ids=["one", "two"])
async def test_a_rollback_goes_back_whatever_becomes_of_its_plans(
    environment: Environment, policy: Policy
) -> None:
    environment = changed(environment, policy=policy) if len(environment.legs) == 1 else two(policy)
    for fates in courses(2):
        world = World(environment, [("done",) for _ in environment.legs])
        before = {leg: carrier.branch for leg, carrier in world.carriers.items()}
        done = await world.carried_out()
        world.undone = replace(RUN, id="u", outcome=done, state=State.SUCCEEDED)
        world.outcome = None
        for carrier in world.carriers.values():
            carrier.fates, carrier.moves = list(fates), []
        back = await world.carried_out()
        told = {leg.key: leg for leg in back.legs}
        for leg, carrier in world.carriers.items():
            goal = before[leg]
            assert goal is not None
            assert carrier.branch is not None
            assert carrier.branch.tree == goal.tree
            check_told(told[leg.key], carrier, goal)


async def test_a_hold_of_a_rollback_stops_every_leg_and_is_no_failure() -> None:
    world = World(two(), [(), ()])
    world.held_live = world.live.commit
    with pytest.raises(OnHoldError):
        await world.attempt()
    assert not any(carrier.moves for carrier in world.carriers.values())
    assert world.outcome is not None
    assert not world.outcome.moved


def test_an_attempt_that_is_handed_back_is_looked_at_again() -> None:
    assert Progress().outcome(HandedBackError()).waits
