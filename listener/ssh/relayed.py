"""A leg whose objects come from another repository, or whose host runs nothing but git's own services.

What is decided is the same as ever; only the questions that need live and the branch in one place are put to
the listener's cache, and the commit to move to is brought to the leg by a push.
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
from listener.plans import Applied, Plan, PlanKind, Signing
from listener.sites import Policy
from listener.ssh.cache import kept_below, tip_ref
from listener.ssh.carrier import Carrier, Sightings
from listener.ssh.repository import BACKUPS, SshRepository, backup_ref

T = TypeVar("T")
U = TypeVar("U")

INCOMING = "refs/sync-staging/incoming"

GONE = "a backup is kept for sync.keep_backups; show it to readers if uploadpack.hideRefs hides it there"


class RelayedRepository:
    """Implements `listener.plans.Repository` through the cache.

    `shell` is the leg's own repository where its host has a shell: it then tells all that a decision needs,
    and moves the branch under HEAD's lock. Without one, refs are read as advertised and moved by a push with
    lease. `live` is the same for live's repository.
    """

    def __init__(
        self,
        source: Carrier,
        target: Carrier,
        *,
        live: SshRepository | None,
        shell: SshRepository | None,
        sightings: Sightings,
    ) -> None:
        self._source = source
        self._target = target
        self._live = live
        self._shell = shell
        self._sightings = sightings
        self._leg = target.leg
        self._cache = target.cache

    async def observe(self, *, counting: bool = False, target: str = "") -> Observation:
        """Read everything that a decision needs: both repositories side by side, then the cache."""
        if target and self._shell is not None:
            # Where it was before is known on its own host: nothing needs to travel.
            return await self._shell.observe(counting=counting, target=target)
        return await self._cache.mending(lambda: self._observe(target, counting=counting))

    async def apply(self, plan: Plan, observation: Observation, signing: Signing) -> Applied:
        """Bring the commit to the leg, move the branch if all is still as observed, and read back."""
        if observation.target is not None and self._shell is not None:
            return await self._shell.apply(plan, observation, signing)
        tried = False

        async def step() -> Applied:
            nonlocal tried
            again, tried = tried, True
            return await self._apply(plan, observation, signing, gather=again)

        return await self._cache.mending(step)

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many."""
        if self._shell is not None:
            return await self._shell.expire(before)
        prefix = f"{BACKUPS}/{self._leg.branch}/"
        old = [ref for ref in await self._target.pushed_below(prefix) if ref.removeprefix(prefix) < before]
        if old:
            await self._target.push(*(f":{ref}" for ref in old))
            await self._cache.forget(*(self._kept_as(ref) for ref in old))
        return len(old)

    async def _observe(self, target: str, *, counting: bool) -> Observation:
        for _ in range(2):
            live, seen = await _side_by_side(self._live_now(), self._branch_now(counting=counting))
            goal = target or live
            tip = seen.branch.commit if seen.branch else ""
            here = await self._gathered(live, tip, target)
            if target and target not in here:
                raise CommitGoneError(f"{self._leg} does not give the commit {target}.", remedy=GONE)
            if all(commit in here for commit in (live, tip) if commit):
                return await self._compared(seen, here, live, goal, target, counting=counting)
        raise BranchMovedError("The branches moved while their objects were being brought here.")

    async def _live_now(self) -> str:
        """Return live's commit; empty if there is none."""
        seen = (
            await self._source.advertised(self._sightings)
            if self._live is None
            else await self._live.observe()
        )
        return seen.branch.commit if seen.branch else ""

    async def _branch_now(self, *, counting: bool = False) -> Observation:
        if self._shell is not None:
            return await self._shell.observe(counting=counting)
        return await self._target.advertised(self._sightings)

    async def _gathered(self, live: str, tip: str, target: str = "") -> dict[str, Branch]:
        """Return what the cache knows of the commits, once it has fetched what it lacks."""
        here = await self._cache.describe(live, tip, target)
        if live and live not in here:
            await self._source.fetch()
        if (tip and tip not in here) or (target and target not in here):
            backups = f"{BACKUPS}/{self._leg.branch}/*"
            await self._target.fetch(*([(backups, self._kept_as(backups))] if target else []))
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
        """Return the observation with all that only the cache can tell."""
        branch = seen.branch
        if branch is not None:
            known = here[branch.commit]
            branch = replace(branch, tree=known.tree, committer_email=known.committer_email)
        observation = replace(seen, live=here.get(live), branch=branch, target=here.get(target))
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
        self, plan: Plan, observation: Observation, signing: Signing, *, gather: bool
    ) -> Applied:
        """Apply; with `gather`, what was observed has to be brought to the cache anew."""
        goal = observation.target or observation.live
        if goal is None:
            raise NotARepositoryError(f"{self._leg} has nothing to go to.")
        tip = observation.branch.commit if observation.branch else ""
        if gather:
            await self._gathered(goal.commit if observation.target is None else "", tip)
        new = goal.commit
        if plan.kind is PlanKind.FORWARD_COMMIT:
            parents = [tip] if observation.target else [tip, goal.commit]
            message = signing.message(self._leg, observation.target)
            new = await self._cache.commit(goal.tree, parents, signing, message)
        applied = await (self._landed if self._shell else self._pushed)(plan, observation, signing, new)
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

    async def _landed(self, plan: Plan, observation: Observation, signing: Signing, new: str) -> Applied:
        """Bring the commit under a ref of ours, then move the branch as in live's own repository."""
        assert self._shell is not None  # noqa: S101 (chosen by it)
        incoming = f"{INCOMING}/{self._leg.branch}"
        if not await self._target.push(f"+{new}:{incoming}"):
            return Applied(changed=True)
        return await self._shell.move(plan, observation, signing, new, incoming)

    async def _pushed(self, plan: Plan, observation: Observation, signing: Signing, new: str) -> Applied:
        """Move the branch by a push that counts only if it still is where it was.

        What that takes away from the branch is kept before: by a push of its own, for a host that refuses the
        backup may move the branch all the same, whatever a push of both asks for.
        """
        leg, old = self._leg, observation.fingerprint
        backup = ""
        if plan.kind is PlanKind.RESET and old:
            backup = backup_ref(leg, signing, old)
            if not await self._target.push(f"{old}:{backup}"):
                raise TransferError(f"{leg} has another commit as {backup}.")
            # Where backups are hidden from readers, a rollback finds it here.
            await self._cache.keep(self._kept_as(backup), old)
        branch = f"refs/heads/{leg.branch}"
        taken = await self._target.push(f"{new}:{branch}", leases={branch: old})
        return Applied(changed=not taken, backup=backup if taken else "")

    def _kept_as(self, backup: str) -> str:
        """Return the cache's own name for a backup."""
        prefix = f"{BACKUPS}/{self._leg.branch}/"
        return f"{kept_below(self._leg.repository, self._leg.branch)}/{backup.removeprefix(prefix)}"

    async def _confirmed(self, applied: Applied, known: dict[str, Branch]) -> Applied:
        """Return what stands in both repositories now."""
        live, seen = await _side_by_side(self._live_now(), self._branch_now())
        tip = seen.branch.commit if seen.branch else ""
        if not known.keys() >= {live, tip}:
            known = await self._gathered(live, tip)
        return replace(applied, live=known.get(live), branch=known.get(tip))


async def _side_by_side(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Return what both return, or raise the error of the first that failed once neither goes on."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second
