"""`check-config`: what a configuration means, and whether its hosts and repositories answer."""

import argparse
import asyncio
from importlib import import_module

from listener.cli import address
from listener.cli.doctor import files
from listener.cli.doctor.findings import Finding, Group, Level, as_json
from listener.cli.failures import DONE, FAILED
from listener.cli.printing import document, say
from listener.config.describe import describe, to_dict
from listener.config.settings import Settings, load
from listener.errors import SyncError
from listener.ssh import destination


def check_config(arguments: argparse.Namespace) -> int:
    """Print what the configuration means, and the results of the checks."""
    return asyncio.run(_check_config(arguments))


async def _check_config(arguments: argparse.Namespace) -> int:
    if arguments.connect:
        # Only this needs the whole listener in this process.
        settings, checks = await import_module("listener.cli.connecting").checked(arguments)
    else:
        settings = load(address.config_path(arguments))
        checks = await _aliases(settings)
    checks = [*files.certificate(settings), *checks]
    if arguments.json:
        document({"configuration": to_dict(settings), "checks": [_document(check) for check in checks]})
    else:
        for line in [*describe(settings), *(line for check in checks for line in _lines(check))]:
            say(line)
    return DONE if all(check.ok for check in checks) else FAILED


async def _aliases(settings: Settings) -> list[Finding]:
    """Return the hosts that can't be found in the file ssh.config. Commands in `Match exec` are run."""
    checks = []
    for name, host in settings.hosts.items():
        try:
            await destination.find(host)
        except SyncError as error:
            checks.append(Finding.of(Group.HOSTS, f"host {name}", error))
    return checks


_RESULTS = {Level.OK: "ok", Level.WARNING: "warning", Level.PROBLEM: "failed"}


def _lines(check: Finding) -> list[str]:
    said = f": {check.message}" if check.message else ""
    line = f"{check.what}: {_RESULTS[check.level]}{said}"
    return [line, f"  remedy: {check.remedy}"] if check.remedy else [line]


def _document(check: Finding) -> dict[str, object]:
    found = as_json(check)
    return {key: found[key] for key in ("what", "code", "message", "remedy")} | {"ok": check.ok}
