"""`check-config --connect`: whether all hosts, repositories and Studio answer. `doctor` checks more."""

import argparse
import asyncio

from listener.cli import local
from listener.cli.doctor import hosts, studio
from listener.cli.doctor.findings import Finding, Group
from listener.config.settings import Settings
from listener.sites import Environment
from listener.system import System


async def checked(arguments: argparse.Namespace) -> tuple[Settings, list[Finding]]:
    """Return the settings, and whether everything in them answers."""
    settings = local.settings_of(arguments)
    return settings, await _checks(settings)


async def _checks(settings: Settings) -> list[Finding]:
    async with local.without_store(settings) as system:
        found = await asyncio.gather(*(hosts.host(system, name) for name in settings.hosts))
        answering = {name for name, finding in zip(settings.hosts, found, strict=True) if finding.ok}
        sites, unlisted = await system.directory.all()
        environments = [each for site in sites for each in site.environments.values()]
        looks = await asyncio.gather(*(_environment(system, each, answering) for each in environments))
        asked = await studio.examine(system, [site.id for site in sites])
    patterns = [Finding.of(Group.REPOSITORIES, f"sites {each.pattern}", each.error) for each in unlisted]
    return [*found, *asked, *patterns, *(finding for some in looks for finding in some)]


async def _environment(system: System, environment: Environment, answering: set[str]) -> list[Finding]:
    needed = {host for leg in environment.legs for host in (leg.source.host, leg.repository.host)}
    silent = sorted(needed - answering)
    if silent:
        what = f"environment {environment.site}/{environment.name}"
        return [hosts.unchecked(what, f"not checked: no answer from {', '.join(silent)}")]
    looks = await local.look_with(system, environment)
    return [hosts.judged(hosts.place(environment, look.leg), look) for look in looks]
