"""What a start costs: of each kind of command, and of the daemon, with one site and with many."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from listener.rehearsal.published import build
from listener.rehearsal.sshd import Sshd
from tests.listening import ADMIN, configuration, daemon, written

PYTHON = [sys.executable, "-c", "pass"]
LISTENER = [sys.executable, "-m", "listener"]
REPEATS = 9

Figures = dict[str, float]
"""Seconds, by what was started."""


async def starts(folder: Path, sites: int) -> Figures:
    """Return the median seconds of each start with so many sites. The commands take turns."""
    published = build(folder / "site")
    with Sshd(folder) as sshd:
        whole = configuration(folder, sshd, published.path, metrics={"listen": "off"})
        one = whole["sites"]["mysite"]
        path = {"host": "studio", "path": "/srv/sites/{}/published"}
        whole["sites"] |= {
            f"site{n}": {**one, "repository": {**path, "path": path["path"].format(n)}}
            for n in range(1, sites)
        }
        # Only what a start costs is of interest: the sites other than the first do not exist.
        whole["sync"] |= {"interval": 0}
        file = written(folder, whole)
        began = time.monotonic()
        async with daemon(file, anew=True) as running:
            ready = time.monotonic() - began
            environ = {**os.environ, "SYNC_STAGING_TOKEN": ADMIN}
            commands = {
                "python3 -c pass": PYTHON,
                "--version": [*LISTENER, "--version"],
                "--help": [*LISTENER, "--help"],
                "status SITE": [*LISTENER, "status", "mysite", "--config", str(file)],
                "runs list": [*LISTENER, "runs", "list", "--config", str(file)],
            }
            figures = await asyncio.to_thread(_medians, commands, environ)
            return {**figures, "serve, until ready": ready, "serve, MB": _resident(running.process.pid)}


def _medians(commands: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> Figures:
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            began = time.monotonic()
            subprocess.run(command, env=environ, capture_output=True, check=True)
            taken[name].append(time.monotonic() - began)
    return {name: statistics.median(each) for name, each in taken.items()}


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1000
