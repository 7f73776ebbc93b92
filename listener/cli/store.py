"""`store`: backing up, restoring, checking, pruning and moving the store."""

import argparse
import asyncio
import time
from dataclasses import asdict
from pathlib import Path

from listener.cli import address
from listener.cli.failures import DONE, FAILED, UsageError
from listener.cli.printing import document, say
from listener.cli.wording import counted
from listener.config.names import public_url
from listener.config.references import resolved
from listener.config.settings import STORE_PREFIX, Settings, load
from listener.records import SENT_AGAIN
from listener.store import move
from listener.store.sqlite import maintenance, restoring


def backup(arguments: argparse.Namespace) -> int:
    """Copy the store."""
    path = Path(arguments.path)
    report = maintenance.backup(_path(_settings(arguments)), path)
    if arguments.json:
        document({"path": str(path), **asdict(report)})
    else:
        say(f"{path}: {_summary(report)}")
    return DONE


def restore(arguments: argparse.Namespace) -> int:
    """Replace the store with a copy."""
    path = _path(_settings(arguments))
    restored = restoring.restore(path, Path(arguments.path))
    if arguments.json:
        document({"path": str(path), **asdict(restored)})
        return DONE
    say(f"{path}: {_summary(restored.report)}")
    if restored.kept:
        say(f"  the old store is kept: {restored.kept}")
    if restored.newer_runs is None or restored.newer_deliveries is None:
        say("  the old store can't be read: what it had that the copy has not is unknown")
    elif restored.newer_runs or restored.newer_deliveries:
        runs, deliveries = counted(restored.newer_runs, "run"), counted(restored.newer_deliveries, "delivery")
        say(f"  only in the old store: {runs}, {deliveries}; senders may have to send these deliveries again")
    return DONE


def copy(arguments: argparse.Namespace) -> int:
    """Move everything to another store."""
    settings, to = _settings(arguments), arguments.to
    target = resolved(to) if to.startswith(("file:", "env:", "credential:")) else to
    if settings.model_copy(update={"store": target}).store_name == settings.store_name:
        raise UsageError("--to names the same store.", remedy="name another store with --to")
    copied = asyncio.run(move(settings.store, target, public_url(target), time.time()))
    if arguments.json:
        document({"to": public_url(target), "rows": copied.rows})
    else:
        runs, deliveries = counted(copied.rows["runs"], "run"), counted(copied.rows["deliveries"], "delivery")
        say(f"{public_url(target)}: {runs}, {deliveries}, {counted(copied.rows['holds'], 'hold')}")
        say("  now set store: in the configuration to it; the old store refuses to start")
    return DONE


def check(arguments: argparse.Namespace) -> int:
    """Check the store."""
    path = _path(_settings(arguments))
    report = maintenance.check(path)
    if arguments.json:
        document({"path": str(path), **asdict(report)})
    else:
        say(f"{path}: {'damaged' if report.problems else 'sound'}, {_summary(report)}")
        for problem in report.problems:
            say(f"  {problem}")
    return FAILED if report.problems else DONE


def prune(arguments: argparse.Namespace) -> int:
    """Delete what is old."""
    settings = _settings(arguments)
    history, now = settings.history, time.time()
    pruned = maintenance.prune(
        _path(settings), now - history.age, history.runs, history.deliveries, now - SENT_AGAIN
    )
    if arguments.json:
        document(asdict(pruned))
    else:
        say(f"deleted: {counted(pruned.runs, 'run')}, {counted(pruned.deliveries, 'delivery')}")
        if pruned.details:
            say(f"shortened to id and outcome: {counted(pruned.details, 'delivery')}")
    return DONE


def _settings(arguments: argparse.Namespace) -> Settings:
    return load(address.config_path(arguments))


def _path(settings: Settings) -> Path:
    if not settings.store.startswith(STORE_PREFIX):
        raise UsageError(
            "The store is not an SQLite file.",
            remedy="use the database's own tools, such as pg_dump; the listener prunes it by itself",
        )
    return Path(settings.store_name)


def _summary(report: maintenance.Report) -> str:
    return (
        f"schema {report.schema}, {report.size} bytes, {counted(report.runs, 'run')} "
        f"({report.waiting} not ended), {counted(report.deliveries, 'delivery')}"
    )
