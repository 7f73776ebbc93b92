"""Checks whether Studio answers, and whether it publishes the sites."""

import asyncio
from collections.abc import Sequence

from listener.cli.doctor.findings import Finding, Group
from listener.errors import StudioUnavailableError, SyncError, UnknownToStudioError
from listener.studio import StudioClient
from listener.system import System

ASKED_AT_ONCE = 4
"""The most questions to Studio at the same time: it has other work."""

_SLOW_REMEDY = "find out what makes Studio slow, or raise --timeout"


async def examine(system: System, sites: Sequence[str], limit: float | None = None) -> list[Finding]:
    """Ask Studio about itself, and then about every site, each time for up to `limit` seconds."""
    if system.settings.studio is None:
        return []
    if system.studio is None:
        return [await _answers(system)]
    try:
        async with asyncio.timeout(limit):
            version = await system.studio.version()
            if sites:
                await system.studio.check(sites[0])
    except UnknownToStudioError:
        pass  # `_sites` asks about this site again.
    except SyncError as error:
        what = f"studio, site {sites[0]}" if sites else "studio"
        return [Finding.of(Group.STUDIO, what, error)]
    except TimeoutError:
        message = f"it did not answer within {limit} s"
        return [Finding.problem(Group.STUDIO, "studio", "studio-slow", message, _SLOW_REMEDY)]
    return await _sites(system.studio, version, sites, limit)


async def _answers(system: System) -> Finding:
    """Check whether Studio answers, if it is only asked who callers are."""
    callers = system.studio_callers
    try:
        if callers is not None:
            await callers.reach()
    except StudioUnavailableError as error:
        return Finding.of(Group.STUDIO, "studio", error)
    return Finding.good(Group.STUDIO, "studio")


async def _sites(
    studio: StudioClient, version: str, sites: Sequence[str], limit: float | None
) -> list[Finding]:
    found: list[Finding] = []
    places, left = asyncio.Semaphore(ASKED_AT_ONCE), set(sites)

    async def ask(site: str) -> None:
        async with places:
            found.extend(await _site(studio, site))
            left.discard(site)

    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*map(ask, sites))
    except TimeoutError:
        message = f"{len(left)} of {len(sites)} sites not checked within {limit} s"
        found.append(Finding.warning(Group.STUDIO, "studio", "studio-slow", message, _SLOW_REMEDY))
    if all(finding.ok for finding in found):
        found.insert(0, Finding.good(Group.STUDIO, "studio", f"version {version}" if version else ""))
    return found


async def _site(studio: StudioClient, site: str) -> list[Finding]:
    what = f"studio, site {site}"
    try:
        off = await studio.off(site)
    except SyncError as error:
        return [Finding.of(Group.STUDIO, what, error)]
    if not off:
        return []
    remedy = "start it in Studio, on the site's publishing dashboard; until then live does not change"
    return [Finding.warning(Group.STUDIO, what, "publisher-off", off, remedy)]
