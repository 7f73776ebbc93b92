"""What has to go on while a listener is attacked: deliveries, calls, scrapes of its figures, syncs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.listening import ADMIN, SYNC_STAGING
from tests.strangers import Tls, answers, delivery, head, status_of

PAUSE = 0.05
"""Seconds between two of a kind."""

CALL = b'{"site_id": "mysite", "environment": "staging"}'


class Good:
    """Counts what is asked for in earnest, what was refused of it, and how long it took."""

    def __init__(self, port: int, metrics: int | None, tls: Tls = None, client: str = "") -> None:
        self._port = port
        self._metrics = metrics
        self._tls = tls
        self._forwarded = f"X-Forwarded-For: {client}\r\n".encode() if client else b""
        self.counted = dict.fromkeys(("deliveries", "calls", "scrapes"), 0)
        self.refused: list[str] = []
        self.seconds: list[float] = []
        self._enough = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """All kinds, over and over, beside what is done meanwhile."""
        kinds = [self._deliveries(), self._calls()] + ([self._scrapes()] if self._metrics else [])
        self._enough = False
        tasks = [asyncio.create_task(kind) for kind in kinds]
        try:
            yield
        finally:
            self._enough = True
            await asyncio.gather(*tasks)

    @property
    def p99(self) -> str:
        """What 99 of 100 took at most."""
        ordered = sorted(self.seconds)
        return f"{ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms" if ordered else "-"

    async def _deliveries(self) -> None:
        while not self._enough:
            key = f"d-{self.counted['deliveries']}-{id(self)}"
            await self._ask("deliveries", self._port, delivery(key), {202})

    async def _calls(self) -> None:
        sent = head(SYNC_STAGING, f"Authorization: Bearer {ADMIN}", f"Content-Length: {len(CALL)}") + CALL
        while not self._enough:
            await self._ask("calls", self._port, sent, {200})

    async def _scrapes(self) -> None:
        assert self._metrics is not None
        while not self._enough:
            await self._ask("scrapes", self._metrics, head("/metrics", method="GET"), {200})

    async def _ask(self, kind: str, port: int, sent: bytes, right: set[int]) -> None:
        line, rest = sent.split(b"\r\n", 1)
        began = time.monotonic()
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            tls = None if port == self._metrics else self._tls
            whole = line + b"\r\n" + self._forwarded + rest
            # By a proxy, all come from its address.
            source = "127.0.0.1" if self._forwarded else "127.0.0.9"
            async with asyncio.timeout(60):
                answer = await answers(port, whole, source, tls)
        self.seconds.append(time.monotonic() - began)
        self.counted[kind] += 1
        if not answer or status_of(answer) not in right:
            self.refused.append(f"{kind}: {answer[:300]!r}")
        await asyncio.sleep(PAUSE)
