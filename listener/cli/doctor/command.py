"""The command `doctor`: makes all checks, prints the findings, and chooses the exit status."""

import argparse
import asyncio
import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from listener import __version__, logs
from listener.cli import address, local
from listener.cli.doctor import files, hosts, process, service, storage, studio
from listener.cli.doctor.findings import Finding, Group, Level, as_json, counts, lines
from listener.cli.doctor.service import Unit
from listener.cli.failures import DONE, FAILED, MISUSED
from listener.cli.printing import document, say
from listener.config.settings import Settings, load
from listener.errors import ConfigurationError
from listener.system import System, cleaner


def doctor(arguments: argparse.Namespace) -> int:
    """Check everything that the listener needs; print what is wrong and what to do."""
    path = address.config_path(arguments)
    findings, status = asyncio.run(_examined(path, arguments.unit, arguments.timeout))
    if status == DONE and _fails(findings, strict=arguments.strict):
        status = FAILED
    if arguments.json:
        shown = [each for each in findings if arguments.verbose or each.level is not Level.OK]
        worst = next(level for level in reversed(Level) if level in {Level.OK, *(f.level for f in findings)})
        document(
            {
                "version": __version__,
                "configuration": str(path),
                "status": worst.value,
                "counts": counts(findings),
                "findings": [as_json(each) for each in shown],
            }
        )
    else:
        for line in lines(findings, verbose=arguments.verbose):
            say(line)
    return status


def _fails(findings: Sequence[Finding], *, strict: bool) -> bool:
    return any(not each.ok or (strict and each.level is Level.WARNING) for each in findings)


async def _examined(path: Path, unit_name: str, limit: float) -> tuple[list[Finding], int]:
    """Return what was found; and `MISUSED` if the configuration can't be used, else `DONE`."""
    unit = await service.shown(unit_name)
    try:
        settings = load(path)
    except ConfigurationError as error:
        return [*files.unusable(path, error), *service.findings(unit)], MISUSED
    logs.configure("error", settings.log.format, cleaner(settings))
    users = _users(unit)
    groups = await asyncio.gather(
        _remote(settings, limit),
        _store(settings, users),
        asyncio.to_thread(lambda: list(files.findings(path, settings, users))),
        asyncio.to_thread(_process, settings, path, unit),
    )
    here = [*storage.disk_findings(settings), *service.findings(unit)]
    return [finding for group in (*groups, here) for finding in group], DONE


def _users(unit: Unit | None) -> set[int]:
    """Return the users that the listener's files may belong to: root, and the one that it runs as.

    Without a unit, that is the user who runs this command.
    """
    user = unit.user if unit is not None and os.geteuid() == 0 else None
    return {0, os.geteuid() if user is None else user}


async def _remote(settings: Settings, limit: float) -> list[Finding]:
    """Check other machines: hosts, their repositories, and Studio."""
    with tempfile.TemporaryDirectory(prefix="sync-staging-doctor-") as cache:
        bounded = {
            "cache": cache,
            "step_timeout": min(settings.sync.step_timeout, limit / 2),
            "connect_timeout": min(settings.sync.connect_timeout, limit / 2),
        }
        changed = settings.model_copy(update={"sync": settings.sync.model_copy(update=bounded)})
        try:
            async with local.without_store(changed) as system:
                found = await asyncio.gather(hosts.examine(system, limit), _studio(system, limit))
        except ConfigurationError as error:  # the driver of the store's database is not installed
            return [Finding.of(Group.STORE, "store", error, "store-driver")]
    return [finding for group in found for finding in group]


async def _studio(system: System, limit: float) -> list[Finding]:
    """Ask Studio about every site. If a host does not list the sites of a pattern, `hosts` reports that."""
    if system.settings.studio is None:
        return []
    sites = [site.id for site in system.settings.sites]
    if system.settings.sites.patterns:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                sites = [site.id for site in (await system.directory.all())[0]]
    return await studio.examine(system, sites, limit)


async def _store(settings: Settings, users: set[int]) -> list[Finding]:
    if storage.is_sqlite(settings):
        path = Path(settings.store_name)
        return await asyncio.to_thread(lambda: list(storage.sqlite_findings(path, users)))
    try:
        from listener.cli.doctor import postgres  # noqa: PLC0415 (needs asyncpg)
    except ModuleNotFoundError:
        return []  # `_remote` reports that.
    return await postgres.findings(settings.store, settings.store_name)


def _process(settings: Settings, path: Path, unit: Unit | None) -> list[Finding]:
    number = unit.process if unit is not None else None
    if number is None and storage.is_sqlite(settings):
        number = storage.owner(Path(settings.store_name))
    return process.findings(settings, path, files.named_files(path, settings), number)
