"""One run's way from a look at the repositories to branches that are equal to live.

Observe, decide, apply, confirm: two round trips where something moves, one where nothing does. Live may
move while a run goes, and a connection may be lost in the middle of a step: the answer is to look again.
An environment on several repositories has a leg on each; they go side by side, and what fails on one does not
stop the others. A rollback goes the same way, to where an earlier run had found the branches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from listener.errors import (
    BranchMovedError,
    BusyError,
    ConnectionLostError,
    HandedBackError,
    LegsFailedError,
    OnHoldError,
    PushRefusedError,
    SyncError,
    UnknownTargetError,
)
from listener.observations import Branch, Observation
from listener.plans import (
    MOVING,
    Applied,
    Notes,
    Plan,
    PlanKind,
    Repositories,
    Repository,
    Signing,
    decide,
    equal,
    undo,
    undone,
)
from listener.progress import LegProgress, Progress, commit_of
from listener.runs import LegOutcome, Run
from listener.sites import Environment, Leg

ROUNDS = 3
"""How often a run looks and applies before it gives up to a branch that keeps moving."""

LOOK_AFTER_CANCEL = 10.0
"""Seconds that a cancelled run may take to learn whether its branch has moved."""

STUDIO_AGAIN = 2.0
"""Seconds after which a Studio that publishes is asked again."""


class Studio(Protocol):
    """CrafterCMS Studio, which publishes into live's own repository."""

    async def check(self, site: str) -> str:
        """Return why nothing may be moved there now; empty if it may. Raise `SyncError`."""


Keep = Callable[[], Awaitable[None]]
"""Makes what a run's progress says durable."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one leg stands and what a run would do, or why that can't be told."""

    leg: Leg
    observation: Observation | None = None
    plan: Plan | None = None
    error: SyncError | None = None


@dataclass(frozen=True, slots=True)
class _Way:
    """How one leg goes: what is compared to what, when it may, and when it is there."""

    leg: Leg
    repository: Repository
    signing: Signing
    progress: LegProgress
    notes: Notes
    held_live: str
    """The commit of live at which an earlier rollback holds the environment; empty if none does."""
    back: LegOutcome | None = None
    """What a rollback takes back; None for a sync."""

    async def observe(self) -> Observation:
        return await self.repository.observe(target=self.back.old if self.back else "")

    def decide(self, observation: Observation, quiet: float, patience: float) -> Plan:
        if self.back is not None:
            return undo(self.leg, observation, self.back.new, quiet=quiet, patience=patience)
        return decide(self.leg, observation, quiet=quiet, patience=patience)

    def there(self, observation: Observation, applied: Applied) -> bool:
        if self.back is not None:
            return undone(self.leg, applied.branch, observation.target)
        return equal(self.leg, applied.live, applied.branch)


class Synchronizer:
    """Makes environments equal to live, and takes that back."""

    def __init__(
        self, repositories: Repositories, *, quiet: float, patience: float, studio: Studio | None = None
    ) -> None:
        self._repositories = repositories
        self._quiet = quiet
        self._patience = patience
        self._studio = studio

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
        ways = [self._way(leg, run, notes, progress) for leg in environment.legs]
        for _ in range(ROUNDS):
            await self._go(ways, notes, progress, keep)
            if len({way.progress.live for way in ways}) == 1:
                return
            # Live moved while the legs were being looked at, one after the other.
            for way in ways:
                way.progress.done = False
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
        legs = {leg.key: leg for leg in environment.legs}
        ways = []
        for key, back in _undoable(environment, undone_run).items():
            if key not in legs:
                raise UnknownTargetError(f"{back.repository} does not carry the environment any more.")
            ways.append(self._way(legs[key], run, notes, progress, back))
        await self._go(ways, notes, progress, keep)

    def _way(
        self, leg: Leg, run: Run, notes: Notes, progress: Progress, back: LegOutcome | None = None
    ) -> _Way:
        signing = Signing(run.id, int(run.created_at))
        repository = self._repositories.of(leg, notes)
        held = run.held_live if back is None else ""
        return _Way(leg, repository, signing, progress.leg(leg), notes, held, back)

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
        if back is not None:
            plan = undo(leg, seen, back.new, quiet=self._quiet, patience=self._patience)
        else:
            plan = decide(leg, seen, quiet=self._quiet, patience=self._patience)
        return Look(leg, seen, plan)

    async def _go(self, ways: Sequence[_Way], notes: Notes, progress: Progress, keep: Keep) -> None:
        """Go all ways that are not done, side by side; raise what failed."""
        waiting = [way for way in ways if not way.progress.done]
        if len(ways) == 1:
            for way in waiting:
                await self._leg(way, progress, keep)
            return
        tasks = [
            asyncio.create_task(self._leg(replace(way, notes=_OfLeg(notes, way.leg)), progress, keep))
            for way in waiting
        ]
        errors = await _all(tasks, progress)
        for way, error in zip(waiting, errors, strict=True):
            way.progress.error = error
        failed = [(way, error) for way, error in zip(waiting, errors, strict=True) if error is not None]
        if failed and all(isinstance(error, OnHoldError) for _, error in failed):
            raise failed[0][1]
        if failed:
            told = "; ".join(f"{way.leg}: {error.code}: {error.message}" for way, error in failed)
            message = f"{len(failed)} of {len(ways)} repositories failed: {told}"
            raise LegsFailedError(message, [error for _, error in failed])

    async def _leg(self, way: _Way, progress: Progress, keep: Keep) -> None:
        for last in (False,) * (ROUNDS - 1) + (True,):
            try:
                if await self._round(way, progress, keep):
                    way.progress.done = True
                    return
            except ConnectionLostError as error:
                if last:
                    raise
                way.notes.note("look again", level="warning", reason=error.message)
        raise BranchMovedError(f"The branches moved {ROUNDS} times while they were being made equal.")

    async def _round(self, way: _Way, progress: Progress, keep: Keep) -> bool:
        """Look once and act once; return whether the leg is where it should be now."""
        with progress.timed("observe"):
            observation = await way.observe()
        plan = way.decide(observation, self._quiet, self._patience)
        way.progress.looked(observation, plan)
        progress.warn(*plan.warnings)
        way.notes.note("observe", **_observed(observation))
        way.notes.note("plan", **_planned(plan, observation))
        if way.held_live and way.held_live == commit_of(observation.live):
            raise OnHoldError("A rollback holds the environment until live moves or somebody syncs it.")
        _proceed(plan)
        if plan.kind is PlanKind.UP_TO_DATE:
            return True
        await self._ask_studio(way.leg, observation, progress)
        way.progress.uncertain = True
        await _kept(way.progress, progress, keep)
        try:
            with progress.timed("apply"):
                applied = await self._apply(way, plan, observation)
        except PushRefusedError:
            way.progress.uncertain = False
            raise
        way.progress.applied(applied)
        way.notes.note("apply", **_done(applied))
        if applied.busy:
            raise BusyError(f"Studio holds {applied.busy}.", again_in=max(self._quiet, 0.5))
        return not applied.changed and _confirmed(way, observation, applied)

    async def _ask_studio(self, leg: Leg, observation: Observation, progress: Progress) -> None:
        """Raise unless Studio, where it is configured, lets its own repository be moved.

        A publish that crashed may leave Studio saying for ever that it publishes: after `patience` without a
        touch, that is taken for what it is.
        """
        if self._studio is None or not leg.own:
            return
        with progress.timed("studio"):
            reason = await self._studio.check(leg.site)
        if not reason:
            return
        if not observation.touched or observation.idle < self._patience:
            raise BusyError(reason, again_in=STUDIO_AGAIN)
        progress.warn(f"{reason}, and nothing has touched the repository for {observation.idle:.0f} s")

    async def _apply(self, way: _Way, plan: Plan, observation: Observation) -> Applied:
        """Apply a plan. A cancel in the middle of it counts only if the branch has not moved."""
        try:
            return await way.repository.apply(plan, observation, way.signing)
        except asyncio.CancelledError as cancel:
            task = asyncio.current_task()
            if task is None or await _stayed(way.repository, observation):
                raise
            task.uncancel()
            raise ConnectionLostError("A cancel came when the branch may have moved already.") from cancel


def _undoable(environment: Environment, run: Run) -> dict[tuple[str, str], LegOutcome]:
    """Return by key what a run did. An old one that names no repository had the only one that there was."""
    legs = run.outcome.undoable if run.outcome else ()
    return {leg.key if leg.repository else environment.legs[0].key: leg for leg in legs}


class _OfLeg:
    """Notes of one leg among several: each says of which."""

    def __init__(self, notes: Notes, leg: Leg) -> None:
        self._notes = notes
        self._leg = leg

    def note(self, event: str, level: str = "info", **facts: Any) -> None:
        self._notes.note(event, level, repository=str(self._leg), **facts)


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


async def _kept(leg: LegProgress, progress: Progress, keep: Keep) -> None:
    """Make durable what is about to move: a listener that is killed meanwhile must not forget it."""
    try:
        with progress.timed("keep"):
            await keep()
    except BaseException:
        leg.uncertain = leg.doubted
        raise


async def _stayed(repository: Repository, before: Observation) -> bool:
    """Return whether the branch is known to be where it was."""
    try:
        async with asyncio.timeout(LOOK_AFTER_CANCEL):
            now = await asyncio.shield(repository.observe())
    except (SyncError, TimeoutError):
        return False
    return commit_of(now.branch) == commit_of(before.branch)


def _confirmed(way: _Way, observation: Observation, applied: Applied) -> bool:
    there = way.there(observation, applied)
    goal: Branch | None = observation.target or applied.live
    fact = "live" if observation.target is None else "target"
    facts: dict[str, Any] = {"equal": there, fact: commit_of(goal), "branch": commit_of(applied.branch)}
    way.notes.note("confirm", **facts)
    return there


def _proceed(plan: Plan) -> None:
    """Raise what a plan that goes no further stands for."""
    if plan.kind is PlanKind.BUSY:
        raise BusyError(plan.reason, again_in=plan.again_in)
    if plan.refusal is not None:
        raise plan.refusal


def _observed(observation: Observation) -> dict[str, Any]:
    return {
        "live": commit_of(observation.live),
        "branch": commit_of(observation.branch),
        "head": observation.head,
        "idle": round(observation.idle, 3),
        "in_progress": dict(observation.in_progress),
        "locks": [
            name
            for name, held in (("index.lock", observation.index_lock), ("HEAD.lock", observation.head_lock))
            if held
        ],
    }


def _planned(plan: Plan, observation: Observation) -> dict[str, Any]:
    facts: dict[str, Any] = {"plan": plan.kind.value}
    if plan.reason:
        facts["reason"] = plan.reason
    if plan.warnings:
        facts |= {"level": "warning", "warnings": list(plan.warnings)}
    if observation.target is not None:
        facts["target"] = observation.target.commit
    drift = observation.drift
    if plan.kind in MOVING:
        facts |= {"added_count": drift.added.count, "changed_count": drift.changed.count}
        facts |= {"removed_count": drift.removed.count, "removed": list(drift.removed.listed)}
    return facts


def _done(applied: Applied) -> dict[str, Any]:
    if applied.busy:
        return {"result": "busy", "reason": f"Studio holds {applied.busy}"}
    if applied.changed:
        return {
            "result": "changed",
            "reason": "the repository changed since it was observed; nothing was moved",
        }
    facts: dict[str, Any] = {
        "result": "moved",
        "new": commit_of(applied.branch),
        "detached": applied.detached,
    }
    if applied.backup:
        facts["backup"] = applied.backup
    return facts
