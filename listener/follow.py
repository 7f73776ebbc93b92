"""Following what was asked for: a run's log as it grows, a trigger until it is served."""

import asyncio
from collections.abc import AsyncGenerator

from listener.queue import LogLine, RunStore, Signal
from listener.runs import ENDED, Run, State

FALLBACK = 5.0
"""Seconds after which a follower looks again even when nothing was signalled."""


async def lines(store: RunStore, run_id: str, after: int = 0) -> AsyncGenerator[LogLine, None]:
    """Yield a run's log lines beyond the sequence number `after`, until the run has ended.

    The store is the source and a signal only wakes the reader: a slow one holds nothing up and misses none.
    """
    with store.listen(run_id) as signal:
        while True:
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
    """Wait until the run that serves a trigger has ended, and return it, whichever run that is by then."""
    while True:
        run = await store.serving(trigger_id)
        with store.listen(run.id) as signal:
            signal.clear()
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
