"""Sites and their environments: what is configured, how they stand, and what a run would do."""

import operator
from collections.abc import Sequence
from typing import Self, TypeVar

from pydantic import Field, RootModel

from listener.directory import Unlisted
from listener.errors import SyncError
from listener.looks import EnvironmentLook, LegLook, LookState
from listener.plans import PlanKind
from listener.queue import Hold, Success
from listener.runs import Run
from listener.sites import Environment, Leg, Policy
from listener.vocabulary import NOT_LOOKED_AT
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
    """Why the state of a branch is unknown."""

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


_NOT_LOOKED_AT = DriftUnknown(
    error=NOT_LOOKED_AT,
    message="This environment was not looked at yet.",
    remedy="ask for a fresh look, with ?fresh=true or sync-staging status --fresh",
)


def drift_of(legs: Sequence[LegLook]) -> AnyDrift:
    """Return how an environment stands: in its only repository, or in each of several."""
    if len(legs) == 1:
        return _drift(legs[0], Drift, DriftUnknown)
    found = [_drift(leg, LegDrift, LegDriftUnknown, repository=leg.repository) for leg in legs]
    return LegsDrift(equal=all(leg.state is LookState.EQUAL for leg in legs), legs=tuple(found))


def _drift(leg: LegLook, found: type[D], failed: type[E], **where: str) -> D | E:
    if leg.plan is None:
        return failed.of_object(leg, **where)
    return found.of_object(
        leg,
        **where,
        equal=leg.state is LookState.EQUAL,
        added_count=leg.added.count,
        changed_count=leg.changed.count,
        removed_count=leg.removed.count,
        added=leg.added.listed,
        changed=leg.changed.listed,
        removed=leg.removed.listed,
    )


def _facts(error: SyncError) -> dict[str, str]:
    return {"error": error.code, "message": error.message, "remedy": error.remedy}


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
    """An environment: what is configured, and how it stood when it was last looked at."""

    name: str
    legs: tuple[CarrierView, ...]
    policy: Policy
    follow: bool
    hold: HoldView | None
    last_success: SuccessView | None
    state: LookState = Field(description="whether the trees differ, as far as the last look can tell")
    looked_at: Moment | None = Field(description="when the last look began; null if there was none yet")
    late: bool = Field(
        False,
        exclude_if=operator.not_,
        description="a fresh look was asked for and did not come in time: this is what was known before",
    )
    drift: AnyDrift

    @classmethod
    def of(
        cls,
        environment: Environment,
        look: EnvironmentLook | None,
        hold: Hold | None,
        last_success: Success | None,
        *,
        late: bool = False,
    ) -> Self:
        """Return an environment with its last look, its hold, and the last run that succeeded."""
        return cls.of_object(
            environment,
            legs=tuple(map(CarrierView.of, environment.legs)),
            hold=None if hold is None else HoldView.of(hold),
            last_success=last_success,
            state=LookState.UNKNOWN if look is None else look.summary.state,
            looked_at=None if look is None else look.looked_at,
            late=late,
            drift=_NOT_LOOKED_AT if look is None else drift_of(look.legs),
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


class SitesPageEnd(View):
    """What follows the sites of a page."""

    next: Next
    unlisted: tuple[UnlistedView, ...] = Field(
        (),
        exclude_if=absent,
        description="patterns whose hosts do not answer: known sites are listed; only for an admin",
    )


class SitesPage(SitesPageEnd):
    """A page of the sites that the caller may see, by id."""

    sites: tuple[SiteView, ...]
