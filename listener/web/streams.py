"""A run's log over HTTP while it grows: JSON Lines, or server-sent events that a client can resume."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from listener import follow
from listener.errors import BadRequestError, StoreError
from listener.events import Event, Place
from listener.queue import LogLine, RunStore
from listener.runs import ENDED, Run, State
from listener.web.protocol import EVENTS, NDJSON

T = TypeVar("T")

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment (or an empty line) keeps proxies from closing the stream."""

SLOWEST = 30.0
"""Seconds that a slow reader may block a write; then its connection is closed, and it may resume."""


class ReaderGoneError(Exception):
    """The client has gone, or reads too slowly."""


class LogStream:
    """A response that writes log lines in the form that the client prefers."""

    def __init__(self, form: str, headers: Mapping[str, str]) -> None:
        self._events = form == EVENTS
        self._response = web.StreamResponse(
            headers={
                "Content-Type": f"{EVENTS if self._events else NDJSON}; charset=utf-8",
                "X-Accel-Buffering": "no",
                **headers,
            }
        )

    @contextlib.asynccontextmanager
    async def sent(self, request: web.Request) -> AsyncGenerator[web.StreamResponse, None]:
        """Send the headers, then what the block sends; yield the response, which ends with the block.

        After the headers there can be no other answer: if the reader has gone or the store fails, the
        connection is cut. A client that sees the cut resumes.
        """
        await self._response.prepare(request)
        try:
            yield self._response
            async with asyncio.timeout(SLOWEST):
                await self._response.write_eof()
        except (ReaderGoneError, StoreError, TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()

    async def line(self, line: LogLine) -> None:
        """Send one log line; its sequence number is the event's id."""
        if self._events:
            await self._write(f"id: {line.sequence}\ndata: {line.text}\n\n")
        else:
            await self._write(f"{line.text}\n")

    async def events(self, events: Iterable[Event]) -> None:
        """Send events at once; the place of each is its id."""
        if self._events:
            await self._write("".join(f"id: {each.place}\ndata: {each.text}\n\n" for each in events))
        else:
            await self._write("".join(f"{each.text}\n" for each in events))

    async def still_at(self, place: Place) -> None:
        """Send only the id from which the client may resume, so that proxies keep the connection."""
        # A block without data sets the client's last event id, and is not an event (HTML standard, 9.2.6).
        await self._write(f"id: {place}\n\n" if self._events else "\n")

    async def end(self, facts: Mapping[str, Any], place: Place | None = None) -> None:
        """Send the last event, with the id from which the client may resume."""
        text = json.dumps(facts, ensure_ascii=False)
        named = "" if place is None else f"id: {place}\n"
        await self._write(f"{named}event: end\ndata: {text}\n\n" if self._events else f"{text}\n")

    async def keep_alive(self) -> None:
        """Send something without a meaning, so that proxies keep the connection."""
        await self._write(": \n\n" if self._events else "\n")

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(SLOWEST):
                await self._response.write(text.encode())
        except (TimeoutError, ConnectionError) as error:
            raise ReaderGoneError from error


async def send_lines(stream: LogStream, store: RunStore, run_id: str, after: int = 0) -> None:
    """Send a run's lines after the number `after`, until the run has ended."""
    lines = follow.lines(store, run_id, after)
    async with contextlib.aclosing(_with_silences(lines)) as coming:
        async for line in coming:
            if line is None:
                await stream.keep_alive()
            else:
                await stream.line(line)


async def _with_silences(lines: AsyncGenerator[LogLine, None]) -> AsyncGenerator[LogLine | None, None]:
    """Yield the lines, and None after each `KEEP_ALIVE` seconds without a line."""
    coming = asyncio.ensure_future(anext(lines, None))
    try:
        while True:
            # Unlike `wait_for`, `wait` cancels nothing on a timeout: the next line is not lost.
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE)
            if not done:
                yield None
                continue
            line = coming.result()
            if line is None:
                return
            coming = asyncio.ensure_future(anext(lines, None))
            yield line
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        await lines.aclose()


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; raise `TimeoutError` if the listener stops first."""
    working = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise TimeoutError
        return working.result()
    finally:
        stop.cancel()
        working.cancel()
        # Wait for its end: it may hold a subscription to the store, which has to end before the store does.
        await asyncio.wait({working})


async def send_log(
    request: web.Request, store: RunStore, run: Run, form: str, stopping: asyncio.Event
) -> web.StreamResponse:
    """Answer with the run's log, from the line where the client was: to the run's end, or what is stored now.

    If the listener stops, the stream is cut; the client resumes from there.
    """
    after, follow_on = _resume_at(request), following(request)
    if run.state in ENDED and form == EVENTS and after >= run.lines > 0:
        # 204 tells an EventSource not to connect again (HTML standard, 9.2.3).
        return web.Response(status=204)
    stream = LogStream(form, {"X-Run-Id": run.id})
    async with stream.sent(request) as response:
        if follow_on:
            await unless(stopping, send_lines(stream, store, run.id, after))
        else:
            await _send_stored(stream, store, run.id, after)
        ended = await store.run(run.id)
        if form == EVENTS:
            await stream.end({"state": ended.state.value, "successor": ended.successor})
    return response


async def _send_stored(stream: LogStream, store: RunStore, run_id: str, after: int) -> None:
    """Send the lines that are stored by now."""
    while batch := await store.lines(run_id, after):
        for line in batch:
            await stream.line(line)
        after = batch[-1].sequence


def following(request: web.Request) -> bool:
    """Return whether a client also wants what comes later, not only what is stored."""
    said = request.query.get("follow", "true")
    if said not in {"true", "false"}:
        raise BadRequestError("follow must be true or false.")
    return said == "true"


def _resume_at(request: web.Request) -> int:
    """Return the number of the last line that the client has: from `Last-Event-ID`, or `?after=`."""
    said = request.headers.get("Last-Event-ID") or request.query.get("after") or "0"
    if not (said.isascii() and said.isdigit() and len(said) <= len(str(1 << 31))):
        raise BadRequestError("Last-Event-ID and after must be the number of a log line.")
    return int(said)


async def send_trigger(stream: LogStream, store: RunStore, trigger_id: str) -> Run:
    """Send the log of the run that serves a trigger, then of its successors; return the last one."""
    while True:
        run = await store.serving(trigger_id)
        await send_lines(stream, store, run.id)
        run = await store.run(run.id)
        if run.state is not State.SUPERSEDED:
            return run
