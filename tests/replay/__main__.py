"""Studio's real library, JGit, publishing beside the running listener: `python -m tests.replay`.

Real publishes, a real sshd, the real daemon, the latency of a network. It counts what was promised never to
happen, tells it as one table, and ends with 1 if it did happen.
"""

import argparse
import asyncio
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from listener.rehearsal import published
from tests.replay.jgit import MissingError, class_path, compiled
from tests.replay.row import Count, Setting, measure
from tests.replay.site import WAYS

COLUMNS = (
    *(
        "publisher",
        "round trip",
        "pauses",
        "publishes",
        "failed",
        "lost",
        "silent too long",
        "leaked",
        "dirty",
        "left behind",
    ),
    *("syncs", "pulls", "wrong (JGit)", "wrong (git)"),
)


def main() -> int:
    options = parsed()
    folder = Path(tempfile.mkdtemp(prefix="replay-"))
    try:
        jars = class_path(options.jgit)
        (folder / "classes").mkdir()
        classes = compiled(jars, folder / "classes")
    except MissingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    pristine = published.build(folder / "pristine", files=40)
    spoiled = False
    settings = rows(options)
    for number, setting in enumerate(settings):
        where = folder / f"row{number}"
        where.mkdir()
        count = asyncio.run(measure(setting, classes, where, pristine))
        if number == 0:
            said(
                f"JGit {count.version}, {setting.sites} sites, quiet {setting.quiet:g} s, "
                f"silent for up to {setting.silence:g} s, policy {setting.policy}, "
                f"{setting.seconds:g} s a row, {os.cpu_count()} cores"
            )
            said(line(COLUMNS), line("-" * len(each) for each in COLUMNS))
        said(line(cells(setting, count)))
        tell(count)
        spoiled |= count.spoiled(setting)
    if spoiled:
        said(f"A promise was broken. What is left of it: {folder}")
    return int(spoiled)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    parser.add_argument("--ways", default=";".join(WAYS), help="which publishers, with ; between them (all)")
    parser.add_argument("--round-trips", default="0 40 200", help="milliseconds (0 40 200)")
    parser.add_argument("--pauses", help="aimed, or seconds; several with spaces (aimed)")
    parser.add_argument("--seconds", type=float, help="how long each row lasts (10)")
    parser.add_argument("--long", action="store_true", help="60 seconds a row, and pauses of 2 seconds too")
    parser.add_argument("--sites", type=int, default=4, help="how many are published into at once (4)")
    parser.add_argument("--quiet", type=float, default=2, help="seconds; the listener's sync.quiet (2)")
    parser.add_argument(
        "--silence", type=float, default=0.5, help="seconds before the branch is moved, at most (0.5)"
    )
    parser.add_argument("--policy", default="forward", help="the environments' (forward)")
    parser.add_argument("--jgit", type=Path, help="a folder of jars (Debian's libjgit-java)")
    options = parser.parse_args()
    options.seconds = options.seconds or (60 if options.long else 10)
    options.pauses = options.pauses or ("aimed 2" if options.long else "aimed")
    return options


def rows(options: argparse.Namespace) -> list[Setting]:
    """The settings of all rows, in their order."""
    ways = [way.strip() for way in options.ways.split(";")]
    if not set(ways) <= set(WAYS):
        raise SystemExit(f"The publishers are {'; '.join(WAYS)}.")
    each = itertools.product(ways, options.pauses.split(), options.round_trips.split())
    return [
        Setting(
            way,
            float(round_trip) / 1000,
            pauses,
            seconds=options.seconds,
            sites=options.sites,
            quiet=options.quiet,
            silence=options.silence,
            policy=options.policy,
        )
        for way, pauses, round_trip in each
    ]


def cells(setting: Setting, count: Count) -> list[str]:
    """One row of the table."""
    pauses = setting.pauses if setting.pauses == "aimed" else f"{setting.pauses} s"
    lists = (count.failed, count.lost, count.unpromised, count.leaked, count.dirty, count.left)
    wrong = (count.wrong_jgit, count.wrong_git)
    figures = [count.publishes, *map(len, lists), count.syncs, count.pulls, *map(len, wrong)]
    return [setting.way, f"{setting.round_trip * 1000:g} ms", pauses, *map(str, figures)]


def line(cells: Iterable[str]) -> str:
    widths = (max(len(column), 14 if column == "publisher" else 0) for column in COLUMNS)
    return "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)) + " |"


def tell(count: Count) -> None:
    """Say what is behind the figures, ten of a kind."""
    kinds = ("failed", "lost", "unpromised", "leaked", "dirty", "left", "wrong_jgit", "wrong_git")
    for kind in kinds:
        for each in getattr(count, kind)[:10]:
            sys.stderr.write(f"{kind}: {each}\n")


def said(*lines: str) -> None:
    sys.stdout.write("".join(f"{each}\n" for each in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
