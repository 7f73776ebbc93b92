"""The durable queue and history, as the rest of the program sees it: what goes in, what comes out, the port.

At most one sync of a (site, environment) waits and at most one run of it is running; both are rules of the
store, whichever implements the port.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from listener.outcomes import Outcome
from listener.runs import Run, State, Trigger


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event of a run's log."""

    sequence: int
    """1, 2, 3, … without holes."""
    text: str
    """A JSON object on one line."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What the store keeps of a verified delivery."""

    id: str
    """Ours."""
    hook: str
    key: str | None
    """The sender's delivery id; None when the scheme has none, and then no two are the same."""
    received_at: float
    size: int
    digest: str
    """Hex SHA-256 of the body."""
    headers: Mapping[str, str]
    facts: Mapping[str, Any]
    ignored: str = ""
    """Why it selects nothing; empty if it selects something."""
    credential: str = ""
    """The hook and the name of the secret that it was made with."""
    client: str = ""
    """The address that it came from."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to a delivery or a call, given only once it is durable."""

    runs: tuple[str, ...]
    """The runs that serve it, in the order of its triggers."""
    triggers: tuple[str, ...] = ()
    delivery: str = ""
    ignored: str = ""
    repeated: bool = False
    """Whether the same delivery was there before, and this is the first one's answer."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A freeze of an environment.

    One that came with a rollback ends by itself: when live moves away from the commit `live`, or when
    somebody asks for a sync.
    """

    site: str
    environment: str
    reason: str
    actor: str
    since: float
    live: str | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of the history are asked for, newest first."""

    site: str | None = None
    environment: str | None = None
    state: State | None = None
    before: str | None = None
    """The id of the run after which to go on."""
    limit: int = 50
    sites: frozenset[str] | None = None
    """The sites that the caller may see; None for all."""


@dataclass(frozen=True, slots=True)
class Success:
    """The newest run that made an environment equal to live."""

    run: str
    at: float
    """When it ended, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where a waiting run stands in the queue."""

    ahead: int
    """How many runs are started before it, as things are now."""
    pace: float | None
    """Seconds that a run has taken lately, in the middle; None while nobody knows."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted because it was old."""

    runs: int = 0
    deliveries: int = 0
    """Those that were refused included, and the ids of repeated ones."""
    details: int = 0
    """Deliveries of which only the id and the outcome were kept."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + other.runs, self.deliveries + other.deliveries, self.details + other.details
        )


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the queue holds."""

    queued: int = 0
    running: int = 0
    oldest: float | None = None
    """When the oldest run that waits was made, in Unix seconds; None if none waits."""


class RunStore(Protocol):
    """The durable queue and history. Every method may raise `StoreUnavailableError`."""

    async def accept(
        self, triggers: Sequence[Trigger], delivery: DeliveryRecord | None, now: float
    ) -> Acceptance:
        """Store a delivery and its triggers in one transaction, each with a waiting run, new or joined.

        Once a body has come very often within an hour, one that repeats it is counted at the row of another,
        all of whose runs still wait: it joins these as any other does, and only its id has a row of its own.

        A trigger of a held environment gets no run when it comes by a hook, and one that has failed already
        with the code `on-hold` when it is explicit. A rollback's hold refuses nothing: an explicit trigger
        ends it, and what comes by a hook gets a run, which sees whether live has moved.
        """

    async def redeliver(self, delivery: str, triggers: Sequence[Trigger], now: float) -> Acceptance:
        """Store further triggers of a delivery that is there already, each with a waiting run.

        They are explicit ones. Raises `DeliveryNotFoundError`.
        """

    async def roll_back(self, trigger: Trigger, undoes: str, hold: Hold) -> Run:
        """Store a run that takes back the run `undoes`, and its hold, in one transaction.

        Raises `ConflictError` while another rollback of the environment waits or runs, or while it is on
        hold for another reason.
        """

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do; raise `FencedError` if it is not this owner's."""

    async def claim(self, now: float, full: Collection[str] = ()) -> Run | None:
        """Start the first run that is due, unless its environment is running or held, or its lane is full.

        Runs that somebody asks for explicitly go before others, and older ones before newer.
        """

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Say that these runs are still being carried out; return the ids of those that still are ours.

        To be called every few seconds: what is not heard of for a while is taken over by another listener.
        """

    async def take_over(self, now: float) -> list[Run]:
        """Put back the runs of listeners that are not heard of any more; return them as they are now."""

    async def next_due(self, full: Collection[str] = ()) -> float | None:
        """Return when the next waiting run is due that nothing else holds back, in Unix seconds."""

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines of a running run soon, in the order of the calls; a fenced one stores nothing."""

    async def finish(self, run: Run, state: State, outcome: Outcome, now: float) -> None:
        """End a running run; raise `FencedError` if it is not this owner's any more.

        A sync that succeeds ends the hold of an earlier rollback; a rollback that moved nothing ends its own.
        """

    async def requeue(
        self, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
    ) -> Run:
        """Put a running run back into the queue and return it as it is now.

        It is `superseded` where a successor waits, `cancelled` where the environment is on hold by now. With
        `failed`, the attempt counts as a failure and `not_before` becomes the backoff of the environment.
        """

    async def recover(self, now: float) -> list[Run]:
        """Put every run that a dead listener left running back into the queue; return them."""

    async def hasten(self, now: float) -> int:
        """Let every waiting run be due, for the clock was set back; return how many waited."""

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError` if it does not wait, `RunNotFoundError`.

        With the ids of triggers in `only`, raise `ForbiddenError` if it serves any other by now.
        """

    async def hold(self, hold: Hold) -> None:
        """Freeze an environment and end its waiting run."""

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """Let an environment go; return the hold that was, or None.

        `catch_up` is accepted in the same transaction, if there was a hold.
        """

    async def holds(self, sites: Collection[str] | None = None) -> list[Hold]:
        """Return the holds of these sites, or every hold."""

    async def run(self, run_id: str) -> Run:
        """Return a run, or raise `RunNotFoundError`."""

    async def runs(self, which: RunFilter) -> list[Run]:
        """Return a page of the history, newest first."""

    async def serving(self, trigger_id: str) -> Run:
        """Return the run that serves a trigger now: it changes when a run is superseded."""

    async def triggers(self, run_id: str) -> list[Trigger]:
        """Return the triggers that a run serves, oldest first."""

    async def last_successes(
        self, environments: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Success]:
        """Return the last success of each of these sites and environments that has one."""

    async def lines(self, run_id: str, after: int, limit: int = 500) -> list[LogLine]:
        """Return the stored log lines of a run beyond the sequence number `after`."""

    async def queue_position(self, run_id: str, now: float) -> QueuePosition | None:
        """Return where a waiting run stands in the queue; None for one that does not wait."""

    async def backlog(self) -> Backlog:
        """Return how many runs wait and are running, and when the oldest that waits was made."""

    async def prune(self, before: float, keep: int, most: int) -> Pruned:
        """Delete up to `most` runs that ended before a time, or before the newest `keep` ended ones.

        Their triggers and log lines go with them, and so do the deliveries of before that time that no
        trigger needs, and what else is on record of then (`listener.records`). What another row still refers
        to (a successor, a rollback, a hold) stays, and so does the last success of an environment.
        """

    async def trim(self, keep: int, before: float, most: int) -> Pruned:
        """Bound what is kept of each hook, up to `most` rows of a kind; return how many.

        Of deliveries beyond the newest `keep` of their hook only ids and outcomes stay, and these until
        `before`: nobody sends them again by then. What a waiting or running run refers to stays.
        """

    async def kept(self, most: int) -> Mapping[str, int]:
        """Return how many deliveries of each hook are kept with all that they said, counted up to `most`."""

    def listen(self, run_id: str) -> AbstractContextManager["Signal"]:
        """Return a signal that is set whenever the run has a new line or a new state."""

    @property
    def work(self) -> "Signal":
        """A signal that is set whenever a run may have become claimable."""


class Signal(Protocol):
    """Wakes who waits: clear it, look, wait. `asyncio.Event` is one."""

    def clear(self) -> None:
        """Forget what was signalled."""

    async def wait(self) -> Any:
        """Return once something is signalled."""
