"""A repository on a host: what the port asks for, said in the dialogue's words and read back."""

import re
from dataclasses import dataclass

from listener.errors import RemoteStepError
from listener.plans import (
    COMMITTER_EMAIL,
    COMMITTER_NAME,
    REMOVED_PATHS_KEPT,
    Applied,
    Branch,
    Notes,
    Observation,
    Plan,
    PlanKind,
    Removal,
    Signing,
)
from listener.sites import Environment, Policy
from listener.ssh.connection import HostConnection

BACKUPS = "refs/sync-staging/backup"


class SshRepository:
    """Implements `listener.plans.Repository` by a host's loaded shells."""

    def __init__(self, connection: HostConnection, path: str, notes: Notes, limit: float) -> None:
        self._connection = connection
        self._path = path
        self._notes = notes
        self._limit = limit

    async def observe(self, environment: Environment) -> Observation:
        """Read everything that a decision needs, in one round trip."""
        compare = "commit" if environment.policy is Policy.RESET else "tree"
        text = await self._connection.call(
            self._notes,
            self._limit,
            "ss_observe",
            self._path,
            environment.live,
            environment.branch,
            compare,
            COMMITTER_EMAIL,
            str(REMOVED_PATHS_KEPT),
        )
        return read_observation(environment, text)

    async def apply(
        self, environment: Environment, plan: Plan, observation: Observation, signing: Signing
    ) -> Applied:
        """Carry out a moving plan and read back, in one round trip."""
        backup = f"{BACKUPS}/{environment.branch}/{signing.run}" if plan.kind is PlanKind.RESET else ""
        text = await self._connection.call(
            self._notes,
            self._limit,
            "ss_apply",
            self._path,
            environment.live,
            environment.branch,
            observation.fingerprint,
            plan.kind.value,
            plan.stale.get(f"{environment.branch}_in_progress", ""),
            backup,
            signing.run,
            str(signing.at),
            COMMITTER_NAME,
            COMMITTER_EMAIL,
        )
        return read_applied(environment, text, backup)


@dataclass(slots=True)
class _Seen:
    """The part of a reply that tells HEAD, the locks and the branches."""

    head: str
    marks: set[str]
    branches: dict[str, Branch]


def read_observation(environment: Environment, text: str) -> Observation:
    """Return what `ss_observe` told; raise `RemoteStepError` for what it can't have told."""
    facts, found, rest = text.partition("\nhead ")
    fingerprint, told, findings = rest.partition("\nseen\n")
    if not found or not told:
        raise RemoteStepError("the host's reply is not whole")
    fingerprint = f"head {fingerprint}"
    seen = _read_seen(fingerprint)
    values = dict(line.split(" ", 1) for line in facts.splitlines() if " " in line)
    touched = [float(line[8:]) for line in facts.splitlines() if line.startswith("touched ")]
    return Observation(
        live=seen.branches.get(environment.live),
        branch=seen.branches.get(environment.branch),
        head=seen.head,
        bare=values["bare"] == "yes",
        worktree=values["worktree"],
        now=float(values["now"]),
        touched=max(touched, default=0.0),
        in_progress={n: b.commit for n, b in seen.branches.items() if n.endswith("_in_progress")},
        index_lock="index.lock" in seen.marks,
        head_lock="HEAD.lock" in seen.marks,
        ancestor=findings.startswith("ancestor\n"),
        removal=_read_removal(findings.partition("removed\n")[2]),
        fingerprint=fingerprint,
    )


def read_applied(environment: Environment, text: str, backup: str) -> Applied:
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
        live=seen.branches.get(environment.live),
        branch=seen.branches.get(environment.branch),
        backup=backup,
        detached="detached" in words,
    )


def _read_seen(text: str) -> _Seen:
    head, marks, branches = "", set(), {}
    for line in text.splitlines():
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
    try:
        ref, commit, tree, target, email, worktree = line.split("\t", 5)
    except ValueError as error:
        raise RemoteStepError("the host's reply is not whole") from error
    name = ref.removeprefix("refs/heads/")
    return name, Branch(commit, tree, target, worktree, email.strip("<>"))


def _read_removal(text: str) -> Removal:
    """Return the removed paths: one a line, as git quotes them, and their number on the last."""
    lines = text.splitlines()
    if not lines:
        return Removal()
    return Removal(int(lines[-1]), tuple(unquote(line) for line in lines[:-1]))


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
