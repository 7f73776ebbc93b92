"""`host`: what binds the listener's key on a repo host to what it must do there."""

import argparse
from pathlib import Path

from listener.cli import address
from listener.cli.failures import DONE, UsageError
from listener.cli.options import WRONG_USAGE, Commands, add_command, add_config, add_group, add_json
from listener.cli.printing import document, say, tell, verbatim
from listener.config.settings import Settings, load
from listener.networks import networks_of
from listener.sites import Access, Host
from listener.ssh import authorized, keys
from listener.ssh.dialogue import DIGEST, INSTALLED, INSTALLED_NAME

INSTALLED_PATH = f"/usr/local/bin/{INSTALLED_NAME}"


def add(commands: Commands) -> None:
    """Add the commands."""
    group = add_group(
        commands,
        "host",
        summary="bind the listener's key on a repo host",
        example="sync-staging host script > sync-staging-shell\nsync-staging host key studio",
    )
    parser = add_command(
        group,
        "script",
        script,
        summary=f"print {INSTALLED_NAME}, which a repo host runs for a key that is bound to it",
        example=f"sync-staging host script | ssh root@studio.example.com 'cat > {INSTALLED_PATH} && "
        f"chmod 755 {INSTALLED_PATH}'",
        failed="it could not be printed",
        misused=WRONG_USAGE,
    )
    add_json(parser)
    parser = add_command(
        group,
        "key",
        key,
        summary="print the line of authorized_keys that binds the listener's key on a host to what the "
        "configuration needs there",
        example="sync-staging host key studio --from 192.0.2.10",
        failed="the configuration or the key can't be used",
        misused=WRONG_USAGE,
    )
    parser.add_argument("host", metavar="HOST", help="the host's name in the configuration")
    parser.add_argument(
        "--key", type=Path, metavar="PATH", help="a file with the public half (default: that of ssh.identity)"
    )
    parser.add_argument(
        "--from",
        dest="origin",
        type=_origin,
        metavar="ADDRESS,…",
        help="the addresses or networks that the key may log in from (default: any)",
    )
    parser.add_argument(
        "--script",
        default=INSTALLED_PATH,
        metavar="PATH",
        help="where the script is on the host (default: %(default)s)",
    )
    add_config(parser)
    add_json(parser)


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


def _origin(text: str) -> str:
    try:
        networks_of(text.split(","))
    except ValueError:
        # sshd would ignore the whole line, and let the key in from nowhere.
        raise argparse.ArgumentTypeError(
            "is no list of addresses and networks; write one such as 192.0.2.10,198.51.100.0/24"
        ) from None
    return text
