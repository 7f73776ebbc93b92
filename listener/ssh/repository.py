"""A repository on a host: what the port asks for, said in the dialogue's words and read back."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from listener.errors import RemoteStepError, SyncError
from listener.plans import (
    COMMITTER_EMAIL,
    COMMITTER_NAME,
    PATHS_LISTED,
    Applied,
    Branch,
    Drift,
    Notes,
    Observation,
    Paths,
    Plan,
    PlanKind,
    Signing,
)
from listener.sites import Environment, Policy
from listener.ssh.connection import HostConnection
from listener.ssh.shell import Reply, refusal

BACKUPS = "refs/sync-staging/backup"

SURVEY_LISTED = 20
"""How many paths of each kind a survey lists."""


class SshRepository:
    """Implements `listener.plans.Repository` by a host's loaded shells."""

    def __init__(self, connection: HostConnection, notes: Notes, limit: float) -> None:
        self._connection = connection
        self._notes = notes
        self._limit = limit

    async def observe(self, environment: Environment, *, counting: bool = False) -> Observation:
        """Read everything that a decision needs, in one round trip."""
        question = asked(environment, PATHS_LISTED, counting=counting)
        text = await self._connection.call(self._notes, self._limit, "ss_observe", *question)
        return read_observation(environment, text)

    async def apply(
        self, environment: Environment, plan: Plan, observation: Observation, signing: Signing
    ) -> Applied:
        """Carry out a moving plan and read back, in one round trip."""
        backup = ""
        if plan.kind is PlanKind.RESET and observation.branch is not None:
            # A run may have to reset more than once: each old commit has a ref of its own.
            backup = f"{BACKUPS}/{environment.branch}/{signing.run}-{observation.branch.commit[:12]}"
        text = await self._connection.call(
            self._notes,
            self._limit,
            "ss_apply",
            environment.repository.path,
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


async def survey(
    connection: HostConnection, environments: Sequence[Environment], notes: Notes, limit: float
) -> list[Observation | SyncError]:
    """Observe environments of one host in one round trip."""
    separator = secrets.token_hex(16)
    questions = [word for each in environments for word in asked(each, SURVEY_LISTED, counting=True)]
    text = await connection.call(notes, limit, "ss_survey", separator, *questions)
    answers = re.findall(rf"(.*?)\n{separator} (\d+)\n", text, re.DOTALL)
    if len(answers) != len(environments):
        raise RemoteStepError("the host's reply is not whole")
    return [
        read_observation(environment, said) if status == "0" else refusal(Reply(int(status), said, ""))
        for environment, (said, status) in zip(environments, answers, strict=True)
    ]


def asked(environment: Environment, listed: int, *, counting: bool) -> tuple[str, ...]:
    """Return the arguments of `ss_observe`."""
    return (
        environment.repository.path,
        environment.live,
        environment.branch,
        "commit" if environment.policy is Policy.RESET else "tree",
        COMMITTER_EMAIL,
        str(listed),
        "yes" if counting else "no",
    )


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
    values = dict(line.split(" ", 1) for line in facts.split("\n") if " " in line)
    touched = [_moment(line[8:]) for line in facts.split("\n") if line.startswith("touched ")]
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
        drift=_read_drift(findings),
        fingerprint=fingerprint,
    )


def _moment(text: str) -> float:
    """Return when a file was touched; told in whole seconds, it may have been up to one later."""
    return float(text) if "." in text else float(text) + 1


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
    try:
        ref, commit, tree, target, email, worktree = line.split("\t", 5)
    except ValueError as error:
        raise RemoteStepError("the host's reply is not whole") from error
    name = ref.removeprefix("refs/heads/")
    return name, Branch(commit, tree, target, worktree, email.strip("<>"))


def _read_drift(findings: str) -> Drift:
    """Return the drift: commits apart, a path a line behind its kind, and their numbers on the last line."""
    apart = re.search(r"^apart (\d+)\t(\d+)$", findings, re.MULTILINE)
    *listed, last = findings.partition("differences\n")[2].rstrip("\n").split("\n")
    counts = [int(word) for word in last.split()[1:]] or [0, 0, 0]
    kinds: dict[str, list[str]] = {"A": [], "M": [], "D": []}
    for line in listed:
        kind, _, path = line.partition("\t")
        kinds[kind].append(unquote(path))
    added, changed, removed = (
        Paths(count, tuple(paths)) for count, paths in zip(counts, kinds.values(), strict=True)
    )
    ahead, behind = map(int, apart.groups()) if apart else (None, None)
    return Drift(added, changed, removed, ahead, behind)


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
