"""One repository, reached by git's own services: what its refs are, its objects, and pushes to it."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from listener.errors import CheckedOutHereError, PushRefusedError, TransferError
from listener.observations import Branch, Observation
from listener.plans import Notes
from listener.sites import Leg
from listener.ssh.cache import SiteCache, tip_ref
from listener.ssh.connection import HostConnection
from listener.ssh.replies import object_id, strictly
from listener.ssh.service import FETCH, PUSH
from listener.ssh.shell import cause_of

ABSENT = ""

NOWHERE = "refs/nowhere"
"""Where the cache has no refs."""

HIDING = (
    "on its host, hide refs/sync-staging by uploadpack.hideRefs, not by transfer.hideRefs or receive.hideRefs"
)


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

    async def push(self, *specs: str, leases: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Push; return whether all was taken, False if a ref was no longer as expected.

        `leases` are the commits that refs must have, by ref; empty for none. The report says what was taken:
        `ls-remote` does not see refs that the host hides.
        """
        words = [f"--force-with-lease={ref}:{commit}" for ref, commit in leases.items()]
        async with self.connection.service(self.notes, PUSH, self.leg.repository.path) as service:
            done = await self.cache.push(service, *words, *specs)
        report = read_report(done.out)
        for spec in specs:
            ref = spec.rpartition(":")[2]
            if ref not in report:
                raise TransferError(f"{self.leg} did not say what became of {ref}.")
            self._check(ref, report[ref], done.err)
        return not any(report.values())

    def _check(self, ref: str, reason: str, said: str) -> None:
        """Raise what a ref was refused for, unless it was taken or only no longer as expected."""
        if re.search(r"currently checked out|refusing to update checked out", reason):
            raise CheckedOutHereError(f"{self.leg}: {self.leg.branch} is checked out there.")
        if re.search(r"unpacker error|lock ref|update ref|atomic", reason):
            self._failed(reason, said)
        elif reason and not reason.startswith("[rejected]"):
            # What git finds here by itself is no rule of the repository's.
            remedy = HIDING if "hidden ref" in reason else ""
            raise PushRefusedError(f"{self.leg} refused the push of {ref}: {reason}", remedy=remedy)

    def _failed(self, reason: str, said: str) -> None:
        """Raise what kept git there from taking the push, unless a ref was only no longer as expected."""
        told = re.search(r"^remote: ((error|fatal): .*\S)", said, re.MULTILINE)
        cause = cause_of(said) or (TransferError if "unpacker error" in reason else None)
        if cause is not None:
            raise cause(f"{self.leg} did not take the push: {told[1] if told else reason}")

    async def pushed_below(self, prefix: str) -> list[str]:
        """Return the refs below a prefix that a push may touch, hidden from readers or not."""
        async with self.connection.service(self.notes, PUSH, self.leg.repository.path) as service:
            # Nothing here is to be kept there: what a push that prunes would delete is what is there.
            done = await self.cache.push(service, "--dry-run", "--prune", f"{NOWHERE}/*:{prefix}*")
        return list(read_report(done.out))

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


def read_report(told: str) -> dict[str, str]:
    """Return why each ref that `git push --porcelain` tells of was not taken; empty for those that were."""
    lines = re.findall(r"^([ +*=!-])\t[^\t\n]*:(\S+)\t(.*)$", told, re.MULTILINE)
    return {ref: reason if flag == "!" else "" for flag, ref, reason in lines}


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
