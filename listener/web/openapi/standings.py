"""The shapes of how sites and their environments stand, and of what a run would do."""

from pydantic import Field, RootModel

from listener.plans import PlanKind
from listener.sites import Policy
from listener.web.openapi.schemas import Count, Moment, RunView, View


class HoldView(View):
    """Why an environment is frozen, by whom and since when."""

    reason: str
    actor: str
    since: Moment
    until_live_leaves: str | None = Field(None, description="the commit of live at which it ends by itself")


class Held(View):
    """An environment that is on hold."""

    hold: HoldView


class Released(View):
    """An environment that was let go: the hold that was, and the runs by which it catches up."""

    released: HoldView | None
    runs: list[str]


class Found(View):
    """How an environment's branch stands in one repository, and what a run would do."""

    plan: PlanKind
    equal: bool
    reason: str
    remedy: str
    warnings: list[str]
    live: str
    branch: str
    target: str = Field("", description="the commit that a rollback goes back to")
    ahead: int | None
    behind: int | None
    added_count: Count
    changed_count: Count
    removed_count: Count
    added: list[str]
    changed: list[str]
    removed: list[str]


class NotFound(View):
    """Why it can't be told how a branch stands."""

    error: str
    message: str
    remedy: str


class FoundLeg(Found):
    """The same, in one repository of several."""

    repository: str


class NotFoundLeg(NotFound):
    """The same, in one repository of several."""

    repository: str


class FoundLegs(View):
    """How an environment's branch stands in several repositories."""

    equal: bool
    legs: list[FoundLeg | NotFoundLeg]


class SyncAnswer(RootModel[RunView | Found | FoundLegs]):
    """A run; or, for a dry run, what it would do."""


class CarrierView(View):
    """A repository that carries an environment's branch."""

    repository: str
    branch: str


class Success(View):
    """The last run that made an environment equal to live."""

    run: str
    at: Moment


class EnvironmentView(View):
    """An environment: what is configured, and how it stands."""

    name: str
    legs: list[CarrierView]
    policy: Policy
    follow: bool
    hold: HoldView | None
    last_success: Success | None
    drift: Found | FoundLegs | NotFound


class SiteView(View):
    """A site, and how its environments stand."""

    site: str
    live: str
    environments: list[EnvironmentView]


class UnlistedView(NotFound):
    """A pattern whose sites could not be listed."""

    pattern: str


class Overview(View):
    """Every site that the caller may see."""

    sites: list[SiteView]
    unlisted: list[UnlistedView] = Field([], description="for an admin, and only if there are any")
