"""`hook list` and `token list`: which credentials are in use, so that one that is not can go."""

import argparse

from listener.cli.client import connected, path
from listener.cli.failures import DONE
from listener.cli.options import Commands, add_client, add_command, add_json
from listener.cli.printing import document, table
from listener.cli.wording import moment


def add_hook_list(group: Commands) -> None:
    """Add `hook list`."""
    parser = add_command(
        group,
        "list",
        list_hooks,
        summary="list the hooks and their secrets by name: how often each was used, and when last",
        example="sync-staging hook list",
        failed="the listener refuses the question",
    )
    add_client(parser)
    add_json(parser)


def add_token_list(group: Commands) -> None:
    """Add `token list`."""
    parser = add_command(
        group,
        "list",
        list_tokens,
        summary="list the API tokens by name: what each may do, how often it was used, and when last",
        example="sync-staging token list",
        failed="the listener refuses the question",
    )
    add_client(parser)
    add_json(parser)


async def list_hooks(arguments: argparse.Namespace) -> int:
    """List the hooks with their secrets."""
    async with connected(arguments) as client:
        answer = await client.get(path("hooks"))
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


async def list_tokens(arguments: argparse.Namespace) -> int:
    """List the tokens."""
    async with connected(arguments) as client:
        answer = await client.get(path("tokens"))
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
