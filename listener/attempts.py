"""What a worker is carrying out at this moment.

An entry is an *attempt* at a run, not the run. If the reply to a write is lost, the run may be back in the
queue, and be claimed here again while its earlier attempt still writes down how it ended. By the run alone,
the end of the earlier attempt would remove the entry of the newer one.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from listener.advance import Advance
from listener.errors import ListenerError
from listener.outcomes import Outcome
from listener.progress import Progress
from listener.runs import Run
from listener.sites import Environment


@dataclass(slots=True, eq=False)
class Attempt:
    """A claimed run until its end.

    Only `sync` is ever cancelled. `whole` goes on, and writes down how it ended.
    """

    run: Run
    environment: Environment | None
    """None if it is not configured any more."""
    progress: Progress
    intended: Outcome | None = None
    """What the claim has stored that the attempt will do first; None once it is about to do something."""
    early: Advance | None = None
    """What has begun before its claim was durable."""
    entered: bool = False
    """Whether it is counted on its hosts."""
    following: Run | None = None
    """The claimed run that takes its place."""
    ending: bool = False
    """Whether the sync was cancelled, perhaps before it began."""
    sync: asyncio.Task[ListenerError | None] | None = None
    whole: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Cancel the sync, also if it has not begun.

        Only once: a second cancel would interrupt what the sync does to end in good order.
        """
        if self.ending:
            return
        self.ending = True
        if self.sync is not None:
            self.sync.cancel()

    async def ended(self) -> None:
        """Wait until the sync has ended."""
        if self.sync is not None:
            await asyncio.wait({self.sync})


class Attempts(Collection[Attempt]):
    """The attempts that are under way, by run and number of the attempt."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Attempt] = {}

    def __contains__(self, attempt: object) -> bool:
        return attempt in self._found.values()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    def add(self, attempt: Attempt) -> None:
        """Add an attempt that begins."""
        self._found[attempt.run.id, attempt.run.attempt] = attempt

    def remove(self, attempt: Attempt) -> None:
        """Remove an attempt that has ended."""
        self._found.pop((attempt.run.id, attempt.run.attempt), None)

    def newest(self) -> dict[str, Attempt]:
        """Return the newest attempt at each run, by the run's id. Earlier ones have lost the run."""
        found: dict[str, Attempt] = {}
        for attempt in self:
            before = found.get(attempt.run.id)
            if before is None or before.run.attempt < attempt.run.attempt:
                found[attempt.run.id] = attempt
        return found

    def before(self, attempt: Attempt) -> Iterable[Attempt]:
        """Return the attempts at the same environment that were added before this one.

        They have lost their runs: the store gives an environment to one owner at a time.
        """
        target = attempt.run.site, attempt.run.environment
        earlier = []
        for each in self:
            if each is attempt:
                break
            if (each.run.site, each.run.environment) == target:
                earlier.append(each)
        return earlier
