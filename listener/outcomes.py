"""What a run has done: the state of each leg, its transitions, and the outcome of an attempt."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from listener.errors import ListenerError


class LegState(StrEnum):
    """What a run has done to one leg of its environment."""

    WAITING = "waiting"
    """Nothing was done, and nothing is under way."""
    SENT = "sent"
    """A plan is stored and about to be sent, or was sent. Its result is not known."""
    DOUBTED = "doubted"
    """A plan of an unknown result had not moved the branch at the last look. It still may."""
    RESENT = "resent"
    """The same, and another plan is about to be sent, or was sent."""
    MOVED = "moved"
    """The run has moved the branch."""
    FOUND_EQUAL = "found-equal"
    """The branch was already where it should be. A further attempt skips this leg."""
    MADE_EQUAL = "made-equal"
    """The run has moved the branch to where it should be. A further attempt skips this leg."""


class LegEvent(StrEnum):
    """What happens to one leg."""

    SEND = "send"
    """A plan is about to be stored and then sent."""
    NOT_CARRIED_OUT = "not carried out"
    """The plan was not sent after all, or its reply says that it moved nothing."""
    CARRIED_OUT = "carried out"
    """The plan has moved the branch; its reply says so."""
    SEEN_WHERE_IT_WAS = "seen where it was"
    """A look finds the branch at its old commit, and it has to move."""
    SEEN_WHERE_SENT = "seen where sent"
    """A look finds the branch at another commit, to which a plan of this run would have moved it."""
    SEEN_SETTLED = "seen settled"
    """A look finds that no plan of this run can move the branch any more, or that none has to."""
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
"""All transitions of a leg. `LegOutcome.after` raises for any other."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a leg waits for. The next attempt compares its own look with it."""

    seen: str = ""
    """A digest of what the last look found and decided, without times."""
    reason: str = ""
    """What it waits for if the look itself does not say it (Studio's answer, a lock); else empty."""
    since: float = 0.0
    """When it was first found busy without a mark of a publish, in Unix seconds of its host's clock; 0 if it
    has been found at rest since."""


@dataclass(frozen=True, slots=True)
class LegOutcome:
    """What a run has done to one leg so far, or why it could not."""

    repository: str = ""
    """The configured name of its host and the path there, as `host:path`."""
    branch: str = ""
    plan: str = ""
    state: LegState = LegState.WAITING
    live: str = ""
    """The commit to be equal to: live's, or the one that a rollback goes back to."""
    old: str = ""
    new: str = ""
    backup: str = ""
    removed_count: int = 0
    removed: tuple[str, ...] = ()
    """The first paths that were removed from the environment."""
    listed: bool = True
    """Whether the removed paths are known; a leg that has moved is not done before."""
    error: str = ""
    """The code of the error; empty on success."""
    message: str = ""
    remedy: str = ""
    sent_for: tuple[str, ...] = ()
    """The commits to which plans of an unknown result would make the branch equal."""
    wait: Wait = Wait()

    @property
    def key(self) -> tuple[str, str]:
        """Its identity among the legs of its environment (`listener.sites.Leg.key`)."""
        return self.repository, self.branch

    @property
    def done(self) -> bool:
        """Whether the branch is where it should be. A further attempt skips this leg."""
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
        """Whether a plan was sent, or is about to be, and its result is not known."""
        return self.moved and not self.has_moved

    def after(self, event: LegEvent) -> "LegOutcome":
        """Return the leg after an event; raise `ValueError` if its state has no such transition."""
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
    """What an attempt of a run did, leg by leg, or why it failed."""

    legs: tuple[LegOutcome, ...] = ()
    """The legs that were begun."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """The code of the error; empty on success."""
    message: str = ""
    remedy: str = ""
    durations: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step."""
    waits: bool = False
    """Whether nothing failed and the run only has to wait; it looks again soon."""
    equal_looks: int = 0
    """How many attempts in a row, this one included, found the same as the attempt before them."""

    @property
    def moved(self) -> bool:
        """Whether a branch has moved, or may have. Such a run can't be cancelled."""
        return any(leg.moved for leg in self.legs)

    @property
    def undoable(self) -> tuple[LegOutcome, ...]:
        """The legs that can be rolled back: the branch existed before, and moved."""
        return tuple(leg for leg in self.legs if leg.moved and leg.old and leg.new != leg.old)


def alike(before: Outcome | None, now: Outcome) -> bool:
    """Return whether two attempts in a row wait for the same."""

    def waits_for(outcome: Outcome) -> tuple[str, list[tuple[tuple[str, str], str, str, str]]]:
        legs = [(leg.key, leg.error, leg.wait.seen, leg.wait.reason) for leg in outcome.legs]
        return outcome.error, legs

    return before is not None and waits_for(before) == waits_for(now)
