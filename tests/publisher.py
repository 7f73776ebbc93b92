"""Publishing as Studio does it, 3.x and 4.x or 5.x, a step at a time, and pulling as a delivery node does."""

import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from listener.rehearsal.git import GitError, git
from listener.rehearsal.published import SANDBOX_BRANCH, Published, tag_name

STEPS = (
    "fetch",
    "leave crashed",
    "checkout sandbox",
    "pull",
    "branch",
    "checkout items",
    "commit",
    "tag",
    "checkout target",
    "merge",
    "delete branch",
)
"""The steps of a publish to one target, in order."""

STEPS_OF_5 = ("fetch", "resolve", "write tree", "commit", "tell the database", "update ref")
"""The same for Studio 5.x. What it tells the database takes as long as it takes, and leaves no trace."""

SANDBOX_REF = f"refs/remotes/origin/{SANDBOX_BRANCH}"

LOCK_RETRIES = 50

HELD = re.compile(r"Unable to create '[^']*\.lock': File exists")
"""What git says of a lock that somebody holds; of a ref that has moved it says something else."""


class PublishError(Exception):
    """Studio would switch publishing off for the site."""


class Publisher(ABC):
    """Publishes items of a site's sandbox to its published repository."""

    step_names: Sequence[str]

    def __init__(self, published: Published, *, staging_enabled: bool = True) -> None:
        self.published = published
        self.staging_enabled = staging_enabled

    def edit(self, changes: Mapping[str, str | None]) -> None:
        """Save items in the sandbox; None deletes one."""
        for path, text in changes.items():
            file = self.published.sandbox / path
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        git(self.published.sandbox, "add", "--all")
        git(self.published.sandbox, "commit", "--quiet", "--allow-empty", "-m", "Edit")

    def publish(self, target: str, changes: Mapping[str, str | None]) -> None:
        """Edit items and publish them, to the end."""
        for _ in self.steps(target, changes):
            pass

    def steps(self, target: str, changes: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
        """Edit items and publish them; yield (target, step) before each step is done.

        With staging enabled, what is published to live is published to staging first.
        """
        self.edit(changes)
        targets = ("staging", "live") if target == "live" and self.staging_enabled else (target,)
        for each in targets:
            for step in self.step_names:
                yield each, step
                self._do(step, each, tuple(changes))

    @abstractmethod
    def _do(self, step: str, target: str, paths: Sequence[str]) -> None:
        """Do one step; raise `PublishError`."""

    def _fetch(self) -> None:
        """Fetch as JGit does, which leaves no trace where there is nothing new."""
        newest = git(self.published.sandbox, "rev-parse", SANDBOX_BRANCH)
        known = self.published.git("for-each-ref", "--format=%(objectname)", SANDBOX_REF)
        if newest != known:
            self.published.git("fetch", "--quiet", "origin")


class StudioPublisher(Publisher):
    """Studio 3.x and 4.x: in the work tree, on a branch of its own, which is merged at last.

    It keeps nothing between two steps: one may run in a thread or process beside anything else.
    """

    step_names = STEPS

    def crash(
        self, target: str, changes: Mapping[str, str | None], *, at: tuple[str, str], index_lock: bool = False
    ) -> None:
        """Publish until just before the step `at`, and leave things as a crash there would."""
        for step in self.steps(target, changes):
            if step == at:
                break
        else:
            raise AssertionError(f"a publish to {target} has no step {at}")
        if index_lock:
            (self.published.path / ".git" / "index.lock").touch(exist_ok=False)

    def restart(self) -> None:
        """Start Studio anew after a crash: it deletes a stale `index.lock`, and nothing else."""
        (self.published.path / ".git" / "index.lock").unlink(missing_ok=True)

    def _do(self, step: str, target: str, paths: Sequence[str]) -> None:
        """Do one step; a held lock is tried again as Studio does, anything else is fatal."""
        for _ in range(LOCK_RETRIES):
            try:
                self._try(step, target, paths)
            except GitError as error:
                if not HELD.search(str(error)):
                    raise PublishError(f"{step}: {error}") from error
                time.sleep(0.02)
            else:
                return
        raise PublishError(f"{step}: a lock was held for too long")

    def _try(self, step: str, target: str, paths: Iterable[str]) -> None:
        run = self.published.git
        progress = f"{target}_in_progress"
        pull = ("pull", "--quiet", "--no-rebase", "-X", "theirs", "origin", SANDBOX_BRANCH)
        actions: dict[str, Callable[[], object]] = {
            "fetch": self._fetch,
            "leave crashed": self._leave_crashed,
            "checkout sandbox": lambda: self._checkout_sandbox(progress),
            "pull": lambda: run(*pull),
            "branch": lambda: self._branch(target, progress),
            "checkout items": lambda: self._checkout_items(paths),
            "commit": lambda: run("commit", "--quiet", "--allow-empty", "-m", f"Publish to {target}"),
            "tag": lambda: self._tag(target),
            "checkout target": lambda: run("checkout", "--quiet", target),
            "merge": lambda: self._merge(progress),
            "delete branch": lambda: run("branch", "--quiet", "-D", progress),
        }
        actions[step]()

    def _leave_crashed(self) -> None:
        if self.published.head().endswith("_in_progress"):
            self.published.git("reset", "--quiet", "--hard")

    def _checkout_sandbox(self, progress: str) -> None:
        self.published.git("checkout", "--quiet", SANDBOX_BRANCH)
        if self.published.commit(progress):
            self.published.git("branch", "--quiet", "-D", progress)

    def _branch(self, target: str, progress: str) -> None:
        """Make the `_in_progress` branch; a target's first publish makes the target too, as an orphan."""
        if not self.published.commit(target):
            self._make_target(target)
        self.published.git("checkout", "--quiet", "-B", progress, target)

    def _make_target(self, target: str) -> None:
        """Make a target with what live has; where there is no live yet, with what the sandbox has."""
        if self.published.head() != f"ref: refs/heads/{target}":
            base = "live" if self.published.commit("live") else SANDBOX_BRANCH
            self.published.git("checkout", "--quiet", "--orphan", target, base)
        self.published.git("commit", "--quiet", "--allow-empty", "-m", f"Create {target}")

    def _checkout_items(self, paths: Iterable[str]) -> None:
        sandbox = self.published.files(SANDBOX_BRANCH)
        for path in paths:
            if path in sandbox:
                self.published.git("checkout", "--quiet", SANDBOX_BRANCH, "--", path)
            else:
                self.published.git("rm", "--quiet", "--ignore-unmatch", "--", path)

    def _tag(self, target: str) -> None:
        committed = int(self.published.git("show", "--no-patch", "--format=%ct", "HEAD"))
        name = tag_name(committed, time.time())
        self.published.git("tag", "--annotate", "--message", f"Publish to {target}", name)

    def _merge(self, progress: str) -> None:
        """Merge, with its result ignored, as Studio does."""
        try:
            self.published.git("merge", "--quiet", "--no-edit", progress)
        except GitError as error:
            if HELD.search(str(error)):
                raise


def metadata(published: Published) -> Path:
    """The git directory, in a work tree or bare."""
    inside = published.path / ".git"
    return inside if inside.is_dir() else published.path


class Scratch(Published):
    """The same repository with an index elsewhere, to make trees without a trace."""

    def __init__(self, published: Published) -> None:
        super().__init__(published.path.parent / "scratch")
        if not self.path.exists():
            git(published.path.parent, "init", "--quiet", "--bare", "--template=", self.path.name)
            shutil.rmtree(self.path / "objects")
            (self.path / "objects").symlink_to(metadata(published) / "objects")


class Studio5Publisher(Publisher):
    """Studio 5.x: past HEAD and the work tree, by a commit that the target's branch is moved to at last.

    With `index`, trees are made through the repository's index, as Studio does; without, only the fetch
    leaves a trace. What comes of the moves of branches, which Studio ignores, stands in `updates`.
    """

    step_names = STEPS_OF_5

    def __init__(self, published: Published, *, staging_enabled: bool = True, index: bool = True) -> None:
        super().__init__(published, staging_enabled=staging_enabled)
        self.index = index
        self.updates: list[tuple[str, str]] = []
        """Target and outcome: `moved`, `rejected`, `locked`."""
        self.overrun: list[float] = []
        """Of each update that was rejected or locked, how many seconds nothing had told of the publish."""
        self._parent = self._tree = self._commit = ""

    def _do(self, step: str, target: str, paths: Sequence[str]) -> None:
        if step == "fetch":
            self._fetch()
        elif step == "resolve":
            self._parent = self.published.commit(target)
        elif step == "write tree":
            self._tree = self._written(paths)
        elif step == "commit":
            words = (self._tree, "-p", self._parent, "-m", f"Publish to {target}")
            self._commit = self.published.git("commit-tree", *words)
        elif step == "update ref":
            outcome = self._update(f"refs/heads/{target}")
            self.overrun += [] if outcome == "moved" else [time.time() - self._traced()]
            self.updates.append((target, outcome))

    def _traced(self) -> float:
        """When the files that a publish touches were written last."""
        files = (metadata(self.published) / name for name in ("FETCH_HEAD", "index"))
        return max(file.stat().st_mtime for file in files if file.exists())

    def _written(self, paths: Sequence[str]) -> str:
        run = self.published.git if self.index else Scratch(self.published).git
        newest = self.published.git("rev-parse", SANDBOX_REF)
        run("read-tree", self._parent)
        entries = run("ls-tree", newest, *paths).splitlines()
        gone = set(paths) - {each.split("\t", 1)[1] for each in entries}
        entries += [f"0 {'0' * 40}\t{path}" for path in sorted(gone)]
        run("update-index", "--index-info", stdin="".join(f"{each}\n" for each in entries).encode())
        return run("write-tree")

    def _update(self, ref: str) -> str:
        """Move a branch as JGit does without an expected value: only forward from wherever it is."""
        tip = self.published.git("rev-parse", ref)
        if not self.published.is_ancestor(tip, self._commit):
            return "rejected"
        try:
            self.published.git("update-ref", ref, self._commit, tip)
        except GitError as error:
            return "locked" if HELD.search(str(error)) else "rejected"
        return "moved"


class DeliveryNode:
    """A clone that follows one branch as Crafter's Deployer does."""

    def __init__(self, published: Published, path: Path, branch: str) -> None:
        self.path = path
        self._upstream = f"refs/remotes/origin/{branch}"
        git(path.parent, "clone", "--quiet", "--branch", branch, str(published.path), path.name)

    def pull(self) -> str:
        """Pull; tell whether it was `up to date`, `fast-forward` or `merged`."""
        git(self.path, "reset", "--quiet", "--hard")
        git(self.path, "fetch", "--quiet", "origin")
        if self._contains("HEAD", self._upstream):
            return "up to date"
        if self._contains(self._upstream, "HEAD"):
            git(self.path, "merge", "--quiet", "--ff-only", self._upstream)
            return "fast-forward"
        self._take_theirs()
        return "merged"

    def _take_theirs(self) -> None:
        """Merge as JGit's strategy "theirs": their whole tree is taken. Git's own `-X theirs` mixes both."""
        parents = ("-p", "HEAD", "-p", self._upstream)
        merge = git(self.path, "commit-tree", f"{self._upstream}^{{tree}}", *parents, "-m", "Merge")
        git(self.path, "reset", "--quiet", "--hard", merge)

    def _contains(self, newer: str, older: str) -> bool:
        return Published(self.path).is_ancestor(older, newer)

    def tree(self) -> str:
        """What it delivers: the tree of its work tree, if that is clean."""
        assert Published(self.path).is_clean()
        return git(self.path, "rev-parse", "HEAD^{tree}")
