"""The decision: from an observation of a repository to a plan.

Everything here is pure. A `Repository` makes an `Observation`, `decide` turns it into a `Plan`, and the
repository applies the plan after it has checked everything again. Each rule exists because without it content
was lost, unapproved content came to live, or Studio's next publish failed.
"""

import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from listener.errors import (
    CheckedOutElsewhereError,
    DivergedError,
    LiveMissingError,
    MovedSinceError,
    RefusedError,
    StaleLockError,
    SymbolicBranchError,
    SyncError,
    UnbornBranchError,
)
from listener.observations import Branch, Drift, Observation
from listener.sites import Leg, Policy, RepositoryAddress
from listener.vocabulary import PlanKind as PlanKind  # noqa: PLC0414 (it belongs here, for everybody but a command)

MOVING = frozenset({PlanKind.CREATE, PlanKind.FAST_FORWARD, PlanKind.FORWARD_COMMIT, PlanKind.RESET})
"""The plans that move the branch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done about one environment's branch."""

    kind: PlanKind
    reason: str = ""
    """For a person: why it is refused, or what it waits for."""
    refusal: RefusedError | None = None
    """The error of a refusing plan."""
    again_in: float = 0.0
    """Seconds until a busy repository may be at rest."""
    unmarked: bool = False
    """Whether a busy repository has no mark of a publish: only the times of its files say that it is busy."""
    overdue: bool = False
    """Whether an unmarked repository has been busy for longer than `patience`."""
    stale: Mapping[str, str] = field(default_factory=dict)
    """The `_in_progress` branches of a crashed publish, with the commits that they must still have."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signing:
    """The identity of a run in its commits and backups: a repeated step makes the same object ids."""

    run: str
    at: int
    """Unix seconds: author's and committer's date."""

    def message(self, leg: Leg, target: Branch | None) -> tuple[str, str]:
        """Return the subject and the body of the commit that makes a leg equal to live, or to a target."""
        goal = f"Make {leg.environment} equal to {leg.live}"
        if target is not None:
            goal = f"Roll {leg.environment} back to {target.commit[:12]}"
        return goal, f"Sync-Staging-Run: {self.run}"


@dataclass(frozen=True, slots=True)
class PriorMove:
    """An earlier move of the asking run, whose result or list of changes is not known."""

    run: str
    old: str
    """The commit that the branch was at when the run began."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The reply to a plan: what the repository was like right after it was carried out, or why it was not."""

    changed: bool
    """Whether the repository was not as expected. Then nothing was moved."""
    seen: Observation | None = None
    """What the host saw right before the move, or instead of it; None if that is not known."""
    kind: PlanKind | None = None
    """What was carried out, where the host decided that (`Repository.advance`)."""
    busy: str = ""
    """The lock that Studio holds; empty for none. If there is one, nothing was moved."""
    live: Branch | None = None
    branch: Branch | None = None
    backup: str = ""
    """The ref that keeps the commit which a reset took away."""
    detached: bool = False
    """Whether HEAD named the branch and was detached. The work tree stays as it was."""
    drift: Drift | None = None
    """What has changed on the branch since the run began; None if that is not known."""
    left: Observation | None = None
    """What the repository was like after the move, as far as another move needs it; None if not known."""


class Notes(Protocol):
    """Writes down the events of a run."""

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        """Write down one event and its facts; `repeated` if the run's last attempt found the same."""


class Repository(Protocol):
    """The repository of one leg."""

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        """Read everything that a decision needs; raise `SyncError`.

        With `counting`, how many commits and which paths are apart. With `target`, a commit, the branch is
        compared to that instead of live: for a rollback. With `prior`, whether that move was carried out,
        and which paths have changed since.
        """

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        """Carry out a moving plan if everything is still as observed, and read back; raise `SyncError`.

        `since` is the commit from which changed paths are listed; empty for the one that is observed.
        """

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        """Make the branch equal to live by the policy `forward`, without a look before; raise `SyncError`.

        `expected` is what an earlier look or move has left, with its `standing`. The branch is moved only if
        HEAD and the branch are the same, if there is no lock and no mark, and if nobody has touched the
        repository for `quiet` seconds. Live may have moved. The host prepares the move and waits for
        `may_move`. If that is False, this is only a look.
        """

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many. Raise `SyncError`."""


class Repositories(Protocol):
    """Finds the repositories of legs, and the sites of a pattern."""

    async def present(self, address: RepositoryAddress, site: str | None, notes: Notes) -> list[str]:
        """Return the ids of the sites that have a repository where a pattern's address says.

        With `site`, only look for that one. The ids are not checked: they may match no pattern.
        Raises `SyncError`.
        """

    def of(self, leg: Leg, notes: Notes) -> Repository:
        """Return the leg's repository; its events go to `notes`."""

    async def survey(self, legs: Sequence[Leg], notes: Notes) -> list[Observation | SyncError]:
        """Observe many legs in few round trips for each host, and count the commits apart."""


def decide(leg: Leg, observation: Observation, *, quiet: float, patience: float) -> Plan:
    """Return what to do about `leg`, whose repository is as `observation` says.

    `quiet` is for how many seconds nobody may have touched the repository: some moments of a publish have no
    mark. This does not apply to a bare repository without live. Marks that have not changed for `patience`
    seconds were left by a publish that crashed.
    """
    refusal = LiveMissingError() if observation.live is None else _why_immovable(leg, observation)
    if refusal is not None:
        return _refuse(refusal)
    busy, crashed = _check_studio(leg, observation, quiet, patience)
    if busy is not None:
        return busy
    kind = _kind_of_move(leg, observation)
    return _refuse(DivergedError()) if kind is None else _plan(kind, leg, observation, crashed)


def undo(leg: Leg, observation: Observation, left: str, *, quiet: float, patience: float) -> Plan:
    """Return how the branch goes back to the observation's target from `left`, where a run has put it.

    With the policy `forward` it gets a new commit with the target's tree, so that everybody who pulls can
    fast-forward. With another policy it is moved back, and a backup ref keeps its commit.
    """
    refusal = _why_immovable(leg, observation)
    if refusal is not None:
        return _refuse(refusal)
    if undone(leg, observation.branch, observation.target):
        return Plan(PlanKind.UP_TO_DATE)
    if observation.branch is None or observation.branch.commit != left:
        return _refuse(MovedSinceError())
    busy, crashed = _check_studio(leg, observation, quiet, patience)
    if busy is not None:
        return busy
    kind = PlanKind.FORWARD_COMMIT if leg.policy is Policy.FORWARD else PlanKind.RESET
    return _plan(kind, leg, observation, crashed)


def busy_since(plan: Plan, now: float, before: float) -> float:
    """Return when a leg was first found busy without a mark of a publish; 0 if it is at rest now.

    `now` is the time of the look, and `before` the result of the last look, both by the host's clock. A look
    that finds a mark neither begins nor ends the wait: Studio may publish while another program writes there.
    """
    if plan.kind is not PlanKind.BUSY:
        return 0.0
    before = before if before <= now else 0.0
    return before or (now if plan.unmarked else 0.0)


def overdue(plan: Plan, observation: Observation, since: float, patience: float) -> Plan:
    """Return the plan, with a warning if an unmarked repository has been busy for longer than `patience`.

    `since` is the result of `busy_since`.
    """
    if not plan.unmarked or not since or observation.now - since <= patience:
        return plan
    at = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    warning = (
        f"the repository has not been at rest since {at}, and Studio has not marked a publish: find out what "
        f"keeps writing {observation.newest} there; a monitor or a prompt that runs git status needs "
        "GIT_OPTIONAL_LOCKS=0"
    )
    return replace(plan, overdue=True, warnings=(*plan.warnings, warning))


def _refuse(refusal: RefusedError) -> Plan:
    return Plan(PlanKind.REFUSE, reason=refusal.message, refusal=refusal)


def _plan(kind: PlanKind, leg: Leg, observation: Observation, crashed: str) -> Plan:
    """Return the plan of that kind, or a refusal if a stale lock prevents the move.

    `crashed` is the warning about a publish that crashed; empty for none.
    """
    locks = _blocking_locks(leg, observation)
    if kind in MOVING and locks:
        return _refuse(StaleLockError(f"{locks[0]} was left behind by a process that was killed."))
    warnings = [crashed] if crashed else []
    if kind in MOVING:
        warnings += drift_warnings(observation.drift)
    marks = _marks(leg, observation)
    return Plan(
        kind,
        stale={name: commit for name, commit in observation.in_progress.items() if name in marks},
        warnings=tuple(warnings),
    )


def drift_warnings(drift: Drift) -> list[str]:
    """Return what a person should know about the paths that a sync changes."""
    if drift.failed:
        return ["the paths that this run changed could not be listed"]
    if drift.blobs:
        pointers = f"{drift.blobs} of the paths point into a blob store (*.blob): a sync moves the pointers"
        return [f"{pointers}, not the objects; staging must read them from live's store or a copy of it"]
    return []


def _why_immovable(leg: Leg, observation: Observation) -> RefusedError | None:
    """Return why the branch must not be moved at all, or None."""
    branch = observation.branch
    if branch is None:
        return None
    if branch.target:
        return SymbolicBranchError(
            f"The branch {leg.branch} is symbolic: moving it would move {branch.target}."
        )
    if branch.worktree and branch.worktree != observation.worktree:
        return CheckedOutElsewhereError(
            f"The branch {leg.branch} is checked out in another work tree: {branch.worktree}"
        )
    return None


def _check_studio(
    leg: Leg, observation: Observation, quiet: float, patience: float
) -> tuple[Plan | None, str]:
    """Return a busy plan if Studio may be publishing; else None and a warning if a publish has crashed.

    The age of a mark is its own: a crashed publish must not look alive because live is still published. But
    while any file is younger than `quiet`, nothing moves.
    """
    marks, idle = _marks(leg, observation), observation.idle_within(patience)
    unchanged = min((observation.age(mark, patience) for mark in marks), default=math.inf)
    if unchanged < patience:
        reason = f"Studio is publishing: {', '.join(marks)}"
        return Plan(PlanKind.BUSY, reason, again_in=min(max(quiet - idle, 0.5), patience - unchanged)), ""
    if _published_into(leg, observation) and idle < quiet:
        return Plan(PlanKind.BUSY, _touched(idle), again_in=quiet - idle, unmarked=True), ""
    if not observation.bare and _unborn(leg, observation):
        return _wait_for_unborn(idle, quiet, patience), ""
    if not marks:
        return None, ""
    age = "at a time in the future" if unchanged == math.inf else f"{unchanged:.0f} s ago"
    return None, f"a publish seems to have crashed: {', '.join(marks)} left behind, last touched {age}"


def _published_into(leg: Leg, observation: Observation) -> bool:
    """Return whether Studio may publish there. Studio 5 makes bare published repositories too."""
    return leg.own or not observation.bare


def _touched(idle: float) -> str:
    if idle < 0:
        return f"the repository was touched {-idle:.1f} s in the future: the host's clock is off"
    return f"the repository was touched {idle:.1f} s ago"


def _wait_for_unborn(idle: float, quiet: float, patience: float) -> Plan:
    """Return the plan for a missing branch that HEAD names: a publish that runs now may create it."""
    if idle < patience:
        reason = "HEAD is the unborn branch: a publish may be about to create it"
        return Plan(PlanKind.BUSY, reason, again_in=max(quiet, 0.5), unmarked=True)
    return Plan(PlanKind.REFUSE, reason=UnbornBranchError().message, refusal=UnbornBranchError())


def _marks(leg: Leg, observation: Observation) -> list[str]:
    """Return the marks and locks of a publish into this leg's branch or into live."""
    branches = [f"{leg.branch}_in_progress"]
    if leg.own:
        branches.append(f"{leg.live}_in_progress")
    return [
        *(name for name in dict.fromkeys(branches) if name in observation.in_progress),
        *observation.locks,
    ]


def _blocking_locks(leg: Leg, observation: Observation) -> list[str]:
    """Return the existing locks that a move of the branch needs to take."""
    own = {f"refs/heads/{leg.branch}.lock", f"refs/heads/{leg.branch}_in_progress.lock"}
    if _head_names(leg, observation):
        own.add("HEAD.lock")
    return [lock for lock in observation.locks if lock in own]


def _head_names(leg: Leg, observation: Observation) -> bool:
    """Return whether HEAD names the branch: git then takes HEAD.lock to move it, bare or not."""
    return observation.head == f"ref: refs/heads/{leg.branch}"


def _unborn(leg: Leg, observation: Observation) -> bool:
    return observation.branch is None and _head_names(leg, observation)


def _kind_of_move(leg: Leg, observation: Observation) -> PlanKind | None:
    """Return how the branch becomes equal to live, or None if its policy does not allow it."""
    live, branch = observation.live, observation.branch
    if branch is None or live is None:
        return PlanKind.CREATE
    resetting = leg.policy is Policy.RESET
    if branch.commit == live.commit or (branch.tree == live.tree and not resetting):
        return PlanKind.UP_TO_DATE
    if observation.ancestor:
        return PlanKind.FAST_FORWARD
    return {
        Policy.FORWARD: PlanKind.FORWARD_COMMIT,
        Policy.RESET: PlanKind.RESET,
        Policy.FAST_FORWARD: None,
    }[leg.policy]


def equal(leg: Leg, live: Branch | None, branch: Branch | None) -> bool:
    """Return whether the environment is equal to live, in the sense of its policy."""
    if live is None or branch is None:
        return False
    if leg.policy is Policy.RESET:
        return live.commit == branch.commit
    return live.tree == branch.tree


def undone(leg: Leg, branch: Branch | None, target: Branch | None) -> bool:
    """Return whether the branch is back at the target, in the sense of its policy."""
    if branch is None or target is None:
        return False
    if leg.policy is Policy.FORWARD:
        return branch.tree == target.tree
    return branch.commit == target.commit
