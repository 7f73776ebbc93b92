"""One repository, reached by git's own services: its refs, its objects, and pushes to it."""

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
from listener.ssh.connection import HostRequests
from listener.ssh.remote_errors import cause_of
from listener.ssh.replies import object_id, strictly
from listener.ssh.service import FETCH, PUSH

ABSENT = ""

EMPTY_NAMESPACE = "refs/nowhere"
"""A prefix under which the cache has no refs."""

HIDDEN_REF_REMEDY = (
    "on its host, hide refs/sync-staging by uploadpack.hideRefs, not by transfer.hideRefs or receive.hideRefs"
)


class MarkAges:
    """Remembers when the marks of a publish were first seen. Git does not report when they were made."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def since(self, repository: str, marks: object) -> tuple[float, float]:
        """Return the time now, and since when these marks are seen without a change; 0 without marks."""
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
class GitRemote:
    """The repository of one leg: fetch its branch, push to it, list its refs."""

    leg: Leg
    connection: HostRequests
    cache: SiteCache
    notes: Notes

    async def fetch(self, *more: tuple[str, str]) -> None:
        """Fetch the branch's commit to the cache."""
        refs = {f"refs/heads/{self.leg.branch}": tip_ref(self.leg.repository, self.leg.branch), **dict(more)}
        async with self.connection.service(self.notes, FETCH, self.leg.repository.path) as service:
            await self.cache.fetch(service, refs)

    async def push(self, *specs: str, leases: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Push; return True if all refs were updated, False if one was not as expected.

        `leases` are the commits that refs must have, by ref; an empty one means that the ref must not exist.
        The result is read from git's report: `ls-remote` does not show refs that the host hides.
        """
        words = [f"--force-with-lease={ref}:{commit}" for ref, commit in leases.items()]
        async with self.connection.service(self.notes, PUSH, self.leg.repository.path) as service:
            done = await self.cache.push(service, *words, *specs)
        report = read_report(done.out)
        for spec in specs:
            ref = spec.rpartition(":")[2]
            if ref not in report:
                raise TransferError(f"{self.leg}: git did not report a result for {ref}.")
            self._check(ref, report[ref], done.err)
        return not any(report.values())

    def _check(self, ref: str, reason: str, said: str) -> None:
        """Raise the reason why a ref was refused. Nothing is raised if it was not as expected."""
        if re.search(r"currently checked out|refusing to update checked out", reason):
            raise CheckedOutHereError(f"{self.leg}: {self.leg.branch} is checked out there.")
        if re.search(r"unpacker error|lock ref|update ref|atomic", reason):
            self._failed(reason, said)
        elif reason and not reason.startswith("[rejected]"):
            # "[rejected]" means that a lease failed. Everything else is a rule of the repository.
            remedy = HIDDEN_REF_REMEDY if "hidden ref" in reason else ""
            raise PushRefusedError(f"{self.leg} refused the push of {ref}: {reason}", remedy=remedy)

    def _failed(self, reason: str, said: str) -> None:
        """Raise the fault that stopped the push there. Nothing is raised if a ref was not as expected."""
        found = re.search(r"^remote: ((error|fatal): .*\S)", said, re.MULTILINE)
        cause = cause_of(said) or (TransferError if "unpacker error" in reason else None)
        if cause is not None:
            raise cause(f"{self.leg} could not carry out the push: {found[1] if found else reason}")

    async def pushed_below(self, prefix: str) -> list[str]:
        """Return the refs below a prefix that a push may delete, even if they are hidden from readers."""
        async with self.connection.service(self.notes, PUSH, self.leg.repository.path) as service:
            # The cache has no such refs. So a pruning push would delete all that are there, and lists them.
            done = await self.cache.push(service, "--dry-run", "--prune", f"{EMPTY_NAMESPACE}/*:{prefix}*")
        return list(read_report(done.out))

    async def advertised(self, ages: MarkAges) -> Observation:
        """Return an observation from the refs that git advertises: without times, locks and trees."""
        branch = self.leg.branch
        marked = dict.fromkeys((branch, self.leg.live if self.leg.own else branch))
        async with self.connection.service(self.notes, FETCH, self.leg.repository.path) as service:
            listed = await self.cache.advertised(
                service,
                "HEAD",
                f"refs/heads/{branch}",
                *(f"refs/heads/{name}_in_progress" for name in marked),
            )
        return read_advertised(self.leg, listed, ages)


def read_report(text: str) -> dict[str, str]:
    """Return by ref why `git push --porcelain` reports it as not updated; empty for an updated one."""
    lines = re.findall(r"^([ +*=!-])\t[^\t\n]*:(\S+)\t(.*)$", text, re.MULTILINE)
    return {ref: reason if flag == "!" else "" for flag, ref, reason in lines}


@strictly()
def read_advertised(leg: Leg, text: str, ages: MarkAges) -> Observation:
    """Return the observation in the output of `ls-remote`; raise `RemoteStepError` if it is not valid."""
    head, branches = "", {}
    for line in text.splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD":
            head = head or value
        else:
            branches[name.removeprefix("refs/heads/")] = object_id(value)
    marks = {name: commit for name, commit in branches.items() if name.endswith("_in_progress")}
    now, since = ages.since(str(leg), marks)
    tip = branches.get(leg.branch)
    return Observation(
        live=None,
        branch=Branch(tip, "") if tip else None,
        head=head,
        bare=True,  # Git reports no times, so `quiet` can't be checked.
        worktree="",
        now=now,
        times=dict.fromkeys(marks, since),
        in_progress=marks,
        fingerprint=tip or ABSENT,
    )
