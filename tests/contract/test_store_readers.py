"""Whoever looks on, however many and however slow, delays neither the beat nor a claim nor an acceptance."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from listener.errors import StoreUnavailableError
from listener.queue import Acceptance, RunFilter
from listener.runs import Run
from listener.store import Store
from listener.store.postgres import store as postgres_store
from listener.store.ruled import RuledStore
from listener.store.sqlite import readers
from listener.store.transaction import Reader

NOW = 1_700_000_000.0
WORK = 6
"""Rounds of what a listener does."""

COUNTING = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT count(*) FROM n
"""

Ask = Callable[..., Awaitable[Acceptance]]


async def count(reader: Reader) -> Any:
    return await reader.all(COUNTING)


async def work(store: Store, call: Ask, run: Run, name: str) -> float:
    """Do what a listener does; return how many seconds that took."""
    began = time.monotonic()
    for number in range(WORK):
        assert await store.beat([run]) == {run.id}
        await call(store, f"{name}-{number}")
        assert await store.claim(NOW) is not None
        assert await store.next_due() is None
    return time.monotonic() - began


async def test_slow_readers_are_cut_off_and_hold_up_nobody_who_works(
    store: Store, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store, RuledStore)
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    alone = await work(store, call, run, "alone")
    # Long enough for the same work beside readers, however fast the machine is.
    limit = max(2.0, 20 * alone)
    monkeypatch.setattr(readers, "READ_LIMIT", limit)
    monkeypatch.setattr(postgres_store, "ANSWER_LIMIT", limit)
    slow = [asyncio.ensure_future(store._read(count)) for _ in range(8)]
    looking = [asyncio.ensure_future(store.runs(RunFilter())) for _ in range(130)]
    await asyncio.sleep(0)
    await work(store, call, run, "beside")
    assert not all(each.done() for each in slow), "all of that happened while they were at it"
    told = await asyncio.gather(*slow, *looking, return_exceptions=True)
    assert {type(each) for each in told[:8]} == {StoreUnavailableError}
    assert {type(each) for each in told[8:]} <= {StoreUnavailableError, list}
    assert len(await store.runs(RunFilter())) == 2 * WORK + 1
