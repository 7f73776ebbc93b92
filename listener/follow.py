"""Following a run's log while it grows, and a trigger until its run has ended."""

import asyncio
from collections.abc import AsyncGenerator

from listener.queue import LogLine, RunStore, Signal
from listener.runs import ENDED, Run, State

FALLBACK = 5.0
"""Seconds after which a follower looks again without a signal: a lost signal only costs this time."""


async def lines(store: RunStore, run_id: str, after: int = 0) -> AsyncGenerator[LogLine, None]:
    """Yield a run's log lines after the sequence number `after`, until the run has ended.

    The lines come from the store, and a signal only wakes the reader: a slow one delays nobody, misses none.
    """
    with store.listen(run_id) as signal:
        while True:
            # Clear, then look: a line that is stored in between sets the signal again.
            signal.clear()
            run = await store.run(run_id)
            while batch := await store.lines(run_id, after):
                for line in batch:
                    yield line
                after = batch[-1].sequence
            if run.state in ENDED:
                return
            await _pause(signal)


async def served(store: RunStore, trigger_id: str) -> Run:
    """Wait until the run that serves a trigger has ended; return that run. Successors are followed."""
    while True:
        run = await store.serving(trigger_id)
        with store.listen(run.id) as signal:
            signal.clear()
            # A successor may have taken the trigger over before the store began to signal.
            run = await store.serving(trigger_id)
            if run.state in ENDED and run.state is not State.SUPERSEDED:
                return run
            await _pause(signal)


async def _pause(signal: Signal) -> None:
    try:
        async with asyncio.timeout(FALLBACK):
            await signal.wait()
    except TimeoutError:
        pass
