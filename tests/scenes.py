"""Scenes of interruptions: a leg, and the host on whose side of it something is cut off or killed."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from listener.errors import SyncError
from listener.progress import Progress
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.runs import Run
from listener.sites import Access, Environment, Policy, RepositoryAddress
from listener.ssh import HostPool
from listener.sync import Synchronizer
from tests.conftest import GIT_SHELL
from tests.contract.test_repository import PATIENCE, Notes, host_of
from tests.legs import changed, environment_of, pool_of, unkept
from tests.proxy import Proxy
from tests.traps import Caught, Traps, environment, processes


@dataclass(frozen=True)
class Trapped:
    """A host on which git can be caught."""

    sshd: Sshd
    traps: Traps


@pytest.fixture(scope="module")
def with_shell(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd) -> Iterator[Trapped]:
    yield from trapped(tmp_path_factory, "")


@pytest.fixture(scope="module")
def git_only(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd) -> Iterator[Trapped]:
    yield from trapped(tmp_path_factory, GIT_SHELL)


def trapped(folders: pytest.TempPathFactory, extra: str) -> Iterator[Trapped]:
    traps = Traps(folders.mktemp("trapped"))
    with Sshd(folders.mktemp("trapped-sshd"), traps.extra + extra) as running:
        yield Trapped(running, traps)


Interruption = Callable[["Scene", Caught], None]


def cut(scene: "Scene", caught: Caught) -> None:
    """The network is cut, and comes back at once."""
    scene.proxy.cut()


def gone(scene: "Scene", caught: Caught) -> None:
    """The network is cut, and stays so until the attempt has ended."""
    scene.proxy.refusing = True
    scene.proxy.cut()


def killed(scene: "Scene", caught: Caught) -> None:
    """All that the session has started is killed."""
    caught.kill_all()


def asked_to_end(scene: "Scene", caught: Caught) -> None:
    """All that the session has started is asked to end."""
    caught.end_all()


def stalled(scene: "Scene", caught: Caught) -> None:
    """All that the session has started stands still, longer than a step may take."""
    caught.stop_all()


def killed_alone(scene: "Scene", caught: Caught) -> None:
    """Git's process is killed, and who has started it learns of that."""
    caught.kill()


@dataclass
class Scene:
    """An environment on one leg, on whose way something is interrupted."""

    carrier: Published
    source: Published
    environment: Environment
    pool: HostPool
    cache: Path
    proxy: Proxy
    traps: Traps
    undone: Run | None = None
    """The run that is taken back; None for a sync."""
    synchronizer: Synchronizer | None = None
    """One that has looked before, and so moves at once; None to look in each attempt."""

    async def attempt(self, run: Run) -> tuple[Progress, SyncError | None]:
        """Go on with a run; return what it has done by now, and what ended the attempt."""
        progress, notes = Progress.of(run), Notes()
        synchronizer = self.synchronizer or Synchronizer(self.pool, quiet=0, patience=PATIENCE)
        to_do = (
            synchronizer.sync(self.environment, run, notes, progress, unkept)
            if self.undone is None
            else synchronizer.roll_back(self.environment, run, self.undone, notes, progress, unkept)
        )
        try:
            await to_do
        except SyncError as error:
            return progress, error
        return progress, None

    async def interrupted(
        self, run: Run, step: tuple[str, int], interrupt: Interruption
    ) -> tuple[Progress, SyncError | None]:
        """Make an attempt that is interrupted at a step; what waited there goes on when it has ended."""
        if self.synchronizer is not None:
            await self.synchronizer.look(self.environment, Notes())
        self.traps.set(*step)
        attempt = asyncio.create_task(self.attempt(run))
        caught = await self.traps.caught()
        interrupt(self, caught)
        ended = await attempt
        self.check_whole()
        self.proxy.refusing = False
        self.traps.free()
        caught.go_on()
        if interrupt is killed_alone:
            # Who has started it lives on with the connection.
            await self.pool.close()
        await caught.gone()
        return ended

    def check_whole(self) -> None:
        """Check what is true at every moment."""
        self.carrier.git("fsck", "--strict", "--no-dangling", "--no-progress")
        self.carrier.git("rev-parse", "--verify", "HEAD^{commit}")
        if self.metadata != self.carrier.path:
            assert self.carrier.is_clean()

    @property
    def metadata(self) -> Path:
        inside = self.carrier.path / ".git"
        return inside if inside.is_dir() else self.carrier.path

    def locks(self) -> list[Path]:
        return [*self.metadata.rglob("*.lock"), *self.metadata.glob("sync-staging-own*")]

    def own_git(self) -> list[int]:
        """The listener's git processes that work in its cache."""
        mark = f"GIT_DIR={self.cache}".encode()
        return [pid for pid in processes() if mark in environment(pid)]


Place = Callable[..., Scene]


@pytest.fixture
async def place(
    sshd: Sshd, with_shell: Trapped, git_only: Trapped, pristine: Published, tmp_path: Path
) -> AsyncIterator[Place]:
    """Makes the scene of a kind, which says where staging lies and which host is interrupted.

    `own`, `another`, `forge`: that of live's own repository, of another one, of one where only git runs;
    `own at once`: live's own, moved without a look before;
    `live`: that of live, where staging lies elsewhere.
    """
    async with AsyncExitStack() as stack:
        hosts = (with_shell, git_only)
        proxies = {host: await stack.enter_async_context(Proxy(host.sshd.port)) for host in hosts}

        def make(kind: str, policy: Policy = Policy.FORWARD, name: str = "scene", **limits: float) -> Scene:
            there = git_only if kind == "forge" else with_shell
            proxy, folder = proxies[there], tmp_path / name
            there.traps.clear()
            shutil.copytree(pristine.path.parent, folder, symlinks=True)
            source = Published(folder / "published")
            source.git("update-index", "-q", "--refresh")
            known_hosts = folder / "known_hosts"
            there.sshd.trust(known_hosts, proxy.port)
            far = replace(host_of(there.sshd), name="far", port=proxy.port, known_hosts=str(known_hosts))
            far = replace(far, access=Access.GIT if kind == "forge" else Access.SH)
            hosts = (far, replace(host_of(sshd), name="near"))
            pool = pool_of(hosts, folder / "cache", **limits)
            stack.push_async_callback(pool.close)
            carrier = carrier_of(kind, source)
            there.traps.lay_hooks(carrier)
            at = RepositoryAddress("near" if kind == "live" else "far", str(carrier.path))
            near = kind in {"another", "forge"}
            live = RepositoryAddress("near" if near else "far", str(source.path))
            environment = changed(environment_of(at, source=live), policy=policy)
            cache = folder / "cache" / "mysite.git"
            scene = Scene(carrier, source, environment, pool, cache, proxy, there.traps)
            if kind == "own at once":
                scene.synchronizer = Synchronizer(pool, quiet=0, patience=PATIENCE)
            return scene

        yield make


def carrier_of(kind: str, source: Published) -> Published:
    """Return what carries staging: live's own repository, another one with a work tree, or a bare one."""
    if kind.startswith("own"):
        return source
    path = source.path.parent / "other"
    if kind == "another":
        shutil.copytree(source.path, path, symlinks=True)
        Published(path).git("update-index", "-q", "--refresh")
    else:
        git(path.parent, "clone", "--quiet", "--mirror", str(source.path), path.name)
    return Published(path)
