"""What may happen to listeners that share a store, and what must be true afterwards."""

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from listener.rehearsal.published import Published
from tests.cluster import Cluster
from tests.listening import Client, Daemon, push
from tests.proxy import Proxy

LEASE = 9.0
"""Seconds after which a run whose owner is not heard of is another listener's."""
BEAT = 3.0
PAST_THE_LEASE = LEASE + 2 * BEAT
"""Seconds after which the others have taken over for certain."""

ASIDE = frozenset({"fenced", "store", "lost", "recovered", "taken over", "defect"})
"""Events of a run that are told when nothing of it is under way any more."""


@dataclass
class Forge:
    """Sends deliveries without end, to whichever listener, and counts those that were acknowledged."""

    listeners: Sequence[Client]
    sites: Sequence[str]
    acknowledged: dict[str, str] = field(default_factory=dict)
    """The deliveries' ids, each with its site."""
    refused: int = 0
    stopped: bool = False

    async def send(self, sender: int) -> None:
        for number in itertools.count():
            if self.stopped:
                return
            await self._deliver(f"{sender}-{number}", random.choice(self.sites))
            await asyncio.sleep(0.05)

    async def _deliver(self, key: str, site: str) -> None:
        listener = random.choice(self.listeners)
        try:
            status, _, _ = await listener.deliver(key, push(repository=f"acme/{site}"))
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1
            return
        assert status in {202, 503}
        if status == 202:
            self.acknowledged[key] = site
        else:
            self.refused += 1


@dataclass
class Server:
    """A database server that the listeners share, and the way to it."""

    cluster: Cluster
    database: str
    way: Proxy


@dataclass
class Chaos:
    """Does things to listeners and to their database."""

    running: Sequence[Daemon]
    server: Server | None
    done: list[str] = field(default_factory=list)
    stopped: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """For each listener, by its address, from when to when it was stopped for longer than its leases last."""

    def kinds(self, *, patient: bool) -> Sequence[Callable[[], Awaitable[None]]]:
        """What can happen; where `patient`, what takes long as well."""
        kinds = [self.kill, self.terminate, self.halt]
        if self.server is not None:
            kinds += [self.end_backends, self.lose_a_reply]
            if patient:
                kinds += [self.halt_past_the_lease, self.restart_the_server]
        return kinds

    def _victim(self, what: str) -> Daemon:
        self.done.append(what)
        return random.choice(self.running)

    async def kill(self) -> None:
        victim = self._victim("kill -9")
        await victim.kill()
        await victim.start()

    async def terminate(self) -> None:
        victim = self._victim("SIGTERM")
        assert await victim.terminate() == 0
        await victim.start()

    async def halt(self) -> None:
        """Stop a listener for a moment, as a machine does that is busy or moved."""
        await self._halt(self._victim("SIGSTOP"), random.uniform(0.1, BEAT))

    async def halt_past_the_lease(self) -> None:
        """Stop a listener for so long that the others take over what it was doing."""
        victim = self._victim("SIGSTOP past the lease")
        began = time.time()
        await self._halt(victim, PAST_THE_LEASE)
        # What it still does when it goes on is over by its next beat.
        self.stopped.setdefault(victim.url, []).append((began, time.time() + 2 * BEAT))

    async def _halt(self, victim: Daemon, seconds: float) -> None:
        victim.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        victim.process.send_signal(signal.SIGCONT)

    async def end_backends(self) -> None:
        """End every connection to the database, as an administrator may."""
        assert self.server is not None
        self.done.append("ended backends")
        everyone = f"datname = '{self.server.database}' AND pid <> pg_backend_pid()"
        await asyncio.to_thread(
            self.server.cluster.sql,
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {everyone}",
            "postgres",
        )

    async def lose_a_reply(self) -> None:
        """Let a transaction be committed, and lose the word of it."""
        assert self.server is not None
        self.done.append("lost reply to COMMIT")
        self.server.way.lose(b"COMMIT\0")
        while self.server.way.losing:
            await asyncio.sleep(0.01)

    async def restart_the_server(self) -> None:
        assert self.server is not None
        self.done.append("restarted server")
        await asyncio.to_thread(self.server.cluster.stop, random.choice(["fast", "immediate"]))
        await asyncio.to_thread(self.server.cluster.start)


@dataclass(frozen=True, order=True)
class Span:
    """From when to when an attempt was under way for certain, as its listener has logged it."""

    began: float
    ended: float
    listener: str
    run: str
    site: str


def spans(listener: Daemon) -> Iterator[Span]:
    """All attempts of a listener, by its own log: what the store has refused to take is there, too."""
    going: dict[str, Span] = {}
    for event in _logged(listener):
        run = event.get("run")
        if run is None or event["event"] in ASIDE:
            continue
        at = datetime.fromisoformat(event["at"]).timestamp()
        if event["event"] == "start":
            if run in going:
                yield going[run]
            going[run] = Span(at, at, listener.url, run, event["site"])
        elif run in going:
            before = going[run]
            going[run] = Span(before.began, at, before.listener, run, before.site)
    yield from going.values()


def _logged(listener: Daemon) -> Iterator[Mapping[str, Any]]:
    for line in listener.log.read_text().splitlines():
        # A line may have been cut short by a kill, with the next process's first one behind it.
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def overlapping(found: Sequence[Span]) -> list[tuple[Span, Span]]:
    """The attempts at one site that begin before an earlier one has ended."""
    pairs = []
    for site in {span.site for span in found}:
        latest: Span | None = None
        for span in sorted(each for each in found if each.site == site):
            if latest is not None and span.began < latest.ended:
                pairs.append((latest, span))
            latest = span if latest is None or span.ended > latest.ended else latest
    return pairs


def excused(pair: tuple[Span, Span], stopped: Mapping[str, Sequence[tuple[float, float]]]) -> bool:
    """Whether one of the two was its listener's while that was stopped past its lease."""
    return any(
        span.began < until and began < span.ended
        for span in pair
        for began, until in stopped.get(span.listener, ())
    )


def publish(site: Published, number: int) -> None:
    """Let live move on by a commit, as an editor would see it."""
    blob = site.git("hash-object", "-w", "--stdin", stdin=f"{number}\n".encode())
    tree = site.git("mktree", stdin=f"100644 blob {blob}\tnews.xml\n".encode())
    site.git("update-ref", "refs/heads/live", site.git("commit-tree", tree, "-p", "live", "-m", str(number)))
