"""Each way from live to staging: in one repository or through the cache, by a shell or by git alone."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from listener.outcomes import LegOutcome
from listener.progress import Progress
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.runs import Run
from listener.sites import Access, Environment, Policy, RepositoryAddress
from listener.sync import Look, Synchronizer
from tests.contract.test_repository import PATIENCE, Notes, a_run, host_of
from tests.histories import History, build
from tests.legs import changed, environment_of, only, pool_of, unkept


@dataclass(frozen=True)
class Way:
    """How staging is reached from live."""

    host: str
    bare: bool
    own: bool = False
    at_once: bool = False
    """Whether a look was made before, so that one request looks and moves."""


WAYS = {
    "live's own": Way("studio", bare=False, own=True),
    "live's own, bare": Way("studio", bare=True, own=True),
    "live's own, at once": Way("studio", bare=False, own=True, at_once=True),
    "live's own, bare, at once": Way("studio", bare=True, own=True, at_once=True),
    "another, bare": Way("eu1", bare=True),
    "another": Way("eu1", bare=False),
    "another where only git runs": Way("forge", bare=True),
    "live's own by a restricted key": Way("kept", bare=False, own=True),
    "live's own by a restricted key, at once": Way("kept", bare=False, own=True, at_once=True),
    "another, bare, by a restricted key": Way("kept", bare=True),
    "another by a restricted key": Way("kept", bare=False),
}


class World:
    """Hosts that stay connected from example to example, and a folder for each example."""

    def __init__(self, sshd: Sshd, git_sshd: Sshd, restricted_sshd: Sshd, folder: Path) -> None:
        hosts = [replace(host_of(sshd), name=name) for name in ("studio", "eu1")]
        hosts.append(replace(host_of(git_sshd), name="forge", access=Access.GIT))
        hosts.append(replace(host_of(restricted_sshd), name="kept", access=Access.RESTRICTED))
        self.folder = folder
        self.runner = asyncio.Runner()
        self.pool = pool_of(hosts, folder / "cache")
        self._numbers = itertools.count()

    def close(self) -> None:
        self.runner.run(self.pool.close())
        self.runner.close()

    def example(self, way: Way, history: History, policy: Policy) -> "Example":
        folder = self.folder / f"example{next(self._numbers)}"
        folder.mkdir()
        source = build(folder / "source", history.commits, history.source, bare=way.bare or not way.own)
        carrier = source
        if not way.own:
            carrier = build(folder / "other", history.commits, history.other, bare=way.bare)
        # Live's own repository is reached as its leg is; another leg's live lies where a shell is.
        address = RepositoryAddress(way.host if way.own else "studio", str(source.path))
        environment = environment_of(RepositoryAddress(way.host, str(carrier.path)), source=address)
        environment = changed(environment, site=folder.name, policy=policy)
        return Example(self, folder, source, carrier, environment, way.at_once)


@dataclass(frozen=True)
class State:
    """What a repository has, as far as a sync could spoil it."""

    refs: dict[str, str]
    head: str
    content: str
    """The tree that HEAD leads to; empty for none."""
    index: bytes

    @property
    def staging(self) -> str:
        return self.refs.get("refs/heads/staging", "")


@dataclass
class Example:
    """One history, built and synced one way."""

    world: World
    folder: Path
    source: Published
    carrier: Published
    environment: Environment
    at_once: bool = False

    def sync(self, run: Run) -> LegOutcome:
        progress = Progress()
        to_do = self.synchronizer.sync(self.environment, run, Notes(), progress, unkept)
        self.world.runner.run(to_do)
        return only(progress)

    def look(self) -> Look:
        """A dry run."""
        (found,) = self.world.runner.run(self.synchronizer.look(self.environment, Notes()))
        return found

    def survey(self) -> Look:
        ((found,),) = self.world.runner.run(self.synchronizer.survey([self.environment], Notes()))
        return found

    def roll_back(self, run: Run, done: LegOutcome) -> LegOutcome:
        progress = Progress()
        undone = replace(run, outcome=Progress({done.key: done}).outcome())
        to_do = self.synchronizer.roll_back(self.environment, a_run(), undone, Notes(), progress, unkept)
        self.world.runner.run(to_do)
        return only(progress)

    @property
    def synchronizer(self) -> Synchronizer:
        found = Synchronizer(self.world.pool, quiet=0, patience=PATIENCE)
        if self.at_once:
            self.world.runner.run(found.look(self.environment, Notes()))
        return found

    @property
    def metadata(self) -> Path:
        inside = self.carrier.path / ".git"
        return inside if inside.is_dir() else self.carrier.path

    def state(self) -> State:
        index = self.metadata / "index"
        refs = refs_of(self.carrier)
        head = (self.metadata / "HEAD").read_text().strip()
        commit = refs.get(head.removeprefix("ref: "), "" if head.startswith("ref: ") else head)
        content = self.carrier.git("rev-parse", f"{commit}^{{tree}}") if commit else ""
        return State(refs, head, content, index.read_bytes() if index.exists() else b"")

    def check(self, before: State) -> State:
        """Check what is true after every sync and rollback; return what is there now."""
        now = self.state()
        reachable = set(self.carrier.git("rev-list", "--glob=refs/*").split())
        assert set(before.refs.values()) <= reachable, "whatever was there is kept by some ref"
        assert not [ref for ref in now.refs if ref.startswith("refs/sync-staging/incoming")]
        assert others(now.refs) == others(before.refs)
        assert not [*self.metadata.rglob("*.lock"), *self.metadata.glob("sync-staging-own*")]
        self.carrier.git("fsck", "--strict", "--no-dangling", "--no-progress")
        if self.metadata != self.carrier.path:
            assert (now.content, now.index) == (before.content, before.index)
            assert self.carrier.is_clean()
        return now


def refs_of(repository: Published) -> dict[str, str]:
    listing = repository.git("for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split() for line in listing.splitlines())


def others(refs: dict[str, str]) -> dict[str, str]:
    """What no sync may touch."""
    ours = ("refs/heads/staging", "refs/sync-staging/")
    return {ref: commit for ref, commit in refs.items() if not ref.startswith(ours)}


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, git_sshd: Sshd, restricted_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    opened = World(sshd, git_sshd, restricted_sshd, tmp_path_factory.mktemp("histories"))
    yield opened
    opened.close()
