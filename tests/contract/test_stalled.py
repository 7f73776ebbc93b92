"""A git of ours that hangs in its ref transaction is asked to end, never killed, and nobody follows it."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from listener.errors import HostStalledError, SyncError
from listener.observations import Observation
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import Access, Environment, RepositoryAddress
from listener.ssh import HostPool, circuit, service
from listener.ssh.leftovers import MAX_STUCK
from tests.conftest import age
from tests.contract.test_connection import through
from tests.contract.test_repository import Notes, host_of, pool, sync
from tests.legs import environment_of, pool_of
from tests.proxy import Proxy
from tests.traps import until

__all__ = ["pool"]

FREEZE = """\
#!/bin/sh
# Stop git in the middle of a transaction, as a disk that hangs does: it hears no signal until it goes on.
case $(cat) in *refs/heads/staging*) ;; *) exit 0 ;; esac
[ "$1" = prepared ] || exit 0
rm "$0"
echo "$PPID" >{frozen}.new
mv {frozen}.new {frozen}
kill -STOP "$PPID"
"""


@dataclass
class Frozen:
    """A repository whose next transaction freezes."""

    repository: Published

    @property
    def environment(self) -> Environment:
        return environment_of(RepositoryAddress("studio", str(self.repository.path)))

    @property
    def metadata(self) -> Path:
        inside = self.repository.path / ".git"
        return inside if inside.is_dir() else self.repository.path

    @property
    def _at(self) -> Path:
        return self.repository.path.with_name(f"{self.repository.path.name}.frozen")

    def lay(self) -> None:
        hook = self.metadata / "hooks" / "reference-transaction"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(FREEZE.format(frozen=self._at))
        hook.chmod(0o755)

    @property
    def process(self) -> int:
        return int(self._at.read_text())

    def locks(self) -> list[str]:
        return sorted(path.name for path in self.metadata.rglob("*.lock"))

    async def thaw(self) -> None:
        """Let the disk go on, and wait until git has heard what it was told."""
        process = self.process
        os.kill(process, signal.SIGCONT)
        await until(lambda: not Path(f"/proc/{process}").exists() or _ended(process))


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


@pytest.fixture
def repositories(published: Published, tmp_path: Path) -> Callable[[int], list[Frozen]]:
    def make(count: int) -> list[Frozen]:
        made = []
        for number in range(count):
            path = tmp_path / f"site-{number}"
            shutil.copytree(published.path, path, symlinks=True)
            copy = Published(path)
            copy.git("update-index", "-q", "--refresh")
            age(copy, 60)
            made.append(Frozen(copy))
        return made

    return make


Repositories = Callable[[int], list[Frozen]]
Open = Callable[..., HostPool]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        def make(sshd: Sshd, access: Access = Access.SH, **limits: float) -> HostPool:
            made = pool_of(
                [replace(host_of(sshd), access=access)], tmp_path / "cache", **({"step_timeout": 1} | limits)
            )
            stack.push_async_callback(made.close)
            return made

        yield make


async def stalled(pool: HostPool, frozen: Frozen) -> HostStalledError:
    with pytest.raises(HostStalledError) as told:
        await sync(pool, frozen.environment)
    return told.value


@pytest.mark.parametrize("access", [Access.SH, Access.RESTRICTED])
async def test_it_is_left_to_itself_and_named_until_it_has_ended(
    sshd: Sshd, restricted_sshd: Sshd, opened: Open, repositories: Repositories, access: Access
) -> None:
    (frozen,) = repositories(1)
    old = frozen.repository.commit("staging")
    frozen.lay()
    pool = opened({Access.SH: sshd, Access.RESTRICTED: restricted_sshd}[access], access)
    error = await stalled(pool, frozen)
    assert error.again_in is not None, "it is busy, which uses up no attempt"
    assert f"process {frozen.process}" in error.message
    assert "update-ref" in error.message
    assert str(frozen.repository.path) in error.message
    assert "staging.lock" in frozen.locks(), "git holds it, and it is git that takes it away"
    again = await stalled(pool, frozen)
    assert f"process {frozen.process}" in again.message
    await frozen.thaw()
    assert frozen.locks() == []
    assert frozen.repository.commit("staging") == old, "it has heard that it should end"
    progress = await sync(pool, frozen.environment)
    assert progress.moved
    assert frozen.repository.tree("staging") == frozen.repository.tree("live")
    assert frozen.repository.is_clean()
    assert not list(frozen.metadata.glob("sync-staging-own*"))


async def test_no_second_git_goes_into_its_repository_and_the_others_are_served(
    sshd: Sshd, opened: Open, repositories: Repositories
) -> None:
    frozen, *others = repositories(4)
    frozen.lay()
    pool = opened(sshd)
    await stalled(pool, frozen)
    before = await _children_in(frozen)
    looks = await pool.survey([each.environment.legs[0] for each in (frozen, *others)], Notes())
    assert isinstance(looks[0], HostStalledError)
    assert all(isinstance(look, Observation) for look in looks[1:])
    for other in others:
        await sync(pool, other.environment)
        assert other.repository.tree("staging") == other.repository.tree("live")
    assert await _children_in(frozen) == before
    await frozen.thaw()
    await sync(pool, frozen.environment)


async def _children_in(frozen: Frozen) -> set[int]:
    """The processes that work in a repository."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):  # noqa: ASYNC240 (procfs does not block)
        try:
            if (entry / "cwd").readlink() == frozen.metadata and not _ended(int(entry.name)):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


async def test_beyond_a_bound_the_host_is_left_alone_until_some_have_ended(
    sshd: Sshd, opened: Open, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(circuit, "MAX_PAUSE", 0.1)
    *all_frozen, other = repositories(MAX_STUCK + 1)
    pool = opened(sshd)
    for frozen in all_frozen:
        frozen.lay()
        await stalled(pool, frozen)
    error = await stalled(pool, other)
    assert all(f"process {frozen.process}" in error.message for frozen in all_frozen)
    assert "next attempt in" in (await stalled(pool, other)).message
    looks = await pool.survey([each.environment.legs[0] for each in (*all_frozen, other)], Notes())
    assert all(isinstance(look, HostStalledError) for look in looks)
    await all_frozen[0].thaw()
    await _synced(pool, other)
    for frozen in all_frozen[1:]:
        await frozen.thaw()
    for frozen in all_frozen:
        await _synced(pool, frozen)


async def _synced(pool: HostPool, frozen: Frozen) -> None:
    """Sync as the queue does: what is busy is tried again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await sync(pool, frozen.environment)
            except HostStalledError:
                await asyncio.sleep(0.1)
            else:
                break
    assert frozen.repository.tree("staging") == frozen.repository.tree("live")


@pytest.mark.parametrize("most", [1, 2])
async def test_it_keeps_nobody_waiting_where_sshd_gives_few_sessions(
    opened: Open, repositories: Repositories, tmp_path: Path, most: int
) -> None:
    frozen, other = repositories(2)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder, f"MaxSessions {most}\n") as own:
        pool = opened(own)
        frozen.lay()
        await stalled(pool, frozen)
        await _synced(pool, other)
        await stalled(pool, frozen)
        await frozen.thaw()
        await _synced(pool, frozen)
        await pool.close()


async def test_it_is_known_after_the_connection_was_lost(
    sshd: Sshd, opened: Open, repositories: Repositories, tmp_path: Path
) -> None:
    frozen, other = repositories(2)
    async with Proxy(sshd.port) as proxy:
        pool = pool_of([through(proxy, sshd)], tmp_path / "unused", step_timeout=20)
        frozen.lay()
        running = asyncio.create_task(sync(pool, frozen.environment))
        await until(lambda: "staging.lock" in frozen.locks())
        await until(frozen._at.exists)
        proxy.cut()
        with pytest.raises(HostStalledError):
            await running
        await _synced(pool, other)
        await stalled(pool, frozen)
        await frozen.thaw()
        await _synced(pool, frozen)
        await pool.close()


async def test_another_listener_knows_of_it_too(sshd: Sshd, opened: Open, repositories: Repositories) -> None:
    """As does the same one after it was started anew."""
    (frozen,) = repositories(1)
    frozen.lay()
    await stalled(opened(sshd), frozen)
    other = opened(sshd)
    error = await stalled(other, frozen)
    assert f"process {frozen.process}" in error.message
    assert error.again_in is not None
    await frozen.thaw()
    await _synced(other, frozen)


async def test_a_host_that_nobody_else_asks_recovers_after_its_connection_was_lost(
    sshd: Sshd, repositories: Repositories, tmp_path: Path
) -> None:
    (frozen,) = repositories(1)
    async with Proxy(sshd.port) as proxy:
        pool = pool_of([through(proxy, sshd)], tmp_path / "unused", step_timeout=1)
        frozen.lay()
        await stalled(pool, frozen)
        proxy.cut()
        await stalled(pool, frozen)
        proxy.cut()
        await frozen.thaw()
        await _synced(pool, frozen)
        await pool.close()


async def test_a_push_that_hangs_in_its_transaction_is_left_to_itself_too(
    sshd: Sshd,
    git_sshd: Sshd,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "ENDING", 0.5)
    bare = tmp_path / "bare"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), bare.name)
    frozen = Frozen(Published(bare))
    frozen.lay()
    far = replace(host_of(git_sshd), name="far", access=Access.GIT)
    pool = pool_of([host_of(sshd), far], tmp_path / "cache", transfer_timeout=2)
    carried = environment_of(
        RepositoryAddress("far", str(bare)), source=RepositoryAddress("studio", str(published.path))
    )
    errors: list[SyncError] = []
    for _ in range(2):
        with pytest.raises(SyncError) as told:
            await sync(pool, carried, quiet=0)
        errors.append(told.value)
    assert isinstance(errors[1], HostStalledError)
    assert "git-receive-pack" in errors[1].message
    assert "staging.lock" in frozen.locks()
    await frozen.thaw()
    async with asyncio.timeout(20):
        while True:
            try:
                await sync(pool, carried, quiet=0)
            except HostStalledError:
                await asyncio.sleep(0.1)
            else:
                break
    assert frozen.repository.tree("staging") == published.tree("live")
    assert frozen.locks() == []
    await pool.close()
