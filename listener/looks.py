"""The result of the last look at an environment, and the port of the store that keeps it.

The API, the page, the commands and the figures all take the state of an environment from here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from listener.errors import ListenerError
from listener.observations import Observation, Paths
from listener.plans import Plan, PlanKind, equal, undone
from listener.sites import Environment, Leg
from listener.vocabulary import LookState as LookState  # noqa: PLC0414 (it belongs here, for everybody but a command)

Place = tuple[str, str]
"""A site and the name of one of its environments."""


@dataclass(frozen=True, slots=True)
class LegLook:
    """The result of a look at one repository: what it found, or its error."""

    repository: str
    """The configured name of its host and the path there, as `host:path`."""
    carrier: str
    """The name of the environment's branch there."""
    state: LookState = LookState.UNKNOWN
    plan: PlanKind | None = None
    """What a run would do; None if the look failed."""
    reason: str = ""
    """Why the plan is to wait or to refuse."""
    refusal: str = ""
    """The code of the error of a refusing plan."""
    remedy: str = ""
    warnings: tuple[str, ...] = ()
    live: str = ""
    """The commit of live."""
    branch: str = ""
    """The commit of the environment's branch."""
    target: str = ""
    """The commit that a rollback goes back to."""
    ahead: int | None = None
    behind: int | None = None
    added: Paths = field(default_factory=Paths)
    changed: Paths = field(default_factory=Paths)
    removed: Paths = field(default_factory=Paths)
    error: str = ""
    """The code of the error of the look; empty if it did not fail."""
    message: str = ""
    busy_since: float = 0.0
    """Since when it has been busy without a mark of a publish, in Unix seconds; 0 if it is not."""
    standing: str = ""
    """The state that a move without another look expects (`Observation.standing`)."""

    @property
    def key(self) -> tuple[str, str]:
        """Its identity among the legs of its environment (`listener.sites.Leg.key`)."""
        return self.repository, self.carrier

    @classmethod
    def of(cls, leg: Leg, seen: Observation, plan: Plan, busy_since: float = 0.0) -> "LegLook":
        """Return what a look found, and the plan that was made from it."""
        drift = seen.drift
        return cls(
            *leg.key,
            state=_state(leg, seen),
            plan=plan.kind,
            reason=plan.reason,
            refusal=plan.refusal.code if plan.refusal else "",
            remedy=plan.refusal.remedy if plan.refusal else "",
            warnings=plan.warnings,
            live=seen.live.commit if seen.live else "",
            branch=seen.branch.commit if seen.branch else "",
            target=seen.target.commit if seen.target else "",
            ahead=drift.ahead,
            behind=drift.behind,
            added=drift.added,
            changed=drift.changed,
            removed=drift.removed,
            busy_since=busy_since,
            # No move goes without a look to a branch that is missing or symbolic.
            standing=seen.standing if seen.branch and not seen.branch.target else "",
        )

    @classmethod
    def failed(cls, leg: Leg, error: ListenerError) -> "LegLook":
        """Return a look that has failed."""
        return cls(*leg.key, error=error.code, message=error.message, remedy=error.remedy)


def _state(leg: Leg, seen: Observation) -> LookState:
    """Return whether the trees differ. Without live, or without the target of a rollback, that is unknown."""
    if seen.target is not None:
        return LookState.EQUAL if undone(leg, seen.branch, seen.target) else LookState.DIFFERS
    if seen.live is None:
        return LookState.UNKNOWN
    return LookState.EQUAL if equal(leg, seen.live, seen.branch) else LookState.DIFFERS


@dataclass(frozen=True, slots=True)
class LookSummary:
    """The essentials of the last look at an environment."""

    site: str
    environment: str
    looked_at: float
    """When the look began, in Unix seconds."""
    state: LookState
    plan: PlanKind | None = None
    """What a run would do. Of several repositories, the first that is not up to date decides."""
    error: str = ""
    """If the state is unknown: the code of the error that is the reason."""
    message: str = ""
    busy_since: float = 0.0
    """Since when a repository has been busy without a mark of a publish, in Unix seconds; 0 if none is."""

    @property
    def place(self) -> Place:
        """Its site and the environment's name."""
        return self.site, self.environment

    @property
    def differs(self) -> bool | None:
        """Whether the environment differs from live; None if that is not known."""
        return None if self.state is LookState.UNKNOWN else self.state is LookState.DIFFERS


@dataclass(frozen=True, slots=True)
class EnvironmentLook:
    """A look at an environment: what it found in each repository."""

    site: str
    environment: str
    looked_at: float
    """When the look began, in Unix seconds."""
    legs: tuple[LegLook, ...]

    @property
    def place(self) -> Place:
        """Its site and the environment's name."""
        return self.site, self.environment

    @property
    def summary(self) -> LookSummary:
        """Its essentials. One repository that differs decides; if none does, one that is unknown."""
        states = {leg.state for leg in self.legs}
        state = next((each for each in _WORST_FIRST if each in states), LookState.UNKNOWN)
        failed = next((leg for leg in self.legs if leg.error), None)
        plans = [leg.plan for leg in self.legs if leg.plan is not None]
        refused = next((leg for leg in self.legs if leg.state is LookState.UNKNOWN), None)
        why = failed or refused
        return LookSummary(
            self.site,
            self.environment,
            self.looked_at,
            state,
            plan=next(
                (each for each in plans if each is not PlanKind.UP_TO_DATE), plans[0] if plans else None
            ),
            error=(why.error or why.refusal) if why else "",
            message=(why.message or why.reason) if why else "",
            busy_since=min((leg.busy_since for leg in self.legs if leg.busy_since), default=0.0),
        )

    def covers(self, environment: Environment) -> bool:
        """Return whether it was at the repositories that are configured now."""
        return {leg.key for leg in self.legs} == {leg.key for leg in environment.legs}


_WORST_FIRST = (LookState.DIFFERS, LookState.UNKNOWN, LookState.EQUAL)


class LookStore(Protocol):
    """Keeps the last look at each environment. Every method may raise `StoreUnavailableError`.

    Listeners on one store share the looks. A look never replaces one that began later.
    """

    async def keep_looks(self, looks: Sequence[EnvironmentLook]) -> None:
        """Store looks, all of them or none."""

    async def looks(self, places: Collection[Place]) -> Mapping[Place, EnvironmentLook]:
        """Return the last look at each of these environments that was looked at."""

    async def look_summaries(self) -> list[LookSummary]:
        """Return the essentials of the last look at each environment, by site and name."""

    async def forget_looks(self, places: Collection[Place]) -> None:
        """Delete the looks at environments that are not configured any more."""
