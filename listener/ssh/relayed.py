"""A leg whose objects come from another repository, or whose host runs nothing but git's own services.

What is decided is the same as ever; only the questions that need live and the branch in one place are put to
the listener's cache, and the commit to move to is brought to the leg by a push.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from listener.errors import (
    BranchMovedError,
    CheckedOutHereError,
    CommitGoneError,
    NotARepositoryError,
    PushRefusedError,
    TransferError,
)
from listener.observations import COMMITTER_EMAIL, PATHS_LISTED, Branch, Drift, Observation
from listener.plans import Applied, Notes, Plan, PlanKind, Signing
from listener.sites import Leg, Policy
from listener.ssh.cache import SiteCache, tip_ref
from listener.ssh.connection import HostConnection
from listener.ssh.replies import object_id, strictly
from listener.ssh.repository import BACKUPS, SshRepository, backup_ref
from listener.ssh.service import FETCH, PUSH
from listener.ssh.shell import cause_of

T = TypeVar("T")
U = TypeVar("U")

INCOMING = "refs/sync-staging/incoming"

ABSENT = ""


class Sightings:
    """Remembers since when the marks of a publish have been seen where nobody tells when they were made."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def since(self, repository: str, marks: object) -> tuple[float, float]:
        """Return the time now, and when these marks were first seen in a row; long ago if there are none."""
        now = self._clock()
        if not marks:
            self._seen.pop(repository, None)
            return now, 0.0
        known, at = self._seen.get(repository, (None, now))
        if known != marks:
            at = now
        self._seen[repository] = (marks, at)
        return now, at


@dataclass(frozen=True, slots=True)
class Carrier:
    """One repository, as far as a leg needs it: its branch, its objects, and a push to it."""

    leg: Leg
    connection: HostConnection
    cache: SiteCache
    notes: Notes

    async def fetch(self, *more: tuple[str, str]) -> None:
        """Bring the branch's commit to the cache."""
        refs = {f"refs/heads/{self.leg.branch}": tip_ref(self.leg.repository, self.leg.branch), **dict(more)}
        async with self.connection.service(self.notes, FETCH, self.leg.repository.path) as service:
            await self.cache.fetch(service, refs)

    async def push(self, *words: str) -> bool:
        """Push; return whether it was taken, False if a ref was no longer as expected."""
        async with self.connection.service(self.notes, PUSH, self.leg.repository.path) as service:
            done = await self.cache.push(service, *words)
        rejected = re.findall(r"^!\t\S*\t(.*)$", done.out, re.MULTILINE)
        for reason in rejected:
            if re.search(r"currently checked out|refusing to update checked out", reason):
                raise CheckedOutHereError(f"{self.leg}: {self.leg.branch} is checked out there.")
            if re.search(r"unpacker error|lock ref|update ref|atomic", reason):
                self._failed(reason, done.err)
            elif not reason.startswith("[rejected]"):
                # What git finds here by itself is no rule of the repository's.
                remedy = "on its host, set uploadpack.hideRefs instead" if "hidden ref" in reason else ""
                raise PushRefusedError(f"{self.leg} refused the push: {reason}", remedy=remedy)
        return not rejected

    def _failed(self, reason: str, said: str) -> None:
        """Raise what kept git there from taking the push, unless a ref was only no longer as expected."""
        told = re.search(r"^remote: ((error|fatal): .*\S)", said, re.MULTILINE)
        cause = cause_of(said) or (TransferError if "unpacker error" in reason else None)
        if cause is not None:
            raise cause(f"{self.leg} did not take the push: {told[1] if told else reason}")

    async def advertised(self, sightings: Sightings) -> Observation:
        """Return what the refs that git advertises tell: no times, no locks, no trees."""
        branch = self.leg.branch
        marked = dict.fromkeys((branch, self.leg.live if self.leg.own else branch))
        async with self.connection.service(self.notes, FETCH, self.leg.repository.path) as service:
            told = await self.cache.advertised(
                service,
                "HEAD",
                f"refs/heads/{branch}",
                *(f"refs/heads/{name}_in_progress" for name in marked),
            )
        return read_advertised(self.leg, told, sightings)


@strictly()
def read_advertised(leg: Leg, told: str, sightings: Sightings) -> Observation:
    """Return what git told of the refs; raise `RemoteStepError` for what it can't have told."""
    head, branches = "", {}
    for line in told.splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD":
            head = head or value
        else:
            branches[name.removeprefix("refs/heads/")] = object_id(value)
    marks = {name: commit for name, commit in branches.items() if name.endswith("_in_progress")}
    now, since = sightings.since(str(leg), marks)
    tip = branches.get(leg.branch)
    return Observation(
        live=None,
        branch=Branch(tip, "") if tip else None,
        head=head,
        bare=True,  # Nobody tells when it was touched, so there is nothing to keep quiet for.
        worktree="",
        now=now,
        times=dict.fromkeys(marks, since),
        in_progress=marks,
        fingerprint=tip or ABSENT,
    )


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
        path = self._leg.repository.path
        async with self._target.connection.service(self._target.notes, FETCH, path) as service:
            told = await self._cache.advertised(service, f"{prefix}*")
        refs = [line.partition("\t")[::2] for line in told.splitlines()]
        old = [(commit, ref) for commit, ref in refs if ref.rpartition("/")[2] < before]
        if not old:
            return 0
        leases = [f"--force-with-lease={ref}:{commit}" for commit, ref in old]
        await self._target.push(*leases, *(f":{ref}" for _, ref in old))
        return len(old)

    async def _observe(self, target: str, *, counting: bool) -> Observation:
        for _ in range(2):
            live, seen = await _side_by_side(self._live_now(), self._branch_now())
            goal = target or live
            tip = seen.branch.commit if seen.branch else ""
            here = await self._gathered(live, tip, target)
            if target and target not in here:
                raise CommitGoneError(f"The commit {target} is not in {self._leg} any more.")
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

    async def _branch_now(self) -> Observation:
        if self._shell is not None:
            return await self._shell.observe()
        return await self._target.advertised(self._sightings)

    async def _gathered(self, live: str, tip: str, target: str = "") -> dict[str, Branch]:
        """Return what the cache knows of the commits, once it has fetched what it lacks."""
        here = await self._cache.describe(live, tip, target)
        if live and live not in here:
            await self._source.fetch()
        if (tip and tip not in here) or (target and target not in here):
            backups = f"{BACKUPS}/{self._leg.branch}/*"
            more = [(backups, f"refs/backups/{tip_ref(self._leg.repository, '')}/*")] if target else []
            await self._target.fetch(*more)
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
        """Move the branch by a push that counts only if it still is where it was."""
        leg, old = self._leg, observation.fingerprint
        words = [f"--force-with-lease=refs/heads/{leg.branch}:{old}", f"{new}:refs/heads/{leg.branch}"]
        backup = ""
        if plan.kind is PlanKind.RESET and old:
            backup = backup_ref(leg, signing, old)
            words = ["--atomic", *words, f"{old}:{backup}"]
        taken = await self._target.push(*words)
        return Applied(changed=not taken, backup=backup if taken else "")

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
