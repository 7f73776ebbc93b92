"""An environment in other repositories than live's own: bare or not, on hosts with a shell or without."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from listener.errors import (
    BusyError,
    CacheError,
    CheckedOutHereError,
    DiskFullError,
    LegsFailedError,
    LiveMissingError,
    NotARepositoryError,
    OnHoldError,
    PushRefusedError,
    TransferError,
    UnsupportedRepositoryError,
)
from listener.plans import PlanKind, Signing
from listener.progress import Progress
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.runs import Run
from listener.sites import Access, Environment, Policy, RepositoryAddress
from listener.ssh import HostPool
from listener.ssh.cache import Cache
from listener.ssh.git import ENVIRONMENT
from listener.ssh.service import FETCH
from listener.sync import Synchronizer, _wait_for_all
from tests.conftest import age
from tests.contract.test_faults import fill, small
from tests.contract.test_repository import PATIENCE, QUIET, Notes, a_run, host_of
from tests.legs import environment_of, only, pool_of, unkept

__all__ = ["small"]


@dataclass
class World:
    """Live's repository, three others that carry staging, and a pool that reaches them."""

    source: Published
    folder: Path
    pool: HostPool

    def carrier(self, name: str, *, bare: bool) -> Published:
        """A repository that once was equal to live's, staging included."""
        path = self.folder / f"{name}.git"
        if bare:
            git(self.folder, "clone", "--quiet", "--mirror", str(self.source.path), str(path))
        else:
            shutil.copytree(self.source.path, path, symlinks=True)
            age(Published(path), 60)
        return Published(path)

    def publish(self, name: str = "news.xml") -> None:
        """Let live move on."""
        self.source.git("checkout", "--quiet", "live")
        (self.source.path / name).write_text("new\n")
        self.source.git("add", "--all")
        self.source.git("commit", "--quiet", "-m", "Publish to live")
        self.source.git("checkout", "--quiet", "master")
        age(self.source, 60)

    async def sync(self, environment: Environment, run: Run | None = None) -> Progress:
        run = run or a_run()
        progress = Progress.of(run)
        try:
            await Synchronizer(self.pool, quiet=QUIET, patience=PATIENCE).sync(
                environment, run, Notes(), progress, unkept
            )
        except LegsFailedError as error:
            self.failed = (error, progress)
            raise
        return progress


@pytest.fixture
async def world(sshd: Sshd, git_sshd: Sshd, published: Published, tmp_path: Path) -> AsyncIterator[World]:
    hosts = [replace(host_of(sshd), name=name) for name in ("studio", "eu1", "eu2")]
    hosts.append(replace(host_of(git_sshd), name="forge", access=Access.GIT))
    pool = pool_of(hosts, tmp_path / "cache")
    yield World(published, tmp_path, pool)
    await pool.close()


def carried(world: World, *carriers: tuple[str, Published], policy: Policy = Policy.FORWARD) -> Environment:
    source = RepositoryAddress("studio", str(world.source.path))
    addresses = [RepositoryAddress(host, str(each.path)) for host, each in carriers]
    whole = environment_of(*addresses, source=source)
    return replace(whole, policy=policy, legs=tuple(replace(leg, policy=policy) for leg in whole.legs))


@pytest.mark.parametrize("host", ["eu1", "forge"])
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with a work tree"])
@pytest.mark.parametrize("policy", [Policy.FORWARD, Policy.RESET])
async def test_a_branch_elsewhere_is_made_equal_to_live(
    world: World, host: str, policy: Policy, *, bare: bool
) -> None:
    other = world.carrier("other", bare=bare)
    if not bare:
        other.git("checkout", "--quiet", "master")
        age(other, 60)
    world.publish()
    old, live = other.commit("staging"), world.source.commit("live")
    progress = only(await world.sync(carried(world, (host, other), policy=policy)))
    assert (progress.old, progress.new, progress.live) == (old, other.commit("staging"), live)
    assert other.tree("staging") == world.source.tree("live")
    if policy is Policy.FORWARD:
        assert other.git("rev-list", "--parents", "-1", "staging").split()[1:] == [old, live]
    else:
        assert other.commit("staging") == live
        assert other.git("rev-parse", progress.backup) == old
    assert not other.git("for-each-ref", "refs/sync-staging/incoming")
    assert bare or other.is_clean()
    assert progress.removed == ("site/website/staged-for-review/index.xml",)
    again = only(await world.sync(carried(world, (host, other), policy=policy)))
    assert again.plan == PlanKind.UP_TO_DATE
    other.git("fsck", "--strict")


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_repository_without_the_branch_or_with_an_older_live_gets_live_itself(
    world: World, host: str
) -> None:
    other = world.carrier("other", bare=True)
    other.git("update-ref", "-d", "refs/heads/staging")
    created = only(await world.sync(carried(world, (host, other))))
    assert (created.plan, created.old) == (PlanKind.CREATE, "")
    assert other.commit("staging") == world.source.commit("live")
    world.publish()
    forwarded = only(await world.sync(carried(world, (host, other))))
    assert forwarded.plan == PlanKind.FAST_FORWARD
    assert other.commit("staging") == world.source.commit("live")


async def test_an_empty_repository_gets_live(world: World) -> None:
    empty = world.folder / "empty.git"
    git(world.folder, "init", "--quiet", "--bare", str(empty))
    for host in ("eu1", "forge"):
        await world.sync(carried(world, (host, Published(empty))))
        assert Published(empty).commit("staging") == world.source.commit("live")
        Published(empty).git("update-ref", "-d", "refs/heads/staging")


async def test_a_checked_out_branch_is_moved_by_a_shell_and_refused_without_one(world: World) -> None:
    other = world.carrier("other", bare=False)
    assert other.head() == "ref: refs/heads/staging"
    with pytest.raises(CheckedOutHereError) as refused:
        await world.sync(carried(world, ("forge", other)))
    assert "access: sh" in refused.value.remedy
    await world.sync(carried(world, ("eu1", other)))
    assert other.tree("staging") == world.source.tree("live")
    assert other.is_clean()
    assert not other.head().startswith("ref:")


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_publish_into_the_leg_is_waited_for(world: World, host: str) -> None:
    other = world.carrier("other", bare=True)
    other.git("branch", "staging_in_progress", "staging")
    with pytest.raises(BusyError, match="staging_in_progress"):
        await world.sync(carried(world, (host, other)))


async def test_without_a_shell_patience_is_counted_from_when_a_mark_was_first_seen(world: World) -> None:
    other = world.carrier("other", bare=True)
    other.git("branch", "staging_in_progress", "staging")
    environment = carried(world, ("forge", other))
    with pytest.raises(BusyError):
        await world.sync(environment)
    later = Synchronizer(world.pool, quiet=QUIET, patience=0.0)
    progress = Progress()
    await later.sync(environment, a_run(), Notes(), progress, unkept)
    assert "staging_in_progress" in progress.warnings[0]
    assert other.tree("staging") == world.source.tree("live")


async def test_legs_at_the_same_commit_get_the_same_forward_commit(world: World) -> None:
    others = [world.carrier(name, bare=True) for name in ("a", "b", "c")]
    legs = list(zip(("eu1", "eu2", "forge"), others, strict=True))
    environment = carried(world, ("studio", world.source), *legs)
    await world.sync(environment)
    assert len({each.commit("staging") for each in (world.source, *others)}) == 1


async def test_a_leg_that_fails_fails_the_run_and_no_other_leg(world: World) -> None:
    good, bad = world.carrier("good", bare=True), Published(world.folder / "nowhere.git")
    environment = carried(world, ("eu1", good), ("eu2", bad))
    with pytest.raises(LegsFailedError, match=r"1 of 2 repositories failed: eu2:.*not-a-rep") as failed:
        await world.sync(environment)
    assert failed.value.permanent
    outcome = world.failed[1].outcome(failed.value)
    assert [leg.error for leg in outcome.legs] == ["", "not-a-repository"]
    assert good.tree("staging") == world.source.tree("live")
    again = replace(a_run(), outcome=outcome)
    good.git("update-ref", "refs/heads/staging", outcome.legs[0].old)
    shutil.copytree(world.carrier("late", bare=True).path, bad.path)
    done = await world.sync(environment, again)
    assert bad.tree("staging") == world.source.tree("live")
    assert good.commit("staging") == outcome.legs[0].old, "a retry does only what is not done"
    assert done.outcome().legs[0].new == outcome.legs[0].new


async def test_a_done_leg_is_done_again_when_live_has_moved_meanwhile(world: World) -> None:
    good, bad = world.carrier("good", bare=True), Published(world.folder / "nowhere.git")
    environment = carried(world, ("eu1", good), ("forge", bad))
    with pytest.raises(LegsFailedError):
        await world.sync(environment)
    outcome = world.failed[1].outcome(world.failed[0])
    world.publish()
    shutil.copytree(world.carrier("late", bare=True).path, bad.path)
    await world.sync(environment, replace(a_run(), outcome=outcome))
    assert good.tree("staging") == bad.tree("staging") == world.source.tree("live")


async def test_whoever_cancels_twice_leaves_no_leg_to_itself() -> None:
    cancelled, may_end = asyncio.Event(), asyncio.Event()

    async def leg() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            while not may_end.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await may_end.wait()

    running = asyncio.create_task(leg())
    waiting = asyncio.create_task(_wait_for_all([running], Progress()))
    await asyncio.sleep(0)
    waiting.cancel()
    await cancelled.wait()
    waiting.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert running.done()


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_what_is_no_repository_is_told(world: World, host: str) -> None:
    nowhere = Published(world.folder / "nowhere.git")
    with pytest.raises(NotARepositoryError):
        await world.sync(carried(world, (host, nowhere)))


async def test_a_push_that_a_hook_refuses_is_told_with_its_reason(world: World) -> None:
    other = world.carrier("other", bare=True)
    hook = other.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    progress = Progress()
    with pytest.raises(PushRefusedError, match="pre-receive hook declined"):
        await Synchronizer(world.pool, quiet=QUIET, patience=PATIENCE).sync(
            carried(world, ("forge", other)), a_run(), Notes(), progress, unkept
        )
    assert not progress.outcome().moved, "a rollback that moved nothing must leave no hold"


async def test_an_old_run_that_does_not_say_where_it_moved_the_branch_can_be_rolled_back(
    world: World,
) -> None:
    environment = environment_of(RepositoryAddress("studio", str(world.source.path)))
    old = world.source.tree("staging")
    outcome = (await world.sync(environment)).outcome()
    run = replace(a_run(), outcome=replace(outcome, legs=(replace(outcome.legs[0], repository=""),)))
    age(world.source, 60)
    synchronizer = Synchronizer(world.pool, quiet=QUIET, patience=PATIENCE)
    (look,) = await synchronizer.look_back(environment, run, Notes())
    assert look.plan is not None
    assert look.plan.kind is PlanKind.FORWARD_COMMIT
    await synchronizer.roll_back(environment, a_run(), run, Notes(), Progress(), unkept)
    assert world.source.tree("staging") == old


@pytest.mark.parametrize("setting", ["transfer.hideRefs", "receive.hideRefs"])
@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_nothing_moves_where_our_refs_are_refused(world: World, host: str, setting: str) -> None:
    other = world.carrier("other", bare=True)
    other.git("config", setting, "refs/sync-staging")
    old, progress = other.commit("staging"), Progress()
    with pytest.raises(PushRefusedError) as refused:
        await Synchronizer(world.pool, quiet=QUIET, patience=PATIENCE).sync(
            carried(world, (host, other), policy=Policy.RESET), a_run(), Notes(), progress, unkept
        )
    assert refused.value.permanent
    assert "uploadpack.hideRefs" in refused.value.remedy
    assert other.commit("staging") == old
    assert not progress.outcome().moved


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_what_readers_do_not_see_of_ours_is_kept_rolled_back_to_and_expires(
    world: World, host: str
) -> None:
    other = world.carrier("other", bare=True)
    environment = carried(world, (host, other), policy=Policy.RESET)
    other.git("config", "uploadpack.hideRefs", "refs/sync-staging")
    old, run = other.commit("staging"), a_run()
    done = await world.sync(environment, run)
    assert other.commit("staging") == world.source.commit("live")
    assert other.git("rev-parse", only(done).backup) == old
    synchronizer = Synchronizer(world.pool, quiet=QUIET, patience=PATIENCE)
    undone = replace(run, outcome=done.outcome())
    await synchronizer.roll_back(environment, a_run(), undone, Notes(), Progress(), unkept)
    assert other.commit("staging") == old
    (leg,) = environment.legs
    assert await world.pool.of(leg, Notes()).expire("run-0") == 0
    assert await world.pool.of(leg, Notes()).expire("zzz") == 2
    assert not other.git("for-each-ref", "refs/sync-staging")


async def test_a_backup_stays_where_the_branch_itself_is_refused(world: World) -> None:
    other = world.carrier("other", bare=True)
    hook = other.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\n[ "$1" != refs/heads/staging ]\n')
    hook.chmod(0o755)
    old, progress = other.commit("staging"), Progress()
    with pytest.raises(PushRefusedError, match="hook declined"):
        await Synchronizer(world.pool, quiet=QUIET, patience=PATIENCE).sync(
            carried(world, ("forge", other), policy=Policy.RESET), a_run(), Notes(), progress, unkept
        )
    assert not progress.outcome().moved
    assert other.commit("staging") == old
    (backup,) = other.git("for-each-ref", "--format=%(objectname)", "refs/sync-staging").splitlines()
    assert backup == old


async def test_a_rollback_s_hold_is_no_failure_of_several_legs(world: World) -> None:
    legs = [(host, world.carrier(host, bare=True)) for host in ("eu1", "forge")]
    held = replace(a_run(), held_live=world.source.commit("live"))
    with pytest.raises(OnHoldError):
        await world.sync(carried(world, *legs), held)


async def test_live_on_a_host_without_a_shell_is_followed_too(world: World) -> None:
    other = world.carrier("other", bare=True)
    world.publish()
    source = RepositoryAddress("forge", str(world.source.path))
    environment = environment_of(RepositoryAddress("eu1", str(other.path)), source=source)
    await world.sync(environment)
    assert other.tree("staging") == world.source.tree("live")
    world.source.git("checkout", "--quiet", "master")
    own = environment_of(source)
    assert not (await world.sync(own)).outcome().error
    assert world.source.tree("staging") == world.source.tree("live")


DAMAGES = ("removed", "emptied", "objects", "corrupt")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_cache_that_is_lost_or_damaged_is_made_again(world: World, host: str, damage: str) -> None:
    other = world.carrier("other", bare=True)
    await world.sync(carried(world, (host, other)))
    world.publish()
    cache = world.folder / "cache" / "mysite.git"
    if damage == "removed":
        shutil.rmtree(cache.parent)
    elif damage == "emptied":
        (cache / "HEAD").unlink()
    else:
        for file in [each for each in (cache / "objects").rglob("*") if each.is_file()]:
            file.chmod(0o600)
            file.unlink() if damage == "objects" else file.write_bytes(b"x" * file.stat().st_size)
    await world.sync(carried(world, (host, other)))
    assert other.tree("staging") == world.source.tree("live")
    git(cache, "fsck")


async def test_one_host_down_fails_its_leg_alone_and_is_caught_up_with(
    own_sshd: Sshd, world: World, tmp_path: Path
) -> None:
    a, b = world.carrier("a", bare=True), world.carrier("b", bare=True)
    down = replace(host_of(own_sshd), name="down")
    hosts = [connection.host for connection in world.pool._connections.values()]
    world.pool = pool_of([*hosts, down], tmp_path / "cache2")
    environment = carried(world, ("eu1", a), ("down", b), ("forge", world.carrier("c", bare=True)))
    own_sshd.stop()
    with pytest.raises(LegsFailedError) as failed:
        await world.sync(environment)
    assert not failed.value.permanent
    assert [leg.error for leg in world.failed[1].outcome().legs] == ["", "host-unreachable", ""]
    assert a.tree("staging") == world.source.tree("live") != b.tree("staging")
    own_sshd.start()
    await world.sync(environment, replace(a_run(), outcome=world.failed[1].outcome()))
    assert b.tree("staging") == world.source.tree("live")
    await world.pool.close()


async def test_many_sites_and_legs_at_once_stay_within_a_hosts_sessions(world: World) -> None:
    others = [world.carrier(f"other{number}", bare=True) for number in range(12)]
    await asyncio.gather(*(world.sync(carried(world, ("eu1", each))) for each in others))
    assert {each.tree("staging") for each in others} == {world.source.tree("live")}


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_site_that_was_never_published_is_told_where_the_branch_is_missing_too(
    world: World, host: str
) -> None:
    other = world.carrier("other", bare=True)
    other.git("update-ref", "-d", "refs/heads/staging")
    world.source.git("update-ref", "-d", "refs/heads/live")
    with pytest.raises(LiveMissingError):
        await world.sync(carried(world, (host, other)))


async def test_a_reset_that_the_repository_forbids_is_refused_for_good(world: World) -> None:
    other = world.carrier("other", bare=True)
    other.git("config", "receive.denyNonFastForwards", "true")
    before = other.commit("staging")
    with pytest.raises(PushRefusedError, match="non-fast-forward"):
        await world.sync(carried(world, ("forge", other), policy=Policy.RESET))
    assert other.commit("staging") == before


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_full_disk_behind_a_push_is_told_and_passes(
    world: World, small: Published, host: str
) -> None:
    before = small.commit("staging")
    small.git("checkout", "--quiet", "master")
    age(small, 60)
    world.publish()
    filler = fill(small.path.parent.parent)
    environment = carried(world, (host, small))
    with pytest.raises(DiskFullError) as full:
        await world.sync(environment)
    assert (full.value.permanent, small.commit("staging")) == (False, before)
    filler.unlink()
    await world.sync(environment)
    assert small.tree("staging") == world.source.tree("live")


@pytest.mark.parametrize("host", ["eu1", "forge"])
async def test_a_shallow_clone_is_refused_for_good(world: World, host: str) -> None:
    other, shallow = world.carrier("other", bare=True), Published(world.folder / "shallow.git")
    tip = other.git("commit-tree", other.tree("staging"), "-p", "staging", "-m", "Publish to staging")
    other.git("update-ref", "refs/heads/staging", tip)
    git(
        world.folder,
        "clone",
        "--quiet",
        "--bare",
        "--depth=1",
        "--branch=staging",
        f"file://{other.path}",
        str(shallow.path),
    )
    shallow.git("update-ref", "refs/heads/staging", tip)
    with pytest.raises(UnsupportedRepositoryError, match="shallow"):
        await world.sync(carried(world, (host, shallow)))


async def test_a_host_that_speaks_no_git_and_does_not_end_is_left(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    folder.mkdir()
    with Sshd(folder, "ForceCommand echo Welcome to this host; exec sleep 600\n") as sshd:
        pool = pool_of([replace(host_of(sshd), name="mute", access=Access.GIT)], tmp_path / "cache2")
        (leg,) = environment_of(RepositoryAddress("mute", "/srv/git/mysite.git")).legs
        with pytest.raises(TransferError, match="protocol error"):
            await pool.of(leg, Notes()).observe()
        await pool.close()


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_whoever_gives_up_while_a_service_starts_leaves_nothing_behind(world: World) -> None:
    other, connection = world.carrier("other", bare=True), world.pool._connections["forge"]

    async def serve() -> None:
        async with connection.service(Notes(), FETCH, str(other.path)):
            await asyncio.Event().wait()

    await world.sync(carried(world, ("forge", other)))
    before = descriptors()
    for turns in range(12):  # more than sshd's MaxSessions
        starting = asyncio.create_task(serve())
        for _ in range(turns + 2):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
    world.publish()
    await world.sync(carried(world, ("forge", other)))
    assert other.tree("staging") == world.source.tree("live")
    while descriptors() > before:
        await asyncio.sleep(0.01)


async def test_whoever_gives_up_while_a_shell_opens_leaves_no_session_behind(world: World) -> None:
    connection = world.pool._connections["eu1"]
    await connection.warm_connection.get(Notes())
    for turns in range(12):  # more than sshd's MaxSessions
        asking = asyncio.create_task(connection.call(Notes(), 20, "hello"))
        for _ in range(turns + 2):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert "git version" in await connection.call(Notes(), 20, "hello")


async def test_a_new_cache_is_made_once_however_many_legs_want_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=60).of("mysite")
    assert await asyncio.gather(*(cache.describe("a" * 40) for _ in range(8))) == [{}] * 8


async def test_a_lock_that_a_killed_git_has_left_in_the_cache_stops_it_once_at_most(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=60).of("mysite")
    await cache.describe("a" * 40)
    tree = await cache._git("hash-object", "-t", "tree", "-w", os.devnull)
    commit = await cache.commit(tree.strip(), [], Signing("run", 1_700_000_000), ("subject", "body"))
    left = [tmp_path / "cache" / "mysite.git" / name for name in ("packed-refs.lock", "refs/tips/one.lock")]
    for lock in left:
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
    with pytest.raises(CacheError, match="File exists"):
        await cache.keep("refs/tips/one", commit)
    assert all(lock.exists() for lock in left)  # somebody may be at work
    for lock in left:
        os.utime(lock, (1, 1))
    with pytest.raises(CacheError, match="File exists"):
        await cache.keep("refs/tips/one", commit)
    await cache.keep("refs/tips/one", commit)
    await cache.forget("refs/tips/one")


async def test_a_listener_without_git_says_so_and_tries_again(tmp_path: Path, monkeypatch: Any) -> None:
    cache = Cache(tmp_path / "cache", limit=60).of("mysite")
    await cache.describe("a" * 40)
    monkeypatch.setitem(ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(CacheError, match="git can't be started") as missing:
        await cache.describe("a" * 40)
    assert not missing.value.permanent
