"""A leg whose live is in another repository, or whose host runs only git's own services.

The decision is the same as for any leg. Questions that need live and the branch in one repository go to
the listener's cache, and a push brings the new commit to the leg.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from listener.errors import (
    BranchMovedError,
    CommitGoneError,
    NotARepositoryError,
    TransferError,
)
from listener.observations import COMMITTER_EMAIL, PATHS_LISTED, Branch, Drift, Observation
from listener.plans import Applied, Plan, PlanKind, PriorMove, Signing
from listener.sites import Policy
from listener.ssh.cache import backups_below, tip_ref
from listener.ssh.git_remote import GitRemote, MarkAges
from listener.ssh.repository import BACKUPS, SshRepository, backup_ref

T = TypeVar("T")
U = TypeVar("U")

INCOMING = "refs/sync-staging/incoming"

GONE_REMEDY = "backups are kept for sync.keep_backups; if uploadpack.hideRefs hides them there, show them"


class RelayedRepository:
    """Implements `listener.plans.Repository` through the cache.

    `shell` is the leg's repository if its host has a shell: it reads all that a decision needs, and moves the
    branch under HEAD's lock. Without a shell, refs are read as git advertises them, and moved by a push with
    lease. `live` is the same for live's repository.
    """

    def __init__(
        self,
        source: GitRemote,
        target: GitRemote,
        *,
        live: SshRepository | None,
        shell: SshRepository | None,
        mark_ages: MarkAges,
    ) -> None:
        self._source = source
        self._target = target
        self._live = live
        self._shell = shell
        self._mark_ages = mark_ages
        self._leg = target.leg
        self._cache = target.cache

    async def observe(
        self, *, counting: bool = False, target: str = "", prior: PriorMove | None = None
    ) -> Observation:
        """Read everything that a decision needs: both repositories at the same time, then the cache."""
        if target and self._shell is not None:
            # The earlier commit is on the leg's own host: no objects are needed here.
            return await self._shell.observe(counting=counting, target=target, prior=prior)
        return await self._cache.with_repair(lambda: self._observe(target, counting=counting))

    async def apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, since: str = ""
    ) -> Applied:
        """Bring the commit to the leg, move the branch if all is still as observed, and read back.

        What changes has been listed with the look: that costs the hosts nothing.
        """
        if observation.target is not None and self._shell is not None:
            return await self._shell.apply(plan, observation, signing, since=since)
        repeated = False

        async def step() -> Applied:
            nonlocal repeated
            refetch, repeated = repeated, True
            return await self._apply(plan, observation, signing, refetch=refetch)

        return await self._cache.with_repair(step)

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        """Raise `NotImplementedError`: no host has both live and the branch, so no look has a `standing`."""
        raise NotImplementedError

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many."""
        if self._shell is not None:
            return await self._shell.expire(before)
        prefix = f"{BACKUPS}/{self._leg.branch}/"
        old = [ref for ref in await self._target.pushed_below(prefix) if ref.removeprefix(prefix) < before]
        if old:
            await self._target.push(*(f":{ref}" for ref in old))
            await self._cache.forget(*(self._cached_backup(ref) for ref in old))
        return len(old)

    async def _observe(self, target: str, *, counting: bool) -> Observation:
        for _ in range(2):
            live, seen = await _both(self._live_now(), self._branch_now(counting=counting))
            goal = target or live
            tip = seen.branch.commit if seen.branch else ""
            here = await self._fetch_missing(live, tip, target)
            if target and target not in here:
                raise CommitGoneError(
                    f"{self._leg} does not have the commit {target}, or hides it.", remedy=GONE_REMEDY
                )
            if all(commit in here for commit in (live, tip) if commit):
                return await self._compared(seen, here, live, goal, target, counting=counting)
        raise BranchMovedError("The branches moved while their objects were fetched.")

    async def _live_now(self) -> str:
        """Return live's commit; empty if there is none."""
        seen = (
            await self._source.advertised(self._mark_ages)
            if self._live is None
            else await self._live.observe()
        )
        return seen.branch.commit if seen.branch else ""

    async def _branch_now(self, *, counting: bool = False) -> Observation:
        if self._shell is not None:
            return await self._shell.observe(counting=counting)
        return await self._target.advertised(self._mark_ages)

    async def _fetch_missing(self, live: str, tip: str, target: str = "") -> dict[str, Branch]:
        """Fetch the commits that the cache lacks, and return those that it has then."""
        here = await self._cache.describe(live, tip, target)
        if live and live not in here:
            await self._source.fetch()
        if (tip and tip not in here) or (target and target not in here):
            backups = f"{BACKUPS}/{self._leg.branch}/*"
            await self._target.fetch(*([(backups, self._cached_backup(backups))] if target else []))
        if all(commit in here for commit in (live, tip, target) if commit):
            return here
        return await self._cache.describe(live, tip, target)

    async def _compared(
        self,
        seen: Observation,
        here: dict[str, Branch],
        live: str,
        goal: str,
        target: str,
        *,
        counting: bool,
    ) -> Observation:
        """Return the observation, completed with the cache's answers."""
        branch = seen.branch
        if branch is not None:
            known = here[branch.commit]
            branch = replace(branch, tree=known.tree, committer_email=known.committer_email)
        observation = replace(
            seen, live=here.get(live), branch=branch, target=here.get(target), listed=True, standing=""
        )
        if not goal or (branch is not None and branch.commit == goal):
            return observation
        if branch is None:
            return replace(observation, drift=Drift(blobs=await self._cache.blobs(goal)))
        if branch.tree == here[goal].tree and self._leg.policy is not Policy.RESET:
            return observation
        ours = branch.committer_email == COMMITTER_EMAIL
        ancestor, drift = await asyncio.gather(
            self._is_ancestor(branch.commit, goal, asked=not ours and not target),
            self._cache.drift(branch.commit, goal, PATHS_LISTED, counting=counting),
        )
        return replace(observation, ancestor=ancestor, drift=drift)

    async def _is_ancestor(self, commit: str, goal: str, *, asked: bool) -> bool:
        return asked and await self._cache.is_ancestor(commit, goal)

    async def _apply(
        self, plan: Plan, observation: Observation, signing: Signing, *, refetch: bool
    ) -> Applied:
        """Apply; with `refetch`, the observed commits are fetched again first: the cache was rebuilt."""
        goal = observation.target or observation.live
        if goal is None:
            raise NotARepositoryError(f"{self._leg}: there is no live commit to move to.")
        tip = observation.branch.commit if observation.branch else ""
        if refetch:
            await self._fetch_missing(goal.commit if observation.target is None else "", tip)
        new = goal.commit
        if plan.kind is PlanKind.FORWARD_COMMIT:
            parents = [tip] if observation.target else [tip, goal.commit]
            message = signing.message(self._leg, observation.target)
            new = await self._cache.commit(goal.tree, parents, signing, message)
        applied = await (self._move_by_shell if self._shell else self._move_by_push)(
            plan, observation, signing, new
        )
        if applied.changed or applied.busy:
            return applied
        known = {new: Branch(new, goal.tree)}
        if observation.live is not None:
            known[observation.live.commit] = observation.live
        _, confirmed = await asyncio.gather(
            self._cache.keep(tip_ref(self._leg.repository, self._leg.branch), new),
            self._confirmed(applied, known),
        )
        return confirmed

    async def _move_by_shell(
        self, plan: Plan, observation: Observation, signing: Signing, new: str
    ) -> Applied:
        """Push the commit to a ref of ours, then move the branch as in live's own repository."""
        assert self._shell is not None  # noqa: S101 (chosen only if there is one)
        incoming = f"{INCOMING}/{self._leg.branch}"
        if not await self._target.push(f"+{new}:{incoming}"):
            return Applied(changed=True)
        return await self._shell.land(plan, observation, signing, new, incoming)

    async def _move_by_push(
        self, plan: Plan, observation: Observation, signing: Signing, new: str
    ) -> Applied:
        """Move the branch by a push with lease: it fails if the branch has moved since it was observed.

        A commit that a reset removes from the branch is backed up before, by a push of its own. In one push
        of both, a host that hides the backup's ref may refuse it and move the branch, even with `--atomic`.
        """
        leg, old = self._leg, observation.fingerprint
        backup = ""
        if plan.kind is PlanKind.RESET and old:
            backup = backup_ref(leg, signing, old)
            if not await self._target.push(f"{old}:{backup}"):
                raise TransferError(f"{leg}: the ref {backup} exists already, with another commit.")
            # A rollback finds it here if the host hides backups from readers.
            await self._cache.keep(self._cached_backup(backup), old)
        branch = f"refs/heads/{leg.branch}"
        taken = await self._target.push(f"{new}:{branch}", leases={branch: old})
        return Applied(changed=not taken, backup=backup if taken else "")

    def _cached_backup(self, backup: str) -> str:
        """Return the cache's ref for a backup."""
        prefix = f"{BACKUPS}/{self._leg.branch}/"
        return f"{backups_below(self._leg.repository, self._leg.branch)}/{backup.removeprefix(prefix)}"

    async def _confirmed(self, applied: Applied, known: dict[str, Branch]) -> Applied:
        """Return the state of both repositories now."""
        live, seen = await _both(self._live_now(), self._branch_now())
        tip = seen.branch.commit if seen.branch else ""
        if not known.keys() >= {live, tip}:
            known = await self._fetch_missing(live, tip)
        return replace(applied, live=known.get(live), branch=known.get(tip))


async def _both(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Return both results. If one fails, wait for the other one too, and raise the error."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second
