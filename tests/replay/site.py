"""A site that is published into: its repositories, what must be in them, and what is found there."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from listener.rehearsal.published import Published
from tests.publisher import DeliveryNode, metadata

BARE = "5.x, bare"
IN_MEMORY = "5.x, in memory"
WAYS = ("4.x", "5.x", BARE, IN_MEMORY)
"""In the work tree; through the index; the same in a bare repository; with no trace but the fetch's."""

CLOCK = "sync-staging-clock"
"""The file by which a look near a move tells the file system's time: it stays."""


@dataclass
class Site:
    """One site, published into in one way."""

    name: str
    way: str
    published: Published
    node: DeliveryNode
    work_tree: str
    """The digest of its work tree, with which only Studio 4.x has to do."""
    index: bytes
    """The index, with which who makes trees in memory has nothing to do."""
    live: dict[str, str] = field(default_factory=dict)
    """What live must have, by path; empty for what was deleted from it."""
    staged: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)
    """What staging, or a backup of it, must contain."""
    last: str = ""
    """The last commit that was published; empty if the last publish failed."""

    def take(self, *, done: bool, target: str, path: str, text: str, commit: str) -> None:
        """Take down one publish to one target."""
        self.last = commit if done else ""
        if target == "staging":
            self.staged |= {path} if "staged-" in path else set()
            self.commits += [commit] if done else []
        elif done:
            self.live[path] = text
        else:
            self.live.pop(path, None)

    def lost(self) -> Iterator[str]:
        """What was published and is not there, once staging has been made equal to live."""
        files = self.published.files("live")
        for path, text in self.live.items():
            found = self.published.git("show", f"live:{path}") if path in files else ""
            if found != text:
                yield f"{self.name}: live has {found!r} at {path}, not {text!r}"
        kept = set(self.published.git("rev-list", "staging", "--glob=refs/sync-staging/backup/*").split())
        yield from (f"{self.name}: staging lacks {each}" for each in self.commits if each not in kept)
        if self.published.tree("staging") != self.published.tree("live"):
            yield f"{self.name}: staging is not equal to live at last"

    def leaked(self) -> list[str]:
        """What was never published to live, and is there."""
        return [f"{self.name}: {each}" for each in sorted(self.staged & set(self.published.files("live")))]

    def dirty(self) -> Iterator[str]:
        """What is not as Studio left it in the work tree and its index."""
        if self.way == "4.x":
            if not self.published.is_clean():
                yield f"{self.name}: {self.published.git('status', '--short')}"
            return
        if digest_of(self.published) != self.work_tree:
            yield f"{self.name}: the work tree"
        if self.way == IN_MEMORY:
            same = (metadata(self.published) / "index").read_bytes() == self.index
        else:
            tree = self.published.git("rev-parse", f"{self.last}^{{tree}}") if self.last else ""
            same = not tree or self.published.git("write-tree") == tree
        if not same:
            yield f"{self.name}: the index"

    def left_behind(self) -> list[str]:
        """Locks and marks that nobody needs any more."""
        folder = metadata(self.published)
        ours = [each for each in folder.glob("sync-staging-*") if each.name != CLOCK]
        marks = [each for each in ("staging_in_progress", "live_in_progress") if self.published.commit(each)]
        return [*map(str, (*folder.rglob("*.lock"), *ours)), *marks]

    def syncs(self) -> int:
        """How often a sync has moved staging."""
        log = metadata(self.published) / "logs" / "refs" / "heads" / "staging"
        return log.read_text().count("sync-staging: run")


def build(way: str, name: str, folder: Path, pristine: Published) -> Site:
    """Build a site from a copy of a pristine one."""
    shutil.copytree(pristine.path.parent, folder / name, symlinks=True)
    published = Published(folder / name / "published")
    published.git("update-index", "-q", "--refresh")
    if way == BARE:
        make_bare(published)
    node = DeliveryNode(published, folder / name / "git-node", "staging")
    index = (metadata(published) / "index").read_bytes()
    return Site(name, way, published, node, digest_of(published), index)


def make_bare(published: Published) -> None:
    """Make a published repository bare, as an update of Studio 5 does."""
    aside = published.path.with_name("published-tmp")
    published.path.rename(aside)
    (aside / ".git").rename(published.path)
    published.git("config", "--bool", "core.bare", "true")
    shutil.rmtree(aside)


def digest_of(published: Published) -> str:
    """The digest of all files of a work tree; of none where there is none."""
    digest = hashlib.sha256()
    for file in sorted(published.path.rglob("*")) if metadata(published) != published.path else ():
        path = str(file.relative_to(published.path))
        if file.is_file() and not path.startswith(".git/"):
            digest.update(f"{path}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
