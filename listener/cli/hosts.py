"""`host`: what binds the listener's key on a repo host to what it must do there."""

import argparse
from pathlib import Path

from listener.cli import address
from listener.cli.failures import DONE, UsageError
from listener.cli.grammar.credentials import INSTALLED_PATH
from listener.cli.printing import document, say, tell, verbatim
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
    tell(f"For ~{host.user}/.ssh/authorized_keys on {host.address}, in place of any line with this key:")
    say(line)
    if host.access is Access.SH:
        tell(f"It wants {arguments.script} there (sync-staging host script), and then, in the configuration,")
        tell(f"hosts.{host.name}.access: restricted")
    return DONE


def _host(settings: Settings, name: str) -> Host:
    if name not in settings.hosts:
        known = ", ".join(settings.hosts)
        raise UsageError(f"There is no host {name}.", remedy=f"name a configured one: {known}")
    return settings.hosts[name]


def _public(host: Host, path: Path | None) -> str:
    if path is not None:
        return keys.public_key(path)
    if host.identity is None:
        raise UsageError(
            "The listener logs in with the keys of an agent.",
            remedy="name the file with a key's public half: --key PATH",
        )
    return keys.identity(host.identity).export_public_key().decode().strip()
