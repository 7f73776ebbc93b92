"""A siege: what is sent to a running listener byte by byte, and what that costs it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import figures
from tests.listening import ADMIN, Client, Daemon, client, daemon

Header = tuple[str | bytes, str | bytes]

BEARER: Header = ("Authorization", f"Bearer {ADMIN}")
GREW_MOST = 256
"""MiB by which an attack may make the daemon grow."""

JSON: Header = ("Content-Type", "application/json")


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 if nothing did."""

    status: int
    head: bytes
    body: bytes


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def request(method: str, path: str | bytes, headers: Iterable[Header] = (), body: bytes = b"") -> bytes:
    """The octets of a request: everything as it is given, nothing made right."""
    lines = [octets(method) + b" " + octets(path) + b" HTTP/1.1", b"Host: x", b"Connection: close"]
    lines += [octets(name) + b": " + octets(value) for name, value in headers]
    if body or method == "POST":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Siege:
    """An attack on one daemon: counts requests, the daemon's growth and the time."""

    def __init__(self, running: Daemon, listener: Client, name: str) -> None:
        self.daemon = running
        self.listener = listener
        self.tried = 0
        self.grew_most = GREW_MOST
        self._name = name
        self._port = int(running.url.rpartition(":")[2])

    async def send(self, octets: bytes) -> Answer:
        """Send a whole request and return its answer."""
        self.tried += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(octets)
            await writer.drain()
            async with asyncio.timeout(300):
                told = await reader.read()
        except ConnectionError:  # it was refused before all of it was sent
            told = b""
        finally:
            writer.close()
        head, _, body = told.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.[01] (\d+)", head)
        return Answer(int(found[1]) if found else 0, head, body)

    async def ask(
        self,
        method: str,
        path: str | bytes,
        *headers: Header,
        body: bytes = b"",
        bearer: Header | None = BEARER,
    ) -> Answer:
        """Send a request with a good token, unless another one or none is given."""
        return await self.send(request(method, path, [*([bearer] if bearer else []), *headers], body))

    async def deliver(self, body: bytes, headers: Iterable[tuple[Any, Any]], hook: str = "forge") -> Answer:
        """Send a delivery with these headers alone."""
        return await self.send(request("POST", f"/hooks/{hook}", headers, body))

    async def runs(self) -> list[dict[str, Any]]:
        """What runs there are."""
        found: list[dict[str, Any]] = (await self.listener.call("GET", "/api/v1/runs?limit=200"))[1]["runs"]
        return found

    async def synced(self) -> None:
        """Wait until the good site is synced when asked: a busy machine needs some tries for it."""
        while (await self.listener.sync())[0] != 200:
            pass

    async def quiet(self) -> list[dict[str, Any]]:
        """The runs, once all of them have ended."""
        while any(run["state"] in {"queued", "running"} for run in await self.runs()):
            await asyncio.sleep(0.02)
        return await self.runs()

    async def __aenter__(self) -> Self:
        await self.listener.call("GET", "/api/v1/sites")
        self._before, self._began = self._memory(), time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Check that the daemon stands and has met no defect, and tell the figures."""
        if error is not None:
            return
        assert (await self.listener.call("GET", "/readyz", token=None))[0] == 200
        defects = [event for event in await self.daemon.logged() if event["event"] == "defect"]
        assert defects == []
        grew = (self._memory() - self._before) / 1024
        assert grew < self.grew_most
        self.tell(
            tried=self.tried,
            daemon_grew_by_MiB=f"{grew:.1f}",
            seconds=f"{time.monotonic() - self._began:.1f}",
        )

    def tell(self, **facts: object) -> None:
        figures.tell(f"attack: {self._name}", **facts)

    def _memory(self) -> int:
        """KiB that the daemon has needed at most."""
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1])


@asynccontextmanager
async def besieged(configuration: Path, name: str, *, anew: bool = False) -> AsyncIterator[Siege]:
    """A daemon of one's own under attack."""
    async with (
        daemon(configuration, anew=anew) as running,
        client(running.url) as listener,
        Siege(running, listener, name) as siege,
    ):
        yield siege
