"""Where the listener's time goes while it syncs many sites on one host.

`make bench-profile`, with `SITES=1000` for more than the usual hundred and `PER_HOST` to override the setting
`sync.per_host`. The profile is of the event loop's thread. One sshd on the same machine is the host.
"""

import asyncio
import cProfile
import os
import pstats
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from listener import logs
from listener.config.settings import load
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd
from listener.system import System, cleaner
from tests.bench.pool import Silent, said
from tests.listening import configuration, written

SITES = int(os.environ.get("SITES", "100"))

NEVER = 86400
"""Seconds between two looks at drift: longer than this takes."""

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


async def sync_all(system: System) -> None:
    """Ask for a sync of every site at once, and wait until all runs have ended."""
    for site in system.settings.sites:
        await system.intake.scheduled(site.environments["staging"])
    while (backlog := await system.store.backlog()).queued or backlog.running:
        await asyncio.sleep(0.05)


async def measure(system: System, profile: cProfile.Profile) -> None:
    """Sync all sites, and print what that cost."""
    async with system:
        await system.pool.warm("studio", Silent())
        started, spent, looped = time.perf_counter(), time.process_time(), time.thread_time()
        profile.enable()
        await sync_all(system)
        profile.disable()
        looped, spent = time.thread_time() - looped, time.process_time() - spent
        took = time.perf_counter() - started
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
            asyncio.run(measure(System(settings), profile))
        different = [each.path.name for each in sites if each.tree("staging") != each.tree("live")]
    if different:
        sys.exit(f"not synced: {', '.join(different)}")
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    main()
