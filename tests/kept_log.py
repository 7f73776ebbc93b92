"""A log that keeps its lines. Implements `listener.journal.Log`."""

from functools import partialmethod
from typing import Any


class KeptLog:
    """Keeps each line as a dictionary: its level, its event and its facts."""

    def __init__(self, lines: list[dict[str, Any]] | None = None) -> None:
        self.lines: list[dict[str, Any]] = [] if lines is None else lines

    def _keep(self, level: str, event: str, **facts: Any) -> None:
        self.lines.append({"level": level, "event": event, **facts})

    debug = partialmethod(_keep, "debug")
    info = partialmethod(_keep, "info")
    warning = partialmethod(_keep, "warning")
    error = partialmethod(_keep, "error")

    @property
    def events(self) -> list[str]:
        """The names of the events."""
        return [line["event"] for line in self.lines]
