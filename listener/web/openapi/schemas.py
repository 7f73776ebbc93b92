"""The shapes of what is taken and answered. `listener.web.views` makes the answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from listener.runs import Origin, State

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, description="RFC 3339, in UTC")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]


class Body(BaseModel):
    """What a route takes: these fields and no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


class View(BaseModel):
    """What a route answers; fields may be added in later versions."""

    model_config = ConfigDict(strict=True)


class SyncStaging(View):
    """The Crafter call for one environment; Studio's clients may send more."""

    site_id: Text = Field(examples=["mysite"])
    environment: Text = Field(examples=["staging"])


class ResetStaging(View):
    """The Crafter call for the staging environment."""

    site_id: Text = Field(examples=["mysite"])


class DryRun(Body):
    """Whether to tell what would be done, and do nothing."""

    dry_run: bool = Field(False, examples=[True])


class HoldBody(Body):
    """Why an environment is frozen."""

    reason: str = Field(
        min_length=1, max_length=500, pattern=r"\S", examples=["acceptance test until Friday"]
    )


class Message(View):
    """Studio's own words."""

    message: str


class Problem(View):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field("", description="what programs match on")
    detail: str = ""
    remedy: str = Field("", description="what to do about it")


class Accepted(View):
    """A delivery that selects something: it is durable, and these runs serve it."""

    delivery: str
    runs: list[str]


class Delivered(View):
    """A delivery that selects nothing, or the first answer to one that was there before."""

    delivery: str
    runs: list[str] = []
    ignored: str = ""


class TriggerView(View):
    """Who asked for a run, and when."""

    id: str
    origin: Origin
    actor: str
    credential: str = Field(description="its kind and name, never its value")
    client: str = Field(description="the address that asked")
    at: Moment


class QueueView(View):
    """Where a waiting run stands."""

    ahead: Count
    expected_start: Moment


class LegView(View):
    """What a run did to one repository."""

    repository: str
    branch: str
    plan: str
    done: bool
    moved: bool
    live: str
    old: str
    new: str
    backup: str
    removed_count: Count
    removed: list[str] = Field(description="the first paths that were removed")
    error: str = Field(description="the code of the error; empty on success")
    message: str
    remedy: str


class _Ended(View):
    warnings: list[str]
    durations: dict[str, float] = Field(description="seconds by step")


class OneLegOutcome(_Ended, LegView):
    """What a run did to the only repository of its environment."""


class LegsOutcome(_Ended):
    """What a run did to each of several repositories."""

    legs: list[LegView]
    error: str
    message: str
    remedy: str


class RunSummary(View):
    """One run, as the history lists it."""

    id: str
    site: str
    environment: str
    state: State
    created_at: Moment
    not_before: Moment
    started_at: Moment | None
    finished_at: Moment | None
    attempt: Count
    failures: Count
    successor: str | None = Field(description="the run that took over what this one had to do")
    undoes: str | None = Field(description="the run that this one rolls back")
    outcome: OneLegOutcome | LegsOutcome | None


class RunView(RunSummary):
    """One run, with who asked for it."""

    triggers: list[TriggerView]


class StandingRun(RunView):
    """One run, and where it stands while it waits."""

    queue: QueueView | None = None


class History(View):
    """A page of the history, newest first."""

    runs: list[RunSummary]
    before: str | None = Field(description="where the next page starts; null on the last one")


class Alive(View):
    """The listener runs."""

    status: Literal["ok"]
    version: str


class Ready(View):
    """Requests are taken."""

    status: Literal["ready"]


class Unready(View):
    """Requests are not taken now."""

    status: Literal["unavailable"]
    reason: str


class Description(View):
    """This document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
