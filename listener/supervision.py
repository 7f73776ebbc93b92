"""Background tasks. None of them ends unnoticed.

If a task fails, that is logged and counted, and the task is started again after a pause. `failing` names the
tasks that fail again and again: `/readyz` and the watchdog use it. A task is well again once it has run
longer than it ran before its failures.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from listener.journal import Log

PAUSE = 1.0
"""Seconds before a task is started again after its first failure. Each further failure doubles them."""
PAUSE_MOST = 10.0
"""The longest pause, in seconds: so long a task may stay down after the cause is gone."""
AGAIN = 2
"""From so many failures in a row on, a task counts as one that fails again and again."""
STEADY = 5.0
"""A task is well again when it has run so many seconds longer than its longest failed attempt."""
STEADY_MOST = 120.0
"""A task that has run for so many seconds is well again in any case."""

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Task:
    """A supervised task."""

    began: float
    """When it was last started, by a monotonic clock."""
    failures: int = 0
    """The number of its failures in a row."""
    all_failures: int = 0
    """The number of its failures from the start on."""
    lasted: float = 0.0
    """Seconds that its longest failed attempt has run."""
    pausing: bool = False

    def well(self, now: float) -> bool:
        return not self.pausing and now - self.began > min(self.lasted + STEADY, STEADY_MOST)

    def failed(self, now: float) -> float:
        """Note a failure; return the seconds after which the task is started again."""
        if self.well(now):
            self.failures, self.lasted = 0, 0.0
        self.failures += 1
        self.all_failures += 1
        self.lasted = max(self.lasted, now - self.began)
        self.pausing = True
        return float(min(PAUSE_MOST, PAUSE * 2 ** min(self.failures - 1, 10)))


class Supervisor:
    """Starts tasks, starts them again if they fail, and ends them."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._tasks: dict[str, _Task] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Work, *, again: bool = True) -> None:
        """Run `work` until it returns. With `again`, run it anew whenever it fails."""
        task = self._tasks[name] = _Task(self._clock())
        self._running[name] = asyncio.create_task(self._keep_up(name, task, work, again=again), name=name)

    def failing(self) -> tuple[str, ...]:
        """Return the names of the tasks that fail again and again."""
        now = self._clock()
        return tuple(
            name for name, task in self._tasks.items() if task.failures >= AGAIN and not task.well(now)
        )

    def failures(self) -> dict[str, int]:
        """Return how often each task has failed since the start."""
        return {name: task.all_failures for name, task in self._tasks.items()}

    async def stop(self, *, but: Collection[str] = ()) -> None:
        """End all tasks except those named in `but`, and wait until they have ended."""
        ending = [self._running.pop(name) for name in tuple(self._running) if name not in but]
        for running in ending:
            running.cancel()
        # Each result is the cancel itself, or an error that `_keep_up` has logged.
        await asyncio.gather(*ending, return_exceptions=True)

    async def _keep_up(self, name: str, task: _Task, work: Work, *, again: bool) -> None:
        while True:
            try:
                await work()
            except asyncio.CancelledError as cancelled:
                if _asked_to_end():
                    raise
                # A library let the cancel of another task through. It must not end this one unnoticed.
                error: BaseException = cancelled
            except Exception as defect:
                error = defect
                if _asked_to_end():
                    self._log_failure(name, error)
                    raise
            else:
                return
            pause = task.failed(self._clock())
            self._log_failure(name, error, failures=task.failures, **({"again_in": pause} if again else {}))
            if not again:
                return
            await asyncio.sleep(pause)
            task.pausing, task.began = False, self._clock()

    def _log_failure(self, name: str, error: BaseException, **facts: Any) -> None:
        self._log.error("task failed", task=name, exc_info=error, **facts)


def _asked_to_end() -> bool:
    """Return whether the current task itself was cancelled. A `CancelledError` alone does not say so."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
