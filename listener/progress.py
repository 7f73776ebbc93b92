"""What a run's attempt has done so far, leg by leg; the run's outcome is made from it."""

import contextlib
import hashlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from listener.errors import ListenerError
from listener.observations import COMMITTER_EMAIL, Branch, Drift, Observation, Paths
from listener.outcomes import LegEvent, LegOutcome, LegState, Outcome, Wait
from listener.plans import MOVING, Applied, Plan, PlanKind, PriorMove
from listener.runs import Run
from listener.sites import Leg

UNSEEN_LIVE = ""
"""Stands in `LegOutcome.sent_for` for the commit of a live that was not looked at."""


def resumed(before: LegOutcome) -> LegOutcome:
    """Return a leg at the start of a new attempt. An earlier attempt may have moved the branch already."""
    if before.moved or before.done:
        return before.failed(None)
    return LegOutcome(before.repository, before.branch, wait=before.wait)


def after_look(leg: LegOutcome, observation: Observation, plan: Plan, since: float = 0.0) -> LegOutcome:
    """Return a leg after a look and its decision.

    `since` is when it was first found busy without a mark (`listener.plans.busy_since`).
    """
    tip = commit_of(observation.branch)
    wait = Wait(_digest(observation, plan), since=since)
    leg = replace(leg.after(_seen(leg, observation, plan)), live=_goal(observation), new=tip, wait=wait)
    if leg.has_moved:
        leg = _changed(leg, observation.moved)
    if leg.has_moved and not leg.plan:
        made = observation.branch is not None and observation.branch.committer_email == COMMITTER_EMAIL
        leg = replace(leg, plan=(PlanKind.FORWARD_COMMIT if made else PlanKind.FAST_FORWARD).value)
    if leg.state is LegState.WAITING:
        return _planned(replace(leg, old=tip, sent_for=()), observation, plan)
    # The plan that was sent may have been carried out, or may still be: keep it, and where it started from.
    return leg


def before_send(leg: LegOutcome, observation: Observation, plan: Plan) -> LegOutcome:
    """Return a leg whose plan is about to be sent. Its result is unknown from here on."""
    leg = leg.after(LegEvent.SEND)
    if leg.state is LegState.MOVED:
        # What it has changed since it began is listed anew after this move.
        return replace(leg, listed=leg.listed and observation.listed)
    return _planned(replace(leg, sent_for=(*leg.sent_for, _goal(observation))), observation, plan)


def before_advance(leg: LegOutcome, expected: Observation) -> LegOutcome:
    """Return a leg that is about to be moved without a look: live, and so the plan, are not known yet."""
    old = commit_of(expected.branch)
    leg = replace(leg.after(LegEvent.SEND), plan="", live="", old=old, new=old, sent_for=(UNSEEN_LIVE,))
    return replace(leg, removed_count=0, removed=(), listed=False)


def after_advance(leg: LegOutcome, seen: Observation, kind: PlanKind) -> LegOutcome:
    """Return a leg that has moved without a look before, with what the host saw and did."""
    return replace(leg, live=_goal(seen), plan=kind.value, wait=Wait())


def after_apply(leg: LegOutcome, applied: Applied) -> LegOutcome:
    """Return a leg after the reply to its plan."""
    if applied.changed or applied.busy:
        return leg.after(LegEvent.NOT_CARRIED_OUT)
    leg = _changed(leg.after(LegEvent.CARRIED_OUT), applied.drift)
    return replace(leg, new=commit_of(applied.branch), backup=leg.backup or applied.backup, sent_for=())


def _seen(leg: LegOutcome, observation: Observation, plan: Plan) -> LegEvent:
    """Return what a look says about sent plans of an unknown result. Each starts from `old`."""
    if commit_of(observation.branch) == leg.old:
        settled = plan.kind is PlanKind.UP_TO_DATE
        return LegEvent.SEEN_SETTLED if settled else LegEvent.SEEN_WHERE_IT_WAS
    # Without a reflog, a tip that looks like ours counts as ours. With one, another's move may be known.
    ours = observation.recognised or (not observation.foreign and _is_ours(observation, leg.sent_for))
    return LegEvent.SEEN_WHERE_SENT if ours else LegEvent.SEEN_SETTLED


def _digest(observation: Observation, plan: Plan) -> str:
    """Return a digest that is equal for two looks that found the same; times are not part of it."""
    found = (
        plan.kind.value,
        plan.unmarked,
        len(plan.warnings),
        commit_of(observation.live),
        commit_of(observation.branch),
        commit_of(observation.target),
        observation.head,
        sorted(observation.in_progress.items()),
        sorted(observation.locks),
    )
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def prior_move(leg: LegOutcome, run: str) -> PriorMove | None:
    """Return the earlier move that the next look should find out about; None if there is none."""
    return PriorMove(run, leg.old) if leg.moved and not leg.listed and leg.old else None


def _planned(leg: LegOutcome, observation: Observation, plan: Plan) -> LegOutcome:
    """Return a leg with its plan, and with the paths that it removes, if these were asked for."""
    moving = plan.kind in MOVING
    removed = observation.drift.removed if moving else Paths()
    # A new branch removes nothing.
    listed = observation.listed or not moving or observation.branch is None
    return replace(
        leg, plan=plan.kind.value, removed_count=removed.count, removed=removed.listed, listed=listed
    )


def _changed(leg: LegOutcome, drift: Drift | None) -> LegOutcome:
    """Return a leg with the paths that were removed since its run began, if these were listed now."""
    if drift is None:
        return leg
    return replace(leg, removed_count=drift.removed.count, removed=drift.removed.listed, listed=True)


def _goal(observation: Observation) -> str:
    return commit_of(observation.target or observation.live)


@dataclass(slots=True)
class Progress:
    """What a run's attempt has done so far."""

    legs: dict[tuple[str, str], LegOutcome] = field(default_factory=dict)
    """By the legs' keys."""
    warnings: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)
    cancelled: bool = False
    """Whether somebody has cancelled the run: before it ends, it must be known whether a branch has moved."""

    @classmethod
    def of(cls, run: Run) -> "Progress":
        """Return the progress of a run at the start of an attempt; an earlier one may have moved branches."""
        before = run.outcome
        if before is None:
            return cls()
        legs = [resumed(leg) for leg in before.legs]
        kept = before.warnings if before.moved else ()
        return cls({leg.key: leg for leg in legs if leg != LegOutcome(*leg.key)}, [*kept])

    def __getitem__(self, leg: Leg) -> LegOutcome:
        """Return what was done to a leg; a new outcome if nothing was done yet.

        Outcomes of old versions don't name the repository: there was only one leg then.
        """
        found = self.legs.get(leg.key)
        if found is not None:
            return found
        for key in [key for key in self.legs if not key[0]]:
            unnamed = self.legs.pop(key)
            self[leg] = replace(unnamed, repository=str(leg), branch=leg.branch)
        return self.legs.setdefault(leg.key, LegOutcome(*leg.key))

    def __setitem__(self, leg: Leg, outcome: LegOutcome) -> None:
        """Set what was done to a leg."""
        self.legs[leg.key] = outcome

    @property
    def moved(self) -> bool:
        """Whether a branch has moved: from here on the run can't be cancelled."""
        return any(leg.has_moved for leg in self.legs.values())

    def warn(self, *warnings: str) -> None:
        """Keep warnings, each once."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def outcome(self, error: ListenerError | None = None) -> Outcome:
        """Return the outcome of the attempt, with the error that ended it; None for none."""
        return Outcome(
            legs=tuple(self.legs.values()),
            warnings=tuple(self.warnings),
            error=error.code if error else "",
            message=error.message if error else "",
            remedy=error.remedy if error else "",
            durations={step: round(seconds, 4) for step, seconds in self.durations.items()},
            waits=error is not None and error.again_in is not None,
        )

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to the duration of `step`, all legs together."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.durations[step] = self.durations.get(step, 0.0) + time.monotonic() - started


def commit_of(branch: Branch | None) -> str:
    """Return a branch's commit; empty for none."""
    return branch.commit if branch else ""


def _is_ours(observation: Observation, sent_for: Collection[str]) -> bool:
    """Return whether a plan of this run, whose result was lost, seems to have moved the branch to its tip."""
    tip = observation.branch
    if tip is None:
        return False
    if UNSEEN_LIVE in sent_for and (observation.ancestor or tip.commit == commit_of(observation.live)):
        return True
    return tip.commit in sent_for or tip.committer_email == COMMITTER_EMAIL
