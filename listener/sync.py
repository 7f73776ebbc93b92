"""One run's way from a look at the repository to a branch that is equal to live.

Observe, decide, apply, confirm: two round trips where something moves, one where nothing does. Live may
move while a run goes, and a connection may be lost in the middle of a step: the answer is to look again.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from listener.errors import BranchMovedError, BusyError, ConnectionLostError, ListenerError, SyncError
from listener.plans import (
    COMMITTER_EMAIL,
    MOVING,
    Applied,
    Branch,
    Notes,
    Observation,
    Paths,
    Plan,
    PlanKind,
    Repositories,
    Repository,
    Signing,
    decide,
    equal,
)
from listener.runs import Outcome, Run
from listener.sites import Environment

ROUNDS = 3
"""How often a run looks and applies before it gives up to a branch that keeps moving."""

LOOK_AFTER_CANCEL = 10.0
"""Seconds that a cancelled run may take to learn whether its branch has moved."""


@dataclass(slots=True)
class Progress:
    """What a run's current attempt has done so far."""

    moved: bool = False
    """Whether the branch has moved: from here on the run can't be cancelled."""
    uncertain: bool = False
    """Whether a plan was sent and its result is not known."""
    plan: str = ""
    live: str = ""
    old: str = ""
    new: str = ""
    backup: str = ""
    removed_count: int = 0
    removed: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Progress":
        """Return where a run stands: an earlier attempt may have moved the branch already."""
        before = run.outcome
        if before is None or not before.moved:
            return cls()
        moved = before.new != before.old
        return cls(
            moved=moved,
            uncertain=not moved,
            live=before.live,
            plan=before.plan,
            old=before.old,
            new=before.new,
            backup=before.backup,
            removed_count=before.removed_count,
            removed=before.removed,
            warnings=list(before.warnings),
        )

    def outcome(self, error: ListenerError | None = None) -> Outcome:
        """Return what to keep of the attempt, with the error that ended it."""
        return Outcome(
            plan=self.plan,
            moved=self.moved or self.uncertain,
            live=self.live,
            old=self.old,
            new=self.new,
            backup=self.backup,
            removed_count=self.removed_count,
            removed=self.removed,
            warnings=tuple(self.warnings),
            error=error.code if error else "",
            message=error.message if error else "",
            remedy=error.remedy if error else "",
            durations={step: round(seconds, 4) for step, seconds in self.durations.items()},
        )

    def looked(self, observation: Observation, plan: Plan) -> None:
        """Take in what was observed and decided."""
        planned_for, self.live = self.live, _commit(observation.live)
        for warning in plan.warnings:
            if warning not in self.warnings:
                self.warnings.append(warning)
        tip = _commit(observation.branch)
        if self.uncertain:
            self.uncertain = False
            self.moved = self.moved or (tip != self.old and _is_ours(observation.branch, planned_for))
        if self.moved:
            # An earlier round moved the branch: its plan and where it started from stay.
            self.new = tip
        else:
            self.plan, self.old, self.new = plan.kind.value, tip, tip
            removed = observation.drift.removed if plan.kind in MOVING else Paths()
            self.removed_count, self.removed = removed.count, removed.listed

    def applied(self, applied: Applied) -> None:
        """Take in what was read back after applying."""
        self.uncertain = False
        if not (applied.changed or applied.busy):
            self.moved = True
            self.new = _commit(applied.branch)
            self.backup = self.backup or applied.backup

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to the duration of `step`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.durations[step] = self.durations.get(step, 0.0) + time.monotonic() - started


class Synchronizer:
    """Makes environments equal to live."""

    def __init__(self, repositories: Repositories, *, quiet: float, patience: float) -> None:
        self._repositories = repositories
        self._quiet = quiet
        self._patience = patience

    async def look(self, environment: Environment, notes: Notes) -> tuple[Observation, Plan]:
        """Return how the repository stands and what a run would do now; move nothing."""
        repository = self._repositories.at(environment.repository, notes)
        observation = await repository.observe(environment, counting=True)
        return observation, self._decide(environment, observation)

    async def survey(
        self, environments: Sequence[Environment], notes: Notes
    ) -> list[tuple[Observation, Plan] | SyncError]:
        """Return the same for many environments, or why it can't be told for one; raise nothing."""
        seen = await self._repositories.survey(environments, notes)
        return [
            each if isinstance(each, SyncError) else (each, self._decide(environment, each))
            for environment, each in zip(environments, seen, strict=True)
        ]

    async def sync(self, environment: Environment, run: Run, notes: Notes, progress: Progress) -> None:
        """Make the environment equal to live; raise `SyncError` if it can't be done now, or at all."""
        repository = self._repositories.at(environment.repository, notes)
        signing = Signing(run.id, int(run.created_at))
        for last in (False,) * (ROUNDS - 1) + (True,):
            try:
                if await self._round(environment, repository, signing, notes, progress):
                    return
            except ConnectionLostError as error:
                if last:
                    raise
                notes.note("look again", level="warning", reason=error.message)
        raise BranchMovedError(f"The branches moved {ROUNDS} times while they were being made equal.")

    async def _round(
        self,
        environment: Environment,
        repository: Repository,
        signing: Signing,
        notes: Notes,
        progress: Progress,
    ) -> bool:
        """Look once and act once; return whether the environment is equal to live now."""
        with progress.timed("observe"):
            observation = await repository.observe(environment)
        plan = self._decide(environment, observation)
        progress.looked(observation, plan)
        notes.note("observe", **_observed(observation))
        notes.note("plan", **_planned(plan, observation))
        _proceed(plan)
        if plan.kind is PlanKind.UP_TO_DATE:
            return True
        progress.uncertain = True
        with progress.timed("apply"):
            applied = await self._apply(environment, repository, plan, observation, signing)
        progress.applied(applied)
        notes.note("apply", **_done(applied))
        if applied.busy:
            raise BusyError(f"Studio holds {applied.busy}.", again_in=max(self._quiet, 0.5))
        return not applied.changed and self._confirm(environment, applied, notes)

    def _decide(self, environment: Environment, observation: Observation) -> Plan:
        return decide(environment, observation, quiet=self._quiet, patience=self._patience)

    async def _apply(
        self,
        environment: Environment,
        repository: Repository,
        plan: Plan,
        observation: Observation,
        signing: Signing,
    ) -> Applied:
        """Apply a plan. A cancel in the middle of it counts only if the branch has not moved."""
        try:
            return await repository.apply(environment, plan, observation, signing)
        except asyncio.CancelledError as cancel:
            task = asyncio.current_task()
            if task is None or await _stayed(environment, repository, observation):
                raise
            task.uncancel()
            raise ConnectionLostError("A cancel came when the branch may have moved already.") from cancel

    def _confirm(self, environment: Environment, applied: Applied, notes: Notes) -> bool:
        same = equal(environment, applied.live, applied.branch)
        notes.note("confirm", equal=same, live=_commit(applied.live), branch=_commit(applied.branch))
        return same


def _is_ours(tip: Branch | None, planned_for: str) -> bool:
    """Return whether a plan whose result was lost seems to have put the branch where it is."""
    return tip is not None and (tip.commit == planned_for or tip.committer_email == COMMITTER_EMAIL)


async def _stayed(environment: Environment, repository: Repository, before: Observation) -> bool:
    """Return whether the branch is known to be where it was."""
    try:
        async with asyncio.timeout(LOOK_AFTER_CANCEL):
            now = await asyncio.shield(repository.observe(environment))
    except (SyncError, TimeoutError):
        return False
    return _commit(now.branch) == _commit(before.branch)


def _proceed(plan: Plan) -> None:
    """Raise what a plan that goes no further stands for."""
    if plan.kind is PlanKind.BUSY:
        raise BusyError(plan.reason, again_in=plan.again_in)
    if plan.refusal is not None:
        raise plan.refusal


def _commit(branch: Branch | None) -> str:
    return branch.commit if branch else ""


def _observed(observation: Observation) -> dict[str, Any]:
    return {
        "live": _commit(observation.live),
        "branch": _commit(observation.branch),
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
    facts: dict[str, Any] = {"result": "moved", "new": _commit(applied.branch), "detached": applied.detached}
    if applied.backup:
        facts["backup"] = applied.backup
    return facts
