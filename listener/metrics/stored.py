"""Figures of what the store holds: the same at all listeners, and after a restart."""

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.metrics_core import Metric

from listener.errors import StoreUnavailableError
from listener.looks import LookState, LookStore, LookSummary
from listener.metrics.exposition import by_site, gauge, labelled
from listener.metrics.labels import GONE, SITE, Key, Labels
from listener.queue import Backlog, RunStore
from listener.records import SECRET, Records
from listener.vocabulary import NOT_LOOKED_AT

BATCH = 500
"""Environments that are read at once, so that it takes some milliseconds."""

YOUNG = 5.0
"""With many sites, a reading is used again for so many seconds."""
ENDS_YOUNG = 60.0
"""The same for the ends of runs. They matter less: each run also leaves a look."""
WAIT = 0.1
"""Seconds that a scrape waits for a reading that is under way."""


class Stored(RunStore, Records, LookStore, Protocol):
    """The ports of the store that the figures read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the store holds at one moment. All times are Unix seconds."""

    backlog: Backlog
    holds: Mapping[Key, float]
    """The environments that are on hold, and since when."""
    successes: Mapping[Key, float]
    """When each environment last became equal to live."""
    failures: Mapping[Key, float]
    """When a run of each environment last failed."""
    looks: Mapping[Key, LookSummary]
    deliveries: Mapping[str, int]
    """How many deliveries of each hook are kept whole."""
    secrets: Mapping[Key, float]
    """When a secret of a hook last signed a delivery."""


class Readings:
    """Reads the store for the scrapes.

    With many sites a reading takes long. Then it is made in the background, and a scrape waits for it only
    briefly. If it is not ready, the scrape gets the reading before it.
    """

    def __init__(self, store: Stored, labels: Labels, deliveries: int) -> None:
        """`deliveries` is the limit for each hook. Deliveries are counted up to one more."""
        self._store = store
        self._labels = labels
        self._deliveries = deliveries
        self._latest: Reading | None = None
        self._reading: asyncio.Task[None] | None = None
        self._begun = -math.inf
        self._ends: tuple[dict[Key, float], dict[Key, float]] = {}, {}
        self._ends_read = -math.inf

    async def latest(self) -> Reading | None:
        """Return what the store holds; None if it does not answer."""
        if not self._labels.together:
            await self._read()
            return self._latest
        reading = self.begin()
        if reading is not None:
            done, _ = await asyncio.wait({reading}, timeout=WAIT if self._latest else None)
            for each in done:
                each.result()
        return self._latest

    def begin(self) -> asyncio.Task[None] | None:
        """Begin a new reading if the last one is too old; return the last one that was begun."""
        now = time.monotonic()
        if (self._reading is None or self._reading.done()) and now - self._begun >= YOUNG:
            self._begun = now
            self._reading = asyncio.create_task(self._read(), name="figures")
        return self._reading

    async def close(self) -> None:
        """End the reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self) -> None:
        try:
            self._latest = await self._read_whole()
        except StoreUnavailableError:
            self._latest = None

    async def _read_whole(self) -> Reading:
        looks = {}
        for number, each in enumerate(await self._store.look_summaries()):
            if self._labels.of(*each.place) != GONE:
                looks[each.place] = each
            if not number % BATCH:
                await asyncio.sleep(0)
        successes, failures = await self._read_ends(looks.keys())
        holds = {(each.site, each.environment): each.since for each in await self._store.holds()}
        return Reading(
            await self._store.backlog(),
            {key: since for key, since in holds.items() if self._labels.of(*key) != GONE},
            successes,
            failures,
            looks,
            await self._store.kept(self._deliveries + 1),
            {(each.owner, each.name): each.last for each in await self._store.uses() if each.kind == SECRET},
        )

    async def _read_ends(self, looked_at: Collection[Key]) -> tuple[dict[Key, float], dict[Key, float]]:
        """Return when runs of each environment last succeeded and failed; with many sites, from a cache."""
        now = time.monotonic()
        if self._labels.together and now - self._ends_read < ENDS_YOUNG:
            return self._ends
        keys = list(dict.fromkeys((*self._labels.configured, *looked_at)))
        successes: dict[Key, float] = {}
        failures: dict[Key, float] = {}
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            found = await self._store.last_successes(some)
            successes.update((key, each.at) for key, each in found.items())
            failures.update(await self._store.last_failures(some))
        self._ends, self._ends_read = (successes, failures), now
        return self._ends


class StoredFigures:
    """The figures of one reading."""

    def __init__(self, reading: Reading, labels: Labels, patience: float) -> None:
        self._reading = reading
        self._labels = labels
        self._patience = patience

    def metrics(self, overdue: Iterable[Key]) -> Iterator[Metric]:
        """Yield the figures; `overdue` are the environments whose runs here have waited for too long."""
        yield from self._of_queue(self._reading.backlog)
        yield from self._of_looks(self._reading.looks, frozenset(overdue))
        yield from self._of_holds()
        yield from self._of_runs()

    def _of_queue(self, backlog: Backlog) -> Iterator[Metric]:
        yield gauge("queued_runs", "Runs that wait.", backlog.queued)
        yield gauge("running_runs", "Runs that any listener carries out now.", backlog.running)
        what = "When the oldest waiting run was made."
        yield gauge("oldest_queued_run_timestamp_seconds", what, backlog.oldest)

    def _of_looks(self, looks: Mapping[Key, LookSummary], overdue: frozenset[Key]) -> Iterator[Metric]:
        """Yield the figures of the last looks. An environment that was synced since then is equal to live."""
        held = self._reading.holds
        seen = {
            key: look
            for key, look in looks.items()
            if (look.state is not LookState.EQUAL or look.busy_since) and not self._synced(look)
        }
        differing = [key for key, look in seen.items() if look.differs]
        what = "Environments that differed from live when last looked at."
        yield by_site("drifted_environments", what, self._known(differing))
        behind = [key for key in differing if key not in held and self._labels.follows(*key)]
        what = "Environments that follow live, differ from it, and are not on hold."
        yield by_site("behind_environments", what, self._known(behind))
        yield self._unknown(seen)
        stuck = overdue.union(
            key
            for key, look in seen.items()
            if look.busy_since and look.looked_at - look.busy_since > self._patience
        )
        what = "Environments whose repository has been busy for longer than sync.patience, without a mark."
        yield by_site("publishing_stuck_environments", what, self._counted(stuck))
        times = {key: max(look.looked_at, self._success(key)) for key, look in looks.items()}
        what = "When an environment was last looked at."
        yield by_site("last_look_timestamp_seconds", what, self._labels.oldest(times))

    def _unknown(self, seen: Mapping[Key, LookSummary]) -> Metric:
        """Return how many environments are in an unknown state, and why."""
        why = {key: look.error for key, look in seen.items() if look.differs is None}
        missing = self._labels.configured - self._reading.looks.keys() - self._reading.successes.keys()
        why |= dict.fromkeys(missing, NOT_LOOKED_AT)
        counts: dict[tuple[str, ...], float] = {(*label, ""): 0 for label in self._labels.all()}
        for error in sorted(set(why.values())):
            chosen = (key for key, each in why.items() if each == error)
            for label, count in self._counted(chosen).items():
                counts.pop((*label, ""), None)
                counts[*label, error] = count
        what = "Environments in an unknown state (equal to live or not), by the code of the error."
        return labelled("unknown_environments", what, (*SITE, "error"), counts)

    def _of_holds(self) -> Iterator[Metric]:
        holds = self._reading.holds
        yield by_site("held_environments", "Environments on hold.", self._labels.counted(holds))
        what = "Since when an environment is on hold."
        yield by_site("hold_started_timestamp_seconds", what, self._labels.oldest(holds))

    def _of_runs(self) -> Iterator[Metric]:
        named = {key: at for key, at in self._reading.successes.items() if self._labels.named(key)}
        what = "When an environment last became equal to live."
        yield by_site("last_success_timestamp_seconds", what, self._labels.oldest(named))
        failing = (key for key, at in self._reading.failures.items() if at > self._success(key))
        what = "Environments whose last run failed."
        yield by_site("failing_environments", what, self._known(failing))

    def _success(self, key: Key) -> float:
        return self._reading.successes.get(key, 0.0)

    def _synced(self, look: LookSummary) -> bool:
        return self._success(look.place) > look.looked_at

    def _counted(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Count environments by their labels. The worst are those with the oldest last success."""
        return self._labels.counted({key: self._success(key) for key in keys})

    def _known(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the same, with 0 for each label without an environment."""
        return dict.fromkeys(self._labels.all(), 0) | self._counted(keys)
