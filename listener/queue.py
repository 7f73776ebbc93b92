"""The durable queue and history as the rest of the program sees them: the port, and what it takes and gives.

At most one sync of a (site, environment) waits, and at most one run of it is running. Every store that
implements the port enforces both.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from listener.outcomes import Outcome
from listener.runs import Run, State, Trigger


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event of a run's log."""

    sequence: int
    """1, 2, 3, … without gaps."""
    text: str
    """A JSON object on one line."""


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What the store keeps of a verified delivery."""

    id: str
    """The id that we gave it."""
    hook: str
    key: str | None
    """The delivery id of the sender. None if the scheme has none: then every delivery is a new one."""
    received_at: float
    size: int
    digest: str
    """Hex SHA-256 of the body."""
    headers: Mapping[str, str]
    facts: Mapping[str, Any]
    ignored: str = ""
    """Why it selects nothing. Empty if it selects something."""
    credential: str = ""
    """The hook, and the name of the secret that verified it."""
    client: str = ""
    """The address that it came from."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The answer to a delivery or a call. It is given only once everything is durable."""

    runs: tuple[str, ...]
    """The runs that serve it, in the order of its triggers."""
    triggers: tuple[str, ...] = ()
    delivery: str = ""
    ignored: str = ""
    repeated: bool = False
    """Whether the same delivery came before. Then this is the answer to the first one."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A freeze of an environment.

    The hold of a rollback ends by itself when live moves away from the commit `live`, or when somebody
    asks for a sync.
    """

    site: str
    environment: str
    reason: str
    actor: str
    since: float
    live: str | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of the history to return, newest first."""

    site: str | None = None
    environment: str | None = None
    state: State | None = None
    before: str | None = None
    """Return only runs that are older than the run with this id."""
    limit: int = 50
    sites: frozenset[str] | None = None
    """The sites that the caller may see. None for all."""


@dataclass(frozen=True, slots=True)
class Success:
    """The newest run that made an environment equal to live."""

    run: str
    at: float
    """When it ended, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The position of a waiting run in the queue."""

    ahead: int
    """The number of runs that will be started before it, if nothing else happens."""
    pace: float | None
    """The median duration of the latest runs, in seconds. None if there is none."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much was deleted because it was old."""

    runs: int = 0
    deliveries: int = 0
    """Refused requests and the ids of repeated deliveries are included."""
    details: int = 0
    """The number of deliveries of which only the id and the outcome were kept."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + other.runs, self.deliveries + other.deliveries, self.details + other.details
        )


@dataclass(frozen=True, slots=True)
class Backlog:
    """The length of the queue."""

    queued: int = 0
    running: int = 0
    oldest: float | None = None
    """The Unix time at which the oldest waiting run was made. None if no run waits."""


Intent = Callable[[Run], Outcome | None]
"""What a run will do first; None if it has to look first. The store may call it in another thread."""


class RunStore(Protocol):
    """The durable queue and history. Every method may raise `StoreUnavailableError`."""

    async def accept(
        self, triggers: Sequence[Trigger], delivery: DeliveryRecord | None, now: float
    ) -> Acceptance:
        """Store a delivery and its triggers in one transaction, each with a waiting run, new or joined.

        If the same body has come very often within an hour, a delivery that repeats it is only counted at
        the row of an earlier one whose runs all still wait. It joins these runs, and only its id is stored.

        While an environment is on hold, a trigger of a hook gets no run. An explicit trigger gets a run that
        has failed with the code `on-hold`. The hold of a rollback refuses nothing: an explicit trigger ends
        it, and a trigger of a hook gets a run, which sees whether live has moved.
        """

    async def redeliver(self, delivery: str, triggers: Sequence[Trigger], now: float) -> Acceptance:
        """Store further triggers of a stored delivery, each with a waiting run.

        They count as explicit. Raises `DeliveryNotFoundError`.
        """

    async def roll_back(self, trigger: Trigger, undoes: str, hold: Hold) -> Run:
        """Store a run that takes back the run `undoes`, and its hold, in one transaction.

        Raises `ConflictError` while another rollback of the environment waits or runs, and while the
        environment is on hold for another reason.
        """

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do; raise `FencedError` if the caller lost the run."""

    def offer(self, full: Callable[[], Collection[str]], intent: Intent | None = None) -> "Offer":
        """Let the next acceptance claim a run in its own transaction, as `claim` does, with `full()`.

        An acceptance that makes nothing claimable leaves the offer standing. A claim that fails does not
        fail the acceptance.
        """

    async def claim(self, now: float, full: Collection[str] = (), intent: Intent | None = None) -> Run | None:
        """Start the first run that is due, and whose environment is neither running nor held.

        Runs in the lanes `full` are passed over. Explicit calls go first, then hooks, then the schedule. In
        each of these, older runs go before newer ones.

        If it is a first attempt, its outcome is stored in the same transaction as `intent` returns it for
        the run. It is what `keep` would store next.
        """

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Extend the leases of these runs; return the ids of those that still belong to this listener.

        Call it every few seconds. Another listener takes over a run whose lease has expired.
        """

    async def take_over(self, now: float) -> list[Run]:
        """Put back the runs of other listeners whose lease has expired; return them as they are now."""

    async def next_due(self, full: Collection[str] = ()) -> float | None:
        """Return the Unix time at which the next waiting run is due. Runs that may not start are left out."""

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines of a running run with its owner's next write, or after a moment.

        They are stored in the order of the calls. An owner that is fenced stores nothing.
        """

    async def finish(self, run: Run, state: State, outcome: Outcome, now: float) -> None:
        """End a running run; raise `FencedError` if the caller lost the run.

        A sync that succeeds ends the hold of an earlier rollback. A rollback that moved nothing ends its own.
        """

    async def finish_and_claim(
        self,
        run: Run,
        state: State,
        outcome: Outcome,
        now: float,
        full: Collection[str] = (),
        intent: Intent | None = None,
    ) -> Run | None:
        """End a running run as `finish` does, and claim the next one as `claim` does, in one transaction.

        If the claim fails, the run has ended all the same, and there is no next one.
        """

    async def requeue(
        self, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
    ) -> Run:
        """Put a running run back into the queue and return it as it is now.

        It is `superseded` if a successor waits, and `cancelled` if the environment is on hold now. With
        `failed`, the attempt counts as a failure and `not_before` becomes the backoff of the environment.
        """

    async def recover(self, now: float) -> list[Run]:
        """Put every run that a dead listener left running back into the queue; return these runs."""

    async def hasten(self, now: float) -> int:
        """Make every waiting run due, because the clock was set back; return how many were not."""

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError` if it does not wait, or `RunNotFoundError`.

        `only` names triggers: if the run serves another one by now, raise `ForbiddenError`.
        """

    async def hold(self, hold: Hold) -> None:
        """Put an environment on hold and end its waiting run."""

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """End the hold of an environment and return it; None if there was none.

        If there was one, `catch_up` is accepted in the same transaction.
        """

    async def holds(self, sites: Collection[str] | None = None) -> list[Hold]:
        """Return the holds of these sites, or every hold."""

    async def run(self, run_id: str) -> Run:
        """Return a run, or raise `RunNotFoundError`."""

    async def runs(self, which: RunFilter) -> list[Run]:
        """Return a page of the history, newest first."""

    async def serving(self, trigger_id: str) -> Run:
        """Return the run that serves a trigger now. It changes when a run is superseded."""

    async def triggers(self, run_id: str) -> list[Trigger]:
        """Return the triggers that a run serves, oldest first."""

    async def last_successes(
        self, environments: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Success]:
        """Return the last success of each of these sites and environments that has one."""

    async def last_failures(
        self, environments: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], float]:
        """Return the Unix time at which the last failed run of each of these environments ended.

        A run that was never started, because of a hold, does not count.
        """

    async def lines(self, run_id: str, after: int, limit: int = 500) -> list[LogLine]:
        """Return the stored log lines of a run beyond the sequence number `after`."""

    async def queue_position(self, run_id: str, now: float) -> QueuePosition | None:
        """Return the position of a waiting run in the queue. None if it does not wait."""

    async def backlog(self) -> Backlog:
        """Return how many runs wait and how many are running, and when the oldest waiting one was made."""

    async def prune(self, before: float, keep: int, most: int) -> Pruned:
        """Delete up to `most` runs that ended before a time, or that are not among the newest `keep`.

        Their triggers and log lines are deleted too, and so are deliveries from before that time that no
        trigger needs, and other records (`listener.records`) from then. A run that another row refers to (a
        successor, a rollback, a hold) stays, and so does the last success of an environment.
        """

    async def trim(self, keep: int, before: float, most: int) -> Pruned:
        """Limit what is kept of each hook. Change up to `most` rows of a kind; return how many.

        The newest `keep` deliveries of a hook stay whole. Of older ones, the id and the outcome stay, until
        they are older than `before`: no sender repeats them then. What an active run refers to stays.
        """

    async def kept(self, most: int) -> Mapping[str, int]:
        """Return how many deliveries of each hook are kept whole, counted up to `most`."""

    def listen(self, run_id: str) -> AbstractContextManager["Signal"]:
        """Return a signal that is set whenever the run has a new line or a new state."""

    @property
    def work(self) -> "Signal":
        """A signal that is set whenever a run may have become claimable."""


class Offer(Protocol):
    """A free slot of a worker's."""

    def withdraw(self) -> Awaitable[Run | None]:
        """End the offer; return the run that was claimed for it, also where its transaction is under way."""


class Signal(Protocol):
    """Wakes a waiting task: clear it, look, then wait. An `asyncio.Event` is a `Signal`."""

    def set(self) -> None:
        """Wake the waiting task, or the next one that waits."""

    def clear(self) -> None:
        """Forget earlier signals."""

    async def wait(self) -> Any:
        """Return at the next signal, or at once if there was one since `clear`."""
