"""`check-config`: what a configuration means, and whether its hosts and repositories answer."""

import argparse
import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from cryptography import x509

from listener.cli import address
from listener.cli.failures import DONE, FAILED
from listener.cli.printing import document, say
from listener.config.describe import describe, to_dict
from listener.config.settings import Settings, load
from listener.errors import ListenerError, SyncError
from listener.ssh import destination


@dataclass(frozen=True, slots=True)
class Check:
    """Whether something is as it should be, and what to do if it is not."""

    what: str
    ok: bool
    message: str = ""
    remedy: str = ""

    @classmethod
    def failed(cls, what: str, error: ListenerError) -> "Check":
        """Return the result of a check that raised an error."""
        return cls(what, ok=False, message=error.message, remedy=error.remedy)


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
    checks = [*_certificate(settings), *checks]
    if arguments.json:
        document({"configuration": to_dict(settings), "checks": [asdict(check) for check in checks]})
    else:
        for line in [*describe(settings), *(line for check in checks for line in _lines(check))]:
            say(line)
    return DONE if all(check.ok for check in checks) else FAILED


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
            checks.append(Check.failed(f"host {name}", error))
    return checks


def _lines(check: Check) -> list[str]:
    said = f": {check.message}" if check.message else ""
    line = f"{check.what}: {'ok' if check.ok else 'failed'}{said}"
    return [line, f"  remedy: {check.remedy}"] if check.remedy else [line]
