"""`token`: an API credential and the line of the configuration that admits it; which ones are in use."""

import argparse
import json
import secrets

from pydantic import TypeAdapter, ValidationError

from listener.access import Role, digest
from listener.cli.failures import DONE
from listener.cli.options import WRONG_USAGE, Commands, add_command, add_group, add_json
from listener.cli.printing import document, say, tell
from listener.cli.rotation import add_token_list
from listener.config.names import Name, SiteId

PREFIX = "sst_"
"""Tells a scanner for leaked secrets, and a person, what it is."""

RANDOM_BYTES = 32


def add(commands: Commands) -> None:
    """Add the command."""
    group = add_group(
        commands,
        "token",
        summary="make API tokens, and see which are in use",
        example="sync-staging token new editors --site mysite",
    )
    parser = add_command(
        group,
        "new",
        new,
        summary="make an API token and print it once, with the configuration's line for it",
        example="sync-staging token new me --admin\nsync-staging token new editors --site mysite other",
        failed="the token could not be printed",
        misused=WRONG_USAGE,
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="whose it is, for the logs")
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument("--admin", action="store_true", help="it may do everything, on every site")
    role.add_argument(
        "--site",
        metavar="SITE",
        type=_site,
        action="extend",
        nargs="+",
        default=[],
        help="it is a member's, of this site (or several)",
    )
    add_json(parser)
    add_token_list(group)


def new(arguments: argparse.Namespace) -> int:
    """Print a new token."""
    text = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    role = Role.ADMIN if arguments.admin else Role.MEMBER
    entry = {"name": arguments.name, "sha256": digest(text.encode()), "role": role.value}
    if arguments.site:
        entry["sites"] = list(dict.fromkeys(arguments.site))
    if arguments.json:
        document({"token": text, "entry": entry})
        return DONE
    tell("The token, printed this once and kept nowhere:")
    say(text)
    tell("Its line for the section tokens of the configuration:")
    # In quotes, for YAML would read a name such as 1 or true as something else.
    say("- {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items()) + "}")
    return DONE


def _name(text: str) -> str:
    return _checked(TypeAdapter(Name), text)


def _site(text: str) -> str:
    return _checked(TypeAdapter(SiteId), text)


def _checked(rule: TypeAdapter[str], text: str) -> str:
    try:
        return rule.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error.errors()[0]['msg']}") from error
