"""What a run has done so far, leg by leg: its outcome is made of it, whenever it ends."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from listener.errors import ListenerError
from listener.observations import COMMITTER_EMAIL, Branch, Observation, Paths
from listener.plans import MOVING, Applied, Plan, PlanKind
from listener.runs import LegOutcome, Outcome, Run
from listener.sites import Leg


@dataclass(slots=True)
class LegProgress:
    """What a run has done to one leg of its environment."""

    repository: str = ""
    branch: str = ""
    done: bool = False
    """Whether it was made equal to live, or rolled back."""
    moved: bool = False
    """Whether the branch has moved."""
    uncertain: bool = False
    """Whether a plan was sent and its result is not known."""
    doubted: bool = False
    """Whether one of an earlier round or attempt had still done nothing at the last look: it may yet."""
    plan: str = ""
    live: str = ""
    old: str = ""
    new: str = ""
    backup: str = ""
    removed_count: int = 0
    removed: tuple[str, ...] = ()
    error: ListenerError | None = None

    @classmethod
    def of(cls, before: LegOutcome) -> "LegProgress":
        """Return where a leg stands after an earlier attempt, which may have moved the branch already."""
        if not (before.moved or before.done):
            return cls(before.repository, before.branch)
        moved = before.new != before.old
        return cls(
            before.repository,
            before.branch,
            done=before.done,
            moved=moved,
            uncertain=before.moved and not moved,
            plan=before.plan,
            live=before.live,
            old=before.old,
            new=before.new,
            backup=before.backup,
            removed_count=before.removed_count,
            removed=before.removed,
        )

    def outcome(self) -> LegOutcome:
        """Return what to keep of it."""
        return LegOutcome(
            repository=self.repository,
            branch=self.branch,
            plan=self.plan,
            done=self.done,
            moved=self.moved or self.uncertain,
            live=self.live,
            old=self.old,
            new=self.new,
            backup=self.backup,
            removed_count=self.removed_count,
            removed=self.removed,
            error=self.error.code if self.error else "",
            message=self.error.message if self.error else "",
            remedy=self.error.remedy if self.error else "",
        )

    def looked(self, observation: Observation, plan: Plan) -> None:
        """Take in what was observed and decided."""
        planned_for, self.live = self.live, commit_of(observation.target or observation.live)
        tip = commit_of(observation.branch)
        if self.uncertain and tip != self.old:
            self.uncertain = False
            self.moved = self.moved or _is_ours(observation.branch, planned_for)
        self.uncertain = self.doubted = self.uncertain and plan.kind is not PlanKind.UP_TO_DATE
        if self.moved:
            # An earlier round moved the branch: its plan and where it started from stay.
            self.new = tip
        else:
            self.plan, self.old, self.new = plan.kind.value, tip, tip
            removed = observation.drift.removed if plan.kind in MOVING else Paths()
            self.removed_count, self.removed = removed.count, removed.listed

    def applied(self, applied: Applied) -> None:
        """Take in what was read back after applying."""
        self.uncertain = self.doubted
        if not (applied.changed or applied.busy):
            self.moved, self.uncertain = True, False
            self.new = commit_of(applied.branch)
            self.backup = self.backup or applied.backup


@dataclass(slots=True)
class Progress:
    """What a run's attempt has done so far."""

    legs: dict[tuple[str, str], LegProgress] = field(default_factory=dict)
    """By the legs' keys."""
    warnings: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "Progress":
        """Return where a run stands: an earlier attempt may have moved branches already."""
        before = run.outcome
        if before is None:
            return cls()
        legs = {leg.key: LegProgress.of(leg) for leg in before.legs}
        kept = before.warnings if before.moved else ()
        return cls(
            {name: leg for name, leg in legs.items() if leg.moved or leg.uncertain or leg.done}, [*kept]
        )

    def leg(self, leg: Leg) -> LegProgress:
        """Return the progress of a leg, begun now if it was not before.

        What an old run did without a word of where, it did to the only leg that there was.
        """
        for key in [key for key in self.legs if not key[0]]:
            nameless = self.legs[leg.key] = self.legs.pop(key)
            nameless.repository, nameless.branch = leg.key
        return self.legs.setdefault(leg.key, LegProgress(*leg.key))

    @property
    def moved(self) -> bool:
        """Whether a branch has moved: from here on the run can't be cancelled."""
        return any(leg.moved for leg in self.legs.values())

    def warn(self, *warnings: str) -> None:
        """Keep warnings, each once."""
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def outcome(self, error: ListenerError | None = None) -> Outcome:
        """Return what to keep of the attempt, with the error that ended it."""
        return Outcome(
            legs=tuple(leg.outcome() for leg in self.legs.values()),
            warnings=tuple(self.warnings),
            error=error.code if error else "",
            message=error.message if error else "",
            remedy=error.remedy if error else "",
            durations={step: round(seconds, 4) for step, seconds in self.durations.items()},
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


def _is_ours(tip: Branch | None, planned_for: str) -> bool:
    """Return whether a plan whose result was lost seems to have put the branch where it is."""
    return tip is not None and (tip.commit == planned_for or tip.committer_email == COMMITTER_EMAIL)
