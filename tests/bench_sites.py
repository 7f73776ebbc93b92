"""What many sites on one host cost: syncs a second, and the listener's own CPU time for each.

`make bench-hosts`. There are a hundred sites, or as many as `SITES` says. `PER_HOST` overrides the setting
`sync.per_host`, and `PROFILE=1` shows where the event loop's time goes. One sshd on the same machine is the
host, and takes its share of the cores.
"""

import asyncio
import cProfile
import os
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from listener import logs
from listener.config.settings import load
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd
from listener.sites import Site
from listener.system import System, cleaner
from tests.bench import Silent
from tests.bench_hosts import said
from tests.listening import configuration, written

SITES = int(os.environ.get("SITES", "100"))

NEVER = 86400
"""Seconds between two looks at drift: longer than this takes."""

TIMES = 20
"""Syncs of one site, alone and beside a survey."""

SHOWN = 60
"""Functions that a profile shows."""


def sites_in(folder: Path, number: int) -> list[Published]:
    """Return copies of one small repository whose staging differs from live."""
    origin = build(folder / "origin", files=20)
    made = []
    for n in range(number):
        path = folder / f"site-{n}"
        shutil.copytree(origin.path, path, symlinks=True)
        made.append(Published(path))
    return made


def configured(folder: Path, sshd: Sshd, sites: list[Published]) -> Path:
    """Return the configuration of a listener for these sites."""
    carried: dict[str, Any] = {
        each.path.name: {
            "repository": {"host": "studio", "path": str(each.path)},
            "environments": {"staging": {"follow": True}},
        }
        for each in sites
    }
    sync: dict[str, Any] = {"quiet": 0, "interval": NEVER}
    if "PER_HOST" in os.environ:
        sync["per_host"] = int(os.environ["PER_HOST"])
    whole = configuration(folder, sshd, sites[0].path, sites=carried, hooks={}, sync=sync)
    whole["tokens"] = whole["tokens"][:1]
    return written(folder, whole)


async def sync(system: System, sites: Iterable[Site], pause: float = 0.05) -> None:
    """Ask for a sync of these sites at once, and wait until all runs have ended."""
    for site in sites:
        await system.intake.scheduled(site.environments["staging"])
    while (backlog := await system.store.backlog()).queued or backlog.running:
        await asyncio.sleep(pause)


async def one_by_one(system: System, moved: Published) -> float:
    """Return the median seconds of a sync of one site, whose branch is moved away from live before each."""
    site, old, spent = system.settings.sites.by_id[moved.path.name], moved.commit("staging^"), []
    for _ in range(TIMES):
        moved.git("update-ref", "refs/heads/staging", old)
        started = time.perf_counter()
        await sync(system, [site], pause=0.001)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


async def measure_beside_a_survey(system: System, moved: Published) -> None:
    """Print what a sync takes alone, and while all sites are looked at."""
    legs = [leg for site in system.settings.sites for leg in site.environments["staging"].legs]

    async def survey() -> None:
        while True:
            await system.pool.survey(legs, Silent())

    said("a sync of one site, alone (median)", await one_by_one(system, moved) * 1000, "ms")
    surveying = asyncio.create_task(survey())
    said("the same while all sites are looked at", await one_by_one(system, moved) * 1000, "ms")
    surveying.cancel()
    await asyncio.wait([surveying])


async def measure(system: System, moved: Published, profile: cProfile.Profile) -> None:
    """Sync all sites, and print what that cost."""
    async with system:
        await system.pool.warm("studio", Silent())
        started, spent, looped = time.perf_counter(), time.process_time(), time.thread_time()
        if "PROFILE" in os.environ:
            profile.enable()
        await sync(system, system.settings.sites)
        profile.disable()
        looped, spent = time.thread_time() - looped, time.process_time() - spent
        took = time.perf_counter() - started
        await measure_beside_a_survey(system, moved)
    said(f"syncs a second of {SITES} sites on one host", SITES / took, "/s")
    said("the listener's CPU time for each", spent / SITES * 1000, "ms")
    said("of that, in the event loop's thread", looped / SITES * 1000, "ms")


def main() -> None:
    """Make the repositories, start an sshd and measure."""
    profile = cProfile.Profile()
    with (
        tempfile.TemporaryDirectory(prefix="sync-staging-bench-") as name,
        Path(os.devnull).open("w") as nowhere,
    ):
        folder = Path(name)
        (folder / "ssh").mkdir()
        sites = sites_in(folder, SITES)
        with Sshd(folder / "ssh") as sshd:
            settings = load(configured(folder, sshd, sites))
            logs.configure("info", "json", cleaner(settings), nowhere)
            asyncio.run(measure(System(settings), sites[0], profile))
        different = [each.path.name for each in sites if each.tree("staging") != each.tree("live")]
    if different:
        sys.exit(f"not synced: {', '.join(different)}")
    if "PROFILE" in os.environ:
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    main()
