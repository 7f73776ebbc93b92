"""`token new`: an API token, and its line for the configuration."""

import argparse
import json
import secrets

from pydantic import TypeAdapter, ValidationError

from listener.access import Role, digest
from listener.cli.failures import DONE
from listener.cli.printing import document, note, say
from listener.config.names import Name, SiteId

PREFIX = "sst_"
"""Shows people, and scanners for leaked secrets, what the text is."""

RANDOM_BYTES = 32


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
    note("The token; it is not stored, so copy it now:")
    say(text)
    note("Add this line to the section tokens of the configuration:")
    # In quotes: YAML would read a name such as 1 or true as a number or a truth value.
    say("- {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items()) + "}")
    return DONE


def name(text: str) -> str:
    """Return the text if it is the name of a token; raise `ArgumentTypeError` otherwise."""
    return _checked(TypeAdapter(Name), text)


def site(text: str) -> str:
    """Return the text if it is the id of a site; raise `ArgumentTypeError` otherwise."""
    return _checked(TypeAdapter(SiteId), text)


def _checked(rule: TypeAdapter[str], text: str) -> str:
    try:
        return rule.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error.errors()[0]['msg']}") from error
