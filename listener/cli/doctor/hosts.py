"""Checks the hosts and their repositories: whether they answer, and are as the listener needs them."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from listener.cli.doctor.findings import Finding, Group, clock
from listener.errors import (
    IdentityUnusableError,
    LiveMissingError,
    ReadOnlyError,
    RefusedError,
    RestrictedKeyError,
    ShellUnavailableError,
    StaleLockError,
    SyncError,
)
from listener.journal import Remarks
from listener.observations import Observation
from listener.sites import Access, Environment, Host, Leg, Site
from listener.ssh import destination, keys
from listener.sync import Look
from listener.system import System
from listener.vocabulary import PlanKind

GROUP_SIZE = 128
"""Repositories of a host that are looked at together. The clock is compared once for each such batch."""


async def examine(system: System, limit: float) -> list[Finding]:
    """Check the known hosts, every host, and every repository. Each host may take `limit` seconds."""
    known = [finding for name in system.settings.hosts for finding in await _known(system, name)]
    usable = await asyncio.to_thread(_keys, system)
    unasked = {finding.what.removeprefix("host ") for finding in known if not finding.ok}
    asked = [] if any(not finding.ok for finding in usable) else system.settings.hosts.keys() - unasked
    answers = await asyncio.gather(*(_in_time(system, name, limit) for name in sorted(asked)))
    hosts = [finding for finding in answers if finding is not None]
    answering = {finding.what.removeprefix("host ") for finding in hosts if finding.ok}
    return [*usable, *known, *hosts, *await _repositories(system, answering, limit)]


def _keys(system: System) -> list[Finding]:
    """Check the private key and the known_hosts file, which all hosts share."""
    found: list[Finding] = []
    host = next(iter(system.settings.hosts.values()), None)
    if host is None:
        return found
    try:
        if host.identity is not None:
            keys.identity(host.identity)
            found.append(Finding.good(Group.CREDENTIALS, "ssh.identity", "the key can be used"))
    except IdentityUnusableError as error:
        found.append(Finding.of(Group.CREDENTIALS, "ssh.identity", error))
    try:
        unreadable = keys.unreadable_lines(host.known_hosts)
    except IdentityUnusableError as error:
        return [*found, Finding.of(Group.KNOWN_HOSTS, "ssh.known_hosts", error, "known-hosts-unusable")]
    if unreadable:
        listed = ", ".join(map(str, unreadable[: keys.MAX_UNREADABLE]))
        message = f"these lines of {host.known_hosts} can't be read and are skipped: {listed}"
        remedy = "correct or delete these lines"
        found.append(
            Finding.warning(Group.KNOWN_HOSTS, "ssh.known_hosts", "known-hosts-line", message, remedy)
        )
    return found


async def _known(system: System, name: str) -> list[Finding]:
    """Check whether known_hosts has a key of a host. If not, the host is not connected to."""
    try:
        found = await destination.find(system.settings.hosts[name])
        if not found.proxied and not found.jumps:
            keys.known_keys(found)
    except IdentityUnusableError:
        return []  # The file can't be used: `_keys` reports that once for all hosts.
    except SyncError as error:
        code = "" if error.code != "host-key-rejected" else "host-unknown"
        return [Finding.of(Group.KNOWN_HOSTS, f"host {name}", error, code)]
    return [Finding.good(Group.KNOWN_HOSTS, f"host {name}")]


async def _in_time(system: System, name: str, limit: float) -> Finding:
    try:
        async with asyncio.timeout(limit):
            return await host(system, name)
    except TimeoutError:
        message = f"it was not checked within {limit:g} s"
        remedy = "find out what makes the host or the network slow, or raise --timeout"
        return Finding.problem(Group.HOSTS, f"host {name}", "host-slow", message, remedy)


async def host(system: System, name: str) -> Finding:
    """Check whether a host can be resolved and connected to, lets the listener in, and gives its `access`."""
    remarks, what = Remarks(system.log, host=name), f"host {name}"
    try:
        await system.pool.warm(name, remarks)
    except ShellUnavailableError as error:
        legs = [leg for leg in _configured_legs(system) if leg.repository.host == name]
        restricted = isinstance(error, RestrictedKeyError)
        if legs and not restricted and await system.pool.speaks_git(legs[0], remarks):
            remedy = (
                f"the host only runs git's own services: set hosts.{name}.access to git, or allow a shell"
            )
            return Finding.problem(Group.HOSTS, what, error.code, error.message, remedy)
        return Finding.of(Group.HOSTS, what, error)
    except SyncError as error:
        return Finding.of(Group.HOSTS, what, error)
    return Finding.good(Group.HOSTS, what, _described(system, system.settings.hosts[name]))


def _described(system: System, host: Host) -> str:
    parts = [system.pool.git_version(host.name), _ACCESS.get(host.access, "")]
    return ", ".join(filter(None, parts))


_ACCESS = {Access.GIT: "git's own services only", Access.RESTRICTED: "restricted key"}


def _configured_legs(system: System) -> Iterator[Leg]:
    for site in system.settings.sites:
        for environment in site.environments.values():
            yield from environment.legs


async def _repositories(system: System, answering: set[str], limit: float) -> list[Finding]:
    """Check every repository of the hosts that answer; for the others, say how many were not checked."""
    try:
        async with asyncio.timeout(limit):
            sites, unlisted = await system.directory.all()
    except TimeoutError:
        message = f"the hosts did not list the sites of the patterns within {limit:g} s"
        return [Finding.problem(Group.REPOSITORIES, "patterns of sites", "host-slow", message)]
    found = [Finding.of(Group.REPOSITORIES, f"sites {each.pattern}", each.error) for each in unlisted]
    by_host: dict[str, dict[Leg, str]] = {}
    for leg, what in _places(sites):
        by_host.setdefault(leg.repository.host, {})[leg] = what
    found += [
        unchecked(
            f"repositories of host {name}", f"{len(by_host[name])} not checked: the host does not answer"
        )
        for name in sorted(by_host.keys() - answering)
    ]
    checks = [_of_host(system, name, by_host[name], limit) for name in sorted(by_host.keys() & answering)]
    return [*found, *(finding for some in await asyncio.gather(*checks) for finding in some)]


def _places(sites: Sequence[Site]) -> Iterator[tuple[Leg, str]]:
    """Yield every repository to look at, as a leg, with its name in a finding.

    If live is in another repository, that one is looked at, too: as a leg whose branch is live.
    """
    for site in sites:
        for environment in site.environments.values():
            for leg in environment.legs:
                yield leg, place(environment, leg)
                if not leg.own:
                    source = replace(leg, environment="", repository=leg.source, branch=leg.live)
                    yield source, f"site {site.id} on {leg.source}"


def unchecked(what: str, message: str) -> Finding:
    """Return a problem for repositories that were not looked at, because their hosts do not answer."""
    return Finding.problem(Group.REPOSITORIES, what, "not-checked", message)


def place(environment: Environment, leg: Leg) -> str:
    """Return the name of a leg in a finding."""
    what = f"environment {environment.site}/{environment.name}"
    return f"{what} on {leg}" if len(environment.legs) > 1 else what


async def _of_host(system: System, name: str, legs: Mapping[Leg, str], limit: float) -> list[Finding]:
    """Look at the repositories of one host in batches, and compare its clock."""
    found: list[Finding] = []
    difference, rest = 0.0, list(legs)
    try:
        async with asyncio.timeout(limit):
            while rest:
                sent = time.time()
                some = rest[:GROUP_SIZE]
                seen = await system.pool.survey_apart(name, some, Remarks(system.log, host=name))
                difference = max(difference, *(_clock(each, sent) for each in seen.values()), key=abs)
                found += [finding for leg in some for finding in _repository(system, leg, legs[leg], seen)]
                del rest[:GROUP_SIZE]
    except TimeoutError:
        message = f"{len(rest)} of {len(legs)} not checked within {limit:g} s"
        what, remedy = (
            f"repositories of host {name}",
            "raise --timeout, or find out what makes git slow there",
        )
        found.append(Finding.warning(Group.REPOSITORIES, what, "host-slow", message, remedy))
    return [*found, clock(f"host {name}", difference)]


def _clock(seen: Observation | SyncError, sent: float) -> float:
    """Return by how many seconds a host's clock is at least ahead, or behind (negative)."""
    if isinstance(seen, SyncError):
        return 0.0
    return min(seen.now - sent, 0.0) + max(seen.now - time.time(), 0.0)


def _repository(
    system: System, leg: Leg, what: str, answers: Mapping[Leg, Observation | SyncError]
) -> Iterator[Finding]:
    """Yield what is wrong with a repository; if nothing is, one finding without a fault."""
    seen = answers[leg]
    if isinstance(seen, SyncError):
        yield Finding.of(Group.REPOSITORIES, what, seen)
        return
    found = [*_faults(system, leg, what, seen), *_leftovers(system, leg, what, seen)]
    yield from found
    compared = leg.own and system.settings.hosts[leg.repository.host].access is not Access.GIT
    last = judged(what, system.synchronizer.judge(leg, seen)) if compared else _apart(leg, what, seen)
    if not any(each.code == last.code for each in found) and (not found or not last.ok):
        yield last


def _faults(system: System, leg: Leg, what: str, seen: Observation) -> Iterator[Finding]:
    """Yield faults that do not matter for the plan of a sync."""
    if not seen.writable and leg.environment:
        yield Finding.of(
            Group.REPOSITORIES, what, ReadOnlyError(f"the account may not write to {leg.repository}")
        )
    has_shell = system.settings.hosts[leg.repository.host].access is not Access.GIT
    if seen.bare and leg.own and has_shell and system.settings.studio is not None:
        message = f"{leg.repository} is bare; Studio makes repositories with a work tree"
        remedy = "name the published repository of Studio itself, not a copy of it"
        yield Finding.warning(Group.REPOSITORIES, what, "bare-repository", message, remedy)


def _leftovers(system: System, leg: Leg, what: str, seen: Observation) -> Iterator[Finding]:
    """Yield locks and marks that are left from a killed process or a crashed publish."""
    patience = system.settings.sync.patience
    old = {name for name in seen.times if seen.age(name, patience) >= patience}
    locks, marks = old.intersection(seen.locks), old.intersection(seen.in_progress)
    if locks:
        error = StaleLockError(f"{leg.repository} has had {_listed(locks)} for over {patience:g} s")
        yield Finding.of(Group.REPOSITORIES, what, error)
    if marks:
        message = f"a publish that crashed has left its mark in {leg.repository}: {_listed(marks)}"
        remedy = "if Studio does not publish this site now, delete that branch; syncs go on all the same"
        yield Finding.warning(Group.REPOSITORIES, what, "mark-left", message, remedy)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def judged(what: str, look: Look) -> Finding:
    """Return the finding of a look at a leg."""
    if look.error is not None:
        return Finding.of(Group.REPOSITORIES, what, look.error)
    if look.plan is None or look.plan.refusal is not None:
        refusal = look.plan.refusal if look.plan and look.plan.refusal else RefusedError()
        return Finding.of(Group.REPOSITORIES, what, refusal)
    if look.plan.kind is PlanKind.CREATE:
        message = f"branch {look.leg.branch} does not exist yet; a sync creates it"
        return Finding.good(Group.REPOSITORIES, what, message)
    return Finding.good(Group.REPOSITORIES, what, look.plan.kind.value)


def _apart(leg: Leg, what: str, seen: Observation) -> Finding:
    """Return the finding about a repository that is not compared with live."""
    if seen.branch is None and not leg.environment:
        return Finding.of(Group.REPOSITORIES, what, LiveMissingError())
    missing = "" if seen.branch else f"branch {leg.branch} does not exist yet; a sync creates it"
    return Finding.good(Group.REPOSITORIES, what, missing)
