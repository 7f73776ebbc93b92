"""`store`."""

import argparse

from listener.cli.options import WRONG_USAGE, Commands, add_command, add_config, add_group, add_json


def store(parser: argparse.ArgumentParser) -> None:
    """Describe `store`."""
    group = add_group(parser, example="sync-staging store backup /var/backups/sync-staging.db")
    _backup(group)
    _restore(group)
    _check(group)
    _prune(group)
    _copy(group)


def _backup(group: Commands) -> None:
    parser = _command(
        group,
        "backup",
        "copy the SQLite store to a new file and check the copy; the listener may be running",
        example="sync-staging store backup /var/backups/sync-staging.db",
        done="the copy is made and sound",
        failed="there is no store, the file exists already, or the copy failed",
    )
    parser.add_argument("path", metavar="PATH", help="the file to make")


def _restore(group: Commands) -> None:
    parser = _command(
        group,
        "restore",
        "replace the SQLite store with a copy, while the listener is stopped",
        example="sync-staging store restore /var/backups/sync-staging.db",
        done="the copy is in place; the old store is kept beside it",
        failed="a listener is running, or the copy is damaged or can't be put in place",
    )
    parser.add_argument("path", metavar="PATH", help="the copy; it is not changed")


def _check(group: Commands) -> None:
    _command(
        group,
        "check",
        "check the SQLite store and show what it contains",
        example="sync-staging store check",
        done="the store is sound",
        failed="the store is damaged, or there is none",
    )


def _prune(group: Commands) -> None:
    _command(
        group,
        "prune",
        "delete now what is older than the configuration keeps: runs, logs and deliveries",
        example="sync-staging store prune",
        done="old history is deleted, if there was any",
        failed="there is no store, or it can't be written",
    )


def _copy(group: Commands) -> None:
    parser = _command(
        group,
        "copy",
        "move everything to another store, SQLite or PostgreSQL, while both listeners are stopped",
        example="sync-staging store copy --to file:/etc/sync-staging/new-store-url",
        done="everything is in the other store; the old store refuses to start from now on",
        failed="a listener is running, the other store is not empty, or one of the two can't be reached",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="the other store's URL; if it has a password: file:PATH, env:NAME or credential:NAME",
    )


def _command(
    group: Commands, name: str, summary: str, *, example: str, done: str, failed: str
) -> argparse.ArgumentParser:
    parser = add_command(
        group,
        name,
        f"cli.store:{name}",
        summary=summary,
        example=example,
        done=done,
        failed=failed,
        misused=WRONG_USAGE,
    )
    add_config(parser)
    add_json(parser)
    return parser
