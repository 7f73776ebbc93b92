"""`make house`: prints the figures of the house."""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import listener
from tests.house.plan import LONG, Plan
from tests.house.starts import starts
from tests.house.walks import Walk, walks


def main() -> None:
    """Print what was asked for; everything without an option."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument(
        "--package",
        type=Path,
        default=Path(listener.__file__).parent,
        metavar="DIR",
        help="another checkout's listener/",
    )
    parser.add_argument("--plan", action="store_true", help="only what can be read off the sources")
    parser.add_argument("--walks", action="store_true", help="only the five walks")
    parser.add_argument("--starts", action="store_true", help="only what a start costs")
    parser.add_argument("--sites", type=int, nargs="+", default=[1, 10_000], help="sites of the starts")
    asked = parser.parse_args()
    everything = not (asked.plan or asked.walks or asked.starts)
    if asked.plan or everything:
        _print(_plan(Plan.of(asked.package)))
    with tempfile.TemporaryDirectory() as folder:
        if asked.walks or everything:
            _print(_walks(asyncio.run(walks(Path(folder)))))
    if asked.starts or everything:
        for sites in asked.sites:
            _print(_starts(sites))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _plan(plan: Plan) -> Iterator[str]:
    yield f"{'room':14}{'files':>7}{'lines':>8}"
    for room, (files, lines) in sorted(plan.rooms().items()):
        yield f"{room:14}{files:7}{lines:8}"
    yield f"{'together':14}{len(plan.lines):7}{sum(plan.lines.values()):8}"
    lengths = sorted(plan.functions())
    long = [f"{where} ({lines})" for lines, where in lengths if lines > LONG]
    middle = statistics.median(lines for lines, _ in lengths)
    yield f"\nfunctions: {len(lengths)}, median {middle:g} lines, over {LONG}: {len(long)} {', '.join(long)}"
    twice = plan.twice()
    yield f"\nfields that two places of one room declare: {len(twice)}"
    for one, other, names in twice:
        yield f"  {one} and {other}: {', '.join(names)}"
    yield "\nimports from room to room:"
    for (one, other), count in sorted(plan.imports().items()):
        yield f"  {one} → {other}: {count}"


def _walks(taken: dict[str, Walk]) -> Iterator[str]:
    yield "\nfive walks:"
    for name, walk in taken.items():
        files = list(dict.fromkeys(walk))
        yield f"  {name}: {len(walk)} stays in {len(files)} files, {len(walk) - len(files)} returns"
        yield f"    {' '.join(files)}"


def _starts(sites: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(starts(Path(folder), sites))
    yield f"\nstarts with {sites} sites:"
    for name, figure in figures.items():
        unit = f"{figure:.0f}" if name.endswith("MB") else f"{1000 * figure:.0f} ms"
        yield f"  {name:20}{unit:>10}"


if __name__ == "__main__":
    main()
