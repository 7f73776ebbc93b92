"""`sync`, `status`, `hold`, `release` and `rollback`."""

import argparse

from listener.cli.options import add_client, add_json, add_target, describe


def sync(parser: argparse.ArgumentParser) -> None:
    """Describe `sync`."""
    describe(
        parser,
        "cli.sync:sync",
        example="sync-staging sync mysite staging --dry-run\nsync-staging sync mysite staging",
        done="the environment is equal to live; with --dry-run: the plan is printed; with --no-wait: the run "
        "is queued",
        failed="the sync failed, was refused or was cancelled; with --dry-run: it would be refused",
    )
    add_target(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what a sync would do; change nothing")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--local", action="store_true", help="sync in this process; no listener may be running")
    mode.add_argument("--no-wait", action="store_true", help="return as soon as the run is queued")
    add_client(parser)
    add_json(parser)


def status(parser: argparse.ArgumentParser) -> None:
    """Describe `status`."""
    describe(
        parser,
        "cli.sites:status",
        example="sync-staging status\nsync-staging status mysite --fresh",
        done="the status is printed, even if environments differ from live",
        failed="the site is unknown",
    )
    parser.add_argument("site", metavar="SITE", nargs="?", help="the site's id (default: all sites)")
    parser.add_argument(
        "--fresh", action="store_true", help="look again; without it, the last look is shown, with its time"
    )
    add_client(parser)
    add_json(parser)


def hold(parser: argparse.ArgumentParser) -> None:
    """Describe `hold`."""
    describe(
        parser,
        "cli.sites:hold",
        example='sync-staging hold mysite staging --reason "acceptance test until Friday"',
        done="the environment is on hold",
        failed="the site or the environment is unknown, or the reason is refused",
    )
    add_target(parser)
    parser.add_argument("--reason", metavar="TEXT", required=True, help="the reason, which status shows")
    add_client(parser)
    add_json(parser)


def release(parser: argparse.ArgumentParser) -> None:
    """Describe `release`."""
    describe(
        parser,
        "cli.sites:release",
        example="sync-staging release mysite staging",
        done="the environment is not on hold",
        failed="the site or the environment is unknown",
    )
    add_target(parser)
    add_client(parser)
    add_json(parser)


def rollback(parser: argparse.ArgumentParser) -> None:
    """Describe `rollback`."""
    describe(
        parser,
        "cli.rollback:rollback",
        example="sync-staging rollback ID --dry-run",
        done="the rollback is done; with --dry-run: it is possible; with --no-wait: it is queued",
        failed="the run is unknown, the run changed nothing, or the branch has moved since",
    )
    parser.add_argument("run", metavar="ID", help="the run's id")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what a rollback would do; change nothing"
    )
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the rollback is queued")
    add_client(parser)
    add_json(parser)
