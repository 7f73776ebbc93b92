"""`check-config`: what a configuration means, and whether its hosts and repositories answer."""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from listener.cli import address, local
from listener.cli.failures import DONE, FAILED
from listener.cli.printing import document, say
from listener.config.describe import describe, to_dict
from listener.config.settings import Settings, load
from listener.errors import ListenerError, RefusedError, RestrictedKeyError, ShellUnavailableError, SyncError
from listener.journal import Remarks
from listener.sites import Environment, Leg, Site
from listener.ssh import destination
from listener.sync import Look
from listener.system import System
from listener.vocabulary import PlanKind


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    what: str
    ok: bool
    message: str = ""
    remedy: str = ""


def check_config(arguments: argparse.Namespace) -> int:
    """Print what the configuration means, and the results of the checks."""
    return asyncio.run(_check_config(arguments))


async def _check_config(arguments: argparse.Namespace) -> int:
    if arguments.connect:
        settings = local.settings_of(arguments)
        checks = await _checks(settings)
    else:
        settings = load(address.config_path(arguments))
        checks = await _aliases(settings)
    checks = [*_certificate(settings), *checks]
    if arguments.json:
        document({"configuration": to_dict(settings), "checks": [asdict(check) for check in checks]})
    else:
        for line in [*describe(settings), *(line for check in checks for line in _lines(check))]:
            say(line)
    return DONE if all(check.ok for check in checks) else FAILED


async def _checks(settings: Settings) -> list[Check]:
    async with local.without_store(settings) as system:
        hosts = await asyncio.gather(*(_host(system, name) for name in settings.hosts))
        answering = {name for name, check in zip(settings.hosts, hosts, strict=True) if check.ok}
        sites, unlisted = await system.directory.all()
        environments = [each for site in sites for each in site.environments.values()]
        looks = await asyncio.gather(*(_environment(system, each, answering) for each in environments))
        studio = await _studio(system, sites)
    patterns = [_failed(f"sites {each.pattern}", each.error) for each in unlisted]
    return [*hosts, *studio, *patterns, *(check for checks in looks for check in checks)]


async def _studio(system: System, sites: Sequence[Site]) -> list[Check]:
    """Return whether Studio, if it is configured, says for every site whether a publish is running."""
    if system.studio is None:
        return []
    asked = await asyncio.gather(*(system.studio.check(site.id) for site in sites), return_exceptions=True)
    failed = [
        _failed(f"studio, site {site.id}", error)
        for site, error in zip(sites, asked, strict=True)
        if isinstance(error, SyncError)
    ]
    return failed or [Check("studio", ok=True)]


def _certificate(settings: Settings) -> list[Check]:
    """Return how long the listener's own certificate is valid. The listener would also use an expired one."""
    tls = settings.server.tls
    if tls is None:
        return []
    ends = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes()).not_valid_after_utc
    good = ends > datetime.now(UTC)
    message = f"{'valid until' if good else 'expired on'} {ends:%Y-%m-%d %H:%M:%S} UTC"
    remedy = "" if good else "renew it; the listener loads a new certificate and key without a restart"
    return [Check("certificate", ok=good, message=message, remedy=remedy)]


async def _aliases(settings: Settings) -> list[Check]:
    """Return the hosts that can't be found in the file ssh.config. Commands in `Match exec` are run."""
    checks = []
    for name, host in settings.hosts.items():
        try:
            await destination.find(host)
        except SyncError as error:
            checks.append(_failed(f"host {name}", error))
    return checks


async def _host(system: System, name: str) -> Check:
    remarks = Remarks(system.log, host=name)
    try:
        await system.pool.warm(name, remarks)
    except ShellUnavailableError as error:
        legs = [leg for leg in _legs(system.settings) if leg.repository.host == name]
        restricted = isinstance(error, RestrictedKeyError)
        if legs and not restricted and await system.pool.speaks_git(legs[0], remarks):
            remedy = f"it only runs git's own services: set hosts.{name}.access to git, or allow a shell"
            return Check(f"host {name}", ok=False, message=error.message, remedy=remedy)
        return _failed(f"host {name}", error)
    except SyncError as error:
        return _failed(f"host {name}", error)
    return Check(f"host {name}", ok=True)


def _legs(settings: Settings) -> Iterator[Leg]:
    for site in settings.sites:
        for environment in site.environments.values():
            yield from environment.legs


async def _environment(system: System, environment: Environment, answering: set[str]) -> list[Check]:
    what = f"environment {environment.site}/{environment.name}"
    needed = {host for leg in environment.legs for host in (leg.source.host, leg.repository.host)}
    silent = sorted(needed - answering)
    if silent:
        return [Check(what, ok=False, message=f"not checked: no answer from {', '.join(silent)}")]
    looks = await local.look_with(system, environment)
    several = len(looks) > 1
    return [_look(f"{what} on {look.leg}" if several else what, look) for look in looks]


def _look(what: str, look: Look) -> Check:
    if look.error is not None:
        return _failed(what, look.error)
    if look.plan is None or look.plan.refusal is not None:
        return _failed(what, look.plan.refusal if look.plan and look.plan.refusal else RefusedError())
    if look.plan.kind is PlanKind.CREATE:
        return Check(what, ok=True, message=f"branch {look.leg.branch} does not exist yet; a sync creates it")
    return Check(what, ok=True, message=look.plan.kind.value)


def _failed(what: str, error: ListenerError) -> Check:
    return Check(what, ok=False, message=error.message, remedy=error.remedy)


def _lines(check: Check) -> list[str]:
    said = f": {check.message}" if check.message else ""
    line = f"{check.what}: {'ok' if check.ok else 'failed'}{said}"
    return [line, f"  remedy: {check.remedy}"] if check.remedy else [line]
