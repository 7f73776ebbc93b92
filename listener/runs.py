"""Triggers and runs: what was asked for, what is done about it, and how a run may go.

A *trigger* says that one environment of one site is to be made equal to live, and who asks. A *run* is one
durable execution, and serves every trigger that arrived before it started. At most one run of a
(site, environment) waits and at most one is running; both are rules of the store (`listener.queue`).
"""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from listener.errors import ListenerError


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Would have gone back to the queue, but a successor waited already and took over its triggers."""
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.SUCCEEDED, State.FAILED, State.QUEUED, State.SUPERSEDED, State.CANCELLED}
    ),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""Every way a run may go; what is not here is an error."""

ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)
"""The states in which nothing more happens to a run."""


class Origin(StrEnum):
    """What a trigger came from."""

    HOOK = "hook"
    API = "api"
    CLI = "cli"
    RETRY = "retry"
    RELEASE = "release"
    ROLLBACK = "rollback"
    SCHEDULE = "schedule"
    REDELIVERY = "redelivery"
    """A delivery that arrived before, and that somebody lets count once more."""


EXPLICIT = frozenset(
    {Origin.API, Origin.CLI, Origin.RETRY, Origin.RELEASE, Origin.ROLLBACK, Origin.REDELIVERY}
)
"""The origins behind which a person or a program waits: they clear a backoff."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for something, with which credential and from where."""

    name: str
    """The name of the hook or token that asks, or the system user of the CLI."""
    credential: str = ""
    """The credential's kind and name, such as `token ci`; never its text. Empty where there is none."""
    client: str = ""
    """The address that the request came from; empty where there was no request."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What a line of the log says of it."""
        return {"actor": self.name, "credential": self.credential, "client": self.client}


@dataclass(frozen=True, slots=True)
class Trigger:
    """One wish to see an environment equal to live."""

    id: str
    site: str
    environment: str
    origin: Origin
    actor: str
    """The name of the hook or token that asked, or the system user of the CLI."""
    at: float
    """Unix seconds."""
    lane: str = ""
    """The hosts that its run will need: what is full there need not be started."""
    settle: float = 0.0
    """Seconds that its run waits for further triggers, anew with each one."""
    settle_most: float = 0.0
    """Seconds that the run's first trigger waits at most for that."""
    credential: str = ""
    """The credential's kind and name (`Asker.credential`)."""
    client: str = ""
    """The address that the request came from; empty where there was no request."""


class LegState(StrEnum):
    """What a run has done to one leg of its environment."""

    WAITING = "waiting"
    """Nothing, and nothing is under way."""
    SENT = "sent"
    """A plan is stored as about to be carried out, or was sent, and its result is not known."""
    DOUBTED = "doubted"
    """A plan whose result is not known had done nothing at the last look: it may yet."""
    RESENT = "resent"
    """The same, and another plan is under way."""
    MOVED = "moved"
    """It has moved the branch."""
    FOUND_EQUAL = "found-equal"
    """The branch was where it should be: another attempt leaves it alone."""
    MADE_EQUAL = "made-equal"
    """It has moved the branch to where it should be: another attempt leaves it alone."""


class LegEvent(StrEnum):
    """What happens to one leg."""

    SEND = "send"
    """A plan is about to be made durable, and then sent."""
    NOT_CARRIED_OUT = "not carried out"
    """The plan was not sent after all, or it is known that it moved nothing."""
    CARRIED_OUT = "carried out"
    """The plan has moved the branch, and that was read back."""
    SEEN_WHERE_IT_WAS = "seen where it was"
    """A look finds the branch where the last one found it, and it has to move."""
    SEEN_WHERE_SENT = "seen where sent"
    """A look finds the branch elsewhere, where a plan of this run would have put it."""
    SEEN_SETTLED = "seen settled"
    """A look finds that no plan of this run can move the branch any more, or has a need to."""
    EQUAL = "equal"
    """The branch is where it should be."""
    LIVE_MOVED = "live moved"
    """Live has moved since the leg became equal to it."""


LEG_TRANSITIONS: Mapping[LegState, Mapping[LegEvent, LegState]] = {
    LegState.WAITING: {
        LegEvent.SEND: LegState.SENT,
        LegEvent.SEEN_WHERE_IT_WAS: LegState.WAITING,
        LegEvent.SEEN_WHERE_SENT: LegState.WAITING,
        LegEvent.SEEN_SETTLED: LegState.WAITING,
        LegEvent.EQUAL: LegState.FOUND_EQUAL,
    },
    LegState.SENT: {
        LegEvent.NOT_CARRIED_OUT: LegState.WAITING,
        LegEvent.CARRIED_OUT: LegState.MOVED,
        LegEvent.SEEN_WHERE_IT_WAS: LegState.DOUBTED,
        LegEvent.SEEN_WHERE_SENT: LegState.MOVED,
        LegEvent.SEEN_SETTLED: LegState.WAITING,
    },
    LegState.DOUBTED: {
        LegEvent.SEND: LegState.RESENT,
        LegEvent.SEEN_WHERE_IT_WAS: LegState.DOUBTED,
        LegEvent.SEEN_WHERE_SENT: LegState.MOVED,
        LegEvent.SEEN_SETTLED: LegState.WAITING,
    },
    LegState.RESENT: {
        LegEvent.NOT_CARRIED_OUT: LegState.DOUBTED,
        LegEvent.CARRIED_OUT: LegState.MOVED,
        LegEvent.SEEN_WHERE_IT_WAS: LegState.DOUBTED,
        LegEvent.SEEN_WHERE_SENT: LegState.MOVED,
        LegEvent.SEEN_SETTLED: LegState.WAITING,
    },
    LegState.MOVED: {
        LegEvent.SEND: LegState.MOVED,
        LegEvent.NOT_CARRIED_OUT: LegState.MOVED,
        LegEvent.CARRIED_OUT: LegState.MOVED,
        LegEvent.SEEN_WHERE_IT_WAS: LegState.MOVED,
        LegEvent.SEEN_WHERE_SENT: LegState.MOVED,
        LegEvent.SEEN_SETTLED: LegState.MOVED,
        LegEvent.EQUAL: LegState.MADE_EQUAL,
    },
    LegState.FOUND_EQUAL: {LegEvent.LIVE_MOVED: LegState.WAITING},
    LegState.MADE_EQUAL: {LegEvent.LIVE_MOVED: LegState.MOVED},
}
"""Every way a leg may go; what is not here is an error."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a leg waits for, as far as the next attempt has to know it."""

    seen: str = ""
    """A digest of what the last look found and decided, without what changes by itself (times)."""
    reason: str = ""
    """What it waits for although its plan could move; empty if the look itself says what."""
    since: float = 0.0
    """When it was first found busy without a mark of a publish, in Unix seconds of its host's clock; 0 if it
    was found at rest since."""


@dataclass(frozen=True, slots=True)
class LegOutcome:
    """What a run has done to one leg of its environment so far, or why it has not."""

    repository: str = ""
    """The configured name of its host and the path there, as `host:path`."""
    branch: str = ""
    plan: str = ""
    state: LegState = LegState.WAITING
    live: str = ""
    """The commit that it was to be made equal to: live's, or the one that a rollback goes back to."""
    old: str = ""
    new: str = ""
    backup: str = ""
    removed_count: int = 0
    removed: tuple[str, ...] = ()
    """The first paths that were removed from the environment."""
    error: str = ""
    """The code of the error; empty on success."""
    message: str = ""
    remedy: str = ""
    sent_for: tuple[str, ...] = ()
    """The commits that plans of an unknown result were to make it equal to."""
    wait: Wait = Wait()

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the other legs of its environment (`listener.sites.Leg.key`)."""
        return self.repository, self.branch

    @property
    def done(self) -> bool:
        """Whether it is where it should be: another attempt leaves it alone."""
        return self.state in {LegState.FOUND_EQUAL, LegState.MADE_EQUAL}

    @property
    def has_moved(self) -> bool:
        """Whether it is known that the branch has moved."""
        return self.state in {LegState.MOVED, LegState.MADE_EQUAL}

    @property
    def moved(self) -> bool:
        """Whether the branch has moved, or may have."""
        return self.state not in {LegState.WAITING, LegState.FOUND_EQUAL}

    @property
    def in_doubt(self) -> bool:
        """Whether a plan was sent, or is about to be, and it is not known whether it has moved the branch."""
        return self.moved and not self.has_moved

    def after(self, event: LegEvent) -> "LegOutcome":
        """Return the leg after an event; raise `ValueError` for one that can't happen to it."""
        following = LEG_TRANSITIONS[self.state].get(event)
        if following is None:
            raise ValueError(f"A leg that is {self.state} can't be {event}.")
        return replace(self, state=following)

    def failed(self, error: ListenerError | None) -> "LegOutcome":
        """Return the leg with the error that ended its attempt; None for none."""
        if error is None:
            return replace(self, error="", message="", remedy="")
        return replace(self, error=error.code, message=error.message, remedy=error.remedy)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, leg by leg, or why it did not."""

    legs: tuple[LegOutcome, ...] = ()
    """Those that were begun."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """The code of the error; empty on success."""
    message: str = ""
    remedy: str = ""
    durations: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step."""
    waits: bool = False
    """Whether nothing failed and only the moment was wrong: it is looked at again soon."""
    equal_looks: int = 0
    """How many attempts in a row, up to this one, have found what the one before them found."""

    @property
    def moved(self) -> bool:
        """Whether a branch has moved, or may have: such a run can't be cancelled."""
        return any(leg.moved for leg in self.legs)

    @property
    def undoable(self) -> tuple[LegOutcome, ...]:
        """The legs that can be rolled back: the branch was there before, and moved."""
        return tuple(leg for leg in self.legs if leg.moved and leg.old and leg.new != leg.old)


def alike(before: Outcome | None, now: Outcome) -> bool:
    """Return whether two attempts one after the other wait for the same."""

    def told(outcome: Outcome) -> tuple[str, list[tuple[tuple[str, str], str, str, str]]]:
        legs = [(leg.key, leg.error, leg.wait.seen, leg.wait.reason) for leg in outcome.legs]
        return outcome.error, legs

    return before is not None and told(before) == told(now)


@dataclass(frozen=True, slots=True)
class Run:
    """One durable execution."""

    id: str
    site: str
    environment: str
    state: State
    created_at: float
    not_before: float
    """Unix seconds before which it is not started."""
    attempt: int = 0
    """How often it was started. Part of the fence: a worker writes only for the attempt that it claimed."""
    failures: int = 0
    """How many of its attempts failed for a transient reason."""
    streak: int = 0
    """How many attempts have failed in a row for its environment, its predecessors' included."""
    looks: int = 0
    """How many of its attempts found Studio publishing."""
    lines: int = 0
    """How many log lines are stored: its owner goes on numbering from here."""
    started_at: float | None = None
    finished_at: float | None = None
    successor: str | None = None
    undoes: str | None = None
    """The id of the run that this one rolls back; None for a sync."""
    held_live: str = ""
    """The commit of live at which a rollback holds the environment; empty if none does."""
    outcome: Outcome | None = None


def new_id(now: float) -> str:
    """Return a new id that sorts by time: a UUID of version 7 (RFC 9562, section 5.7)."""
    millis = int(now * 1000) & (1 << 48) - 1
    value = millis << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def first_id(at: float) -> str:
    """Return the lowest id that `new_id` could give at a time: those of earlier runs sort before it."""
    return str(uuid.UUID(int=(int(at * 1000) & (1 << 48) - 1) << 80))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a run that failed for a transient reason is tried again."""

    attempts: int = 20
    first: float = 1.0
    """Seconds before the second attempt; doubled for each further one."""
    most: float = 300.0

    def delay(self, failures: int, jitter: float) -> float:
        """Return seconds to wait after so many failures; `jitter` is from 0 to 1 and takes up to half off."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 60)) * (1 - jitter / 2)


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to try again."""

    delay: float
    failed: bool
    """Whether the attempt counts as a failure: being busy does not."""


BUSY_FIRST = 0.25
BUSY_MOST = 5.0


def retry(run: Run, error: ListenerError, policy: RetryPolicy, jitter: float) -> Retry | None:
    """Return how `run`, which ended with `error`, goes on; None when it has failed for good."""
    if error.again_in is not None:
        # The jitter keeps it out of step with publishes that come as regularly.
        looking = min(BUSY_MOST, BUSY_FIRST * 2.0 ** min(run.looks, 10)) * (1 - jitter / 2)
        return Retry(min(BUSY_MOST, max(error.again_in, looking)), failed=False)
    if error.permanent or run.failures + 1 >= policy.attempts:
        return None
    return Retry(policy.delay(run.streak + 1, jitter), failed=True)
