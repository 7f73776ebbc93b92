"""Triggers and runs: what was asked for, what is done about it, and how a run may go.

A *trigger* says that one environment of one site is to be made equal to live, and who asks. A *run* is one
durable execution, and serves every trigger that arrived before it started. At most one run of a
(site, environment) waits and at most one is running; both are rules of the store (`listener.queue`).
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from listener.errors import ListenerError
from listener.outcomes import Outcome
from listener.vocabulary import State as State  # noqa: PLC0414 (it belongs here, for everybody but a command)

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
    chance = int.from_bytes(os.urandom(10)) >> 6
    digits = f"{millis << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (1 << 62) - 1:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


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
