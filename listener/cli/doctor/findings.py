"""What `doctor` and `check-config` find, and how `doctor` prints it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from listener.cli.wording import counted
from listener.errors import ListenerError

SHOWN = 5
"""The number of findings with the same group and code that are printed. The others are counted."""

CLOCK_TOLERANCE = 10.0
"""Seconds by which two clocks may differ."""


class Group(StrEnum):
    """What a finding is about. The order is that of the output."""

    CONFIGURATION = "configuration"
    CREDENTIALS = "credentials"
    KNOWN_HOSTS = "known hosts"
    HOSTS = "hosts"
    REPOSITORIES = "repositories"
    CLOCK = "clock"
    STUDIO = "studio"
    STORE = "store"
    DISK = "disk"
    CERTIFICATE = "certificate"
    LISTENER = "listener"
    SERVICE = "service"


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do if something is wrong."""

    group: Group
    what: str
    level: Level
    code: str
    message: str = ""
    remedy: str = ""

    @classmethod
    def good(cls, group: Group, what: str, message: str = "") -> "Finding":
        """Return a finding without a fault."""
        return cls(group, what, Level.OK, "ok", message)

    @classmethod
    def warning(cls, group: Group, what: str, code: str, message: str, remedy: str = "") -> "Finding":
        """Return a finding about something that works, but should be changed."""
        return cls(group, what, Level.WARNING, code, message, remedy)

    @classmethod
    def problem(cls, group: Group, what: str, code: str, message: str, remedy: str = "") -> "Finding":
        """Return a finding about something that does not work, or is not safe."""
        return cls(group, what, Level.PROBLEM, code, message, remedy)

    @classmethod
    def of(cls, group: Group, what: str, error: ListenerError, code: str = "") -> "Finding":
        """Return a problem for a check that raised an error."""
        return cls(group, what, Level.PROBLEM, code or error.code, error.message, error.remedy)

    @property
    def ok(self) -> bool:
        """Whether it is not a problem."""
        return self.level is not Level.PROBLEM


def clock(what: str, ahead: float) -> Finding:
    """Return the finding about another machine's clock, which is `ahead` seconds ahead of this one's."""
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding.good(Group.CLOCK, what, "equal to this machine's clock")
    way = "ahead of" if ahead > 0 else "behind"
    message = f"its clock is {abs(ahead):.0f} s {way} this machine's clock"
    remedy = (
        "synchronise both clocks (NTP); if all machines differ in the same way, this machine's clock is wrong"
    )
    return Finding.warning(Group.CLOCK, what, "clock-differs", message, remedy)


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each level."""
    found = Counter(finding.level for finding in findings)
    return {level.value: found[level] for level in Level}


def lines(findings: Sequence[Finding], *, verbose: bool) -> Iterator[str]:
    """Yield the lines of the output: a line for each group, and below it what is wrong."""
    for group in Group:
        members = [finding for finding in findings if finding.group is group]
        if members:
            yield f"{group.value}: {_summary(members)}"
            yield from _details(members, verbose=verbose)
    yield conclusion(findings)


def conclusion(findings: Sequence[Finding]) -> str:
    """Return the last line."""
    bad = _bad(findings)
    return f"found: {bad}" if bad else "nothing wrong found"


def _summary(members: Sequence[Finding]) -> str:
    good = [member for member in members if member.level is Level.OK]
    bad = _bad(members)
    if bad:
        return f"{bad}, {len(good)} ok" if good else bad
    if len(good) == 1 and good[0].message:
        return f"ok, {good[0].message}"
    return f"ok ({len(good)} checked)" if len(good) > 1 else "ok"


def _bad(findings: Sequence[Finding]) -> str:
    found = counts(findings)
    return ", ".join(
        counted(found[level], level.value) for level in (Level.PROBLEM, Level.WARNING) if found[level]
    )


def _details(members: Sequence[Finding], *, verbose: bool) -> Iterator[str]:
    """Yield the lines of a group's problems, then of its warnings. Of each kind, only the first are shown."""
    kinds: dict[tuple[Level, str], list[Finding]] = {}
    for member in members:
        kinds.setdefault((member.level, member.code), []).append(member)
    for level in (Level.PROBLEM, Level.WARNING):
        for (of, code), found in kinds.items():
            if of is not level:
                continue
            shown = found if verbose else found[:SHOWN]
            yield from _listed(shown)
            if len(found) > len(shown):
                yield f"  {level.value}: {len(found) - len(shown)} more [{code}]; --verbose lists them"
    if verbose:
        yield from _listed([member for member in members if member.level is Level.OK])


def _listed(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of findings. If several in a row have the same remedy, it comes once, after them."""
    for finding, following in zip_longest(findings, findings[1:]):
        said = f": {finding.message}" if finding.message else ""
        code = "" if finding.level is Level.OK else f" [{finding.code}]"
        yield f"  {finding.level.value}: {finding.what}{said}{code}"
        if finding.remedy and (following is None or following.remedy != finding.remedy):
            yield f"    remedy: {finding.remedy}"


def as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as an object of the JSON document."""
    return {
        "group": finding.group.value,
        "what": finding.what,
        "level": finding.level.value,
        "code": finding.code,
        "message": finding.message,
        "remedy": finding.remedy,
    }
