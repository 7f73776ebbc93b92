"""`python -m tests.bench [--rows move,ack,…] [--short] [--beside NAME=FOLDER] [--json FILE]`."""

import argparse
import asyncio
import signal
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.bench.acks import ack, burst
from tests.bench.figures import Figures, told
from tests.bench.growth import growth, start
from tests.bench.many import hosts, look, sites
from tests.bench.moves import move, quiet
from tests.bench.stage import ROOT, Stage, Tree

ROWS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    row.__name__: row for row in (move, ack, quiet, look, sites, hosts, burst, start, growth)
}


async def measure(rows: list[str], trees: tuple[Tree, ...], figures: Figures, *, short: bool) -> None:
    """Measure these rows of these trees."""
    async with AsyncExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="sync-staging-bench-")))
        stage = Stage(folder, trees, short, figures, parts)
        for name in rows:
            told(f"{name}: {ROWS[name].__doc__}")
            try:
                await ROWS[name](stage)
            except Exception as error:  # noqa: BLE001 (what the other rows show is not lost for it)
                traceback.print_exc()
                figures.failed.append(f"{name}: {error!r}")
    figures.missing = list(dict.fromkeys(figures.missing))


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Work, and end what was started when SIGTERM comes."""
    task = asyncio.create_task(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", default="", help=f"which, with commas between them: {', '.join(ROWS)}")
    parser.add_argument("--short", action="store_true", help="only show that each row runs")
    parser.add_argument("--beside", default="", help="NAME=FOLDER of another revision, measured in turns")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    rows = [name for name in options.rows.split(",") if name] or list(ROWS)
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    trees: tuple[Tree, ...] = (Tree("listener", ROOT),)
    if options.beside:
        name, _, folder = options.beside.partition("=")
        trees = (Tree(name, Path(folder).resolve()), *trees)
    figures = Figures()
    try:
        asyncio.run(until_told(measure(rows, trees, figures, short=options.short)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        figures.failed.append("the rest: it was interrupted")
    sys.stdout.write(figures.table())
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures.write(options.json)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    sys.exit(main())
