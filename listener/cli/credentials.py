"""`hook list` and `token list`: which credentials are in use, and which can be removed."""

import argparse

from listener.cli.client import connected, path
from listener.cli.failures import DONE
from listener.cli.printing import document, table
from listener.cli.wording import moment


def list_hooks(arguments: argparse.Namespace) -> int:
    """List the hooks with their secrets."""
    answer = connected(arguments).get(path("hooks"))
    if arguments.json:
        document(answer)
        return DONE
    rows = [
        (hook["name"], hook["scheme"], secret["name"], str(secret["count"]), moment(secret["last_used"]))
        for hook in answer["hooks"]
        for secret in hook["secrets"]
    ]
    table(("HOOK", "SCHEME", "SECRET", "USED", "LAST USED"), rows)
    return DONE


def list_tokens(arguments: argparse.Namespace) -> int:
    """List the tokens."""
    answer = connected(arguments).get(path("tokens"))
    if arguments.json:
        document(answer)
        return DONE
    rows = [
        (
            token["name"],
            token["role"],
            " ".join(token["sites"]),
            moment(token["expires"]),
            str(token["count"]),
            moment(token["last_used"]),
        )
        for token in answer["tokens"]
    ]
    table(("TOKEN", "ROLE", "SITES", "EXPIRES", "USED", "LAST USED"), rows)
    return DONE
