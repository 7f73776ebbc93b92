"""Log lines on their way, kept until they are stored: a store that is away leaves no hole in a log."""

import asyncio
from collections.abc import Sequence

from listener.errors import FencedError, StoreUnavailableError
from listener.queue import LogLine
from listener.runs import Run


class Unstored:
    """The log lines that are not known to be stored yet, by run and attempt."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], list[LogLine]] = {}

    def add(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Keep further lines of a run."""
        self._lines.setdefault((run.id, run.attempt), []).extend(lines)

    def of(self, run: Run) -> tuple[LogLine, ...]:
        """Return the lines that the next write of the run's owner takes along."""
        return tuple(self._lines.get((run.id, run.attempt), ()))

    def forget(self, run: Run) -> None:
        """Keep nothing more of a run that its owner has left."""
        self._lines.pop((run.id, run.attempt), None)

    def tried(self, run: Run, stored: asyncio.Future[int]) -> None:
        """Forget the lines that are stored, or can't ever be; a fault of ours goes to the loop's handler."""
        error = stored.exception()
        if isinstance(error, StoreUnavailableError):
            return
        if error is None:
            unstored = self._lines.get((run.id, run.attempt), [])
            unstored[:] = [line for line in unstored if line.sequence > stored.result()]
            if unstored:
                return
        self.forget(run)
        if error is not None and not isinstance(error, FencedError):
            raise error
