"""Sites and their environments: what is configured, how they stand, and what a run would do."""

from collections.abc import Sequence
from typing import Self, TypeVar

from pydantic import Field, RootModel

from listener.directory import Unlisted
from listener.errors import SyncError
from listener.observations import Branch, Observation
from listener.plans import PlanKind, equal, undone
from listener.queue import Hold, Success
from listener.runs import Run
from listener.sites import Environment, Leg, Policy
from listener.sync import Look
from listener.web.answers.runs import RunView
from listener.web.answers.view import Count, Moment, Next, Texts, View, absent


class HoldView(View):
    """Why an environment is frozen, by whom and since when."""

    reason: str
    actor: str
    since: Moment
    until_live_leaves: str | None = Field(
        None, exclude_if=absent, description="the commit of live at which it ends by itself"
    )

    @classmethod
    def of(cls, hold: Hold) -> Self:
        """Return a hold."""
        return cls.of_object(hold, until_live_leaves=hold.live)


class Held(View):
    """An environment that is on hold."""

    hold: HoldView


class Released(View):
    """An environment that was let go: the hold that was, and the runs by which it catches up."""

    released: HoldView | None
    runs: Texts

    @classmethod
    def of(cls, hold: Hold | None, run: Run | None) -> Self:
        """Return the end of a hold, if there was one."""
        return cls(
            released=None if hold is None else HoldView.of(hold), runs=() if run is None else (run.id,)
        )


class Drift(View):
    """How an environment's branch stands in one repository, and what a run would do."""

    plan: PlanKind
    equal: bool
    reason: str
    remedy: str
    warnings: Texts
    live: str = Field(description="the commit of live")
    branch: str = Field(description="the commit of the environment's branch")
    target: str = Field("", exclude_if=absent, description="the commit that a rollback goes back to")
    ahead: int | None = Field(description="commits that only the environment has")
    behind: int | None = Field(description="commits that only live has")
    added_count: Count
    changed_count: Count
    removed_count: Count
    added: Texts = Field(description="the first paths that a run would add")
    changed: Texts
    removed: Texts


class DriftUnknown(View):
    """Why nobody can tell how a branch stands."""

    error: str = Field(description="the code of the error")
    message: str
    remedy: str


class LegDrift(Drift):
    """The same, in one repository of several."""

    repository: str


class LegDriftUnknown(DriftUnknown):
    """The same, in one repository of several."""

    repository: str


class LegsDrift(View):
    """How an environment's branch stands in several repositories."""

    equal: bool
    legs: tuple[LegDrift | LegDriftUnknown, ...]


AnyDrift = Drift | LegsDrift | DriftUnknown


D = TypeVar("D", bound=Drift)
E = TypeVar("E", bound=DriftUnknown)


def drift_of(looks: Sequence[Look]) -> AnyDrift:
    """Return how an environment stands: in its only repository, or in each of several."""
    if len(looks) == 1:
        return _drift(looks[0], Drift, DriftUnknown)
    legs = [_drift(look, LegDrift, LegDriftUnknown, repository=str(look.leg)) for look in looks]
    return LegsDrift(equal=all(isinstance(leg, Drift) and leg.equal for leg in legs), legs=tuple(legs))


def _drift(look: Look, found: type[D], failed: type[E], **where: str) -> D | E:
    observation, plan = look.observation, look.plan
    if observation is None or plan is None:
        return failed(**_facts(look.error or SyncError()), **where)
    drift = observation.drift
    return found(
        **where,
        plan=plan.kind,
        equal=_equal(look.leg, observation),
        reason=plan.reason,
        remedy=plan.refusal.remedy if plan.refusal else "",
        warnings=plan.warnings,
        live=_commit(observation.live),
        branch=_commit(observation.branch),
        target=_commit(observation.target),
        ahead=drift.ahead,
        behind=drift.behind,
        added_count=drift.added.count,
        changed_count=drift.changed.count,
        removed_count=drift.removed.count,
        added=drift.added.listed,
        changed=drift.changed.listed,
        removed=drift.removed.listed,
    )


def _facts(error: SyncError) -> dict[str, str]:
    return {"error": error.code, "message": error.message, "remedy": error.remedy}


def _equal(leg: Leg, observation: Observation) -> bool:
    if observation.target:
        return undone(leg, observation.branch, observation.target)
    return equal(leg, observation.live, observation.branch)


def _commit(branch: Branch | None) -> str:
    return branch.commit if branch else ""


class DryRunOrRun(RootModel[RunView | Drift | LegsDrift]):
    """A run; or, for a dry run, what it would do."""


class CarrierView(View):
    """A repository that carries an environment's branch."""

    repository: str
    branch: str

    @classmethod
    def of(cls, leg: Leg) -> Self:
        """Return the repository and the branch of a leg."""
        return cls(repository=str(leg.repository), branch=leg.branch)


class SuccessView(View):
    """The last run that made an environment equal to live."""

    run: str
    at: Moment


class EnvironmentView(View):
    """An environment: what is configured, and how it stands."""

    name: str
    legs: tuple[CarrierView, ...]
    policy: Policy
    follow: bool
    hold: HoldView | None
    last_success: SuccessView | None
    drift: AnyDrift

    @classmethod
    def of(
        cls, environment: Environment, looks: Sequence[Look], hold: Hold | None, last_success: Success | None
    ) -> Self:
        """Return an environment with what a look found, its hold, and the last run that succeeded."""
        return cls.of_object(
            environment,
            legs=tuple(map(CarrierView.of, environment.legs)),
            hold=None if hold is None else HoldView.of(hold),
            last_success=last_success,
            drift=drift_of(looks),
        )


class SiteView(View):
    """A site, and how its environments stand."""

    site: str
    live: str
    environments: tuple[EnvironmentView, ...]


class UnlistedView(DriftUnknown):
    """A pattern whose sites could not be listed."""

    pattern: str

    @classmethod
    def of(cls, unlisted: Unlisted) -> Self:
        """Return the pattern and the error."""
        return cls.of_object(unlisted, **_facts(unlisted.error))


class SitesPage(View):
    """A page of the sites that the caller may see, by id."""

    sites: tuple[SiteView, ...]
    next: Next
    unlisted: tuple[UnlistedView, ...] = Field(
        (), exclude_if=absent, description="patterns whose sites could not be listed; only for an admin"
    )
