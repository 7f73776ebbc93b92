"""Reads the replies of the script on a host strictly: the host may be broken, or an impostor."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from listener.errors import RemoteStepError
from listener.observations import Branch, Drift, Observation, Paths
from listener.plans import Applied, PlanKind
from listener.sites import Leg


def live_branch(leg: Leg) -> str:
    """Return live's branch in the leg's own repository; empty if live lies in another one."""
    return leg.live if leg.own else ""


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Turn the `ValueError` or `LookupError` of an invalid reply into `RemoteStepError`."""
    try:
        yield
    except (ValueError, LookupError) as error:
        raise RemoteStepError("the host's reply is not whole") from error


@dataclass(slots=True)
class Fingerprint:
    """The lines that must be the same when the branch is moved; `remote.sh` lists their kinds.

    Each line is one member, by its kind and name.
    """

    head: str = ""
    branches: dict[str, Branch] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    """The marks of a publish, and the object ids of their refs: a move verifies them."""
    times: dict[str, float] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Read one line; raise `ValueError` if it is not a member."""
        kind, _, rest = line.partition(" ")
        if kind == "head":
            self.head = rest
        elif kind == "ref":
            name, object_, branch = _read_branch(rest)
            self.branches[name] = branch
            if name.endswith("_in_progress"):
                self.marks[name] = object_
        elif kind == "file":
            path, time, _, _ = rest.rsplit(" ", 3)
            self.times[_NAMES.get(path) or _MARK.sub(r"\1", path)] = _latest(time)
        else:
            raise ValueError(line)


_NAMES = {"logs/HEAD": "HEAD"}
"""Files that are known by another name in an observation."""

_MARK = re.compile(r"\Arefs/heads/(.*_in_progress)\Z")
"""The file of a mark, which an observation knows by its branch's name."""


def _read_fingerprint(text: str) -> Fingerprint:
    fingerprint = Fingerprint()
    for line in text.removesuffix("\n").split("\n"):
        fingerprint.read(line)
    return fingerprint


_BRANCH = re.compile(
    r"refs/heads/(?P<name>[^:]+):(?P<object>[^:]*):(?P<commit>[^:]*):(?P<tree>[^:]*):[^:]*:(?P<target>[^:]*)"
    r":(?:<(?P<email>[^>]*)>)?:(?P<worktree>.*)",
    re.DOTALL,
)


def _read_branch(text: str) -> tuple[str, str, Branch]:
    found = _BRANCH.fullmatch(text)
    if found is None:
        raise ValueError(text)
    # A mark may name something that is not a commit, and has no tree.
    tree = object_id(found["tree"]) if found["tree"] else ""
    branch = Branch(
        object_id(found["commit"]), tree, found["target"], found["worktree"], found["email"] or ""
    )
    return found["name"], object_id(found["object"]), branch


@strictly()
def read_observation(leg: Leg, text: str, *, counting: bool = True) -> Observation:
    """Return the observation in a reply; raise `RemoteStepError` for an invalid one.

    With `counting`, its paths are those that a sync would change; else those that a run has changed.
    """
    facts, fingerprint, findings = _split(text)
    seen = _read_fingerprint(fingerprint)
    found = findings.partition("differences\n")[0]
    target = re.match(r"target (\S+) (\S+)\n", findings)
    values = dict(line.split(" ", 1) for line in facts.split("\n") if " " in line)
    drift = _read_drift(findings)
    return Observation(
        live=seen.branches.get(live_branch(leg)),
        branch=seen.branches.get(leg.branch),
        head=seen.head,
        bare=values["bare"] == "yes",
        worktree=values["worktree"],
        writable=values.get("writable") != "no",
        now=_seconds(values["now"]),
        times=seen.times,
        in_progress=seen.marks,
        ancestor="ancestor" in found.split("\n"),
        target=Branch(*map(object_id, target.groups())) if target else None,
        drift=(drift if counting else None) or Drift(),
        listed=counting,
        recognised="recognised" in found.split("\n"),
        foreign="foreign" in found.split("\n"),
        moved=None if counting else drift,
        fingerprint=fingerprint,
        standing=_standing(leg, fingerprint),
    )


def _split(text: str) -> tuple[str, str, str]:
    """Return the parts of a reply: facts, fingerprint, findings."""
    facts, has_head, rest = text.partition("\nhead ")
    fingerprint, has_end, findings = rest.partition("\nseen\n")
    if not has_head or not has_end:
        raise ValueError(text)
    findings.encode()  # git quotes bytes that are not UTF-8
    return facts, f"head {fingerprint}", findings


def _standing(leg: Leg, lines: str) -> str:
    """Return the lines of HEAD and of the branch."""
    members = ("head ", f"ref refs/heads/{leg.branch}:")
    return "\n".join(line for line in lines.split("\n") if line.startswith(members))


def _latest(text: str) -> float:
    """Return the latest time at which a file may have been written: whole seconds may hide a fraction."""
    return _seconds(text) if "." in text else _seconds(text) + 1


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        raise ValueError(text)
    return float(text)


def object_id(text: str) -> str:
    """Return the id of an object; raise `ValueError` for other text, which git might take for an option."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text):
        raise ValueError(text)
    return text


@strictly()
def read_applied(leg: Leg, text: str, backup: str) -> Applied:
    """Return what a reply to `apply` says; raise `RemoteStepError` for an invalid one."""
    words = text.partition("now ")[0].split()
    busy = words[-1] if "busy" in words else ""
    detached = "detached" in words
    if busy or "changed" in words:
        return Applied(changed=not busy, busy=busy, detached=detached)
    seen = read_observation(leg, text, counting=False)
    moved = re.search(r"^moved ([a-z-]+)\n((?:head |ref )[^\n]*\n)+", _split(text)[2], re.MULTILINE)
    if moved is None:
        return Applied(changed=True, seen=seen)
    lines = moved[0].partition("\n")[2]
    now = _read_fingerprint(lines)
    live, branch = now.branches.get(live_branch(leg)), now.branches.get(leg.branch)
    left = replace(
        seen,
        live=live,
        branch=branch,
        head=now.head,
        times={},
        fingerprint="",
        standing=_standing(leg, lines),
    )
    return Applied(
        changed=False,
        seen=seen,
        kind=PlanKind(moved[1]),
        live=live,
        branch=branch,
        backup=backup,
        detached=detached,
        drift=seen.moved,
        left=left,
    )


def _read_drift(findings: str) -> Drift | None:
    """Return the drift; None if the reply has none.

    A reply has the commits apart, then a line with kind and path for each difference, and their counts last.
    """
    facts, has_list, differences = findings.partition("differences\n")
    apart = re.search(r"^apart ([0-9]{1,9})\t([0-9]{1,9})$", facts, re.MULTILINE)
    pointers = re.search(r"^blobs ([0-9]{1,9})$", facts, re.MULTILINE)
    if not has_list:
        return Drift(blobs=int(pointers[1])) if pointers else None
    *listed, last = differences.rstrip("\n").split("\n")
    if last == "failed":
        return Drift(failed=True)
    *counts, blobs = [_count(word) for word in last.split()[1:]]
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
    """Return a path without git's C-style quotes; bytes that are not UTF-8 stay escaped."""
    if not (path.startswith('"') and path.endswith('"')):
        return path

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1].decode()
        return bytes([int(code, 8) if code.isdigit() else _ESCAPES[code]])

    raw = re.sub(rb'\\([0-3][0-7]{2}|[abtnvfr"\\])', byte, path[1:-1].encode())
    return raw.decode("utf-8", "backslashreplace")
