"""What the store holds, read when Prometheus asks: the same for all listeners, and after a restart."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.metrics_core import Metric

from listener.looks import LookStore, LookSummary
from listener.metrics.exposition import by_site, gauge, labelled
from listener.metrics.labels import GONE, SITE, Key, Labels
from listener.queue import Backlog, RunStore
from listener.records import SECRET, Records

BATCH = 1000
"""Environments that the store is asked about at once, so that one answer is read in some milliseconds."""

NOT_LOOKED_AT = "not-looked-at"
"""Stands for the code of an error where nobody has looked at an environment yet."""


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


async def read(store: Stored, labels: Labels, deliveries: int) -> Reading:
    """Read the store; deliveries are counted up to one more than `deliveries`, the limit for each hook."""
    looks = {each.place: each for each in await store.look_summaries() if labels.of(*each.place) != GONE}
    await asyncio.sleep(0)
    successes: dict[Key, float] = {}
    failures: dict[Key, float] = {}
    for some in _batches(list(dict.fromkeys((*labels.configured(), *looks)))):
        successes |= {key: each.at for key, each in (await store.last_successes(some)).items()}
        failures |= await store.last_failures(some)
    held = {(each.site, each.environment): each.since for each in await store.holds()}
    holds = {key: since for key, since in held.items() if labels.of(*key) != GONE}
    return Reading(
        await store.backlog(),
        holds,
        successes,
        failures,
        looks,
        await store.kept(deliveries + 1),
        {(each.owner, each.name): each.last for each in await store.uses() if each.kind == SECRET},
    )


def _batches(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))


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
        """Yield what the last looks found. An environment that was synced since is equal to live."""
        held, seen = self._reading.holds, {key: look for key, look in looks.items() if not self._synced(look)}
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
        """Return of how many environments nobody can tell whether they differ from live, and why."""
        why = {key: look.error for key, look in seen.items() if look.differs is None}
        missing = set(self._labels.configured()) - self._reading.looks.keys() - self._reading.successes.keys()
        why |= dict.fromkeys(missing, NOT_LOOKED_AT)
        counts: dict[tuple[str, ...], float] = {(*label, ""): 0 for label in self._labels.all()}
        for error in sorted(set(why.values())):
            chosen = (key for key, each in why.items() if each == error)
            for label, count in self._counted(chosen).items():
                counts.pop((*label, ""), None)
                counts[*label, error] = count
        what = (
            "Environments of which nobody can tell whether they differ from live, by the code of the error."
        )
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
        """Count environments by their labels. Those that had no success for longest are the worst."""
        return self._labels.counted({key: self._success(key) for key in keys})

    def _known(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the same, and 0 for each label of which there is none."""
        return dict.fromkeys(self._labels.all(), 0) | self._counted(keys)
