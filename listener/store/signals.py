"""Signals within this process: they wake tasks that wait for work or for a run.

They belong to the thread of the event loop. No other thread may use them.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from listener.queue import Intent
from listener.runs import Run


class Signals:
    """The signals of one store: one for work, one for events, and any number for each run."""

    def __init__(self) -> None:
        self.work = asyncio.Event()
        self.happening = asyncio.Event()
        self._listeners: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listen(self, run_id: str) -> Iterator[asyncio.Event]:
        """Give each listener its own signal: the first to clear a shared one would take it from others."""
        signal = asyncio.Event()
        listeners = self._listeners.setdefault(run_id, set())
        listeners.add(signal)
        try:
            yield signal
        finally:
            listeners.discard(signal)
            if not listeners and self._listeners.get(run_id) is listeners:
                del self._listeners[run_id]

    def ring(self, changed: Iterable[str], *, work: bool, happened: bool = True) -> None:
        """Wake followers of the changed runs; with `work`, the worker; with `happened`, readers of events."""
        if happened:
            self.happening.set()
        for run_id in changed:
            for signal in self._listeners.get(run_id, ()):
                signal.set()
        if work:
            self.work.set()

    def ring_all(self) -> None:
        """Wake everybody, because notifications may have been missed."""
        self.ring(list(self._listeners), work=True)


class Offer:
    """A worker's free slot, for the next acceptance to fill in its own transaction."""

    def __init__(self, full: Callable[[], Collection[str]], intent: Intent | None) -> None:
        self.full = full
        self.intent = intent
        self._claim: asyncio.Future[Run | None] | None = None
        self._withdrawn = False

    @property
    def stands(self) -> bool:
        """Whether an acceptance may claim a run for it: no other one does, and the worker still wants one."""
        return self._claim is None and not self._withdrawn

    def fill(self, claim: asyncio.Future[Run | None]) -> None:
        """Take a claim that is under way. The slot is on offer again if it brings no run."""
        self._claim = claim
        claim.add_done_callback(self._filled)

    def withdraw(self) -> asyncio.Future[Run | None]:
        """Let no later acceptance fill the slot; return the claim that is under way, or was made."""
        self._withdrawn = True
        if self._claim is None:
            self._claim = asyncio.get_running_loop().create_future()
            self._claim.set_result(None)
        return self._claim

    def _filled(self, claim: asyncio.Future[Run | None]) -> None:
        # A claim that failed is the worker's business only if it is waiting for it. The next one tells why.
        brought = not claim.cancelled() and claim.exception() is None and claim.result() is not None
        if not brought and not self._withdrawn:
            self._claim = None
