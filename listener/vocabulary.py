"""The names of states, plans, fates and events, as they are stored, logged and answered.

They have a module of their own, so that a command can import them without the rest.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a run stands; `listener.runs.TRANSITIONS` says what may follow what."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Instead of going back to the queue, it handed its triggers to a successor that was waiting."""
    CANCELLED = "cancelled"


class PlanKind(StrEnum):
    """What a plan (`listener.plans`) does to the environment's branch."""

    UP_TO_DATE = "up-to-date"
    CREATE = "create"
    FAST_FORWARD = "fast-forward"
    FORWARD_COMMIT = "forward-commit"
    RESET = "reset"
    BUSY = "busy"
    REFUSE = "refuse"


class Fate(StrEnum):
    """What became of a request (`listener.records`)."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    """A good delivery that selects nothing."""
    REFUSED = "refused"


class LookState(StrEnum):
    """How an environment stands, as the last look (`listener.looks`) found it."""

    EQUAL = "equal"
    DIFFERS = "differs"
    """The trees differ. A run would move the branch, wait, or refuse."""
    UNKNOWN = "unknown"
    """The look failed, or live does not exist."""


class EventKind(StrEnum):
    """What an event (`listener.events`) is about."""

    RUN = "run"
    """A line of a run's log, or a run that was queued or cancelled."""
    DELIVERY = "delivery"
    """A delivery that was accepted or ignored."""
    REFUSAL = "refusal"
    """A refused delivery or call."""
    HOLD = "hold"
    RELEASE = "release"
    LOOK = "look"
    """A look that found another state than the one before."""
    HOST = "host"
    """A host that stopped answering, or answers again."""


NOT_LOOKED_AT = "not-looked-at"
"""In place of the code of an error: the environment was not looked at yet."""
