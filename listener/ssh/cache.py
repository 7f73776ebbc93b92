"""The listener's own bare repositories, one a site, through which objects travel from host to host.

Git itself does the work: a fetch or a push moves only what the other end lacks. Nothing here is worth
keeping: a cache that is lost or damaged is made again from the hosts.
"""

import asyncio
import contextlib
import hashlib
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from listener.errors import (
    CacheError,
    StepTimedOutError,
    SyncError,
    TransferError,
    UnsupportedRepositoryError,
)
from listener.observations import COMMITTER_EMAIL, COMMITTER_NAME, Branch, Drift, Paths
from listener.plans import Signing
from listener.sites import RepositoryAddress
from listener.ssh.git import ENVIRONMENT, Done, heard, started
from listener.ssh.service import Service
from listener.ssh.shell import cause_of

T = TypeVar("T")

PROCESSES = 8
"""Git processes of the cache that run at the same time."""

UNLOCKED_AFTER = 10.0
"""Seconds beyond the limit of a git process after which a lock that it has left is taken away."""

MENDED_AGAIN = 600.0
"""Seconds after which a cache that seems damaged may be made anew once more."""

TIDIED_AFTER = 50
"""Transfers after which git may tidy a cache up."""

_SHALLOW = re.compile(r"^warning: rejected .* shallow roots", re.MULTILINE)

_REJECTED = re.compile(r"^!\t", re.MULTILINE)
_FAULT = re.compile(r"^!\t.*(\[remote failure\]|unpacker error)", re.MULTILINE)
"""What `git push --porcelain` says of a ref that is refused by a rule, or is not taken because of a fault."""

_DAMAGE = re.compile(
    r"^(?!.*\bremote: ).*(not a git repository|bad object|bad tree|corrupt|loose object|index file|garbage"
    r"|unable to (read|find|parse)|could not (read|parse)|missing (blob|tree|commit)|to a valid object)",
    re.MULTILINE,
)
"""What git says of a repository that has lost objects, or itself."""


class Cache:
    """The repositories of all sites, in one folder."""

    def __init__(self, folder: Path, *, limit: float) -> None:
        """`limit` is how many seconds a git process may take."""
        self._folder = folder
        self._limit = limit
        self._processes = asyncio.Semaphore(PROCESSES)
        self._sites: dict[str, SiteCache] = {}

    async def close(self) -> None:
        """End what goes on by itself."""
        await asyncio.gather(*(site.close() for site in self._sites.values()))

    def of(self, site: str) -> "SiteCache":
        """Return the repository of a site; it is made when it is first used."""
        if site not in self._sites:
            self._sites[site] = SiteCache(self._folder / f"{site}.git", self._limit, self._processes)
        return self._sites[site]


class SiteCache:
    """The bare repository of one site."""

    def __init__(self, path: Path, limit: float, processes: asyncio.Semaphore) -> None:
        self._path = path
        self._limit = limit
        self._processes = processes
        self._lock = asyncio.Lock()
        self._making = asyncio.Lock()
        self._made = False
        self._generation = 0
        self._mended_at = -MENDED_AGAIN
        self._transfers = 0
        self._tidying: asyncio.Task[None] | None = None

    async def mending(self, step: Callable[[], Awaitable[T]]) -> T:
        """Carry a step out, once more with a cache made anew where the first one failed by its damage."""
        generation = self._generation
        try:
            return await step()
        except (CacheError, TransferError) as error:
            if not (_DAMAGE.search(error.message) and await self._mended(generation)):
                raise
        return await step()

    async def describe(self, *commits: str) -> dict[str, Branch]:
        """Return those of the commits that are here, with their trees and committers."""
        wanted = {commit for commit in commits if commit}
        if not wanted:
            return {}
        # Not `show`, which wants their parents too.
        told = await self._git(
            "log", "--no-walk=unsorted", "--ignore-missing", "--format=%H %T %ce", *wanted, "--"
        )
        found = (line.split(" ", 2) for line in told.splitlines())
        return {
            commit: Branch(commit, tree, committer_email=email)
            for commit, tree, email in found
            if commit in wanted
        }

    async def is_ancestor(self, commit: str, of: str) -> bool:
        """Return whether a commit is an ancestor of another."""
        done = await self._run(("merge-base", "--is-ancestor", commit, of))
        if done.status not in {0, 1}:
            raise CacheError(_failed("merge-base", done))
        return done.status == 0

    async def drift(self, commit: str, goal: str, listed: int, *, counting: bool) -> Drift:
        """Return what would change where a branch at `commit` were made equal to `goal`."""
        kinds: dict[str, list[str]] = {"A": [], "M": [], "D": []}
        told = await self._git("diff-tree", "-r", "-z", "--no-renames", "--name-status", commit, goal)
        words = iter(told.split("\0"))
        for kind, path in zip(words, words, strict=False):
            kinds[kind if kind in kinds else "M"].append(path)
        ahead = behind = None
        if counting:
            apart = await self._git("rev-list", "--left-right", "--count", f"{commit}...{goal}")
            ahead, behind = map(int, apart.split())
        added, changed, removed = (Paths(len(each), tuple(each[:listed])) for each in kinds.values())
        blobs = sum(path.endswith(".blob") for each in kinds.values() for path in each)
        return Drift(added, changed, removed, ahead, behind, blobs)

    async def blobs(self, commit: str) -> int:
        """Return how many pointers into a blob store a commit's tree has."""
        told = await self._git("ls-tree", "-r", "-z", "--name-only", commit)
        return sum(path.endswith(".blob") for path in told.split("\0"))

    async def commit(
        self, tree: str, parents: Sequence[str], signing: Signing, message: Sequence[str]
    ) -> str:
        """Make a commit; the same run makes the same object, here and on every host."""
        who = {}
        for role in ("AUTHOR", "COMMITTER"):
            who[f"GIT_{role}_NAME"], who[f"GIT_{role}_EMAIL"] = COMMITTER_NAME, COMMITTER_EMAIL
            who[f"GIT_{role}_DATE"] = f"@{signing.at} +0000"
        words = [word for parent in parents for word in ("-p", parent)]
        words += [word for part in message for word in ("-m", part)]
        made = await self._git(
            "-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *words, environment=who
        )
        return made.strip()

    async def advertised(self, service: Service, *patterns: str) -> str:
        """Return what `git ls-remote --symref` tells of a repository's refs."""
        return (await self._transfer(service, "ls-remote", "--symref", service.url, *patterns)).out

    async def fetch(self, service: Service, refs: Mapping[str, str]) -> None:
        """Bring refs of a repository here, each under the name that it is mapped to."""
        specs = [f"+{there}:{here}" for there, here in refs.items()]
        options = (
            "--quiet",
            "--no-tags",
            "--no-auto-gc",
            "--no-recurse-submodules",
            "--no-show-forced-updates",
        )
        async with self._lock:
            try:
                await self._transfer(service, "fetch", *options, service.url, *specs)
            except BaseException:
                self._sweep()
                self._unlock()
                raise

    def _sweep(self) -> None:
        """Take away what a transfer that broke off has left: of a pack, most of it may have been here."""
        for left in (self._path / "objects").glob("pack/tmp_*"):
            left.unlink(missing_ok=True)

    def _unlock(self) -> None:
        """Take away the locks that a killed git, or a power cut, has left: the next attempt would fail too.

        No git of ours goes on for longer than the limit, so a lock that is older is nobody's.
        """
        before = time.time() - self._limit - UNLOCKED_AFTER
        for left in (*self._path.glob("*.lock"), *self._path.glob("refs/**/*.lock")):
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < before:
                    left.unlink()

    async def push(self, service: Service, *words: str) -> Done:
        """Push, and return what `git push --porcelain` tells of each ref, rejections included."""
        told = await self._transfer(service, "push", "--porcelain", "--no-verify", service.url, *words)
        self._tidy_now_and_then()
        return told

    async def keep(self, ref: str, commit: str) -> None:
        """Remember a commit under a ref of the cache's own."""
        await self._git("update-ref", ref, commit)

    async def forget(self, *refs: str) -> None:
        """Delete refs of the cache's own, those that are there."""
        for ref in refs:
            await self._git("update-ref", "-d", ref)

    async def close(self) -> None:
        """End what goes on by itself."""
        if self._tidying is not None:
            self._tidying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tidying

    async def _transfer(self, service: Service, *words: str) -> Done:
        done = await self._run(words, service)
        if _SHALLOW.search(done.err):
            raise UnsupportedRepositoryError(
                "The repository is a shallow clone, from which no history can be brought to another.",
                remedy="complete it on its host with git fetch --unshallow",
            )
        if done.status != 0 and (_FAULT.search(done.out) or not _REJECTED.search(done.out)):
            raise await service.failure() or _unexplained(words[0], done)
        return done

    async def _git(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        done = await self._run(words, environment=environment)
        if done.status != 0:
            self._unlock()
            raise CacheError(_failed(words[0], done))
        return done.out

    async def _run(
        self,
        words: Sequence[str],
        service: Service | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run git in the cache; its whole group is ended when time is over or the caller is cancelled."""
        if not self._made:
            await self._make()
        async with self._processes:
            process = await started(
                *words,
                env={**ENVIRONMENT, "GIT_DIR": str(self._path), **(environment or {})},
                pass_fds=(service.descriptor,) if service else (),
            )
            if service is not None:
                service.handed_over()
            try:
                async with asyncio.timeout(self._limit):
                    return await heard(process, self._path if words[0] == "fetch" else None)
            except TimeoutError as error:
                raise StepTimedOutError(f"git {words[0]} took over {self._limit:g} s") from error

    async def _make(self) -> None:
        """Make the repository if it is not there; only one at a time, for `git init` minds no other one."""
        async with self._making:
            if self._made:
                return
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise CacheError(f"The cache {self._path} can't be made: {error.strerror}") from error
            done = await heard(
                await started("init", "--quiet", "--bare", "--template=", str(self._path), env=ENVIRONMENT)
            )
            if done.status != 0:
                raise CacheError(f"The cache {self._path} can't be made: {done.err.strip()[-300:]}")
            self._made = True

    async def _mended(self, generation: int) -> bool:
        """Make the repository anew, unless somebody has since `generation`, or did so lately to no avail."""
        async with self._lock:
            if self._generation == generation:
                if time.monotonic() - self._mended_at < MENDED_AGAIN:
                    return False
                aside = self._path.with_name(f"{self._path.name}.damaged")
                with contextlib.suppress(OSError):
                    self._path.rename(aside)
                await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
                self._made = False
                self._mended_at = time.monotonic()
                self._generation += 1
        return True

    def _tidy_now_and_then(self) -> None:
        self._transfers += 1
        if self._transfers % TIDIED_AFTER == 0 and (self._tidying is None or self._tidying.done()):
            self._tidying = asyncio.create_task(self._tidy(), name=f"tidy {self._path.name}")

    async def _tidy(self) -> None:
        """Let git pack what has gathered, if it finds that worth while; never in anybody's way."""
        with contextlib.suppress(SyncError):
            await self._git("-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")


def tip_ref(repository: RepositoryAddress, branch: str) -> str:
    """Return the cache's own name for a branch of a repository."""
    return f"refs/tips/{_digest(repository, branch)}"


def kept_below(repository: RepositoryAddress, branch: str) -> str:
    """Return where the cache keeps the backups of a branch of a repository."""
    return f"refs/backups/{_digest(repository, branch)}"


def _digest(repository: RepositoryAddress, branch: str) -> str:
    return hashlib.sha256(f"{repository}:{branch}".encode()).hexdigest()[:32]


def _failed(command: str, done: Done) -> str:
    return f"git {command} failed with status {done.status}: {done.err.strip()[-500:]}"


def _unexplained(command: str, done: Done) -> SyncError:
    """Return the error of a transfer of which the other end has told nothing."""
    known = cause_of(done.err) if "remote:" in done.err else None
    return (known or TransferError)(_failed(command, done))
