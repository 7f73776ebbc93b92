"""What a run has done so far: each leg's state, how it may go, and what is kept of a whole attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from listener.errors import ListenerError


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
