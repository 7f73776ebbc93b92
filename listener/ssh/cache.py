"""The listener's own bare repositories, one a site: objects travel through them from host to host.

Git does the work: a fetch or a push moves only the objects that the other end lacks. A cache that is lost or
damaged is made again from the hosts, so it needs no backup.
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
from listener.ssh.git import ENVIRONMENT, GitResult, read_git, start_git
from listener.ssh.remote_errors import cause_of
from listener.ssh.service import Service

T = TypeVar("T")

MAX_PROCESSES = 8
"""Git processes of the cache that run at the same time."""

STALE_LOCK_MARGIN = 10.0
"""Seconds after the time limit of a git process at which a lock that it left is removed."""

REBUILD_INTERVAL = 600.0
"""Seconds that must pass before a damaged cache is rebuilt a second time."""

GC_INTERVAL = 50
"""Transfers between two calls of `git gc --auto`."""

_SHALLOW = re.compile(r"^warning: rejected .* shallow roots", re.MULTILINE)

_REJECTED = re.compile(r"^!\t", re.MULTILINE)
_FAULT = re.compile(r"^!\t.*(\[remote failure\]|unpacker error)", re.MULTILINE)
"""Lines of `git push --porcelain`: a ref that was rejected, and one that was rejected because of a fault."""

_DAMAGE = re.compile(
    r"^(?!.*\bremote: ).*(not a git repository|bad object|bad tree|corrupt|loose object|index file|garbage"
    r"|unable to (read|find|parse)|could not (read|parse)|missing (blob|tree|commit)|to a valid object)",
    re.MULTILINE,
)
"""Git's messages about a repository that is damaged or gone. Messages of the other end don't count."""


class Cache:
    """The repositories of all sites, in one folder."""

    def __init__(self, folder: Path, *, limit: float) -> None:
        """`limit` is the seconds that a git process may take."""
        self._folder = folder
        self._limit = limit
        self._processes = asyncio.Semaphore(MAX_PROCESSES)
        self._sites: dict[str, SiteCache] = {}

    async def close(self) -> None:
        """End the background work."""
        await asyncio.gather(*(site.close() for site in self._sites.values()))

    def of(self, site: str) -> "SiteCache":
        """Return the repository of a site. It is created when it is first used."""
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
        self._creating = asyncio.Lock()
        self._created = False
        self._generation = 0
        self._rebuilt_at = -REBUILD_INTERVAL
        self._transfers = 0
        self._collecting: asyncio.Task[None] | None = None

    async def with_repair(self, step: Callable[[], Awaitable[T]]) -> T:
        """Carry out a step. If it fails because the cache is damaged, rebuild the cache and try once more."""
        generation = self._generation
        try:
            return await step()
        except (CacheError, TransferError) as error:
            if not (_DAMAGE.search(error.message) and await self._rebuilt(generation)):
                raise
        return await step()

    async def describe(self, *commits: str) -> dict[str, Branch]:
        """Return the commits that the cache has, with their trees and committers."""
        wanted = {commit for commit in commits if commit}
        if not wanted:
            return {}
        # Not `show`: it also needs the parents, which may be missing.
        output = await self._git(
            "log", "--no-walk=unsorted", "--ignore-missing", "--format=%H %T %ce", *wanted, "--"
        )
        found = (line.split(" ", 2) for line in output.splitlines())
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
        """Return what changes if a branch at `commit` is made equal to `goal`."""
        kinds: dict[str, list[str]] = {"A": [], "M": [], "D": []}
        output = await self._git("diff-tree", "-r", "-z", "--no-renames", "--name-status", commit, goal)
        words = iter(output.split("\0"))
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
        output = await self._git("ls-tree", "-r", "-z", "--name-only", commit)
        return sum(path.endswith(".blob") for path in output.split("\0"))

    async def commit(
        self, tree: str, parents: Sequence[str], signing: Signing, message: Sequence[str]
    ) -> str:
        """Make a commit. The same run makes the same object, here and on every host."""
        identity = {}
        for role in ("AUTHOR", "COMMITTER"):
            identity[f"GIT_{role}_NAME"], identity[f"GIT_{role}_EMAIL"] = COMMITTER_NAME, COMMITTER_EMAIL
            identity[f"GIT_{role}_DATE"] = f"@{signing.at} +0000"
        words = [word for parent in parents for word in ("-p", parent)]
        words += [word for part in message for word in ("-m", part)]
        made = await self._git(
            "-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *words, environment=identity
        )
        return made.strip()

    async def advertised(self, service: Service, *patterns: str) -> str:
        """Return the output of `git ls-remote --symref`."""
        return (await self._transfer(service, "ls-remote", "--symref", service.url, *patterns)).out

    async def fetch(self, service: Service, refs: Mapping[str, str]) -> None:
        """Fetch refs of a repository, each under the name that it is mapped to."""
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
                self._remove_partial_packs()
                self._remove_stale_locks()
                raise

    def _remove_partial_packs(self) -> None:
        """Remove what an interrupted transfer left: partial packs may be nearly as large as whole ones."""
        for left in (self._path / "objects").glob("pack/tmp_*"):
            left.unlink(missing_ok=True)

    def _remove_stale_locks(self) -> None:
        """Remove the locks that a killed git or a power cut left. Otherwise every later attempt would fail.

        No git of ours runs longer than the limit, so nobody holds a lock that is older.
        """
        before = time.time() - self._limit - STALE_LOCK_MARGIN
        for left in (*self._path.glob("*.lock"), *self._path.glob("refs/**/*.lock")):
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < before:
                    left.unlink()

    async def push(self, service: Service, *words: str) -> GitResult:
        """Push, and return the result of `git push --porcelain`; rejected refs raise nothing."""
        result = await self._transfer(service, "push", "--porcelain", "--no-verify", service.url, *words)
        self._collect_sometimes()
        return result

    async def keep(self, ref: str, commit: str) -> None:
        """Keep a commit under a ref of the cache."""
        await self._git("update-ref", ref, commit)

    async def forget(self, *refs: str) -> None:
        """Delete refs of the cache, if they exist."""
        for ref in refs:
            await self._git("update-ref", "-d", ref)

    async def close(self) -> None:
        """End the background work."""
        if self._collecting is not None:
            self._collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._collecting

    async def _transfer(self, service: Service, *words: str) -> GitResult:
        done = await self._run(words, service)
        if _SHALLOW.search(done.err):
            raise UnsupportedRepositoryError(
                "The repository is a shallow clone: its history is incomplete, and can't be copied.",
                remedy="complete it on its host with git fetch --unshallow",
            )
        if done.status != 0 and (_FAULT.search(done.out) or not _REJECTED.search(done.out)):
            raise await service.failure() or _transfer_error(words[0], done)
        return done

    async def _git(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        done = await self._run(words, environment=environment)
        if done.status != 0:
            self._remove_stale_locks()
            raise CacheError(_failed(words[0], done))
        return done.out

    async def _run(
        self,
        words: Sequence[str],
        service: Service | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> GitResult:
        """Run git in the cache. A time-out or a cancelled caller ends its whole process group."""
        if not self._created:
            await self._create()
        async with self._processes:
            process = await start_git(
                *words,
                env={**ENVIRONMENT, "GIT_DIR": str(self._path), **(environment or {})},
                pass_fds=(service.descriptor,) if service else (),
            )
            if service is not None:
                service.handed_over()
            try:
                async with asyncio.timeout(self._limit):
                    return await read_git(process, self._path if words[0] == "fetch" else None)
            except TimeoutError as error:
                raise StepTimedOutError(f"git {words[0]} took over {self._limit:g} s") from error

    async def _create(self) -> None:
        """Create the repository if it is missing. The lock keeps out a second `git init` at the same time."""
        async with self._creating:
            if self._created:
                return
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise CacheError(f"The cache {self._path} can't be created: {error.strerror}") from error
            done = await read_git(
                await start_git("init", "--quiet", "--bare", "--template=", str(self._path), env=ENVIRONMENT)
            )
            if done.status != 0:
                raise CacheError(f"The cache {self._path} can't be created: {done.err.strip()[-300:]}")
            self._created = True

    async def _rebuilt(self, generation: int) -> bool:
        """Delete the repository, which the next step creates again; return whether a new attempt makes sense.

        It does not if it was rebuilt a short time ago. If another caller has rebuilt it since `generation`,
        there is nothing to delete.
        """
        async with self._lock:
            if self._generation == generation:
                if time.monotonic() - self._rebuilt_at < REBUILD_INTERVAL:
                    return False
                aside = self._path.with_name(f"{self._path.name}.damaged")
                with contextlib.suppress(OSError):
                    self._path.rename(aside)
                await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
                self._created = False
                self._rebuilt_at = time.monotonic()
                self._generation += 1
        return True

    def _collect_sometimes(self) -> None:
        self._transfers += 1
        if self._transfers % GC_INTERVAL == 0 and (self._collecting is None or self._collecting.done()):
            self._collecting = asyncio.create_task(self._collect(), name=f"gc {self._path.name}")

    async def _collect(self) -> None:
        """Let git pack loose objects if it finds enough of them. A failure does not matter."""
        with contextlib.suppress(SyncError):
            await self._git("-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")


def tip_ref(repository: RepositoryAddress, branch: str) -> str:
    """Return the cache's ref for a branch of a repository."""
    return f"refs/tips/{_digest(repository, branch)}"


def backups_below(repository: RepositoryAddress, branch: str) -> str:
    """Return the prefix of the cache's refs for the backups of a branch."""
    return f"refs/backups/{_digest(repository, branch)}"


def _digest(repository: RepositoryAddress, branch: str) -> str:
    return hashlib.sha256(f"{repository}:{branch}".encode()).hexdigest()[:32]


def _failed(command: str, done: GitResult) -> str:
    return f"git {command} failed with status {done.status}: {done.err.strip()[-500:]}"


def _transfer_error(command: str, done: GitResult) -> SyncError:
    """Return the error of a transfer that the other end did not explain."""
    known = cause_of(done.err) if "remote:" in done.err else None
    return (known or TransferError)(_failed(command, done))
