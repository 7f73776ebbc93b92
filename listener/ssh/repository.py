"""A repository on a host: what the port asks for, said in the dialogue's words and read back."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from listener.errors import RemoteStepError
from listener.observations import (
    COMMITTER_EMAIL,
    COMMITTER_NAME,
    PATHS_LISTED,
    Branch,
    Drift,
    Observation,
    Paths,
)
from listener.plans import Applied, Notes, Plan, PlanKind, Signing
from listener.sites import Leg, Policy
from listener.ssh.connection import HostConnection
from listener.ssh.shell import Tour

BACKUPS = "refs/sync-staging/backup"

SURVEY_LISTED = 20
"""How many paths of each kind a survey lists."""


class SshRepository:
    """Implements `listener.plans.Repository` by a host's loaded shells."""

    def __init__(self, connection: HostConnection, leg: Leg, notes: Notes, limit: float) -> None:
        self._connection = connection
        self._leg = leg
        self._notes = notes
        self._limit = limit

    async def observe(self, *, counting: bool = False, target: str = "") -> Observation:
        """Read everything that a decision needs, in one round trip."""
        question = asked(self._leg, PATHS_LISTED, counting=counting, target=target)
        return read_observation(self._leg, await self._call("ss_observe", *question))

    async def apply(self, plan: Plan, observation: Observation, signing: Signing) -> Applied:
        """Carry out a moving plan and read back, in one round trip."""
        target = observation.target
        return await self.move(plan, observation, signing, target.commit if target else "")

    async def move(
        self, plan: Plan, observation: Observation, signing: Signing, to: str, incoming: str = ""
    ) -> Applied:
        """Move the branch to the commit `to`, which `incoming` has brought; to live's where that is empty.

        A forward commit is made here, of that commit's tree, unless it has been brought already.
        """
        leg = self._leg
        kind = PlanKind.FAST_FORWARD if incoming else plan.kind
        backup = ""
        if plan.kind is PlanKind.RESET and observation.branch is not None:
            # A run may have to reset more than once: each old commit has a ref of its own.
            backup = backup_ref(leg, signing, observation.branch.commit)
        text = await self._call(
            "ss_apply",
            leg.repository.path,
            leg.repository.root,
            _live(leg),
            leg.branch,
            observation.fingerprint,
            kind.value,
            to,
            plan.stale.get(f"{leg.branch}_in_progress", ""),
            backup,
            incoming,
            signing.run,
            str(signing.at),
            COMMITTER_NAME,
            COMMITTER_EMAIL,
            *signing.message(leg, observation.target),
        )
        return read_applied(leg, text, backup)

    async def expire(self, before: str) -> int:
        """Delete the backups of runs whose ids are below `before`; return how many."""
        at = self._leg.repository
        return (await self._call("ss_expire", at.path, at.root, self._leg.branch, before)).count("delete ")

    async def _call(self, function: str, *arguments: str) -> str:
        into = Tour((self._leg.repository.path,))
        return await self._connection.call(self._notes, self._limit, function, *arguments, tour=into)


def backup_ref(leg: Leg, signing: Signing, commit: str) -> str:
    """Return the ref under which a run keeps a commit that it takes away from the branch."""
    return f"{BACKUPS}/{leg.branch}/{signing.run}-{commit[:12]}"


def asked(leg: Leg, listed: int, *, counting: bool, target: str = "") -> tuple[str, ...]:
    """Return the arguments of `ss_observe`."""
    return (
        leg.repository.path,
        leg.repository.root,
        _live(leg),
        leg.branch,
        "commit" if leg.policy is Policy.RESET else "tree",
        COMMITTER_EMAIL,
        str(listed),
        "yes" if counting else "no",
        target,
    )


def _live(leg: Leg) -> str:
    """Return live's branch in the leg's own repository; empty where live lies elsewhere."""
    return leg.live if leg.own else ""


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Turn what a host can't have told into `RemoteStepError`: it is broken, or somebody plays it."""
    try:
        yield
    except (ValueError, LookupError) as error:
        raise RemoteStepError("the host's reply is not whole") from error


@dataclass(slots=True)
class _Seen:
    """The part of a reply that tells HEAD, the locks and the branches."""

    head: str
    marks: set[str]
    branches: dict[str, Branch]


@strictly()
def read_observation(leg: Leg, text: str) -> Observation:
    """Return what `ss_observe` told; raise `RemoteStepError` for what it can't have told."""
    facts, found, rest = text.partition("\nhead ")
    fingerprint, told, findings = rest.partition("\nseen\n")
    if not found or not told:
        raise ValueError(text)
    findings.encode()  # git quotes what is no UTF-8
    fingerprint = f"head {fingerprint}"
    seen = _read_seen(fingerprint)
    target = re.match(r"target (\S+) (\S+)\n", findings)
    values = dict(line.split(" ", 1) for line in facts.split("\n") if " " in line)
    touched = [_moment(line[8:]) for line in facts.split("\n") if line.startswith("touched ")]
    return Observation(
        live=seen.branches.get(_live(leg)),
        branch=seen.branches.get(leg.branch),
        head=seen.head,
        bare=values["bare"] == "yes",
        worktree=values["worktree"],
        now=_seconds(values["now"]),
        touched=max(touched, default=0.0),
        in_progress={n: b.commit for n, b in seen.branches.items() if n.endswith("_in_progress")},
        index_lock="index.lock" in seen.marks,
        head_lock="HEAD.lock" in seen.marks,
        ancestor="ancestor" in findings.partition("differences\n")[0].split("\n"),
        target=Branch(*map(object_id, target.groups())) if target else None,
        drift=_read_drift(findings),
        fingerprint=fingerprint,
    )


def _moment(text: str) -> float:
    """Return when a file was touched; told in whole seconds, it may have been up to one later."""
    return _seconds(text) if "." in text else _seconds(text) + 1


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        raise ValueError(text)
    return float(text)


def object_id(text: str) -> str:
    """Return the id of an object; raise `ValueError` for other words, which git might take for an option."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text):
        raise ValueError(text)
    return text


@strictly()
def read_applied(leg: Leg, text: str, backup: str) -> Applied:
    """Return what `ss_apply` told."""
    said, found, rest = text.partition("new ")
    words = said.split()
    if not found:
        busy = words[-1] if "busy" in words else ""
        return Applied(changed=not busy, busy=busy, detached="detached" in words)
    _, _, fingerprint = rest.partition("\n")
    seen = _read_seen(fingerprint)
    return Applied(
        changed=False,
        live=seen.branches.get(_live(leg)),
        branch=seen.branches.get(leg.branch),
        backup=backup,
        detached="detached" in words,
    )


def _read_seen(text: str) -> _Seen:
    head, marks, branches = "", set(), {}
    for line in text.split("\n"):
        word, _, rest = line.partition(" ")
        if "\t" in line:
            name, branch = _read_branch(line)
            branches[name] = branch
        elif word == "head":
            head = rest
        elif word == "mark":
            marks.add(rest)
    return _Seen(head, marks, branches)


def _read_branch(line: str) -> tuple[str, Branch]:
    ref, commit, tree, target, email, worktree = line.split("\t", 5)
    name = ref.removeprefix("refs/heads/")
    # A branch that names no commit, which git lets pass, has no tree.
    known = object_id(commit), object_id(tree) if tree else ""
    return name, Branch(*known, target, worktree, email.strip("<>"))


def _read_drift(findings: str) -> Drift:
    """Return the drift: commits apart, a path a line behind its kind, and their numbers on the last line."""
    facts, _, differences = findings.partition("differences\n")
    apart = re.search(r"^apart ([0-9]{1,9})\t([0-9]{1,9})$", facts, re.MULTILINE)
    pointers = re.search(r"^blobs ([0-9]{1,9})$", facts, re.MULTILINE)
    *listed, last = differences.rstrip("\n").split("\n")
    *counts, blobs = [_count(word) for word in last.split()[1:]] or [0, 0, 0, 0]
    kinds: dict[str, list[str]] = {"A": [], "M": [], "D": []}
    for line in listed:
        kind, _, path = line.partition("\t")
        kinds[kind].append(unquote(path))
    added, changed, removed = (
        Paths(count, tuple(paths)) for count, paths in zip(counts, kinds.values(), strict=True)
    )
    ahead, behind = map(int, apart.groups()) if apart else (None, None)
    return Drift(added, changed, removed, ahead, behind, blobs=int(pointers[1]) if pointers else blobs)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(text)
    return int(text)


_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


def unquote(path: str) -> str:
    """Return a path that git printed, its C-style quotes undone; bytes that are no UTF-8 stay escaped."""
    if not (path.startswith('"') and path.endswith('"')):
        return path

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1].decode()
        return bytes([int(code, 8) if code.isdigit() else _ESCAPES[code]])

    raw = re.sub(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])', byte, path[1:-1].encode())
    return raw.decode("utf-8", "backslashreplace")
