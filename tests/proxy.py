"""A TCP proxy that can be told to misbehave."""

import asyncio
import contextlib
from typing import Self

Parcel = tuple[float, bytes]
"""What is passed on, and when it is due, by the loop's clock."""


class Proxy:
    """Stands between a client and a port of loopback; can cut, freeze, thaw, lose and delay what passes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        self.connections = 0
        self.delay = 0.0
        """Seconds by which everything arrives later, in both directions."""
        self.refusing = False
        """Whether it ends every new connection at once."""
        self.passed = 0
        """Bytes, both directions together."""
        self._cut_at: int | None = None
        self.losing: bytes | None = None
        """What the next reply holds that is lost; None when there is none to come."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection at once, without a word."""
        for writer in tuple(self._links):
            writer.transport.abort()

    def cut_after(self, count: int) -> None:
        """Cut, once, when so many more bytes have passed."""
        self._cut_at = self.passed + count

    @property
    def waiting(self) -> bool:
        """Whether there is a cut to come."""
        return self._cut_at is not None

    def lose(self, reply: bytes) -> None:
        """Cut, once, in place of passing on what the target replies with these bytes in it."""
        self.losing = reply

    def freeze(self) -> None:
        """Pass nothing on, and keep every connection open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on again, what was held back first."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._link(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tie a client's connection to one of its own, until both directions have ended."""
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._links |= ends
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, far_writer))
                both.create_task(self._pass(far_reader, writer, replies=True))
        finally:
            self._links -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False
    ) -> None:
        """Pass one direction on, as late as it is to be; its end, or the loss of the other end, too."""
        parcels: asyncio.Queue[Parcel] = asyncio.Queue()
        receiving = asyncio.ensure_future(self._receive(reader, parcels))
        try:
            with contextlib.suppress(OSError):
                while data := await self._due(parcels):
                    if replies and self.losing is not None and self.losing in data:
                        self.losing = None
                        self.cut()
                        return
                    writer.write(data)
                    await writer.drain()
                    self._count(len(data))
            writer.close()
        finally:
            receiving.cancel()

    def _count(self, count: int) -> None:
        self.passed += count
        if self._cut_at is not None and self.passed >= self._cut_at:
            self._cut_at = None
            self.cut()

    async def _due(self, parcels: "asyncio.Queue[Parcel]") -> bytes:
        due, data = await parcels.get()
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        await self._flowing.wait()
        return data

    async def _receive(self, reader: asyncio.StreamReader, parcels: "asyncio.Queue[Parcel]") -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            parcels.put_nowait((asyncio.get_running_loop().time() + self.delay, data))
