"""What the SQLite store promises beyond the port: one file, one listener, group commit, a bad disk."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from listener.errors import (
    ConfigurationError,
    RunNotFoundError,
    StoreLockedError,
    StoreTooNewError,
    StoreUnavailableError,
)
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.queue import Acceptance, Hold, LogLine, RunFilter
from listener.runs import Run, State
from listener.store import open_store
from listener.store.migrations import migrations
from listener.store.rows import outcome_text
from listener.store.sqlite import SqliteStore
from listener.store.sqlite.dialect import SqliteTransaction

NOW = 1_700_000_000.0
MIGRATIONS = migrations("listener.store.sqlite")

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[SqliteStore]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "listener.db"


@pytest.fixture
def store_url(database: Path) -> str:
    return f"sqlite://{database}"


@contextmanager
def committing(store: SqliteStore) -> Iterator[list[str]]:
    """Collects the store's commits: one that lasts as long as the block, and those of what it asks for."""
    commits: list[str] = []
    begun, gate = threading.Event(), threading.Event()

    async def hold_up(_: SqliteTransaction) -> None:
        begun.set()
        gate.wait()

    store._writing.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    store._writer.submit(hold_up)
    begun.wait()
    try:
        yield commits
    finally:
        gate.set()


@contextmanager
def full_disk(store: SqliteStore, spare: int = 0) -> Iterator[None]:
    """Lets the file grow no more, or by `spare` pages."""
    (pages,) = store._writing.execute("PRAGMA page_count").fetchone()
    store._writing.execute(f"PRAGMA max_page_count = {pages + spare}")
    try:
        yield
    finally:
        store._writing.execute("PRAGMA max_page_count = 1000000000")


async def claimed(store: SqliteStore) -> Run:
    run = await store.claim(NOW)
    assert run is not None
    return run


# Group commit.


async def test_five_hundred_deliveries_at_once_need_two_commits(store: SqliteStore, deliver: Ask) -> None:
    with committing(store) as commits:
        asked = [asyncio.ensure_future(deliver(store, str(n), f"e{n}")) for n in range(500)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*asked)
    assert len({answer.runs for answer in answers}) == 500
    assert len(commits) == 2


async def test_deliveries_that_come_together_share_their_statements(store: SqliteStore, deliver: Ask) -> None:
    statements: list[str] = []
    with committing(store):
        store._writing.set_trace_callback(statements.append)
        asked = [asyncio.ensure_future(deliver(store, str(n), "staging")) for n in range(128)]
        await asyncio.sleep(0)
    await asyncio.gather(*asked)
    assert sum("INSERT INTO deliveries" in each for each in statements) == 2
    assert len(statements) < 20


async def test_a_request_that_fails_does_not_take_its_batch_down(
    store: SqliteStore, deliver: Ask, call: Ask
) -> None:
    with committing(store) as commits:
        asked = asyncio.gather(
            deliver(store, "1", "staging"),
            store.cancel("no-such-run", NOW),
            call(store, "qa"),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
    first, failed, last = await asked
    assert isinstance(failed, RunNotFoundError)
    assert len(commits) == 2
    for answer in (first, last):
        assert isinstance(answer, Acceptance)
        assert (await store.run(answer.runs[0])).state is State.QUEUED


async def test_what_a_failing_request_wrote_is_undone_and_nobody_is_woken(
    store: SqliteStore, call: Ask
) -> None:
    async def half(run_id: str) -> None:
        async def perform(transaction: SqliteTransaction) -> None:
            await transaction.write("DELETE FROM triggers")
            transaction.changed.add(run_id)
            raise KeyError(run_id)

        await store._writer.submit(perform)

    accepted = await call(store, "staging")
    with store.listen(accepted.runs[0]) as heard:
        with pytest.raises(KeyError):
            await half(accepted.runs[0])
        with committing(store):
            asked = asyncio.gather(half(accepted.runs[0]), call(store, "qa"), return_exceptions=True)
            await asyncio.sleep(0)
        failed, other = await asked
        assert isinstance(failed, KeyError)
        assert isinstance(heard, asyncio.Event)
        assert not heard.is_set()
    for answer in (accepted, other):
        assert isinstance(answer, Acceptance)
        assert len(await store.triggers(answer.runs[0])) == 1


async def test_a_commit_that_fails_accepts_nothing_of_its_batch(store: SqliteStore, call: Ask) -> None:
    async def spoil(transaction: SqliteTransaction) -> None:
        await transaction.write("PRAGMA defer_foreign_keys = ON")
        await transaction.write("INSERT INTO log_lines (run, sequence, text) VALUES ('none', 1, '')")

    with committing(store):
        spoiled = store._writer.submit(spoil)
        asked = asyncio.gather(call(store, "staging"), return_exceptions=True)
        await asyncio.sleep(0)
    (answer,) = await asked
    assert isinstance(answer, StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        await spoiled
    assert await store.runs(RunFilter()) == []
    assert len((await call(store, "staging")).runs) == 1


async def test_a_defect_that_ends_the_transaction_is_told_and_the_writer_goes_on(
    store: SqliteStore, call: Ask
) -> None:
    async def spoil(transaction: SqliteTransaction) -> None:
        await transaction.write("ROLLBACK")
        raise KeyError("a defect")

    with committing(store):
        spoiled = store._writer.submit(spoil)
        asked = asyncio.gather(call(store, "staging"), return_exceptions=True)
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        await spoiled
    (answer,) = await asked
    assert isinstance(answer, KeyError)
    assert len((await call(store, "staging")).runs) == 1


async def test_a_caller_that_hangs_up_cancels_nothing(store: SqliteStore, call: Ask) -> None:
    with committing(store):
        asked = asyncio.ensure_future(call(store, "staging"))
        await asyncio.sleep(0)
        asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await store.ping()
    (run,) = await store.runs(RunFilter())
    assert run.state is State.QUEUED


async def test_closing_carries_out_what_was_asked_for(store: SqliteStore, opened: Open, deliver: Ask) -> None:
    with committing(store):
        asked = [asyncio.ensure_future(deliver(store, str(n), f"e{n}")) for n in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
    await closing
    answers = await asyncio.gather(*asked)
    again = await opened()
    assert {(await again.run(answer.runs[0])).state for answer in answers} == {State.QUEUED}


async def test_a_closed_store_says_so(store: SqliteStore, call: Ask) -> None:
    await store.close()
    for asked in (store.ping(), store.holds(), call(store, "staging")):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await asked
    await store.close()


# Trouble with the disk.


async def test_a_full_disk_refuses_deliveries_leaves_nothing_half_done_and_heals(
    store: SqliteStore, deliver: Ask
) -> None:
    taken: list[Acceptance] = []

    async def deliver_the_next() -> Acceptance:
        number = len(taken)
        return await deliver(store, str(number), f"e{number}", f"f{number}")

    async def deliver_on() -> None:
        while True:
            taken.append(await deliver_the_next())

    with full_disk(store, spare=20):
        with pytest.raises(StoreUnavailableError, match="full") as refused:
            await deliver_on()
        with pytest.raises(StoreUnavailableError):
            await store.ping()
        assert refused.value.remedy
        assert isinstance(refused.value.__cause__, sqlite3.Error)
        assert len(taken) > 10
        with pytest.raises(StoreUnavailableError, match="full"):
            await asyncio.gather(*(deliver(store, f"more-{n}", f"e{n}", f"g{n}") for n in range(100)))
    await store.ping()
    history = await store.runs(RunFilter(limit=100_000))
    assert {run.id for run in history} >= {run for answer in taken for run in answer.runs}
    for run in history:
        assert await store.triggers(run.id)
    healed = await deliver_the_next()
    assert (healed.repeated, len(healed.runs)) == (False, 2)


@pytest.mark.parametrize("further", [(), (4, 5)])
async def test_a_full_disk_leaves_no_hole_in_a_log(
    store: SqliteStore, call: Ask, further: tuple[int, ...]
) -> None:
    await call(store, "staging")
    run = await claimed(store)
    text = "x" * 10_000
    with full_disk(store):
        for sequence in range(1, 4):
            store.append(run, [LogLine(sequence, text)])
        with pytest.raises(StoreUnavailableError):
            await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
        assert await store.lines(run.id, 0) == []
    for sequence in further:
        store.append(run, [LogLine(sequence, text)])
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    assert [line.sequence for line in await store.lines(run.id, 0)] == [1, 2, 3, *further]
    assert store._unstored._lines == {}


def block_until_committed(commits: list[str], count: int) -> None:
    """Keeps the loop from hearing of the commits meanwhile."""
    while len(commits) < count:
        time.sleep(0.001)


async def test_a_line_that_comes_while_another_one_is_stored_is_stored_too(
    store: SqliteStore, call: Ask
) -> None:
    await call(store, "staging")
    run = await claimed(store)
    with committing(store) as commits:
        store.append(run, [LogLine(1, "{}")])
        store._flush_lines()
    block_until_committed(commits, 2)
    with committing(store):
        store.append(run, [LogLine(2, "{}")])
        store._flush_lines()
        await asyncio.sleep(0)
    await store.ping()
    assert [line.sequence for line in await store.lines(run.id, 0)] == [1, 2]


async def test_log_lines_are_forgotten_once_they_are_stored_or_fenced(store: SqliteStore, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    store.append(run, [LogLine(1, "{}")])
    await store.ping()
    assert store._unstored._lines == {}
    await store.recover(NOW)
    store.append(run, [LogLine(2, "{}")])
    await store.ping()
    assert store._unstored._lines == {}


async def test_a_store_that_can_not_be_written_is_not_ready(store: SqliteStore, call: Ask) -> None:
    await store.ping()
    store._writing.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailableError, match="readonly"):
        await call(store, "staging")
    store._writing.execute("PRAGMA query_only = OFF")
    assert len((await call(store, "staging")).runs) == 1


@pytest.fixture
def no_database(database: Path) -> Path:
    database.write_bytes(b"this is no database" * 100)
    return database


async def test_a_file_that_is_no_database_is_refused(no_database: Path, opened: Open) -> None:
    with pytest.raises(StoreUnavailableError, match="not a database"):
        await opened()
    await asyncio.to_thread(no_database.unlink)
    await opened()


# The file and its lock.


async def test_the_file_and_what_lies_beside_it_are_for_the_owner_only(
    store: SqliteStore, database: Path, call: Ask
) -> None:
    await call(store, "staging")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in database.parent.iterdir()}
    assert {"listener.db", "listener.db-wal", "listener.db.lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


async def test_writes_are_synchronous_and_go_to_a_write_ahead_log(store: SqliteStore) -> None:
    settings = [
        store._writing.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert settings == ["wal", 2, 1]


async def test_closing_leaves_one_whole_file_and_a_free_lock(
    store: SqliteStore, database: Path, opened: Open, call: Ask
) -> None:
    await call(store, "staging")
    await store.close()
    assert sorted(file.name for file in database.parent.iterdir()) == ["listener.db", "listener.db.lock"]
    await opened()


async def test_a_second_listener_is_refused_and_told_which_process_is_there(
    store: SqliteStore, opened: Open, call: Ask
) -> None:
    with pytest.raises(StoreLockedError, match=rf"process {os.getpid()}\b") as refused:
        await opened()
    assert "stop that process" in refused.value.remedy
    assert len((await call(store, "staging")).runs) == 1


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(
    store: SqliteStore, database: Path, opened: Open
) -> None:
    await store.close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreTooNewError, match="999"):
        await opened()
    with pytest.raises(StoreTooNewError):
        await opened()


OLD_OUTCOME = {
    "plan": "forward-commit",
    "moved": True,
    "live": "c" * 40,
    "old": "a" * 40,
    "new": "b" * 40,
    "backup": "",
    "removed_count": 1,
    "removed": ['site/"quoted".xml'],
    "warnings": ["a publish seems to have crashed"],
    "error": "",
    "message": "",
    "remedy": "",
    "durations": {"observe": 0.25},
}


async def test_a_store_of_the_first_schema_is_brought_up_to_date_with_its_data(
    tmp_path: Path, opened: Open, call: Ask
) -> None:
    first = MIGRATIONS[1]
    with closing(sqlite3.connect(tmp_path / "listener.db")) as old:
        old.executescript(f"BEGIN;{first};PRAGMA user_version = 1;COMMIT;")
        for number, (state, outcome) in enumerate(
            [
                ("succeeded", OLD_OUTCOME),
                ("failed", OLD_OUTCOME | {"plan": "", "moved": False, "error": "sync", "message": "no"}),
                ("queued", None),
            ]
        ):
            ended = None if state == "queued" else NOW
            text = None if outcome is None else json.dumps(outcome)
            old.execute(
                "INSERT INTO runs (id, site, environment, state, created_at, not_before, finished_at,"
                " outcome) VALUES (?, 'site', 'staging', ?, ?, ?, ?, ?)",
                (f"run-{number}", state, NOW, NOW, ended, text),
            )
        old.execute("INSERT INTO holds VALUES ('site', 'qa', 'acceptance test', 'root', ?)", (NOW,))
        old.commit()
    store = await opened()
    done = await store.run("run-0")
    assert done.outcome == Outcome(
        legs=(
            LegOutcome(
                plan="forward-commit",
                state=LegState.MADE_EQUAL,
                live="c" * 40,
                old="a" * 40,
                new="b" * 40,
                removed_count=1,
                removed=('site/"quoted".xml',),
            ),
        ),
        warnings=("a publish seems to have crashed",),
        durations={"observe": 0.25},
    )
    failed = (await store.run("run-1")).outcome
    assert failed is not None
    assert (failed.legs, failed.error, failed.message) == ((), "sync", "no")
    claimed = await store.claim(NOW)
    assert claimed is not None
    assert (claimed.id, claimed.undoes, claimed.held_live) == ("run-2", None, "")
    assert await store.holds() == [Hold("site", "qa", "acceptance test", "root", NOW)]
    assert (await call(store, "staging", now=NOW)).runs != ("run-2",)


async def test_a_store_of_the_second_schema_is_brought_up_to_date_with_its_data(
    tmp_path: Path, opened: Open
) -> None:
    outcome = Outcome((LegOutcome("studio:/srv/mysite", "staging", "reset", LegState.MADE_EQUAL),))
    with closing(sqlite3.connect(tmp_path / "listener.db")) as old:
        for number in (1, 2):
            old.executescript(f"BEGIN;{MIGRATIONS[number]};PRAGMA user_version = {number};COMMIT;")
        old.execute(
            "INSERT INTO runs (id, site, environment, state, created_at, not_before, finished_at, outcome)"
            " VALUES ('done', 'site', 'staging', 'succeeded', ?, ?, ?, ?)",
            (NOW, NOW, NOW, outcome_text(outcome)),
        )
        old.execute(
            "INSERT INTO runs (id, site, environment, state, created_at, not_before, undoes)"
            " VALUES ('back', 'site', 'staging', 'queued', ?, ?, 'done')",
            (NOW, NOW),
        )
        old.execute(
            "INSERT INTO holds (site, environment, reason, actor, since, live, run)"
            " VALUES ('site', 'staging', 'rolled back', 'root', ?, 'abc', 'back')",
            (NOW,),
        )
        old.commit()
    store = await opened()
    assert (await store.run("done")).outcome == outcome
    back = await store.claim(NOW, ("anything",))
    assert back is not None
    assert (back.id, back.undoes) == ("back", "done")
    assert [hold.live for hold in await store.holds()] == ["abc"]


async def test_a_missing_directory_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/missing/listener.db")
    with pytest.raises(ConfigurationError, match="missing") as refused:
        await store.open()
    assert refused.value.remedy


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere: be somebody who may not."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


async def test_a_directory_that_can_not_be_written_to_is_an_error_of_the_configuration(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "readable"
    directory.mkdir(mode=0o555)
    with as_nobody(), pytest.raises(ConfigurationError, match="is not writable"):
        await open_store(f"sqlite://{directory}/listener.db").open()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user:hidden@db/listener", "mysql"),
        ("sqlite://relative/listener.db", "absolute"),
        ("sqlite:///var/lib/", "absolute"),
        ("sqlite://", "absolute"),
    ],
)
def test_a_url_of_no_store_is_refused_without_repeating_its_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        open_store(url)
    assert "hidden" not in str(refused.value)
    assert "sqlite:///" in refused.value.remedy


# A dead host.

ACCEPT_FOREVER = """
import asyncio, itertools, sys
from listener.queue import DeliveryRecord
from listener.runs import Origin, Trigger, new_id
from listener.store import open_store

async def accept(store, worker):
    for number in itertools.count():
        now, key = 1.7e9 + number, f"{worker}-{number}"
        trigger = Trigger(new_id(now), "site", f"e{worker}-{number % 7}", Origin.HOOK, "forge", now)
        record = DeliveryRecord(new_id(now), "forge", key, now, 2, "digest", {}, {})
        accepted = await store.accept([trigger], record, now)
        print(key, accepted.delivery, trigger.id, accepted.runs[0], flush=True)
        if number % 3 == 0 and (run := await store.claim(now)) is not None:
            store.append(run, [])

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    await asyncio.gather(*(accept(store, worker) for worker in range(8)))

asyncio.run(main())
"""


def killed_while_accepting(url: str) -> list[list[str]]:
    """Return what a listener had acknowledged when it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", ACCEPT_FOREVER, url],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    return [line.split() for line in told if line.endswith("\n")]


async def test_whatever_was_acknowledged_is_there_after_a_kill(
    store_url: str, opened: Open, deliver: Ask
) -> None:
    acknowledged = await asyncio.to_thread(killed_while_accepting, store_url)
    assert len(acknowledged) >= 200
    store = await opened()
    running = await store.runs(RunFilter(state=State.RUNNING, limit=1000))
    assert {run.id for run in await store.recover(NOW)} == {run.id for run in running}
    for key, delivery, trigger, _run in acknowledged:
        again = await deliver(store, key, ignored="only asked whether it is known")
        assert (again.delivery, again.triggers, again.repeated) == (delivery, (trigger,), True)
        assert (await store.serving(trigger)).state is State.QUEUED
