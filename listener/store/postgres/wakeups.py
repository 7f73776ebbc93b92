"""Notifications from the other listeners, on a connection of its own.

A notification is only a hint to look at the tables. Those that were sent while the connection was lost are
gone: so everybody is woken once after each reconnect.
"""

import asyncio
from contextlib import suppress

from listener.store.postgres.schema import LOCK, OPEN
from listener.store.postgres.server import Server, away
from listener.store.postgres.writer import CHANNEL, EVENTS_ONLY
from listener.store.signals import Signals

PAUSE = 0.5
"""Seconds before the next try to connect."""
CHECK = 5.0
"""Seconds without a notification after which the connection is tested."""


class Wakeups:
    """Sets the signals of this listener when another listener has changed something."""

    def __init__(self, server: Server, signals: Signals, node: str) -> None:
        self._server = server
        self._signals = signals
        self._node = node
        self._listening = asyncio.Event()
        self.failing = ""
        """Why it can't listen, if the server is available; else empty."""
        self._running = asyncio.create_task(self._run(), name="store wake-ups")

    async def begun(self) -> None:
        """Wait until it listens for the first time."""
        await self._listening.wait()

    async def close(self) -> None:
        """Stop listening."""
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 (if this task ended, only the slow poll would be left)
                self.failing = "" if away(error) else f"The listener can't receive notifications: {error!r}"
            await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        connection = await self._server.connect()
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.execute("SELECT pg_advisory_lock_shared($1, $2)", LOCK, OPEN)
            await connection.add_listener(CHANNEL, self._heard)
            self._signals.ring_all()
            self._listening.set()
            self.failing = ""
            while not lost.is_set():
                try:
                    async with asyncio.timeout(CHECK):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()
            await asyncio.sleep(0)

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        node, _, run_id = str(payload).partition(" ")
        if node != self._node:
            changed = [run_id] if run_id not in {"", EVENTS_ONLY} else []
            self._signals.ring(changed, work=not run_id)
