"""Typing commands: each is a process of its own."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from listener import cli
from listener.rehearsal.published import Published
from tests import forks
from tests.forks import Forked, Process
from tests.listening import ADMIN
from tests.proxy import Proxy

PROGRESS = "live_in_progress"
"""The mark of a publish in progress: as long as it is there, a run waits."""

PATIENT = {"quiet": 0.2, "patience": 900, "backoff": 0.1, "backoff_most": 0.5}


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


class Shell:
    """Types commands."""

    def __init__(self, config: Path, token: str | None = ADMIN) -> None:
        self.config = config
        self.environ = {"PATH": os.environ["PATH"], "SYNC_STAGING_CONFIG": str(config)}
        if token is not None:
            self.environ["SYNC_STAGING_TOKEN"] = token

    async def start(self, *words: str, out: int = forks.PIPE) -> Forked:
        return await forks.start(*words, env=self.environ, stdout=out, stderr=forks.PIPE)

    async def __call__(self, *words: str) -> Ended:
        return await ended(await self.start(*words))

    async def here(self, *words: str) -> Ended:
        """The same in this process: for one command many times over. One at a time."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, self.environ):
            status = await asyncio.to_thread(cli.run, words)
        return Ended(status, out.getvalue(), err.getvalue())


async def ended(process: Process) -> Ended:
    out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, (out or b"").decode(), err.decode())


def told(done: Ended) -> list[str]:
    """The events of a run that were told, but for connecting to the host, which may be done already."""
    events = [line.split()[1] for line in done.err.splitlines()]
    return [event for event in events if event != "connect"]


@asynccontextmanager
async def publishing(published: Published) -> AsyncIterator[None]:
    """Studio is in the middle of a publish."""
    published.git("branch", PROGRESS, "live")
    yield
    published.git("branch", "-D", PROGRESS)


def behind(proxy: Proxy, whole: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with its host reached through a proxy."""
    key = Path(whole["ssh"]["known_hosts"]).read_text().split(maxsplit=1)[1]
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {key}")
    whole["ssh"]["known_hosts"] = str(known_hosts)
    whole["hosts"]["studio"]["port"] = proxy.port
    return whole


def varied(config: Path, *place: str, value: Any) -> Path:
    """Another configuration beside this one, with one setting changed."""
    whole = yaml.safe_load(config.read_text())
    section = whole
    for step in place[:-1]:
        section = section[step]
    section[place[-1]] = value
    other = config.with_name("varied.yaml")
    other.write_text(yaml.safe_dump(whole))
    other.chmod(0o600)
    return other
