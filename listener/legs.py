"""The sync of one leg: observe, decide, apply, confirm.

Live may move during a sync, and a connection may be lost in the middle of a step. In both cases the leg looks
again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from listener.advance import Advance
from listener.errors import (
    BranchMovedError,
    BusyError,
    ConnectionLostError,
    OnHoldError,
    PushRefusedError,
    SyncError,
    UnexpectedMoveError,
)
from listener.expectations import Expectations
from listener.observations import Branch, Drift, Observation
from listener.outcomes import LegEvent, LegOutcome, LegState
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
    drift_warnings,
    equal,
    overdue,
    undo,
    undone,
)
from listener.progress import (
    Progress,
    after_advance,
    after_apply,
    after_look,
    before_advance,
    before_send,
    commit_of,
    prior_move,
)
from listener.sites import Leg
from listener.waits import Waits

ROUNDS = 3
"""How often a run looks and applies before it fails because the branches keep moving."""

LOOK_AFTER_CANCEL = 10.0
"""Seconds that a cancelled run may take to find out whether its branch has moved."""

STUDIO_AGAIN = 2.0
"""Seconds until Studio is asked again while it publishes."""


class Studio(Protocol):
    """CrafterCMS Studio, which publishes into live's own repository."""

    async def check(self, site: str) -> str:
        """Return why no branch may be moved there now; empty if it may. Raise `SyncError`."""


Keep = Callable[[], Awaitable[None]]
"""Stores a run's progress durably."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a branch may be moved; times are seconds."""

    quiet: float
    patience: float
    studio: Studio | None = None

    def decide(
        self, leg: Leg, observation: Observation, back: LegOutcome | None = None, *, since: float
    ) -> tuple[Plan, float]:
        """Return the plan for a leg, and since when it has been busy without a mark of a publish.

        `back` is the outcome that a rollback takes back; None for a sync. `since` is the second result of the
        last look (`listener.plans.busy_since`).
        """
        if back is not None:
            plan = undo(leg, observation, back.new, quiet=self.quiet, patience=self.patience)
        else:
            plan = decide(leg, observation, quiet=self.quiet, patience=self.patience)
        since = busy_since(plan, observation.now, since)
        return overdue(plan, observation, since, self.patience), since


@dataclass(frozen=True, slots=True)
class LegSync:
    """The sync or rollback of one leg."""

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
    """The live commit at which an earlier rollback holds the environment; empty for no hold."""
    back: LegOutcome | None = None
    """The outcome that a rollback takes back; None for a sync."""
    expectations: Expectations | None = None
    """What the last looks have left; None if the leg must not be moved without a look."""
    early: Advance | None = None
    """A move without a separate look that began while the run was being claimed."""

    async def run(self) -> None:
        """Look and move until the branch is where it should be; raise `SyncError` if that can't be done."""
        for last in (False,) * (ROUNDS - 1) + (True,):
            try:
                if await self._uncancelled_round() and prior_move(self.outcome, self.signing.run) is None:
                    self.record(LegEvent.EQUAL)
                    return
            except ConnectionLostError as error:
                if last:
                    raise
                self.notes.note("look again", level="warning", reason=error.message)
        raise BranchMovedError(f"The branches moved {ROUNDS} times while they were being made equal.")

    async def _uncancelled_round(self) -> bool:
        """Go one round. While a plan's result is unknown, a person's cancel counts only if nothing has moved.

        Otherwise a run whose reply was lost would end as cancelled although it has moved its branch. A stop
        of the listener does not wait for that: the run goes back with its doubt, and its next attempt looks.
        """
        try:
            return await self._round()
        except asyncio.CancelledError as cancel:
            task = asyncio.current_task()
            undecided = self.progress.cancelled and self.outcome.in_doubt
            if task is None or not undecided or await self._stayed():
                raise
            task.uncancel()
            raise ConnectionLostError("A cancel came when the branch may have moved already.") from cancel

    async def _stayed(self) -> bool:
        """Return whether the branch is known to be where it was."""
        try:
            async with asyncio.timeout(LOOK_AFTER_CANCEL):
                now = await self.repository.observe()
        except (SyncError, TimeoutError):
            return False
        return commit_of(now.branch) == self.outcome.old

    @property
    def outcome(self) -> LegOutcome:
        """What was done to the leg so far."""
        return self.progress[self.leg]

    def record(self, event: LegEvent) -> None:
        """Record an event of the leg."""
        self.progress[self.leg] = self.outcome.after(event)

    async def _round(self) -> bool:
        """Look once and move once; return whether the branch is where it should be now.

        One request does both if the repository is as the last look or run has left it.
        """
        advance = self._begun()
        done = None if advance is None else await self._advance(advance)
        if done is not None and done.seen is not None and done.kind is not None:
            return self._judged(done, done.seen, done.kind)
        observation = await self._observe() if done is None or done.seen is None else done.seen
        plan = self._decided(observation)
        if self.held_live and self.held_live == commit_of(observation.live):
            raise OnHoldError("A rollback holds the environment until live moves or somebody syncs it.")
        _raise_unless_movable(plan)
        if plan.kind is PlanKind.UP_TO_DATE:
            return True
        async with self._about_to_move(before_send(self.outcome, observation, plan)):
            await self._ask_studio(observation)
        done = await self._move(plan, observation)
        self.notes.note("apply", **_applied_facts(done))
        if done.busy:
            self._wait_for(f"Studio holds {done.busy}.", again_in=max(self.rules.quiet, 0.5))
        return not done.changed and self._confirmed(observation, done)

    async def _observe(self) -> Observation:
        with self.progress.timed("observe"):
            return await self.repository.observe(
                target=self.back.old if self.back else "", prior=prior_move(self.outcome, self.signing.run)
            )

    def _begun(self) -> Advance | None:
        """Return a move without a separate look, which has begun; None if there must be a look."""
        expected = self._expected()
        if self.early is not None and not self.early.spent:
            if expected is not None:
                return self.early
            self.early.withdraw()
        if expected is None:
            return None
        return Advance(self.repository, expected, self.signing, self.rules.quiet)

    def _expected(self) -> Observation | None:
        """Return what the repository should be like for a move without a look; None if there must be one.

        What an earlier request has done must be known first, and a Studio that was publishing is likely to be
        publishing still.
        """
        if self.expectations is None or self.held_live or self.back is not None:
            return None
        if self.outcome.state is not LegState.WAITING or self.outcome.wait.reason:
            return None
        return self.expectations.of(self.leg)

    async def _advance(self, advance: Advance) -> Applied:
        """Look and move in one request. If Studio is publishing, this is a look."""
        try:
            async with self._about_to_move(before_advance(self.outcome, advance.expected)):
                busy = await self._studio_says()
        except BaseException:
            advance.withdraw()
            raise
        if busy:
            self.record(LegEvent.NOT_CARRIED_OUT)
        with self.progress.timed("apply"):
            done = await advance.answer(may_move=not busy)
        if not busy:
            self._applied(done)
        return done

    def _judged(self, done: Applied, seen: Observation, kind: PlanKind) -> bool:
        """Return whether the branch is where it should be, after a move that the host has decided.

        Raises `UnexpectedMoveError` if `decide` makes another decision of what the host saw. The host has the
        same rules, written a second time: should they ever differ, that must happen only once.
        """
        plan, _ = self._decide(seen)
        self._log(seen, plan)
        self.progress[self.leg] = after_advance(self.outcome, seen, kind)
        self.notes.note("apply", **_applied_facts(done))
        if plan.kind is not kind or plan.stale:
            if self.expectations is not None:
                self.expectations.distrust(self.leg)
            raise UnexpectedMoveError(
                f"The host has done {kind}, but the plan is {plan.kind} {plan.reason}: it saw "
                f"{seen.standing!r}, live at {commit_of(seen.live)}, times {dict(seen.times)} at {seen.now}."
            )
        return self._confirmed(seen, done)

    async def _ask_studio(self, observation: Observation) -> None:
        """Raise `BusyError` if Studio, where it is configured, is publishing the site.

        After a publish that crashed, Studio may say for ever that it is publishing. So its word counts only
        until nobody has touched the repository for `patience`.
        """
        reason = await self._studio_says()
        if not reason:
            return
        if not observation.touched or observation.idle < self.rules.patience:
            self._wait_for(reason, again_in=STUDIO_AGAIN)
        self.progress.warn(f"{reason}, and nothing has touched the repository for {observation.idle:.0f} s")

    async def _studio_says(self) -> str:
        """Return why Studio, where it is configured, lets nothing be moved; empty if it does."""
        if self.rules.studio is None or not self.leg.own:
            return ""
        with self.progress.timed("studio"):
            return await self.rules.studio.check(self.leg.site)

    def _decided(self, observation: Observation) -> Plan:
        """Decide, and record the decision."""
        before = self.outcome.wait.seen
        plan, since = self._decide(observation)
        self._remember(observation)
        self.progress[self.leg] = after_look(self.outcome, observation, plan, since)
        self._log(observation, plan, repeated=before == self.outcome.wait.seen)
        return plan

    def _decide(self, observation: Observation) -> tuple[Plan, float]:
        """Return the decision, and since when the leg has been busy without a mark."""
        known = self.outcome.wait.since or self.waits.since(self.leg)
        plan, since = self.rules.decide(self.leg, observation, self.back, since=known)
        self.waits.found(self.leg, since, overdue=plan.overdue)
        self.progress.warn(*plan.warnings)
        return plan, since

    def _log(self, observation: Observation, plan: Plan, *, repeated: bool = False) -> None:
        """Log a decision; `repeated` if the last look found the same."""
        self.notes.note("observe", repeated=repeated, **_observation_facts(observation))
        self.notes.note("plan", repeated=repeated, **_plan_facts(plan, observation))

    def _remember(self, seen: Observation | None) -> None:
        if self.expectations is not None and seen is not None:
            self.expectations.remember(self.leg, seen)

    @contextlib.asynccontextmanager
    async def _about_to_move(self, outcome: LegOutcome) -> AsyncIterator[None]:
        """Store what is about to move; what is done inside comes after that and directly before the move.

        A listener that is killed after the move must find its old commit in the store. If something stops the
        leg before the plan is sent (Studio, a cancel, the store), it must not look as if it may have moved.
        """
        self.progress[self.leg] = outcome
        try:
            with self.progress.timed("keep"):
                await self.keep()
            yield
        except BaseException:
            self.record(LegEvent.NOT_CARRIED_OUT)
            raise

    def _wait_for(self, reason: str, again_in: float) -> NoReturn:
        """Raise `BusyError` for a reason that the look did not find."""
        self.progress[self.leg] = replace(self.outcome, wait=replace(self.outcome.wait, reason=reason))
        raise BusyError(reason, again_in=again_in)

    async def _move(self, plan: Plan, observation: Observation) -> Applied:
        """Send the plan and record its result."""
        try:
            with self.progress.timed("apply"):
                since = self.outcome.old if self.outcome.has_moved else ""
                done = await self.repository.apply(plan, observation, self.signing, since=since)
        except PushRefusedError:
            self.record(LegEvent.NOT_CARRIED_OUT)
            raise
        self._applied(done)
        return done

    def _applied(self, done: Applied) -> None:
        """Record the reply to a request that may have moved the branch."""
        self.progress[self.leg] = after_apply(self.outcome, done)
        self._remember(done.left)
        if done.drift is not None:
            self.progress.warn(*drift_warnings(done.drift))

    def _confirmed(self, observation: Observation, done: Applied) -> bool:
        """Return whether the branch is where it should be, by the result that was read back."""
        if self.back is not None:
            is_equal = undone(self.leg, done.branch, observation.target)
        else:
            is_equal = equal(self.leg, done.live, done.branch)
        goal: Branch | None = observation.target or done.live
        fact = "live" if observation.target is None else "target"
        facts: dict[str, Any] = {fact: commit_of(goal), "branch": commit_of(done.branch)}
        self.notes.note("confirm", equal=is_equal, **facts)
        return is_equal


def _raise_unless_movable(plan: Plan) -> None:
    """Raise the error of a busy or refusing plan."""
    if plan.kind is PlanKind.BUSY:
        raise BusyError(plan.reason, again_in=plan.again_in)
    if plan.refusal is not None:
        raise plan.refusal


def _observation_facts(observation: Observation) -> dict[str, Any]:
    return {
        "live": commit_of(observation.live),
        "branch": commit_of(observation.branch),
        "head": observation.head,
        "idle": round(observation.idle, 3),
        "in_progress": dict(observation.in_progress),
        "locks": list(observation.locks),
    }


def _plan_facts(plan: Plan, observation: Observation) -> dict[str, Any]:
    facts: dict[str, Any] = {"plan": plan.kind.value}
    if plan.reason:
        facts["reason"] = plan.reason
    if plan.warnings:
        facts |= {"level": "warning", "warnings": list(plan.warnings)}
    if observation.target is not None:
        facts["target"] = observation.target.commit
    if plan.kind in MOVING and observation.listed:
        facts |= _drift_facts(observation.drift)
    return facts


def _drift_facts(drift: Drift) -> dict[str, Any]:
    counts = {"added_count": drift.added.count, "changed_count": drift.changed.count}
    return {**counts, "removed_count": drift.removed.count, "removed": list(drift.removed.listed)}


def _applied_facts(done: Applied) -> dict[str, Any]:
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
    if done.drift is not None:
        facts |= _drift_facts(done.drift)
    return facts
