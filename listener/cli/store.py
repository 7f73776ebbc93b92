"""`store`: a backup, a check and a pruning of the store, whether or not the listener runs."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from listener import config
from listener.cli import address
from listener.cli.failures import DONE, FAILED, UsageError
from listener.cli.options import WRONG_USAGE, Commands, add_command, add_config, add_group, add_json
from listener.cli.printing import document, say
from listener.cli.wording import counted
from listener.config import STORE_PREFIX, Settings
from listener.store.sqlite import maintenance


def add(commands: Commands) -> None:
    """Add the commands."""
    group = add_group(
        commands,
        "store",
        summary="back the store up, check it, or delete what is old in it",
        example="sync-staging store backup /var/backups/sync-staging.db",
    )
    parser = add_command(
        group,
        "backup",
        backup,
        summary="copy the SQLite store to a new file, also while the listener runs, and check the copy",
        example="sync-staging store backup /var/backups/sync-staging.db",
        failed="there is no store, the file exists already, or the copy failed",
        misused=WRONG_USAGE,
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the file to make")
    _add_common(parser)
    parser = add_command(
        group,
        "check",
        check,
        summary="check the SQLite store and tell what is in it",
        example="sync-staging store check",
        done="it is sound",
        failed="it is damaged, or there is none",
        misused=WRONG_USAGE,
    )
    _add_common(parser)
    parser = add_command(
        group,
        "prune",
        prune,
        summary="delete the runs, logs and deliveries that the configuration keeps no longer, now",
        example="sync-staging store prune",
        failed="there is no store, or it can't be written to",
        misused=WRONG_USAGE,
    )
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def backup(arguments: argparse.Namespace) -> int:
    """Copy the store."""
    report = maintenance.backup(_path(_settings(arguments)), arguments.path)
    if arguments.json:
        document({"path": str(arguments.path), **asdict(report)})
    else:
        say(f"{arguments.path}: {_told(report)}")
    return DONE


def check(arguments: argparse.Namespace) -> int:
    """Check the store."""
    path = _path(_settings(arguments))
    report = maintenance.check(path)
    if arguments.json:
        document({"path": str(path), **asdict(report)})
    else:
        say(f"{path}: {'damaged' if report.problems else 'sound'}, {_told(report)}")
        for problem in report.problems:
            say(f"  {problem}")
    return FAILED if report.problems else DONE


def prune(arguments: argparse.Namespace) -> int:
    """Delete what is old."""
    settings = _settings(arguments)
    history = settings.history
    pruned = maintenance.prune(_path(settings), time.time() - history.age, history.runs)
    if arguments.json:
        document(asdict(pruned))
    else:
        say(f"deleted: {counted(pruned.runs, 'run')}, {counted(pruned.deliveries, 'delivery')}")
    return DONE


def _settings(arguments: argparse.Namespace) -> Settings:
    return config.load(address.config_path(arguments))


def _path(settings: Settings) -> Path:
    if not settings.store.startswith(STORE_PREFIX):
        raise UsageError(
            "The store is no SQLite file.",
            remedy="use the database's own tools, such as pg_dump; the listener prunes by itself",
        )
    return Path(settings.store_name)


def _told(report: maintenance.Report) -> str:
    return (
        f"schema {report.schema}, {report.size} bytes, {counted(report.runs, 'run')} "
        f"({report.waiting} not ended), {counted(report.deliveries, 'delivery')}"
    )
