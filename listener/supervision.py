"""Tasks in the background: none of them ends without being noticed.

A task that fails is logged, counted by that log line, and started again after a pause. One that fails again
and again is told by `failing`, from which `/readyz` and the watchdog know; it is well again once it has run
for longer than it did before its failures.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from listener.journal import Log

PAUSE = 1.0
"""Seconds after the first failure before a task is started again; each further failure doubles them."""
PAUSE_MOST = 10.0
"""The longest pause, in seconds: this much later a task goes on after its cause has gone."""
AGAIN = 2
"""Failures from which on a task counts as one that fails again and again."""
STEADY = 5.0
"""Seconds by which a task must outlive its failed attempts to be well again."""
STEADY_MOST = 120.0
"""Seconds after which a task is well again, however late its attempts have failed."""

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Task:
    """A task that is looked after."""

    began: float
    """When it was last started, by a steady clock."""
    failures: int = 0
    """How often in a row it has failed."""
    lasted: float = 0.0
    """Seconds that the longest of its failed attempts has run."""
    pausing: bool = False

    def well(self, now: float) -> bool:
        return not self.pausing and now - self.began > min(self.lasted + STEADY, STEADY_MOST)

    def failed(self, now: float) -> float:
        """Take note of a failure; return after how many seconds it is started again."""
        if self.well(now):
            self.failures, self.lasted = 0, 0.0
        self.failures += 1
        self.lasted = max(self.lasted, now - self.began)
        self.pausing = True
        return float(min(PAUSE_MOST, PAUSE * 2 ** min(self.failures - 1, 10)))


class Supervisor:
    """Starts tasks, starts them again when they fail, and ends them."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._tasks: dict[str, _Task] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Work, *, again: bool = True) -> None:
        """Carry out `work` until it returns; where `again`, call it anew whenever it fails."""
        task = self._tasks[name] = _Task(self._clock())
        self._running[name] = asyncio.create_task(self._keep_up(name, task, work, again=again), name=name)

    def failing(self) -> tuple[str, ...]:
        """Return the names of the tasks that fail again and again."""
        now = self._clock()
        return tuple(
            name for name, task in self._tasks.items() if task.failures >= AGAIN and not task.well(now)
        )

    async def stop(self, *, but: Collection[str] = ()) -> None:
        """End all tasks, except for those named in `but`, and wait for their ends."""
        ending = [self._running.pop(name) for name in tuple(self._running) if name not in but]
        for running in ending:
            running.cancel()
        # What is raised here was logged by `_keep_up`, or is the cancelling itself.
        await asyncio.gather(*ending, return_exceptions=True)

    async def _keep_up(self, name: str, task: _Task, work: Work, *, again: bool) -> None:
        while True:
            try:
                await work()
            except asyncio.CancelledError as cancelled:
                if _asked_to_end():
                    raise
                # A library has let somebody else's cancelling through: that is a failure like any other.
                error: BaseException = cancelled
            except Exception as defect:
                error = defect
                if _asked_to_end():
                    self._tell(name, error)
                    raise
            else:
                return
            pause = task.failed(self._clock())
            self._tell(name, error, failures=task.failures, **({"again_in": pause} if again else {}))
            if not again:
                return
            await asyncio.sleep(pause)
            task.pausing, task.began = False, self._clock()

    def _tell(self, name: str, error: BaseException, **facts: Any) -> None:
        self._log.error("task failed", task=name, exc_info=error, **facts)


def _asked_to_end() -> bool:
    """Return whether the current task was told to end, and has not merely seen a `CancelledError`."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
