"""One leg's way: observe, decide, apply, confirm.

Live may move while a leg goes, and a connection may be lost in the middle of a step: the answer is to look
again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from listener.errors import (
    BranchMovedError,
    BusyError,
    ConnectionLostError,
    OnHoldError,
    PushRefusedError,
    SyncError,
)
from listener.observations import Branch, Observation
from listener.outcomes import LegEvent, LegOutcome
from listener.plans import (
    MOVING,
    Applied,
    Notes,
    Plan,
    PlanKind,
    Repository,
    Signing,
    busy_since,
    decide,
    equal,
    overdue,
    undo,
    undone,
)
from listener.progress import Progress, applied, commit_of, looked, sent
from listener.sites import Leg
from listener.waits import Waits

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
class Rules:
    """When a branch may be moved; times are seconds."""

    quiet: float
    patience: float
    studio: Studio | None = None

    def decide(
        self, leg: Leg, observation: Observation, back: LegOutcome | None = None, *, since: float
    ) -> tuple[Plan, float]:
        """Return the plan for a leg: of a sync, or of the rollback of what `back` tells.

        And since when it has been found busy without a mark of a publish, where `since` is what was known of
        that before (`listener.plans.busy_since`).
        """
        if back is not None:
            plan = undo(leg, observation, back.new, quiet=self.quiet, patience=self.patience)
        else:
            plan = decide(leg, observation, quiet=self.quiet, patience=self.patience)
        since = busy_since(plan, observation.now, since)
        return overdue(plan, observation, since, self.patience), since


@dataclass(frozen=True, slots=True)
class LegSync:
    """One leg's sync or rollback: what is compared to what, when it may move, and when it is there."""

    leg: Leg
    repository: Repository
    rules: Rules
    signing: Signing
    progress: Progress
    """The run's, of which the leg's is a part."""
    notes: Notes
    keep: Keep
    waits: Waits
    held_live: str = ""
    """The commit of live at which an earlier rollback holds the environment; empty if none does."""
    back: LegOutcome | None = None
    """What a rollback takes back; None for a sync."""

    async def run(self) -> None:
        """Look and move until the leg is where it should be; raise `SyncError` if that can't be done."""
        for last in (False,) * (ROUNDS - 1) + (True,):
            try:
                if await self._uncancelled_round():
                    self.happened(LegEvent.EQUAL)
                    return
            except ConnectionLostError as error:
                if last:
                    raise
                self.notes.note("look again", level="warning", reason=error.message)
        raise BranchMovedError(f"The branches moved {ROUNDS} times while they were being made equal.")

    async def _uncancelled_round(self) -> bool:
        """Go one round. A cancel that comes while a plan is in doubt counts only if the branch has not moved.

        Else a run whose reply was lost would end as cancelled although it has moved its branch.
        """
        try:
            return await self._round()
        except asyncio.CancelledError as cancel:
            task = asyncio.current_task()
            if task is None or not self.outcome.in_doubt or await self._stayed():
                raise
            task.uncancel()
            raise ConnectionLostError("A cancel came when the branch may have moved already.") from cancel

    async def _stayed(self) -> bool:
        """Return whether the branch is known to be where it was."""
        try:
            async with asyncio.timeout(LOOK_AFTER_CANCEL):
                now = await asyncio.shield(self.repository.observe())
        except (SyncError, TimeoutError):
            return False
        return commit_of(now.branch) == self.outcome.old

    @property
    def outcome(self) -> LegOutcome:
        """What was done to the leg so far."""
        return self.progress[self.leg]

    def happened(self, event: LegEvent) -> None:
        """Take down what has happened to the leg."""
        self.progress[self.leg] = self.outcome.after(event)

    async def _round(self) -> bool:
        """Look once and act once; return whether the leg is where it should be now."""
        with self.progress.timed("observe"):
            observation = await self.repository.observe(target=self.back.old if self.back else "")
        plan = self._decided(observation)
        self.progress.warn(*plan.warnings)
        if self.held_live and self.held_live == commit_of(observation.live):
            raise OnHoldError("A rollback holds the environment until live moves or somebody syncs it.")
        _proceed(plan)
        if plan.kind is PlanKind.UP_TO_DATE:
            return True
        await self._about_to_move(plan, observation)
        done = await self._move(plan, observation)
        self.notes.note("apply", **_done(done))
        if done.busy:
            self._wait_for(f"Studio holds {done.busy}.", again_in=max(self.rules.quiet, 0.5))
        return not done.changed and self._confirmed(observation, done)

    async def _ask_studio(self, observation: Observation) -> None:
        """Raise unless Studio, where it is configured, lets its own repository be moved.

        A publish that crashed may leave Studio saying for ever that it publishes: after `patience` without a
        touch, that is taken for what it is.
        """
        if self.rules.studio is None or not self.leg.own:
            return
        with self.progress.timed("studio"):
            reason = await self.rules.studio.check(self.leg.site)
        if not reason:
            return
        if not observation.touched or observation.idle < self.rules.patience:
            self._wait_for(reason, again_in=STUDIO_AGAIN)
        self.progress.warn(f"{reason}, and nothing has touched the repository for {observation.idle:.0f} s")

    def _decided(self, observation: Observation) -> Plan:
        """Decide what is to be done, and take it down; what the last look found is not said again."""
        known = self.outcome.wait.since or self.waits.since(self.leg)
        plan, since = self.rules.decide(self.leg, observation, self.back, since=known)
        self.waits.found(self.leg, since, overdue=plan.overdue)
        before = self.outcome.wait
        self.progress[self.leg] = looked(self.outcome, observation, plan, since)
        repeated = before.seen == self.outcome.wait.seen
        self.notes.note("observe", repeated=repeated, **_observed(observation))
        self.notes.note("plan", repeated=repeated, **_planned(plan, observation))
        return plan

    async def _about_to_move(self, plan: Plan, observation: Observation) -> None:
        """Make durable what is about to move, and then ask Studio: nothing lies between that and the move.

        A listener that is killed from here on must not forget it. Whatever stops the leg before anything is
        sent (Studio is busy, a cancel, the store) must not leave it looking as if it may have moved.
        """
        self.progress[self.leg] = sent(self.outcome, observation, plan)
        try:
            with self.progress.timed("keep"):
                await self.keep()
            await self._ask_studio(observation)
        except BaseException:
            self.happened(LegEvent.NOT_CARRIED_OUT)
            raise

    def _wait_for(self, reason: str, again_in: float) -> NoReturn:
        """Raise `BusyError`, for a reason that is not to be seen in the repository."""
        self.progress[self.leg] = replace(self.outcome, wait=replace(self.outcome.wait, reason=reason))
        raise BusyError(reason, again_in=again_in)

    async def _move(self, plan: Plan, observation: Observation) -> Applied:
        """Apply a plan."""
        try:
            with self.progress.timed("apply"):
                done = await self.repository.apply(plan, observation, self.signing)
        except PushRefusedError:
            self.happened(LegEvent.NOT_CARRIED_OUT)
            raise
        self.progress[self.leg] = applied(self.outcome, done)
        return done

    def _confirmed(self, observation: Observation, done: Applied) -> bool:
        """Return whether the branch is where it should be, by what was read back."""
        if self.back is not None:
            there = undone(self.leg, done.branch, observation.target)
        else:
            there = equal(self.leg, done.live, done.branch)
        goal: Branch | None = observation.target or done.live
        fact = "live" if observation.target is None else "target"
        facts: dict[str, Any] = {fact: commit_of(goal), "branch": commit_of(done.branch)}
        self.notes.note("confirm", equal=there, **facts)
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
        "locks": list(observation.locks),
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


def _done(done: Applied) -> dict[str, Any]:
    if done.busy:
        return {"result": "busy", "reason": f"Studio holds {done.busy}"}
    if done.changed:
        return {
            "result": "changed",
            "reason": "the repository changed since it was observed; nothing was moved",
        }
    facts: dict[str, Any] = {
        "result": "moved",
        "new": commit_of(done.branch),
        "detached": done.detached,
    }
    if done.backup:
        facts["backup"] = done.backup
    return facts
