"""A published repository as Studio makes it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from listener.rehearsal.git import GitError, git

SANDBOX_BRANCH = "master"

FIRST_DATE = 1_700_000_000
"""Unix seconds of the first commit."""

PUBLISH_EVERY = 3600
"""Seconds between two publishes."""


def site_files(count: int) -> dict[str, str]:
    """Return the content of a small site: `count` files in the folders that Crafter uses."""
    kinds = (
        ("site/website/articles/{n:04}/index.xml", "<page><title>Article {n}</title></page>\n"),
        ("site/components/feature-{n:04}.xml", "<component><headline>Feature {n}</headline></component>\n"),
        ("static-assets/css/part-{n:04}.css", ".part-{n} {{ order: {n}; }}\n"),
        (
            "templates/web/part-{n:04}.ftl",
            '<#import "/templates/system/common/crafter.ftl" as crafter />\n<p>{n}</p>\n',
        ),
    )
    files = {}
    for n in range(count):
        path, text = kinds[n % len(kinds)]
        files[path.format(n=n)] = text.format(n=n)
    return files


class Published:
    """A site's `published` repository, non-bare, cloned from the `sandbox` beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def sandbox(self) -> Path:
        """The repository that Studio's editors work in."""
        return self.path.parent / "sandbox"

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in the published repository."""
        return git(self.path, *arguments, stdin=stdin)

    def commit(self, branch: str) -> str:
        """Return the commit of a branch; empty if there is no such branch."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
        except GitError:
            return ""

    def tree(self, branch: str) -> str:
        """Return the tree of a branch."""
        return self.git("rev-parse", "--verify", f"refs/heads/{branch}^{{tree}}")

    def files(self, branch: str) -> dict[str, str]:
        """Return the path of each file of a branch, with its blob."""
        listing = self.git("ls-tree", "-r", "-z", f"refs/heads/{branch}")
        entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
        return {path: facts.split()[2] for facts, path in entries}

    def head(self) -> str:
        """Return the text of the file HEAD."""
        return (self.path / ".git" / "HEAD").read_text().strip()

    def is_clean(self) -> bool:
        """Return whether work tree and index match HEAD. Nothing is written, not even the index."""
        return self.git("--no-optional-locks", "status", "--porcelain") == ""

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether `newer` contains `older`."""
        try:
            self.git("merge-base", "--is-ancestor", older, newer)
        except GitError:
            return False
        return True


def build(folder: Path, *, files: int = 300) -> Published:
    """Build `sandbox` and `published` in `folder`, and return the latter.

    `live` and `staging` have no common ancestor. Staging has three items that are staged for review: one is
    added, one changed, one deleted. HEAD is on staging, the work tree is clean. Object ids are the same on
    every machine.
    """
    live = site_files(files)
    staging = _staged(live)
    first = {path: text for path, text in live.items() if not path.startswith("templates/")}
    _build_sandbox(folder / "sandbox", (first, live, staging))
    git(folder, "clone", "--quiet", "--no-checkout", "--no-hardlinks", "sandbox", "published")
    published = Published(folder / "published")
    published.git("config", "remote.origin.url", "../sandbox")
    publishes = [("staging", first), ("live", first), ("staging", live), ("live", live), ("staging", staging)]
    _import(published.path, publishes, tagged=True)
    git(published.path, "checkout", "--quiet", "--force", "staging", date=FIRST_DATE + 5 * PUBLISH_EVERY)
    return published


def tag_name(committed: float, published_on: float) -> str:
    """Return the name of the tag that Studio makes for a publish. Both times are Unix seconds."""
    return f"{_stamp(committed)}_published_on_{_stamp(published_on)}"


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H%M%S", time.gmtime(at)) + f"{int(at * 1000) % 1000:03}Z"


def _build_sandbox(sandbox: Path, edits: Sequence[Mapping[str, str]]) -> None:
    sandbox.mkdir(parents=True)
    git(sandbox, "init", "--quiet")
    git(sandbox, "symbolic-ref", "HEAD", f"refs/heads/{SANDBOX_BRANCH}")
    _import(sandbox, [(SANDBOX_BRANCH, files) for files in edits])
    git(sandbox, "reset", "--quiet", "--hard", date=FIRST_DATE)


def _staged(live: Mapping[str, str]) -> dict[str, str]:
    """Return live's files with one added, one changed and one deleted."""
    staged = dict(live)
    first, second = list(staged)[:2]
    staged[first] = staged[first].replace("Article", "Rewritten article")
    del staged[second]
    staged["site/website/staged-for-review/index.xml"] = "<page><title>Not approved yet</title></page>\n"
    return staged


def _import(
    repository: Path, commits: Sequence[tuple[str, Mapping[str, str]]], *, tagged: bool = False
) -> None:
    """Commit files to branches in one git process. A branch starts without a parent."""
    stream: list[str] = []
    for number, (branch, files) in enumerate(commits):
        at = FIRST_DATE + number * PUBLISH_EVERY
        who = f"Studio <studio@example.com> {at} +0000"
        stream += [f"commit refs/heads/{branch}", f"committer {who}", *_data(f"Change {branch}"), "deleteall"]
        for path, text in files.items():
            stream += [f"M 100644 inline {path}", *_data(text)]
        if tagged:
            stream += [f"tag {tag_name(at, at)}", f"from refs/heads/{branch}"]
            stream += [f"tagger {who}", *_data(f"Publish to {branch}")]
    git(repository, "fast-import", "--quiet", stdin="\n".join([*stream, ""]).encode())


def _data(text: str) -> tuple[str, str]:
    return f"data {len(text.encode())}", text
