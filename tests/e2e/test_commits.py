"""How many durable commits a webhook costs, from the bytes that arrive to the run's end, with a real host."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from listener.config.settings import load
from listener.rehearsal.published import Published
from listener.store import ruled
from listener.store.sqlite import SqliteStore
from listener.system import System
from tests.chaos import publish
from tests.listening import client


class Commits:
    """Counts the transactions of a store that change a run or its log."""

    def __init__(self) -> None:
        self.count = 0
        self._changes = False

    def __call__(self, sql: str) -> None:
        if sql == "COMMIT":
            self.count += self._changes
            self._changes = False
        elif "runs" in sql or "log_lines" in sql:
            self._changes |= sql.lstrip().startswith(("INSERT", "UPDATE"))


async def test_a_webhook_costs_a_commit_for_its_answer_and_one_for_its_end_once_its_repository_is_known(
    configured: Callable[..., Path], published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruled, "LINES_WAIT", 600.0)
    costs = []
    async with System(load(configured())) as system:
        await system.listen()
        store = system.store
        assert isinstance(store, SqliteStore)
        async with client(f"http://127.0.0.1:{system.port}") as speaking:
            for number in range(3):
                publish(published, number)
                while store._offer is None or not store._offer.stands:
                    await asyncio.sleep(0.005)
                commits = Commits()
                store._writing.set_trace_callback(commits)
                _, answer, _ = await speaking.deliver(f"d-{number}")
                run = await speaking.ended(answer["runs"][0])
                store._writing.set_trace_callback(None)
                assert run["state"] == "succeeded"
                costs.append(commits.count)
    # The first run looks, and stores what it is about to move. The others expect what that has left.
    assert costs == [3, 2, 2]
    assert published.tree("staging") == published.tree("live")
