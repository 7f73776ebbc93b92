"""`token`, `hook` and `host`: who may call the listener, and what its key may do on a host."""

import argparse
import re
from importlib import import_module

from listener.cli.options import (
    WRONG_USAGE,
    Commands,
    add_client,
    add_command,
    add_config,
    add_group,
    add_json,
)

INSTALLED_PATH = "/usr/local/bin/sync-staging-shell"
"""Where the script of a restricted key is installed on a host, unless something else is said."""


def token(parser: argparse.ArgumentParser) -> None:
    """Describe `token`."""
    group = add_group(parser, example="sync-staging token new editors --site mysite\nsync-staging token list")
    _new_token(group)
    _list(
        group,
        "cli.credentials:list_tokens",
        "list the API tokens: what each may do, how often it was used, and when last",
        example="sync-staging token list",
    )


def _new_token(group: Commands) -> None:
    parser = add_command(
        group,
        "new",
        "cli.tokens:new",
        summary="make an API token; print it once, with its line for the configuration",
        example="sync-staging token new me --admin\nsync-staging token new editors --site mysite other",
        failed="the token could not be printed",
        misused=WRONG_USAGE,
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="the token's name, which the logs show")
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument("--admin", action="store_true", help="allow everything, on every site")
    role.add_argument(
        "--site",
        metavar="SITE",
        type=_site,
        action="extend",
        nargs="+",
        default=[],
        help="allow a member's actions on this site (or on several)",
    )
    add_json(parser)


def hook(parser: argparse.ArgumentParser) -> None:
    """Describe `hook`."""
    group = add_group(parser, example="sync-staging hook send forge --ping\nsync-staging hook list")
    _list(
        group,
        "cli.credentials:list_hooks",
        "list the hooks and their secrets by name: how often each was used, and when last",
        example="sync-staging hook list",
    )
    _send(group)


def _send(group: Commands) -> None:
    parser = add_command(
        group,
        "send",
        "cli.hooks:send",
        summary="send a signed test delivery to a hook of the running listener; it may start a sync",
        example="sync-staging hook send forge --repository acme/mysite",
        done="the listener accepted the delivery",
        failed="the listener refused the delivery, or no such hook is configured",
    )
    parser.add_argument("hook", metavar="HOOK", help="the hook's name in the configuration")
    parser.add_argument("--site", metavar="SITE", help="the site that was published")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="the repository that was pushed to")
    parser.add_argument(
        "--ref",
        metavar="REF",
        type=_ref,
        help="the full ref that was pushed (default: the site's live branch)",
    )
    parser.add_argument("--id", metavar="ID", type=_id, help="the delivery's id (default: a new one)")
    parser.add_argument("--ping", action="store_true", help="send the ping of a new webhook instead")
    parser.add_argument(
        "--secret",
        metavar="REFERENCE",
        help="sign with this secret, not with the hook's first one: file:PATH, env:NAME or credential:NAME",
    )
    add_client(parser)
    add_json(parser)


def _list(group: Commands, handler: str, summary: str, example: str) -> None:
    parser = add_command(
        group,
        "list",
        handler,
        summary=summary,
        example=example,
        done="the list is printed",
        failed="the listener refuses the request",
    )
    add_client(parser)
    add_json(parser)


def host(parser: argparse.ArgumentParser) -> None:
    """Describe `host`."""
    group = add_group(
        parser,
        example="sync-staging host script > sync-staging-shell\nsync-staging host key studio",
    )
    _script(group)
    _key(group)


def _script(group: Commands) -> None:
    parser = add_command(
        group,
        "script",
        "cli.hosts:script",
        summary="print the script that a host runs for a restricted key",
        example=f"sync-staging host script | ssh root@studio.example.com 'cat > {INSTALLED_PATH} && "
        f"chmod 755 {INSTALLED_PATH}'",
        done="the script is printed",
        failed="the script could not be printed",
        misused=WRONG_USAGE,
    )
    add_json(parser)


def _key(group: Commands) -> None:
    parser = add_command(
        group,
        "key",
        "cli.hosts:key",
        summary="print the line of authorized_keys that restricts the listener's key on a host",
        example="sync-staging host key studio --from 192.0.2.10",
        done="the line is printed",
        failed="the configuration or the key can't be used",
        misused=WRONG_USAGE,
    )
    parser.add_argument("host", metavar="HOST", help="the host's name in the configuration")
    parser.add_argument(
        "--key", metavar="PATH", help="a file with the public key (default: that of ssh.identity)"
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


def _id(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,256}", text):
        raise argparse.ArgumentTypeError("write 1 to 256 printable ASCII characters, no spaces")
    return text


def _ref(text: str) -> str:
    if not text.startswith("refs/"):
        raise argparse.ArgumentTypeError("not a full ref; write one such as refs/heads/live")
    return text


# These rules are others' own. They are imported when there is something to judge.


def _name(text: str) -> str:
    return str(import_module("listener.cli.tokens").name(text))


def _site(text: str) -> str:
    return str(import_module("listener.cli.tokens").site(text))


def _origin(text: str) -> str:
    try:
        import_module("listener.networks").networks_of(text.split(","))
    except ValueError:
        # sshd would ignore the whole line: nobody could log in with the key.
        raise argparse.ArgumentTypeError(
            "not a list of addresses and networks; write one such as 192.0.2.10,198.51.100.0/24"
        ) from None
    return text
