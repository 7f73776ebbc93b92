"""What a worker is carrying out at this moment.

An entry is an *attempt* at a run, and not the run: a write whose reply was lost may have put the run back
into the queue, so that it is claimed again here while its earlier attempt still writes down how it ended.
Each attempt removes its own entry alone.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from listener.errors import ListenerError
from listener.progress import Progress
from listener.runs import Run
from listener.sites import Environment


@dataclass(slots=True, eq=False)
class Attempt:
    """A claimed run on its way to its end.

    Only the sync is ever cancelled; the whole goes on to write down how it ended.
    """

    run: Run
    environment: Environment | None
    """None where it is not configured any more."""
    progress: Progress
    entered: bool = False
    """Whether it counts on its hosts."""
    cancelled: bool = False
    """Whether somebody wanted the run to end for good."""
    ending: bool = False
    """Whether the sync was told to end, perhaps before it began."""
    sync: asyncio.Task[ListenerError | None] | None = None
    whole: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Cancel the sync, if it is still going on or has not begun.

        Once: a second cancelling would cut short what it does to end in good order.
        """
        if self.ending:
            return
        self.ending = True
        if self.sync is not None:
            self.sync.cancel()

    async def ended(self) -> None:
        """Wait until nothing of the sync goes on any more."""
        if self.sync is not None:
            await asyncio.wait({self.sync})


class Attempts(Collection[Attempt]):
    """The attempts that are under way, by the run and the number of the attempt."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Attempt] = {}

    def __contains__(self, attempt: object) -> bool:
        return attempt in self._found.values()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    def add(self, attempt: Attempt) -> None:
        """Take one up."""
        self._found[attempt.run.id, attempt.run.attempt] = attempt

    def remove(self, attempt: Attempt) -> None:
        """Let one go."""
        self._found.pop((attempt.run.id, attempt.run.attempt), None)

    def newest(self) -> dict[str, Attempt]:
        """Return the last attempt at each run, by the run's id: an earlier one does not own it any more."""
        found: dict[str, Attempt] = {}
        for attempt in self:
            before = found.get(attempt.run.id)
            if before is None or before.run.attempt < attempt.run.attempt:
                found[attempt.run.id] = attempt
        return found

    def before(self, attempt: Attempt) -> Iterable[Attempt]:
        """Return the attempts at the same environment that were taken up before this one.

        The store gives a run of an environment to one owner at a time: they have lost theirs.
        """
        target = attempt.run.site, attempt.run.environment
        earlier = []
        for each in self:
            if each is attempt:
                break
            if (each.run.site, each.run.environment) == target:
                earlier.append(each)
        return earlier
