"""Where the sides meet: an sshd, a line with a round-trip time, repositories, the trees that are compared."""

import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from listener.rehearsal.git import git
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd
from tests.bench.figures import Figures
from tests.cluster import Cluster, find_programs
from tests.conftest import GIT_SHELL
from tests.listening import GITHUB_SECRET, Daemon, configuration

ROOT = Path(__file__).parents[2]

ROOMY = "MaxStartups 1000\nMaxSessions 100\n"
"""sshd's own limits are for strangers; here, all hosts are one."""


@dataclass(frozen=True)
class Tree:
    """A revision of the program, and where its files lie."""

    name: str
    folder: Path


@dataclass
class Stage:
    """What all rows use."""

    folder: Path
    trees: tuple[Tree, ...]
    short: bool
    """Whether each row is only to show that it runs."""
    figures: Figures
    parts: AsyncExitStack
    _numbers: Any = field(default_factory=lambda: iter(range(10**9)))

    def times(self, long: int, short: int = 2) -> int:
        return short if self.short else long

    @cached_property
    def sshd(self) -> Sshd:
        return self._sshd("sshd", ROOMY)

    @cached_property
    def git_sshd(self) -> Sshd:
        """A host that runs nothing but git's own services, and takes the same key."""
        running = self._sshd("git-sshd", ROOMY + GIT_SHELL)
        shutil.copy(self.sshd.folder / "authorized_keys", running.folder)
        return running

    def _sshd(self, name: str, extra: str) -> Sshd:
        (self.folder / name).mkdir()
        return self.parts.enter_context(Sshd(self.folder / name, extra))

    @cached_property
    def cluster(self) -> Cluster | None:
        programs = find_programs()
        if programs is None:
            self.figures.missing.append("PostgreSQL: it is not installed")
            return None
        return self.parts.enter_context(Cluster(programs))

    @cached_property
    def pristine(self) -> Published:
        return build(self.folder / "pristine", files=40)

    def new_folder(self) -> Path:
        folder = self.folder / f"part-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def repository(self, name: str) -> Published:
        """A repository of one's own, as Studio leaves it."""
        folder = self.new_folder() / name
        shutil.copytree(self.pristine.path.parent, folder, symlinks=True)
        return Published(folder / "published")

    def stores(self, *, both: bool = True) -> dict[str, str]:
        """The URL of an empty store on each database."""
        found = {"SQLite": f"sqlite:///{self.new_folder()}/listener.db"}
        if both and self.cluster is not None:
            found["PostgreSQL"] = self.cluster.url(self.cluster.database())
        return found

    def whole(self, **sections: Any) -> tuple[Path, dict[str, Any]]:
        """A folder and a configuration for it: no waiting for quiet, no looks by itself, few log lines."""
        folder = self.new_folder()
        whole = configuration(folder, self.sshd, folder)
        whole["server"] |= {"drain": 1}
        whole["sync"] = {"quiet": 0, "interval": 0}
        whole["log"] = {"format": "json", "level": "info"}
        return folder, {**whole, **sections}

    def many_sites(self, folder: Path, count: int, *, there: int | None = None) -> dict[str, Any]:
        """The sections of a configuration with so many sites, each a small bare repository.

        `there` says how many of them exist; all, if it is not given.
        """
        original = bare(self.pristine, folder / "site-0.git")
        for number in range(1, count if there is None else min(there, count)):
            shutil.copytree(original, folder / f"site-{number}.git")
        names = [f"site-{number}" for number in range(count)]
        repositories = {f"acme/{name}": name for name in names}
        environments = {"staging": {"follow": True}}
        forge = {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": repositories}
        token = configuration(folder, self.sshd, folder)["tokens"][0]
        return {
            "sites": {
                name: {
                    "repository": {"host": "studio", "path": f"{folder}/{name}.git"},
                    "environments": environments,
                }
                for name in names
            },
            "hooks": {"forge": forge},
            "tokens": [token],
        }

    @asynccontextmanager
    async def serving(self, tree: Tree, folder: Path, whole: dict[str, Any]) -> AsyncIterator[Daemon]:
        """The daemon of a tree; raises `RuntimeError` if it doesn't start."""
        path = folder / "listener.yaml"
        # JSON is YAML, and is written and read quickly with 10,000 sites too.
        path.write_text(json.dumps(whole))
        path.chmod(0o600)
        anew = not self.short or tree.folder != ROOT
        running = Daemon(path, anew=anew, cwd=tree.folder)
        await running.start()
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                await running.kill()


def publish(published: Published) -> None:
    """Let live move on by a commit with one changed file, as Studio 5.x does, past HEAD and the work tree."""
    blob = published.git("hash-object", "-w", "--stdin", stdin=secrets.token_bytes(64))
    old = published.git("ls-tree", "live").splitlines()
    kept = [line for line in old if not line.endswith("\tnews.xml")]
    lines = "".join(f"{line}\n" for line in [*kept, f"100644 blob {blob}\tnews.xml"])
    made = published.git("mktree", stdin=lines.encode())
    commit = published.git("commit-tree", made, "-p", "live", "-m", "Publish to live")
    published.git("update-ref", "refs/heads/live", commit)


def bare(published: Published, path: Path) -> Path:
    """A small bare copy, all in one pack."""
    git(path.parent, "clone", "--quiet", "--bare", "--template=", str(published.path), path.name)
    return path


@asynccontextmanager
async def line(port: int, round_trip: float) -> AsyncIterator[int]:
    """The port of a line to a port, that takes so many seconds there and back."""
    if not round_trip:
        yield port
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.line", str(port), str(round_trip / 2)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def worked(pid: int) -> float:
    """The seconds of CPU that a process has used."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, numbers[11:13])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """The MiB of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
