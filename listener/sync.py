"""One run's way to branches that are equal to live, on every repository that carries its environment.

Each repository is a leg (`listener.legs`), two round trips where something moves and one where nothing does.
They go side by side, and what fails on one does not stop the others. A rollback goes the same way, to where
an earlier run had found the branches.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from listener.errors import (
    BranchMovedError,
    HandedBackError,
    LegsFailedError,
    OnHoldError,
    SyncError,
    UnknownTargetError,
)
from listener.legs import ROUNDS, Keep, LegSync, Rules, Studio
from listener.observations import Observation
from listener.outcomes import LegEvent, LegOutcome
from listener.plans import Notes, Plan, Repositories, Signing
from listener.progress import Progress, commit_of
from listener.runs import Run
from listener.sites import Environment, Leg
from listener.waits import Waits


@dataclass(frozen=True, slots=True)
class Look:
    """How one leg stands and what a run would do, or why that can't be told."""

    leg: Leg
    observation: Observation | None = None
    plan: Plan | None = None
    error: SyncError | None = None


class Synchronizer:
    """Makes environments equal to live, and takes that back."""

    def __init__(
        self, repositories: Repositories, *, quiet: float, patience: float, studio: Studio | None = None
    ) -> None:
        self._repositories = repositories
        self._rules = Rules(quiet, patience, studio)
        self.waits = Waits()

    async def look(self, environment: Environment, notes: Notes) -> list[Look]:
        """Return how each leg stands and what a run would do now; move nothing and raise nothing."""
        return list(await asyncio.gather(*(self._look(leg, notes) for leg in environment.legs)))

    async def look_back(self, environment: Environment, run: Run, notes: Notes) -> list[Look]:
        """Return how each leg that a run moved stands, and what its rollback would do now; move nothing."""
        undoable = _undoable(environment, run)
        legs = [leg for leg in environment.legs if leg.key in undoable]
        return list(await asyncio.gather(*(self._look(leg, notes, undoable[leg.key]) for leg in legs)))

    async def survey(self, environments: Sequence[Environment], notes: Notes) -> list[list[Look]]:
        """Return for many environments how each leg stands; raise nothing."""
        legs = [leg for environment in environments for leg in environment.legs]
        seen = dict(zip(legs, await self._repositories.survey(legs, notes), strict=True))
        return [[self._told(leg, seen[leg]) for leg in environment.legs] for environment in environments]

    async def live(self, environment: Environment, notes: Notes) -> str:
        """Return the commit that live is at now, empty if there is none; raise `SyncError`."""
        observation = await self._repositories.of(environment.legs[0], notes).observe()
        return commit_of(observation.live)

    async def sync(
        self, environment: Environment, run: Run, notes: Notes, progress: Progress, keep: Keep
    ) -> None:
        """Make the environment equal to live; raise `SyncError` if it can't be done now, or at all.

        `keep` is awaited before anything moves.
        """
        legs = [self._leg(leg, environment, run, notes, progress, keep) for leg in environment.legs]
        for _ in range(ROUNDS):
            await _run(legs, progress)
            if len({leg.outcome.live for leg in legs}) == 1:
                return
            # Live moved while the legs were being looked at, one after the other.
            for leg in legs:
                leg.happened(LegEvent.LIVE_MOVED)
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
        """Take back what an earlier run did; raise `SyncError` if it can't be done now, or at all."""
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
    ) -> LegSync:
        if len(environment.legs) > 1:
            notes = _OfLeg(notes, leg)
        return LegSync(
            leg,
            self._repositories.of(leg, notes),
            self._rules,
            Signing(run.id, int(run.created_at)),
            progress,
            notes,
            keep,
            self.waits,
            held_live=run.held_live if back is None else "",
            back=back,
        )

    async def _look(self, leg: Leg, notes: Notes, back: LegOutcome | None = None) -> Look:
        repository = self._repositories.of(leg, notes)
        try:
            seen: Observation | SyncError = await repository.observe(
                counting=True, target=back.old if back else ""
            )
        except SyncError as error:
            seen = error
        return self._told(leg, seen, back)

    def _told(self, leg: Leg, seen: Observation | SyncError, back: LegOutcome | None = None) -> Look:
        if isinstance(seen, SyncError):
            return Look(leg, error=seen)
        plan, _ = self._rules.decide(leg, seen, back, since=self.waits.since(leg))
        return Look(leg, seen, plan)


async def _run(legs: Sequence[LegSync], progress: Progress) -> None:
    """Run all legs that are not done, side by side; raise what failed."""
    waiting = [leg for leg in legs if not leg.outcome.done]
    if len(legs) == 1:
        for leg in waiting:
            await leg.run()
        return
    errors = await _all([asyncio.create_task(leg.run()) for leg in waiting], progress)
    for leg, error in zip(waiting, errors, strict=True):
        progress[leg.leg] = leg.outcome.failed(error)
    failed = [(leg, error) for leg, error in zip(waiting, errors, strict=True) if error is not None]
    if failed and all(isinstance(error, OnHoldError) for _, error in failed):
        raise failed[0][1]
    if failed:
        told = "; ".join(f"{leg.leg}: {error.code}: {error.message}" for leg, error in failed)
        message = f"{len(failed)} of {len(legs)} repositories failed: {told}"
        raise LegsFailedError(message, [error for _, error in failed])


def _undoable(environment: Environment, run: Run) -> dict[tuple[str, str], LegOutcome]:
    """Return by key what a run did. An old one that names no repository had the only one that there was."""
    legs = run.outcome.undoable if run.outcome else ()
    return {leg.key if leg.repository else environment.legs[0].key: leg for leg in legs}


class _OfLeg:
    """Notes of one leg among several: each says of which."""

    def __init__(self, notes: Notes, leg: Leg) -> None:
        self._notes = notes
        self._leg = leg

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        self._notes.note(event, level, repeated=repeated, repository=str(self._leg), **facts)


async def _all(tasks: Sequence[asyncio.Task[None]], progress: Progress) -> list[SyncError | None]:
    """Wait for every leg and return how each ended; a cancel counts only if nothing has moved.

    However often that comes, no leg is left to itself.
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
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [_error(each) for each in ended]


def _error(ended: BaseException | None) -> SyncError | None:
    if ended is None or isinstance(ended, SyncError):
        return ended
    if isinstance(ended, asyncio.CancelledError):
        return HandedBackError()
    raise ended
