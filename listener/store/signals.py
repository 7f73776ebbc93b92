"""Who waits for what in this process, and how it is woken.

The signals belong to the event loop's thread; nothing here may be called from another one.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Signals:
    """The signals of one store: one for work to do, and any number for each run."""

    def __init__(self) -> None:
        self.work = asyncio.Event()
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listen(self, run_id: str) -> Iterator[asyncio.Event]:
        """Give a signal of its own to each listener: one who clears it doesn't take it from another."""
        signal = asyncio.Event()
        listeners = self._listeners.setdefault(run_id, set())
        listeners.add(signal)
        try:
            yield signal
        finally:
            listeners.discard(signal)
            if not listeners and self._listeners.get(run_id) is listeners:
                del self._listeners[run_id]

    def ring(self, changed: Iterable[str], *, work: bool) -> None:
        """Wake the listeners of the runs that changed and, with `work`, whoever waits for something to do."""
        for run_id in changed:
            for signal in self._listeners.get(run_id, ()):
                signal.set()
        if work:
            self.work.set()

    def ring_all(self) -> None:
        """Wake everybody: something may have happened that could not be heard."""
        self.ring(list(self._listeners), work=True)
