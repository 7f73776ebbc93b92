"""A clock that jumps: nothing waits for a time that will not come."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from listener import worker
from listener.config.settings import load
from listener.rehearsal.published import Published
from listener.system import System
from tests.listening import client


async def test_a_clock_that_is_set_back_holds_up_no_run(
    configured: Callable[..., Path], published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BEAT", 0.1)
    sync = {"quiet": 0.2, "patience": 300, "settle": 30, "settle_most": 30}
    off = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + off[0])
    async with System(load(configured(sync=sync))) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            _, answer, _ = await listener.deliver("d-1")
            off[0] = -7200.0
            run = await listener.ended(answer["runs"][0])
            assert run["state"] == "succeeded"
            off[0] = 7200.0
            assert (await listener.sync())[0] == 200
    assert published.tree("staging") == published.tree("live")
