"""The SQLite store's file: moved, reached by two paths, damaged, its log left or growing."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from listener.errors import StoreLockedError, StoreUnavailableError
from listener.outcomes import Outcome
from listener.queue import Acceptance, LogLine
from listener.runs import State
from listener.store import Store, open_store
from listener.store.sqlite import database as files
from listener.store.sqlite import writer

NOW = 1_700_000_000.0

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


@pytest.fixture
def store_url(file_store: str) -> str:
    return file_store


async def test_a_store_by_another_path_is_the_same_store(
    store: Store, database: Path, tmp_path: Path, call: Ask
) -> None:
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "store.db"
    await asyncio.to_thread(link.symlink_to, database)
    with pytest.raises(StoreLockedError, match=str(os.getpid())):
        await open_store(f"sqlite://{link}").open()
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)


OPENING = """
import asyncio, sys
from listener.errors import StoreLockedError
from listener.store import open_store

async def main():
    try:
        await open_store(sys.argv[1]).open()
    except StoreLockedError:
        print("locked")

asyncio.run(main())
"""


async def test_a_second_name_of_the_file_is_the_same_store(
    store: Store, database: Path, tmp_path: Path
) -> None:
    await store.ping()
    second = tmp_path / "second.db"
    await asyncio.to_thread(os.link, database, second)
    opened = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", OPENING, f"sqlite://{second}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert opened.stdout == "locked\n", opened.stderr
    await store.ping()


async def test_a_file_that_is_moved_away_is_written_to_no_more_until_it_is_back(
    store: Store, database: Path, call: Ask
) -> None:
    away = database.with_name("away.db")
    await asyncio.to_thread(database.rename, away)
    for asked in (store.ping(), call(store, "staging")):
        with pytest.raises(StoreUnavailableError, match=r"not at .*listener\.db any more"):
            await asked
    await asyncio.to_thread(away.rename, database)
    await store.ping()
    assert len((await call(store, "staging")).runs) == 1


async def test_an_older_copy_beside_a_newer_log_is_noticed_and_told_with_its_remedy(
    database: Path, opened: Open, call: Ask
) -> None:
    store = await opened()
    copy = database.with_name("copy.db")
    for number in range(200):
        await call(store, f"early-{number}")
    await store.close()
    await asyncio.to_thread(shutil.copyfile, database, copy)
    store = await opened()
    for number in range(400):
        await call(store, f"late-{number}", now=NOW + number)
    # As a power cut leaves it: the log beside the file. Then somebody copies the old file back.
    log = database.with_name(database.name + "-wal")
    left = await asyncio.to_thread(log.read_bytes)
    await store.close()
    await asyncio.to_thread(shutil.copyfile, copy, database)
    await asyncio.to_thread(log.write_bytes, left)
    again = await opened()
    await again.examine()
    for asked in (again.ping(), call(again, "staging")):
        with pytest.raises(StoreUnavailableError, match=r"store check.*store restore"):
            await asked
    assert await again.recover(NOW) == []


def scribble(database: Path) -> None:
    """Damages pages in the second half of a file. The first pages describe the tables."""
    with database.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for at in range(size // 2 // 4096 * 4096, size, 8192):
            file.seek(at)
            file.write(b"\xff" * 4096)


async def test_damage_that_the_start_does_not_see_is_found_in_the_background(
    database: Path, opened: Open, call: Ask
) -> None:
    store = await opened()
    for number in range(600):
        await call(store, f"e-{number}", now=NOW + number)
    await store.close()
    await asyncio.to_thread(scribble, database)
    again = await opened()
    await again.examine()
    with pytest.raises(StoreUnavailableError, match="damaged"):
        await again.ping()


@pytest.mark.parametrize("table", ["moved", "runs", "holds"])
async def test_a_store_with_a_damaged_table_is_opened_and_says_so(
    database: Path, opened: Open, call: Ask, table: str
) -> None:
    store = await opened()
    await call(store, "staging")
    await store.close()
    with closing(sqlite3.connect(database)) as connection:
        named = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (root,) = connection.execute(named, (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    again = await opened()
    with pytest.raises(StoreUnavailableError, match="store restore"):
        await again.ping()


@contextmanager
def one_reader_after_another(database: Path) -> Iterator[None]:
    """Two foreign readers whose transactions overlap: there is never a moment without one."""
    ended = threading.Event()

    def read(lead: float) -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            while not ended.wait(lead):
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM runs").fetchone()
                ended.wait(0.02)
                connection.execute("COMMIT")

    readers = [threading.Thread(target=read, args=(lead,)) for lead in (0.001, 0.003)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        ended.set()
        for reader in readers:
            reader.join()


async def test_the_log_does_not_grow_for_ever_under_readers(
    database: Path, opened: Open, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1024 * 1024
    for place in (files, writer):
        monkeypatch.setattr(place, "LOG_LIMIT", limit)
    store = await opened()
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    lengths = []
    with one_reader_after_another(database):
        for number in range(1, 120):
            store.append(run, [LogLine(number, "x" * 100_000)])
            await store.ping()
            lengths.append(database.with_name(database.name + "-wal").stat().st_size)
    assert max(lengths) < 6 * limit
    assert min(lengths[60:]) < limit
