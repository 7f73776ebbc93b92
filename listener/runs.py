"""Triggers and runs: what was asked for, what is done about it, and the states of a run.

A *trigger* asks that one environment of one site is made equal to live, and says who asks. A *run* is one
durable execution. It serves every trigger that arrived before it started. At most one run of a
(site, environment) waits, and at most one is running. The store enforces both (`listener.queue`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from listener.errors import CancelledRunError, ListenerError, OnHoldError
from listener.outcomes import Outcome
from listener.vocabulary import State as State  # noqa: PLC0414 (it belongs here, for everybody but a command)

TRANSITIONS: Mapping[State | None, frozenset[State]] = {
    None: frozenset({State.QUEUED, State.FAILED}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.SUCCEEDED, State.FAILED, State.QUEUED, State.SUPERSEDED, State.CANCELLED}
    ),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""The states that a run may go to from each state. None stands for a run that does not exist yet.

The store builds every statement that sets a state by `demand_transition`, which refuses all others.
"""

ENDED = frozenset(state for state, following in TRANSITIONS.items() if state and not following)
"""The states in which nothing more happens to a run."""


def demand_transition(before: State | None, after: State) -> None:
    """Raise `ValueError` unless `TRANSITIONS` lets a run go from the state `before` to `after`."""
    if after not in TRANSITIONS[before]:
        raise ValueError(f"A run can't go from {before or 'nothing'} to {after}.")


class Origin(StrEnum):
    """Where a trigger came from."""

    HOOK = "hook"
    API = "api"
    CLI = "cli"
    RETRY = "retry"
    RELEASE = "release"
    ROLLBACK = "rollback"
    SCHEDULE = "schedule"
    REDELIVERY = "redelivery"
    """A delivery that arrived before and is now used once more."""


EXPLICIT = frozenset(
    {Origin.API, Origin.CLI, Origin.RETRY, Origin.RELEASE, Origin.ROLLBACK, Origin.REDELIVERY}
)
"""The origins of explicit calls: a person or a program waits for the answer. They clear a backoff."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, with which credential, and from which address."""

    name: str
    """The name of the hook or of the token, or the system user of the CLI."""
    credential: str = ""
    """The kind and name of the credential, such as `token ci`, never its text. Empty for none."""
    client: str = ""
    """The address that the request came from; empty where there was no request."""

    @property
    def facts(self) -> Mapping[str, str]:
        """The facts for a line of the log."""
        return {"actor": self.name, "credential": self.credential, "client": self.client}


@dataclass(frozen=True, slots=True)
class Trigger:
    """One request to make an environment equal to live."""

    id: str
    site: str
    environment: str
    origin: Origin
    actor: str
    """The name of the hook or of the token that asked, or the system user of the CLI."""
    at: float
    """Unix seconds."""
    lane: str = ""
    """The hosts that its run needs. The run is not started while one of them has enough runs."""
    settle: float = 0.0
    """Seconds that its run waits for further triggers. Each trigger starts the wait again."""
    settle_most: float = 0.0
    """The longest time, in seconds, that the first trigger of the run waits for others."""
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
    """The Unix time before which it is not started."""
    attempt: int = 0
    """How often it was started. It is part of the fence: a worker writes only for its own attempt."""
    failures: int = 0
    """The number of its attempts that failed for a transient reason."""
    streak: int = 0
    """The number of attempts in a row that failed for its environment, in this run and those before it."""
    looks: int = 0
    """The number of its attempts that found Studio publishing."""
    lines: int = 0
    """The number of log lines that are stored. Its owner continues the numbering from here."""
    started_at: float | None = None
    finished_at: float | None = None
    successor: str | None = None
    undoes: str | None = None
    """The id of the run that this one takes back. None for a sync."""
    held_live: str = ""
    """The commit of live at which a rollback holds the environment. Empty for none."""
    outcome: Outcome | None = None


_RANDOM = Random()  # noqa: S311 (ids are unique, not secret)
# The system's random numbers cost a system call for each id. A forked process must not repeat its parent's.
os.register_at_fork(after_in_child=_RANDOM.seed)


def new_id(now: float) -> str:
    """Return a new id. Ids sort by time: they are UUIDs of version 7 (RFC 9562, section 5.7)."""
    millis = int(now * 1000) & (1 << 48) - 1
    chance = _RANDOM.getrandbits(74)
    return _uuid(millis << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (1 << 62) - 1)


def first_id(at: float) -> str:
    """Return the lowest id that `new_id` gives at a time. All ids from before that time sort before it."""
    return _uuid((int(at * 1000) & (1 << 48) - 1) << 80)


def _uuid(value: int) -> str:
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a run is tried again after a transient failure."""

    attempts: int = 20
    first: float = 1.0
    """Seconds before the second attempt. Each further attempt doubles them."""
    most: float = 300.0

    def delay(self, failures: int, jitter: float) -> float:
        """Return the seconds to wait after `failures`. `jitter`, from 0 to 1, takes up to half of it off."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 60)) * (1 - jitter / 2)


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to try again."""

    delay: float
    failed: bool
    """Whether the attempt counts as a failure. A busy repository does not."""


BUSY_FIRST = 0.25
BUSY_MOST = 5.0


def retry(run: Run, error: ListenerError, policy: RetryPolicy, jitter: float) -> Retry | None:
    """Return when `run` is tried again after `error`. None if it has failed for good."""
    if error.again_in is not None:
        # Without the jitter, looks could stay in step with publishes that come at the same interval.
        looking = min(BUSY_MOST, BUSY_FIRST * 2.0 ** min(run.looks, 10)) * (1 - jitter / 2)
        return Retry(min(BUSY_MOST, max(error.again_in, looking)), failed=False)
    if error.permanent or run.failures + 1 >= policy.attempts:
        return None
    return Retry(policy.delay(run.streak + 1, jitter), failed=True)


def final_state(error: ListenerError | None) -> State:
    """Return the state of a run that ends with `error`, or with success."""
    if error is None:
        return State.SUCCEEDED
    return State.CANCELLED if isinstance(error, CancelledRunError | OnHoldError) else State.FAILED
