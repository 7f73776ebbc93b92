"""A store is copied while it works, put back, and moved to another database with all that is in it."""

import asyncio
import itertools
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from listener.access import Session, digest
from listener.errors import ConfigurationError, StoreError, StoreLockedError, StoreMovedError
from listener.outcomes import Outcome
from listener.queue import Acceptance, Hold, LogLine, RunFilter
from listener.records import ArrivalFilter, Refusal, Use
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.store import Store, move, open_store
from listener.store.sqlite import maintenance, restoring
from tests.cluster import Cluster

NOW = 1_700_000_000.0

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


@contextmanager
def written_to(database: Path) -> Iterator[None]:
    """Another process writes as fast as it can."""
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for number in itertools.count():
                if ended.is_set():
                    return
                connection.execute("INSERT INTO uses VALUES ('token', '', ?, 1, 0)", (f"t-{number}",))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        ended.set()
        writing.join()


def names_in(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def opened_at(url: str) -> Store:
    store = open_store(url)
    await store.open()
    return store


async def claimed(store: Store) -> Run:
    run = await store.claim(NOW)
    assert run is not None
    return run


async def test_a_backup_ends_while_others_write_without_a_pause(
    database: Path, file_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await opened_at(file_store)).close()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
            " INSERT INTO uses SELECT 'secret', printf('%.50000c', 'x'), i, 1, 0 FROM n;"
        )
    monkeypatch.setattr(maintenance, "PAGES_AT_ONCE", 8)
    with written_to(database):
        report = await asyncio.to_thread(maintenance.backup, database, tmp_path / "copy.db")
    assert report.problems == ()


async def test_a_copy_is_restored_and_what_was_newer_is_told_and_kept(
    database: Path, file_store: str, tmp_path: Path, deliver: Ask
) -> None:
    store = await opened_at(file_store)
    first = await deliver(store, "1", "staging")
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(maintenance.backup, database, copy)
    content = await asyncio.to_thread(copy.read_bytes)
    await deliver(store, "2", "qa", "staging", now=NOW + 1)
    with pytest.raises(StoreLockedError):
        await asyncio.to_thread(restoring.restore, database, copy)
    await store.close()
    restored = await asyncio.to_thread(restoring.restore, database, copy)
    assert (restored.newer_runs, restored.newer_deliveries, restored.report.runs) == (1, 1, 1)
    assert await asyncio.to_thread(copy.read_bytes) == content
    again = await opened_at(file_store)
    assert [run.id for run in await again.runs(RunFilter())] == list(first.runs)
    await again.close()
    before = await opened_at(f"sqlite://{restored.kept}")
    assert len(await before.runs(RunFilter())) == 2
    await before.close()
    names = await asyncio.to_thread(names_in, tmp_path)
    assert not {name for name in names if "restoring" in name or name.endswith(("-wal", "-shm"))}


async def test_a_damaged_store_with_its_old_log_is_replaced_whole(
    database: Path, file_store: str, tmp_path: Path, deliver: Ask
) -> None:
    store = await opened_at(file_store)
    await deliver(store, "1", "staging")
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(maintenance.backup, database, copy)
    for number in range(100):
        await deliver(store, f"k-{number}", f"e-{number}", now=NOW + 1)
    log = database.with_name("listener.db-wal")
    left = await asyncio.to_thread(log.read_bytes)
    await store.close()
    await asyncio.to_thread(database.write_bytes, b"no database at all" * 1000)
    await asyncio.to_thread(log.write_bytes, left)
    restored = await asyncio.to_thread(restoring.restore, database, copy)
    assert restored.newer_runs is None
    assert not log.exists()
    again = await opened_at(file_store)
    await again.examine()
    await again.ping()
    assert len(await again.runs(RunFilter())) == 1
    await again.close()


async def test_nothing_but_a_sound_copy_is_restored(database: Path, file_store: str, tmp_path: Path) -> None:
    await (await opened_at(file_store)).close()
    content = await asyncio.to_thread(database.read_bytes)
    bad = tmp_path / "bad.db"
    await asyncio.to_thread(bad.write_bytes, content[:4096] + b"\xff" * (len(content) - 4096))
    empty, text, other = (tmp_path / name for name in ("empty.db", "text.db", "other.db"))
    await asyncio.to_thread(empty.touch)
    await asyncio.to_thread(text.write_text, "a text " * 1000)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE something_else (x)")
    for copy in (bad, tmp_path / "nothing.db", empty, text, other):
        with pytest.raises((StoreError, ConfigurationError), match=r"^The copy|^There is no file"):
            await asyncio.to_thread(restoring.restore, database, copy)
        assert await asyncio.to_thread(database.read_bytes) == content
    assert not {name for name in await asyncio.to_thread(names_in, tmp_path) if "restoring" in name}


async def test_what_is_restored_belongs_to_the_stores_owner(
    database: Path, file_store: str, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    await (await opened_at(file_store)).close()
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(maintenance.backup, database, copy)
    for path in (database, tmp_path):
        os.chown(path, 65534, 65534)
    await asyncio.to_thread(restoring.restore, database, copy)
    assert {path.stat().st_uid for path in (database, database.with_name("listener.db.lock"))} == {65534}
    for path in (database, database.with_name("listener.db.lock")):
        path.unlink()
    await asyncio.to_thread(restoring.restore, database, copy)
    assert {path.stat().st_uid for path in (database, database.with_name("listener.db.lock"))} == {65534}


@pytest.fixture
def both_ways(file_store: str, cluster: Cluster, tmp_path: Path) -> list[str]:
    """A file, a database, and another file."""
    return [file_store, cluster.url(cluster.database()), f"sqlite://{tmp_path}/back.db"]


async def filled(store: Store, deliver: Ask, call: Ask) -> None:
    """One of everything: ended, superseded, rolled back, running and waiting runs, holds, records."""
    await deliver(store, "1", "staging", "qa")
    await deliver(store, "2", ignored="a ping")
    done = await claimed(store)
    store.append(done, [LogLine(1, "{}"), LogLine(2, '{"a": "\\u0000"}')])
    await store.finish(done, State.SUCCEEDED, Outcome(), NOW)
    back = Trigger(new_id(NOW), done.site, done.environment, Origin.ROLLBACK, "root", NOW)
    await store.roll_back(back, done.id, Hold(done.site, done.environment, "back", "root", NOW, "f" * 40))
    await call(store, "again")
    failing = await claimed(store)
    await call(store, failing.environment)
    await store.requeue(failing, Outcome(error="sync", message="no"), NOW + 60, NOW, failed=True)
    await store.hold(Hold("site", "frozen", "test \U0001f680", "ada", NOW))
    await call(store, "running")
    while (await claimed(store)).environment != "running":
        pass
    await store.record([Refusal("r", NOW, "POST /", "signature", 401)], [Use("token", "", "ci", 3, NOW)], 9)
    await store.begin_session(Session(digest(b"id"), "ci", "hash", NOW + 60))


async def all_of(store: Store) -> list[object]:
    runs = await store.runs(RunFilter(limit=1000))
    return [
        runs,
        [await store.triggers(run.id) for run in runs],
        [await store.lines(run.id, 0) for run in runs],
        await store.holds(),
        await store.arrivals(ArrivalFilter()),
        await store.uses(),
        await store.session(digest(b"id")),
        await store.backlog(),
        await store.next_due(),
    ]


async def test_everything_is_moved_to_the_other_database_and_back(
    both_ways: list[str], deliver: Ask, call: Ask
) -> None:
    store = await opened_at(both_ways[0])
    await filled(store, deliver, call)
    with pytest.raises(StoreLockedError):
        await move(both_ways[0], both_ways[1], "there", NOW)
    await store.recover(NOW)
    before = await all_of(store)
    await store.close()
    for source, target in itertools.pairwise(both_ways):
        await move(source, target, f"the one after {source[:6]}", NOW)
        with pytest.raises(StoreMovedError, match="the one after"):
            await open_store(source).open()
        moved = await opened_at(target)
        assert await all_of(moved) == before
        with pytest.raises(StoreLockedError):
            await move(target, source, "nowhere", NOW)
        await moved.close()
    last = await opened_at(both_ways[-1])
    assert len((await call(last, "new")).runs) == 1
    assert {(await claimed(last)).state for _ in range(2)} == {State.RUNNING}
    await last.close()


async def test_new_rows_come_after_those_that_were_moved(both_ways: list[str], deliver: Ask) -> None:
    store = await opened_at(both_ways[0])
    first = await deliver(store, "1", "staging")
    await store.close()
    await move(both_ways[0], both_ways[1], "there", NOW)
    moved = await opened_at(both_ways[1])
    assert (await deliver(moved, "1", "staging")).triggers == first.triggers
    assert len((await deliver(moved, "2", "staging", "qa")).runs) == 2
    await moved.close()


async def test_a_store_that_is_in_use_is_not_written_over(both_ways: list[str], deliver: Ask) -> None:
    for url in both_ways[:2]:
        store = await opened_at(url)
        await deliver(store, "1", "staging")
        await store.close()
    with pytest.raises(ConfigurationError, match="not empty"):
        await move(both_ways[0], both_ways[1], "there", NOW)
    store = await opened_at(both_ways[0])
    assert len(await store.runs(RunFilter())) == 1
    await store.close()


async def test_a_store_is_moved_to_one_place_only(both_ways: list[str], deliver: Ask) -> None:
    store = await opened_at(both_ways[0])
    await deliver(store, "1", "staging")
    await store.close()
    await move(both_ways[0], both_ways[1], "there", NOW)
    with pytest.raises(StoreMovedError, match="there"):
        await move(both_ways[0], both_ways[2], "elsewhere", NOW)
    elsewhere = await opened_at(both_ways[2])
    assert await elsewhere.runs(RunFilter()) == []
    await elsewhere.close()


async def test_an_empty_store_is_moved_there_and_back(both_ways: list[str], call: Ask) -> None:
    for url in both_ways[:2]:
        await (await opened_at(url)).close()
    await move(both_ways[0], both_ways[1], "there", NOW)
    await move(both_ways[1], both_ways[0], "back", NOW)
    back = await opened_at(both_ways[0])
    assert len((await call(back, "staging")).runs) == 1
    await back.close()


async def test_a_store_with_nothing_but_a_hold_is_in_use(both_ways: list[str]) -> None:
    store = await opened_at(both_ways[1])
    await store.hold(Hold("site", "qa", "test", "ada", NOW))
    await store.close()
    with pytest.raises(ConfigurationError, match="not empty"):
        await move(both_ways[0], both_ways[1], "there", NOW)
