"""One row of the report: so many sites, published into one way at one round-trip time, beside a daemon."""

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from listener.rehearsal.git import ENVIRONMENT, GitError, git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.listening import Client, client, configuration, daemon, push, written
from tests.proxy import Proxy
from tests.replay import jgit
from tests.replay.site import Site, build

PULLING_EVERY = 2.0
"""Seconds between two pulls of the delivery nodes that use git."""

PULLED_AGAIN = 20
"""How often a pull may fail in a row."""

ENDING = 120.0
"""Seconds within which all that is under way must end once nobody publishes any more."""


@dataclass(frozen=True)
class Setting:
    """What a row is about. Times are seconds."""

    way: str
    round_trip: float
    pauses: str
    """`aimed` at the moment when a sync moves the branch, or a number of seconds."""
    seconds: float
    sites: int
    quiet: float
    silence: float
    policy: str

    def milliseconds(self) -> tuple[int, ...]:
        """Shortest and longest pause, the pause to aim at (0 for none) and how far off, longest silence."""
        quiet, spread = round(self.quiet * 1000), round(self.round_trip * 2000) + 300
        if self.pauses == "aimed":
            times = (0, 2 * quiet, quiet, spread)
        else:
            fixed = round(float(self.pauses) * 1000)
            times = (fixed, fixed, 0, 0)
        return (*times, round(self.silence * 1000))


@dataclass
class Count:
    """What came of a row."""

    version: str = ""
    publishes: int = 0
    syncs: int = 0
    pulls: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unpromised: list[str] = field(default_factory=list)
    """Lost, but silent for longer than `quiet`: only Studio's own word could have told."""
    leaked: list[str] = field(default_factory=list)
    dirty: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    wrong_jgit: list[str] = field(default_factory=list)
    wrong_git: list[str] = field(default_factory=list)

    def spoiled(self, setting: Setting) -> bool:
        """Whether a promise was broken.

        Nobody promises that Studio finds no lock held where it never pauses, nor that a delivery node follows
        a branch that the policy `reset` has moved back.
        """
        paused = setting.pauses != "aimed" and float(setting.pauses) >= setting.quiet
        nodes = [] if setting.policy == "reset" else self.wrong_jgit + self.wrong_git
        failed = self.failed if paused else []
        return bool(self.lost + self.leaked + self.dirty + self.left + nodes + failed)


async def measure(setting: Setting, classes: str, folder: Path, pristine: Published) -> Count:
    """Publish and sync side by side; return what was counted."""
    sites = [
        await asyncio.to_thread(build, setting.way, f"site{n}", folder, pristine)
        for n in range(setting.sites)
    ]
    (folder / "sshd").mkdir()
    with Sshd(folder / "sshd") as sshd:
        async with Proxy(sshd.port) as proxy, publishing(setting, classes, folder) as publishers:
            proxy.delay = setting.round_trip / 2
            sshd.trust(sshd.known_hosts, proxy.port)
            row = Row(setting, {each.name: each for each in sites}, publishers)
            await row.read("warm")
            whole = configured(setting, folder, sshd, proxy.port, sites)
            async with daemon(written(folder, whole)) as running, client(running.url) as listener:
                await row.go(listener)
    row.check()
    return row.count


def configured(setting: Setting, folder: Path, sshd: Sshd, port: int, sites: list[Site]) -> dict[str, Any]:
    """The configuration of the daemon."""
    whole = configuration(folder, sshd, folder)
    environments = {"staging": {"follow": True, "policy": setting.policy}}
    paths = {each.name: {"host": "studio", "path": str(each.published.path)} for each in sites}
    hook = {**whole["hooks"]["forge"], "repositories": {f"acme/{name}": name for name in paths}}
    return {
        **whole,
        "hosts": {"studio": {**whole["hosts"]["studio"], "port": port}},
        "sites": {name: {"repository": at, "environments": environments} for name, at in paths.items()},
        "hooks": {"forge": hook},
        "tokens": whole["tokens"][:1],
        "sync": {"quiet": setting.quiet, "backoff": 0.2, "backoff_most": 1},
        "log": {"format": "json", "level": "info"},
    }


@contextlib.asynccontextmanager
async def publishing(
    setting: Setting, classes: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Studio's part, at work in a process of its own."""
    home = folder / "home"
    home.mkdir()
    with (folder / "java.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *jgit.command(classes, setting.way, folder, setting.sites, setting.milliseconds()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **ENVIRONMENT, "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Row:
    """A row while it goes."""

    setting: Setting
    sites: dict[str, Site]
    publishers: asyncio.subprocess.Process
    count: Count = field(default_factory=Count)

    async def go(self, listener: Client) -> None:
        """Send webhooks and pull for as long as it lasts; then sync and pull a last time."""
        self._say("go")
        reading = asyncio.create_task(self.read("stopped"))
        beside = [asyncio.create_task(self._notify(listener, each)) for each in self.sites]
        beside.append(asyncio.create_task(self._pull_now_and_then()))
        try:
            await asyncio.wait([reading], timeout=self.setting.seconds)
            self._say("stop")
            async with asyncio.timeout(ENDING):
                await reading
        finally:
            for task in beside:
                task.cancel()
            ended = await asyncio.gather(*beside, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        async with asyncio.timeout(ENDING):
            await self._settle(listener)

    async def _settle(self, listener: Client) -> None:
        for name in self.sites:
            status, body, headers = await listener.sync(site=name)
            if status != 200:
                run = headers.get("X-Run-Id")
                self.count.left.append(f"{name}: the last sync answers {status} {body} for the run {run}")
        self._say("pull")
        await self.read("done")
        await self._pull()

    async def read(self, last: str) -> None:
        """Take down what the publishers tell, until they say that word."""
        assert self.publishers.stdout is not None
        while line := (await self.publishers.stdout.readline()).decode().rstrip("\n"):
            word, *fields = line.split("\t")
            if word == last:
                return
            if word == "version":
                self.count.version = fields[0]
            elif word == "pull":
                self.count.pulls += 1
                self.count.wrong_jgit += [] if fields[1] == "right" else [line]
            else:
                self._take(word, *fields)
        raise RuntimeError("the publishers have ended before their time")

    def _take(
        self, word: str, name: str, target: str, path: str, text: str, commit: str, silent: str
    ) -> None:
        count, done = self.count, word == "published"
        count.publishes += 1
        if not done:
            late = int(silent) / 1000 >= self.setting.quiet
            kind = count.failed if word != "overrun" else count.unpromised if late else count.lost
            kind.append(f"{name}: {target}: {path}: {commit}, {silent} ms after its last trace")
        self.sites[name].take(done=done, target=target, path=path, text=text, commit=commit)

    def _say(self, word: str) -> None:
        assert self.publishers.stdin is not None
        self.publishers.stdin.write(f"{word}\n".encode())

    async def _notify(self, listener: Client, name: str) -> None:
        """Send a site's webhooks, some each second."""
        dice = random.Random(name)
        while True:
            status, body, _ = await listener.deliver(secrets.token_hex(8), push(repository=f"acme/{name}"))
            assert status in {200, 202}, body
            await asyncio.sleep(dice.uniform(0.1, 0.6))

    async def _pull_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(PULLING_EVERY)
            await self._pull()

    async def _pull(self) -> None:
        """Let each site's delivery node pull with git."""
        for site in self.sites.values():
            said = await self._pulled(site)
            wanted = await asyncio.to_thread(git, site.node.path, "rev-parse", "origin/staging^{tree}")
            self.count.pulls += 1
            if await asyncio.to_thread(site.node.tree) != wanted:
                self.count.wrong_git.append(f"{site.name}: {said}")

    async def _pulled(self, site: Site) -> str:
        """Pull, again if that fails: a ref that JGit locks has a file beside it that git can't fetch."""
        for _ in range(PULLED_AGAIN):
            with contextlib.suppress(GitError):
                return await asyncio.to_thread(site.node.pull)
            await asyncio.sleep(0.1)
        return await asyncio.to_thread(site.node.pull)

    def check(self) -> None:
        """Hold the repositories against what was published into them."""
        for site in self.sites.values():
            self.count.lost += site.lost()
            self.count.leaked += site.leaked()
            self.count.dirty += site.dirty()
            self.count.left += site.left_behind()
            self.count.syncs += site.syncs()
