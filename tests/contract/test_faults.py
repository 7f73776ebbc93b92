"""Hosts whose disks are full, read-only or locked: told by name, and the repository stays whole."""

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from listener.errors import BusyError, DiskFullError, ReadOnlyError, StaleLockError, StepTimedOutError
from listener.progress import Progress
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd
from listener.sites import Access, Environment, RepositoryAddress
from listener.ssh import HostPool
from tests.conftest import age, unavailable
from tests.contract.test_repository import PATIENCE, environment, host_of, pool, sync, synced
from tests.legs import changed, environment_of, only, pool_of

__all__ = ["environment", "pool"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Published]:
    """A published repository on a file system of its own, of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        unavailable("the right to mount a file system")
    try:
        repository = build(disk / "mysite", files=8)
        age(repository, 60)
        yield repository
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk: str, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def on(environment: Environment, repository: Published) -> Environment:
    return changed(environment, repository=RepositoryAddress("studio", str(repository.path)))


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


async def test_a_full_disk_is_told_and_the_sync_done_once_there_is_room(
    pool: HostPool, environment: Environment, small: Published
) -> None:
    before, head = small.commit("staging"), small.head()
    filler = fill(small.path.parent.parent)
    with pytest.raises(DiskFullError) as refused:
        await sync(pool, on(environment, small))
    assert not refused.value.permanent
    assert "No space left" in refused.value.message
    assert (small.commit("staging"), small.head()) == (before, head)
    assert not list((small.path / ".git").glob("*.lock"))
    assert not list((small.path / ".git").glob("sync-staging-own*"))
    filler.unlink()
    await sync(pool, on(environment, small))
    assert small.tree("staging") == small.tree("live")
    assert small.is_clean()
    assert small.git("fsck", "--no-dangling", "--no-progress") == ""


@pytest.mark.parametrize("access", Access)
async def test_a_full_disk_that_takes_no_push_is_told_and_the_sync_done_once_there_is_room(
    sshd_of: Mapping[Access, Sshd], published: Published, small: Published, tmp_path: Path, access: Access
) -> None:
    far = replace(host_of(sshd_of[access]), name="far", access=access)
    pool = pool_of([host_of(sshd_of[Access.SH]), far], tmp_path / "cache")
    small.git("checkout", "--quiet", "master")
    age(small, 60)
    carried = environment_of(
        RepositoryAddress("far", str(small.path)), source=RepositoryAddress("studio", str(published.path))
    )
    before = small.commit("staging")
    filler = fill(small.path.parent.parent)
    with pytest.raises(DiskFullError) as refused:
        await sync(pool, carried)
    assert not refused.value.permanent
    assert small.commit("staging") == before
    filler.unlink()
    await sync(pool, carried)
    assert small.tree("staging") == published.tree("live")
    assert small.git("fsck", "--no-dangling", "--no-progress") == ""
    await pool.close()


async def test_a_read_only_file_system_is_told(
    pool: HostPool, environment: Environment, small: Published
) -> None:
    disk = str(small.path.parent.parent)
    before = small.commit("staging")
    remount(disk, "ro")
    with pytest.raises(ReadOnlyError, match="Read-only file system"):
        await sync(pool, on(environment, small))
    remount(disk, "rw")
    assert small.commit("staging") == before
    await sync(pool, on(environment, small))
    assert small.tree("staging") == small.tree("live")


async def test_a_ref_that_is_locked_is_told_with_the_lock_and_stays(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    before = published.commit("staging")
    lock = published.path / ".git" / "refs" / "heads" / "staging.lock"
    lock.touch()
    with pytest.raises(BusyError, match=r"refs/heads/staging\.lock"):
        await sync(pool, environment)
    age(published, PATIENCE + 1)
    with pytest.raises(StaleLockError, match=r"refs/heads/staging\.lock") as refused:
        await sync(pool, environment)
    assert "delete the lock" in refused.value.remedy
    assert published.commit("staging") == before
    assert published.is_clean()
    lock.unlink()
    await sync(pool, environment)
    assert published.tree("staging") == published.tree("live")


HOOK = """\
#!/bin/sh
cat >/dev/null
[ "$1" = {phase} ] || exit 0
rm "$0"
{deed}
"""


def set_hook(published: Published, phase: str, deed: str) -> None:
    """Let git do something once, at a phase of its next ref transaction (githooks(5))."""
    hook = published.path / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK.format(phase=phase, deed=deed))
    hook.chmod(0o755)


async def test_a_step_ended_in_the_middle_of_its_transaction_leaves_no_lock(
    sshd: Sshd, environment: Environment, published: Published
) -> None:
    before = published.commit("staging")
    set_hook(published, "prepared", "sleep 300")
    pool = pool_of([host_of(sshd)], published.path / "unused", step_timeout=3)
    with pytest.raises(StepTimedOutError):
        await sync(pool, environment)
    (published.path / ".git" / "hooks" / "reference-transaction").unlink(missing_ok=True)
    await pool.close()
    pool = pool_of([host_of(sshd)], published.path / "unused")
    assert published.commit("staging") == before
    assert not list((published.path / ".git").rglob("*.lock"))
    await sync(pool, environment)
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()
    await pool.close()


async def test_a_remote_process_killed_right_after_the_move_is_found_out_by_looking_again(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    old = published.commit("staging")
    set_hook(published, "committed", "kill -s KILL 0")
    progress = await sync(pool, environment)
    assert (progress.plan, progress.old, progress.moved) == ("forward-commit", old, True)
    assert progress.new == published.commit("staging")
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()


async def test_a_cancel_that_comes_after_the_move_is_too_late(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    set_hook(published, "committed", "sleep 300")
    progress = Progress()
    running = asyncio.create_task(synced(pool, environment, progress=progress))
    async with asyncio.timeout(300):
        while published.tree("staging") != published.tree("live"):
            await asyncio.sleep(0.02)
    progress.cancelled = True
    running.cancel()
    await running
    assert progress.moved
    assert only(progress).new == published.commit("staging")


async def test_a_stop_after_the_move_leaves_it_to_the_next_attempt_to_find_out(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    old = published.commit("staging")
    set_hook(published, "committed", "sleep 300")
    progress = Progress()
    running = asyncio.create_task(synced(pool, environment, progress=progress))
    async with asyncio.timeout(300):
        while published.tree("staging") != published.tree("live"):
            await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert only(progress).in_doubt
    assert only(progress).old == old
