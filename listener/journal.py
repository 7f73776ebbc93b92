"""The events of a run: they go to its stored log, from there to live readers, and to the process's log.

A line is made safe (`listener.redaction`) before it goes anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from listener.errors import ListenerError
from listener.outcomes import Outcome
from listener.queue import LogLine
from listener.redaction import Cleaner
from listener.runs import Run, State, final_state


class Log(Protocol):
    """The process's log, such as a structlog logger."""

    def debug(self, event: str, **facts: Any) -> Any:
        """Write one event that only a developer needs."""

    def info(self, event: str, **facts: Any) -> Any:
        """Write one event of the usual course."""

    def warning(self, event: str, **facts: Any) -> Any:
        """Write one event that somebody should look at."""

    def error(self, event: str, **facts: Any) -> Any:
        """Write one event that somebody has to repair."""


def log_at(log: Log, level: str) -> Callable[..., Any]:
    """Return the method of `log` that writes at a level, by its name."""
    return {"debug": log.debug, "info": log.info, "warning": log.warning, "error": log.error}[level]


class Lines(Protocol):
    """Stores the log lines of runs."""

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store lines of a running run soon, in the order of the calls."""


class Journal:
    """Writes the events of one run. Implements `listener.plans.Notes`."""

    def __init__(
        self, run: Run, host: str, lines: Lines, log: Log, clean: Cleaner, clock: Callable[[], float]
    ) -> None:
        self._run = run
        self._sequence = run.lines
        self._who = {"run": run.id, "site": run.site, "environment": run.environment, "host": host}
        self._lines = lines
        self._log = log
        self._clean = clean
        self._clock = clock
        self._repeated: list[Callable[[], None]] = []
        self.silent = True
        """Whether every event so far repeats one of the last attempt."""

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        """Write one event: number it, store it with the run, and write it to the process's log.

        A `repeated` event says the same as the last attempt did. It is held back until another event
        follows. If none follows, it is dropped.
        """
        write: Callable[[], None] = partial(self._write, self._clock(), event, level, facts)
        if repeated and self.silent:
            self._repeated.append(write)
            return
        self.silent = False
        for each in (*self._repeated, write):
            each()
        self._repeated.clear()

    def begin(self) -> None:
        """Write the line of an attempt that starts. It is a repeated event after one that had to wait."""
        run = self._run
        facts: dict[str, Any] = {
            "attempt": run.attempt,
            "waited": round(self._clock() - run.created_at, 3),
        }
        if looks := equal_looks(run):
            facts["equal_looks"] = looks
        self.note("start", repeated=run.outcome is not None and run.outcome.waits, **facts)

    def conclude(self, outcome: Outcome, error: ListenerError | None, delay: float | None) -> None:
        """Write the canonical line of a run that has ended, or the line that says when it is tried again."""
        run = self._run
        facts = {**_leg_facts(outcome), "attempt": run.attempt, "durations": dict(outcome.durations)}
        if run.undoes is not None:
            facts["undoes"] = run.undoes
        if error is not None:
            facts |= {"error": error.code, "message": error.message, "remedy": error.remedy}
        if delay is not None:
            self.note("again", level="warning", in_seconds=round(delay, 3), **facts)
            return
        state = final_state(error)
        level = {State.SUCCEEDED: "info", State.CANCELLED: "warning"}.get(state, "error")
        self.note("run", level=level, outcome=state.value, **facts)

    def _write(self, now: float, event: str, level: str, facts: Mapping[str, Any]) -> None:
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": level, "event": event, **self._who, **facts}
        self._sequence += 1
        self._lines.append(self._run, [LogLine(self._sequence, self._clean.json(line))])
        log_at(self._log, level)(event, **self._who, **facts)


class Remarks:
    """Writes events that belong to no run: of a dry run, a look at drift, a warm-up."""

    def __init__(self, log: Log, **who: Any) -> None:
        self._log = log
        self._who = who

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        """Write one event to the process's log, unless it is a repeated one."""
        if repeated:
            return
        log_at(self._log, level)(event, **self._who, **facts)


def equal_looks(run: Run) -> int:
    """Return how many attempts in a row, up to the last one, have found the same."""
    return run.outcome.equal_looks if run.outcome else 0


def _leg_facts(outcome: Outcome) -> dict[str, Any]:
    """Return the facts of the only leg, or of each of several."""
    legs = [
        {
            "plan": leg.plan,
            "old": leg.old,
            "new": leg.new,
            "live": leg.live,
            "removed_count": leg.removed_count,
        }
        for leg in outcome.legs
    ]
    if len(legs) == 1:
        return legs[0]
    named = zip(outcome.legs, legs, strict=True)
    return {"legs": [{"repository": leg.repository, "error": leg.error, **facts} for leg, facts in named]}
