"""`host`: restricting what the listener's key may do on a host."""

import argparse
from pathlib import Path

from listener.cli import address
from listener.cli.failures import DONE, UsageError
from listener.cli.grammar.credentials import INSTALLED_PATH
from listener.cli.printing import document, note, say, verbatim
from listener.config.settings import Settings, load
from listener.sites import Access, Host
from listener.ssh import authorized, keys
from listener.ssh.dialogue import DIGEST, INSTALLED


def script(arguments: argparse.Namespace) -> int:
    """Print the script."""
    if arguments.json:
        document({"script": INSTALLED, "digest": DIGEST, "path": INSTALLED_PATH})
    else:
        verbatim(INSTALLED)
    return DONE


def key(arguments: argparse.Namespace) -> int:
    """Print the line of authorized_keys."""
    settings = load(address.config_path(arguments))
    host = _host(settings, arguments.host)
    sites = [*settings.sites, *(pattern.template for pattern in settings.sites.patterns)]
    public = _public(host, arguments.key)
    line = authorized.line(host, sites, public, script=arguments.script, origin=arguments.origin or "")
    if arguments.json:
        document({"line": line, "user": host.user, "access": host.access.value})
        return DONE
    note(
        f"The line for ~{host.user}/.ssh/authorized_keys on {host.address}; it replaces others with this key:"
    )
    say(line)
    if host.access is Access.SH:
        note(f"First install {arguments.script} there (sync-staging host script).")
        note(f"Then set in the configuration: hosts.{host.name}.access: restricted")
    return DONE


def _host(settings: Settings, name: str) -> Host:
    if name not in settings.hosts:
        known = ", ".join(settings.hosts)
        raise UsageError(f"No host {name} is configured.", remedy=f"name a configured host: {known}")
    return settings.hosts[name]


def _public(host: Host, path: str | None) -> str:
    if path is not None:
        return keys.public_key(Path(path))
    if host.identity is None:
        raise UsageError(
            "The configuration names no key: the listener uses an SSH agent.",
            remedy="name the file with the public key: --key PATH",
        )
    return keys.identity(host.identity).export_public_key().decode().strip()
