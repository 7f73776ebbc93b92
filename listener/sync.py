"""Makes an environment equal to live, on every repository that carries it.

Each repository is a leg (`listener.legs`). The legs run side by side, and one that fails does not stop the
others. A rollback works in the same way: it moves the branches back to where an earlier run had found them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from listener.advance import Advance, LateNotes
from listener.errors import (
    BranchMovedError,
    HandedBackError,
    LegsFailedError,
    OnHoldError,
    SyncError,
    UnknownTargetError,
)
from listener.expectations import Expectations
from listener.legs import ROUNDS, Keep, LegSync, Rules, Studio
from listener.looks import EnvironmentLook, LegLook
from listener.observations import Observation
from listener.outcomes import LegEvent, LegOutcome, Outcome
from listener.plans import Notes, Plan, Repositories, Signing
from listener.progress import Progress, before_advance, commit_of
from listener.runs import Run
from listener.sites import Environment, Leg, Policy
from listener.waits import Waits


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at one leg found, and the plan that a run would carry out; or the error of the look."""

    leg: Leg
    observation: Observation | None = None
    plan: Plan | None = None
    error: SyncError | None = None
    busy_since: float = 0.0
    """Since when it has been busy without a mark of a publish (`listener.plans.busy_since`)."""

    @property
    def found(self) -> LegLook:
        """What is stored and answered of it."""
        if self.observation is None or self.plan is None:
            return LegLook.failed(self.leg, self.error or SyncError())
        return LegLook.of(self.leg, self.observation, self.plan, self.busy_since)


def _never(_leg: Leg) -> float:
    return 0.0


class Synchronizer:
    """Makes environments equal to live, and rolls runs back."""

    def __init__(
        self, repositories: Repositories, *, quiet: float, patience: float, studio: Studio | None = None
    ) -> None:
        self._repositories = repositories
        self._rules = Rules(quiet, patience, studio)
        self.waits = Waits()
        self._expectations = Expectations()

    def intent(self, environment: Environment, run: Run) -> Outcome | None:
        """Return what the first attempt of a run will store before it moves anything; None if it looks first.

        It only reads: the store calls it in its own thread.
        """
        expected = self._expected(environment, run)
        if expected is None:
            return None
        return Outcome(legs=(before_advance(LegOutcome(*environment.legs[0].key), expected),))

    def begin(self, environment: Environment, run: Run) -> Advance | None:
        """Begin a first attempt while its claim is being committed. Nothing moves before `sync` says go."""
        expected = self._expected(environment, run)
        if expected is None:
            return None
        notes = LateNotes()
        repository = self._repositories.of(environment.legs[0], notes)
        return Advance(repository, expected, _signing(run), self._rules.quiet, notes)

    def _expected(self, environment: Environment, run: Run) -> Observation | None:
        leg = environment.legs[0]
        if run.undoes is not None or run.held_live or not _may_advance(leg, environment):
            return None
        return self._expectations.of(leg)

    async def look(self, environment: Environment, notes: Notes) -> list[Look]:
        """Look at each leg, and decide what a run would do now; move nothing and raise nothing."""
        return list(await asyncio.gather(*(self._look(leg, notes) for leg in environment.legs)))

    async def look_back(self, environment: Environment, run: Run, notes: Notes) -> list[Look]:
        """Look at each leg that a run moved, and decide what its rollback would do now; move nothing."""
        undoable = _undoable(environment, run)
        legs = [leg for leg in environment.legs if leg.key in undoable]
        return list(await asyncio.gather(*(self._look(leg, notes, undoable[leg.key]) for leg in legs)))

    def standing(self, leg: Leg) -> str:
        """Return the state that a move of the leg expects now; empty if a run has to look first."""
        expected = self._expectations.of(leg)
        return expected.standing if expected else ""

    def recall(self, environment: Environment, look: EnvironmentLook) -> None:
        """Let the next run expect what a stored look has found, unless something newer is known."""
        leg, seen = environment.legs[0], look.legs[0] if look.legs else None
        if seen is not None and seen.key == leg.key and _may_advance(leg, environment):
            self._expectations.recall(leg, seen)

    async def survey(
        self, environments: Sequence[Environment], notes: Notes, busy_since: Callable[[Leg], float] = _never
    ) -> list[list[Look]]:
        """Look at each leg of many environments; raise nothing.

        `busy_since` is what the last look found: since when a leg has been busy without a mark; 0 for never.
        """
        legs = [leg for environment in environments for leg in environment.legs]
        seen = dict(zip(legs, await self._repositories.survey(legs, notes), strict=True))
        return [
            [self.judge(leg, seen[leg], since=busy_since(leg)) for leg in environment.legs]
            for environment in environments
        ]

    async def live(self, environment: Environment, notes: Notes) -> str:
        """Return live's commit, empty if there is no live branch; raise `SyncError`."""
        observation = await self._repositories.of(environment.legs[0], notes).observe()
        return commit_of(observation.live)

    async def sync(
        self,
        environment: Environment,
        run: Run,
        notes: Notes,
        progress: Progress,
        keep: Keep,
        early: Advance | None = None,
    ) -> None:
        """Make the environment equal to live; raise `SyncError` if it can't be done now, or at all.

        `keep` is awaited before anything moves. `early` is what `begin` has begun.
        """
        if early is not None:
            early.notes.hand_to(notes)
        legs = [
            self._leg(leg, environment, run, notes, progress, keep, early=early) for leg in environment.legs
        ]
        for _ in range(ROUNDS):
            await _run(legs, progress)
            if len({leg.outcome.live for leg in legs}) == 1:
                return
            # Live moved while the legs were being looked at: they are equal to different commits.
            for leg in legs:
                leg.record(LegEvent.LIVE_MOVED)
        raise BranchMovedError(f"Live moved {ROUNDS} times while the repositories were being made equal.")

    async def roll_back(
        self,
        environment: Environment,
        run: Run,
        undone_run: Run,
        notes: Notes,
        progress: Progress,
        keep: Keep,
    ) -> None:
        """Move the branches back to where an earlier run found them; raise `SyncError` if it fails."""
        carried = {leg.key: leg for leg in environment.legs}
        legs = []
        for key, back in _undoable(environment, undone_run).items():
            if key not in carried:
                raise UnknownTargetError(f"{back.repository} does not carry the environment any more.")
            legs.append(self._leg(carried[key], environment, run, notes, progress, keep, back))
        await _run(legs, progress)

    def _leg(
        self,
        leg: Leg,
        environment: Environment,
        run: Run,
        notes: Notes,
        progress: Progress,
        keep: Keep,
        back: LegOutcome | None = None,
        early: Advance | None = None,
    ) -> LegSync:
        if len(environment.legs) > 1:
            notes = _LegNotes(notes, leg)
        return LegSync(
            leg,
            self._repositories.of(leg, notes),
            self._rules,
            _signing(run),
            progress,
            notes,
            keep,
            self.waits,
            held_live=run.held_live if back is None else "",
            back=back,
            expectations=self._expectations if _may_advance(leg, environment) else None,
            early=early,
        )

    async def _look(self, leg: Leg, notes: Notes, back: LegOutcome | None = None) -> Look:
        repository = self._repositories.of(leg, notes)
        try:
            seen: Observation | SyncError = await repository.observe(
                counting=True, target=back.old if back else ""
            )
        except SyncError as error:
            seen = error
        return self.judge(leg, seen, back)

    def judge(
        self,
        leg: Leg,
        seen: Observation | SyncError,
        back: LegOutcome | None = None,
        *,
        since: float = 0.0,
    ) -> Look:
        """Return what a run, or a rollback (`back`), would do about what was seen of a leg.

        `since` is when the last look first found it busy without a mark of a publish; 0 for never.
        """
        if isinstance(seen, SyncError):
            return Look(leg, error=seen)
        self._expectations.remember(leg, seen)
        plan, since = self._rules.decide(leg, seen, back, since=self.waits.since(leg) or since)
        return Look(leg, seen, plan, busy_since=since)


def _signing(run: Run) -> Signing:
    return Signing(run.id, int(run.created_at))


def _may_advance(leg: Leg, environment: Environment) -> bool:
    """Return whether a leg may be moved without a look, if it is as the last one has left it."""
    return len(environment.legs) == 1 and leg.own and leg.policy is Policy.FORWARD


async def _run(legs: Sequence[LegSync], progress: Progress) -> None:
    """Run all legs that are not done, side by side; raise `SyncError` if one fails."""
    waiting = [leg for leg in legs if not leg.outcome.done]
    if len(legs) == 1:
        for leg in waiting:
            await leg.run()
        return
    errors = await _wait_for_all([asyncio.create_task(leg.run()) for leg in waiting], progress)
    for leg, error in zip(waiting, errors, strict=True):
        progress[leg.leg] = leg.outcome.failed(error)
    failed = [(leg, error) for leg, error in zip(waiting, errors, strict=True) if error is not None]
    if failed and all(isinstance(error, OnHoldError) for _, error in failed):
        raise failed[0][1]
    if failed:
        reasons = "; ".join(f"{leg.leg}: {error.code}: {error.message}" for leg, error in failed)
        message = f"{len(failed)} of {len(legs)} repositories failed: {reasons}"
        raise LegsFailedError(message, [error for _, error in failed])


def _undoable(environment: Environment, run: Run) -> dict[tuple[str, str], LegOutcome]:
    """Return what a run did, by leg. An outcome of an old version that names no repository has one leg."""
    legs = run.outcome.undoable if run.outcome else ()
    return {leg.key if leg.repository else environment.legs[0].key: leg for leg in legs}


class _LegNotes:
    """Adds the repository to each event of one leg among several."""

    def __init__(self, notes: Notes, leg: Leg) -> None:
        self._notes = notes
        self._leg = leg

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        self._notes.note(event, level, repeated=repeated, repository=str(self._leg), **facts)


async def _wait_for_all(tasks: Sequence[asyncio.Task[None]], progress: Progress) -> list[SyncError | None]:
    """Wait for every leg and return its error, or None. A cancel is ignored if a branch has moved.

    No leg may go on without its run, even after several cancels: it would move a branch that nobody watches.
    """
    cancel = None
    while under_way := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(under_way)
        except asyncio.CancelledError as again:
            cancel = again
            for task in under_way:
                task.cancel()
    current = asyncio.current_task()
    if cancel is not None:
        if not progress.moved or current is None:
            raise cancel
        while current.uncancel():
            pass
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [_error(result) for result in results]


def _error(result: BaseException | None) -> SyncError | None:
    if result is None or isinstance(result, SyncError):
        return result
    if isinstance(result, asyncio.CancelledError):
        return HandedBackError()
    raise result
