"""`store`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import PATIENT, Shell
from tests.listening import Client, Daemon, configuration, daemon, written


async def test_a_backup_beside_a_running_listener_is_a_store_to_start_from(
    running: Daemon, api: Client, shell: Shell, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    _, _, headers = await api.sync()
    copy = tmp_path / "copy.db"
    done = await shell("store", "backup", str(copy), "--json")
    assert done.status == 0, done.err
    assert (done.document["runs"], done.document["waiting"], done.document["problems"]) == (1, 0, [])
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not copy.with_name("copy.db-wal").exists()
    again = await shell("store", "backup", str(copy))
    assert (again.status, "does not exist yet" in again.err) == (1, True)
    other = tmp_path / "other"
    other.mkdir()
    whole = configuration(other, sshd, published.path, store=f"sqlite://{copy}", sync=PATIENT)
    async with daemon(written(other, whole)) as restored:
        del restored
        shown = await Shell(written(other, whole))("runs", "show", headers["X-Run-Id"])
        assert "succeeded" in shown.out


async def test_a_store_is_checked(running: Daemon, api: Client, shell: Shell, tmp_path: Path) -> None:
    await api.sync()
    sound = await shell("store", "check")
    assert (sound.status, ": sound, schema " in sound.out, "1 run (0 not ended)" in sound.out) == (
        0,
        True,
        True,
    )
    await running.terminate()
    database = tmp_path / "listener.db"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"x" * (len(content) - 8192) + content[-4096:])
    damaged = await shell("store", "check")
    assert damaged.status == 1
    assert "damaged" in damaged.out + damaged.err or "malformed" in damaged.err
    copy = await shell("store", "backup", str(tmp_path / "copy.db"))
    assert copy.status == 1
    assert not (tmp_path / "copy.db").exists()


async def test_a_backup_is_restored_once_the_listener_has_stopped(
    running: Daemon, api: Client, shell: Shell, tmp_path: Path
) -> None:
    await api.sync()
    copy = tmp_path / "copy.db"
    assert (await shell("store", "backup", str(copy))).status == 0
    await api.sync()
    refused = await shell("store", "restore", str(copy))
    assert (refused.status, "Another listener" in refused.err) == (1, True)
    await running.terminate()
    restored = await shell("store", "restore", str(copy))
    assert restored.status == 0, restored.err
    assert "only in the old store: 1 run, 0 deliveries" in restored.out
    assert "1 run (0 not ended)" in (await shell("store", "check")).out


async def test_a_store_is_moved_and_the_old_one_is_not_used_again(
    running: Daemon, api: Client, shell: Shell, tmp_path: Path
) -> None:
    await api.sync()
    target = f"sqlite://{tmp_path}/new.db"
    (tmp_path / "url").write_text(target)
    refused = await shell("store", "copy", "--to", target)
    assert (refused.status, "Another listener" in refused.err) == (1, True)
    await running.terminate()
    moved = await shell("store", "copy", "--to", f"file:{tmp_path}/url", "--json")
    assert moved.status == 0, moved.err
    assert (moved.document["to"], moved.document["rows"]["runs"]) == (target, 1)
    started = await shell("serve")
    assert started.status == 1
    assert "was moved to" in started.err
    same = await shell("store", "copy", "--to", f"sqlite://{tmp_path}/listener.db")
    assert (same.status, "same store" in same.err) == (2, True)


async def test_a_missing_store_is_told(shell: Shell, tmp_path: Path) -> None:
    for words in (("check",), ("prune",), ("backup", str(tmp_path / "copy.db"))):
        done = await shell("store", *words)
        assert (done.status, "There is no store" in done.err) == (1, True)
    assert not (tmp_path / "listener.db").exists()


async def test_old_runs_are_pruned_beside_a_running_listener(
    running: Daemon, api: Client, shell: Shell, tmp_path: Path
) -> None:
    for _ in range(3):
        await api.sync()
    with closing(sqlite3.connect(tmp_path / "listener.db")) as connection:
        connection.execute("UPDATE runs SET finished_at = finished_at - 1e7")
        connection.commit()
    done = await shell("store", "prune", "--json")
    assert (done.status, done.document) == (0, {"runs": 2, "deliveries": 0, "details": 0}), (
        "the last success stays"
    )
    assert len((await api.call("GET", "/api/v1/runs"))[1]["runs"]) == 1
