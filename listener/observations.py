"""What a look at a repository found: branches, how they differ, and everything else that a decision needs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

COMMITTER_NAME = "sync-staging"
COMMITTER_EMAIL = "sync-staging@localhost"
"""Marks the forward commits as ours. Live contains none of them, so ancestry need not be computed."""

PATHS_LISTED = 1000
"""How many paths of each kind (added, changed, removed) are listed. All of them are counted."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch, as `git for-each-ref` prints it."""

    commit: str
    tree: str
    target: str = ""
    """What a symbolic branch points to; empty for a real one."""
    worktree: str = ""
    """The work tree in which it is checked out; empty if in none."""
    committer_email: str = ""


@dataclass(frozen=True, slots=True)
class Paths:
    """Some paths of a tree."""

    count: int = 0
    listed: tuple[str, ...] = ()
    """In git's order, at most `PATHS_LISTED` of them."""

    def first(self, most: int) -> "Paths":
        """Return the same with no more than so many of them listed."""
        return replace(self, listed=self.listed[:most])


@dataclass(frozen=True, slots=True)
class Drift:
    """How the environment differs from live, seen as what a sync would do to it."""

    added: Paths = field(default_factory=Paths)
    changed: Paths = field(default_factory=Paths)
    removed: Paths = field(default_factory=Paths)
    """What is in the environment only."""
    ahead: int | None = None
    """Commits that only the environment has; None if they were not counted."""
    behind: int | None = None
    """Commits that only live has."""
    blobs: int = 0
    """How many of the paths are pointers into a blob store."""
    failed: bool = False
    """Whether the paths could not be listed."""

    def first(self, most: int) -> "Drift":
        """Return the same with no more than so many paths of each kind listed."""
        kinds = (self.added.first(most), self.changed.first(most), self.removed.first(most))
        return replace(self, added=kinds[0], changed=kinds[1], removed=kinds[2])


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a repository found."""

    live: Branch | None
    branch: Branch | None
    head: str
    """HEAD's own text: `ref: refs/heads/…`, or a commit id."""
    bare: bool
    worktree: str
    """The repository's own work tree; the repository itself when bare."""
    now: float
    """Unix seconds: by the clock of the file system if a move may follow, else by the host's."""
    times: Mapping[str, float] = field(default_factory=dict)
    """When each file that a publish writes was last written, by the same clock as `now`. Files that do not
    exist are left out. Names: `HEAD` (its reflog), `index`, `FETCH_HEAD`, a mark's branch, a lock's path."""
    in_progress: Mapping[str, str] = field(default_factory=dict)
    """The marks of a publish into live or into the branch (`<branch>_in_progress`): name and commit."""
    ancestor: bool = False
    """Whether the environment's branch is an ancestor of live."""
    target: Branch | None = None
    """The commit that a rollback goes back to; None for a sync. The drift is to this commit, not to live."""
    drift: Drift = field(default_factory=Drift)
    listed: bool = True
    """Whether `drift` was asked for."""
    writable: bool = True
    """Whether the account may write to the repository. Only a look with `counting` asks for it."""
    recognised: bool = False
    """Whether the branch's reflog or commit says that the asking run has moved the branch."""
    foreign: bool = False
    """Whether the branch's reflog says that something else has moved the branch to its tip."""
    moved: Drift | None = None
    """What has changed on the branch since the asking run began; None if that was not asked for."""
    fingerprint: str = ""
    """The lines that `apply` reads again. It moves the branch only if they are unchanged."""
    standing: str = ""
    """The lines of HEAD and of the branch alone; empty where the host can't be asked to compare them."""

    @property
    def touched(self) -> float:
        """When the repository was last touched; 0 if no time is known."""
        return max(self.times.values(), default=0.0)

    @property
    def locks(self) -> tuple[str, ...]:
        """The lock files that exist, by their paths in the repository."""
        return tuple(name for name in self.times if name.endswith(".lock"))

    @property
    def newest(self) -> str:
        """The name of the file that was written last; empty if no time is known."""
        return max(self.times, key=lambda name: self.times[name], default="")

    @property
    def idle(self) -> float:
        """Seconds since the repository was last touched; negative where a clock or a file's time is off."""
        return self.now - self.touched

    def idle_within(self, patience: float) -> float:
        """Return the same, without the times that can't be right (`age`); infinite if there is no time."""
        return min((self.age(name, patience) for name in self.times), default=math.inf)

    def age(self, name: str, patience: float) -> float:
        """Return for how many seconds a file has not changed.

        A file without a time (a packed ref) is as old as the newest file. A time in the near future comes
        from a clock that is off, and may hide a publish: its age is negative, so that it counts as just
        touched. A time further in the future than `patience` was written before the clock was set back: its
        age is infinite, or it would hold the site up until then.
        """
        age = self.now - self.times.get(name, self.touched)
        return age if age >= -patience else math.inf
