"""`check-config --connect`: whether all hosts, repositories and Studio answer."""

import argparse
import asyncio
from collections.abc import Iterator, Sequence

from listener.cli import local
from listener.cli.configuration import Check
from listener.config.settings import Settings
from listener.errors import RefusedError, RestrictedKeyError, ShellUnavailableError, SyncError
from listener.journal import Remarks
from listener.sites import Environment, Leg, Site
from listener.sync import Look
from listener.system import System
from listener.vocabulary import PlanKind


async def checked(arguments: argparse.Namespace) -> tuple[Settings, list[Check]]:
    """Return the settings, and whether everything in them answers."""
    settings = local.settings_of(arguments)
    return settings, await _checks(settings)


async def _checks(settings: Settings) -> list[Check]:
    async with local.without_store(settings) as system:
        hosts = await asyncio.gather(*(_host(system, name) for name in settings.hosts))
        answering = {name for name, check in zip(settings.hosts, hosts, strict=True) if check.ok}
        sites, unlisted = await system.directory.all()
        environments = [each for site in sites for each in site.environments.values()]
        looks = await asyncio.gather(*(_environment(system, each, answering) for each in environments))
        studio = await _studio(system, sites)
    patterns = [Check.failed(f"sites {each.pattern}", each.error) for each in unlisted]
    return [*hosts, *studio, *patterns, *(check for checks in looks for check in checks)]


async def _studio(system: System, sites: Sequence[Site]) -> list[Check]:
    """Return whether Studio, if it is configured, says for every site whether a publish is running."""
    if system.studio is None:
        return []
    asked = await asyncio.gather(*(system.studio.check(site.id) for site in sites), return_exceptions=True)
    failed = [
        Check.failed(f"studio, site {site.id}", error)
        for site, error in zip(sites, asked, strict=True)
        if isinstance(error, SyncError)
    ]
    return failed or [Check("studio", ok=True)]


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
        return Check.failed(f"host {name}", error)
    except SyncError as error:
        return Check.failed(f"host {name}", error)
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
        return Check.failed(what, look.error)
    if look.plan is None or look.plan.refusal is not None:
        return Check.failed(what, look.plan.refusal if look.plan and look.plan.refusal else RefusedError())
    if look.plan.kind is PlanKind.CREATE:
        return Check(what, ok=True, message=f"branch {look.leg.branch} does not exist yet; a sync creates it")
    return Check(what, ok=True, message=look.plan.kind.value)
