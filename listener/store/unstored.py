"""Log lines on their way to the store. They are kept until they are stored, so no log has a hole."""

import asyncio
from collections.abc import Sequence

from listener.errors import FencedError, StoreUnavailableError
from listener.queue import LogLine
from listener.runs import Run


class Unstored:
    """The log lines that are not known to be stored yet, by run and attempt."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], list[LogLine]] = {}
        self._untried: dict[tuple[str, int], Run] = {}

    def add(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Keep further lines of a run."""
        key = run.id, run.attempt
        self._lines.setdefault(key, []).extend(lines)
        self._untried[key] = run

    def of(self, run: Run) -> tuple[LogLine, ...]:
        """Return the lines that the next write of the run's owner takes along."""
        return tuple(self._lines.get((run.id, run.attempt), ()))

    def untried(self) -> list[Run]:
        """Return the runs with lines that no write has taken along yet, once."""
        runs = list(self._untried.values())
        self._untried.clear()
        return runs

    def taken_along(self, run: Run) -> None:
        """Leave the lines of a run to a write of its owner that is queued now."""
        self._untried.pop((run.id, run.attempt), None)

    def forget(self, run: Run) -> None:
        """Keep nothing more of a run that its owner has left."""
        self._lines.pop((run.id, run.attempt), None)
        self._untried.pop((run.id, run.attempt), None)

    def stored(self, run: Run, last: int) -> None:
        """Forget the lines of a run up to the sequence number `last`."""
        unstored = self._lines.get((run.id, run.attempt), [])
        unstored[:] = [line for line in unstored if line.sequence > last]
        if not unstored:
            self.forget(run)

    def tried(self, run: Run, stored: asyncio.Future[int]) -> None:
        """Forget the lines that are stored, or never can be. A defect goes to the loop's handler."""
        error = stored.exception()
        if error is None:
            self.stored(run, stored.result())
        elif not isinstance(error, StoreUnavailableError):
            self.forget(run)
            if not isinstance(error, FencedError):
                raise error
