"""Runs: what they did, who asked for them, where they stand in the queue."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field

from listener.outcomes import LegOutcome, Outcome
from listener.queue import QueuePosition
from listener.runs import Origin, Run, State, Trigger
from listener.web.answers.view import Before, Count, Moment, Next, Texts, View, absent, rfc3339


class TriggerView(View):
    """Who asked for a run, and when."""

    id: str
    origin: Origin
    actor: str
    credential: str = Field(description="its kind and name, never its value")
    client: str = Field(description="the address that asked")
    at: Moment


class QueueView(View):
    """The place of a waiting run in the queue."""

    ahead: Count = Field(description="how many runs are before it")
    expected_start: Moment = Field(description="when it may start at the earliest")

    @classmethod
    def of(cls, run: Run, position: QueuePosition, now: float, concurrency: int) -> Self:
        """Return the place of a run in a queue that `concurrency` runs leave at a time."""
        waits = 0.0 if position.pace is None else position.pace * (position.ahead // concurrency)
        return cls(ahead=position.ahead, expected_start=rfc3339(max(run.not_before, now) + waits))


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
    removed: Texts = Field(description="the first paths that were removed")
    error: str = Field(description="the code of the error; empty on success")
    message: str
    remedy: str


class _Ended(View):
    warnings: Texts
    durations: Mapping[str, float] = Field(description="seconds by step")


class OneLegOutcome(_Ended, LegView):
    """What a run did to the only repository of its environment."""


class LegsOutcome(_Ended):
    """What a run did to each of several repositories."""

    legs: tuple[LegView, ...]
    error: str
    message: str
    remedy: str


def _outcome(outcome: Outcome | None) -> OneLegOutcome | LegsOutcome | None:
    if outcome is None:
        return None
    if len(outcome.legs) > 1:
        return LegsOutcome.of_object(outcome)
    leg = outcome.legs[0] if outcome.legs else LegOutcome()
    return OneLegOutcome.of_object(
        leg,
        warnings=outcome.warnings,
        durations=outcome.durations,
        error=outcome.error,
        message=outcome.message,
        remedy=outcome.remedy,
    )


class _Run(View):
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


class RunSummary(_Run):
    """One run, as the history lists it."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return a run without its triggers."""
        return cls.of_object(run, outcome=_outcome(run.outcome))


class RunView(_Run):
    """One run, with who asked for it."""

    triggers: tuple[TriggerView, ...]
    queue: QueueView | None = Field(None, exclude_if=absent, description="only while the run waits")

    @classmethod
    def of(cls, run: Run, triggers: Sequence[Trigger], queue: QueueView | None = None) -> Self:
        """Return a run and its triggers, and its place in the queue if that is asked for."""
        return cls.of_object(run, outcome=_outcome(run.outcome), triggers=tuple(triggers), queue=queue)


class RunsPage(View):
    """A page of the history, newest first."""

    runs: tuple[RunSummary, ...]
    next: Next
    before: Before

    @classmethod
    def of(cls, runs: Sequence[Run], *, more: bool) -> Self:
        """Return a page; `more` says whether another one follows."""
        following = runs[-1].id if more else None
        return cls(runs=tuple(map(RunSummary.of, runs)), next=following, before=following)
