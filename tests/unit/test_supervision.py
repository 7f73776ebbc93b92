"""Background tasks: whatever ends one is told, counted, and followed by another attempt."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from listener import supervision
from listener.supervision import Supervisor
from tests.kept_log import KeptLog


class Clock:
    """A steady clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE", 0.001)
    monkeypatch.setattr(supervision, "PAUSE_MOST", 0.002)


class Work:
    """A task that fails as often as it is told to, and then goes on for good."""

    def __init__(self, error: BaseException, failures: int) -> None:
        self.error = error
        self.failures = failures
        self.begun = 0

    async def __call__(self) -> None:
        self.begun += 1
        if self.begun <= self.failures:
            raise self.error
        await asyncio.Event().wait()


async def until(holds: Callable[[], Any]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [ValueError("broken"), OverflowError(), asyncio.CancelledError()])
async def test_a_task_that_fails_is_logged_by_its_name_and_started_again(error: BaseException) -> None:
    said, work = KeptLog(), Work(error, 1)
    tasks = Supervisor(said)
    tasks.start("audit", work)
    await until(lambda: work.begun == 2)
    (line,) = said.lines
    assert (line["level"], line["event"], line["task"]) == ("error", "task failed", "audit")
    assert line["exc_info"] is error
    assert tasks.failing() == (), "once may happen"
    await tasks.stop()


async def test_a_task_that_fails_again_and_again_is_named_until_it_has_outlived_its_failures() -> None:
    clock, work = Clock(), Work(ValueError(), 3)
    tasks = Supervisor(KeptLog(), clock)
    tasks.start("worker", work)
    tasks.start("well", Work(ValueError(), 0))
    await until(lambda: work.begun == 4)
    assert tasks.failing() == ("worker",)
    clock.now += supervision.STEADY + 0.1
    assert tasks.failing() == ()
    await tasks.stop()


async def test_a_task_that_fails_late_is_well_again_only_after_longer_than_that() -> None:
    clock = Clock()
    begun = 0

    async def late() -> None:
        nonlocal begun
        begun += 1
        if begun <= 2:
            clock.now += 60
            raise ValueError
        await asyncio.Event().wait()

    tasks = Supervisor(KeptLog(), clock)
    tasks.start("upkeep", late)
    await until(lambda: begun == 3)
    clock.now += 60
    assert tasks.failing() == ("upkeep",)
    clock.now += supervision.STEADY + 0.1
    assert tasks.failing() == ()
    await tasks.stop()


async def test_failures_with_a_good_while_between_them_do_not_add_up() -> None:
    clock = Clock()
    begun = 0

    async def seldom() -> None:
        nonlocal begun
        begun += 1
        clock.now += 10 * supervision.STEADY_MOST
        raise ValueError

    tasks = Supervisor(KeptLog(), clock)
    tasks.start("schedule", seldom)
    await until(lambda: begun > 5)
    assert tasks.failing() == ()
    await tasks.stop()


async def test_a_task_that_is_carried_out_once_is_logged_and_not_started_again() -> None:
    said, work = KeptLog(), Work(ValueError(), 9)
    tasks = Supervisor(said)
    tasks.start("warm studio", work, again=False)
    await until(lambda: said.lines)
    await tasks.stop()
    assert (work.begun, len(said.lines)) == (1, 1)


async def test_every_failure_of_a_task_is_counted_and_a_task_without_one_has_0() -> None:
    tasks = Supervisor(KeptLog())
    tasks.start("audit", Work(ValueError(), 3))
    tasks.start("worker", Work(ValueError(), 0))
    assert tasks.failures() == {"audit": 0, "worker": 0}
    await until(lambda: tasks.failures()["audit"] == 3)
    assert tasks.failures() == {"audit": 3, "worker": 0}
    await tasks.stop()


async def test_stopping_ends_every_task_but_those_that_are_named() -> None:
    tasks, ends = Supervisor(KeptLog()), []

    def work(name: str) -> supervision.Work:
        async def go() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(name)

        return go

    for name in ("worker", "beat"):
        tasks.start(name, work(name))
    await asyncio.sleep(0)
    await tasks.stop(but={"beat"})
    assert ends == ["worker"]
    await tasks.stop()
    assert ends == ["worker", "beat"]


async def test_what_fails_while_it_is_stopped_is_logged_and_stops_nothing_else() -> None:
    said = KeptLog()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    tasks = Supervisor(said)
    tasks.start("stubborn", stubborn)
    await asyncio.sleep(0)
    await tasks.stop()
    assert [line["task"] for line in said.lines] == ["stubborn"]
