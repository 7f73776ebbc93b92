"""Readers of a log that stop reading, or hang up: cut off, logged as nothing worse, and free to resume."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from listener.queue import LogLine
from listener.rehearsal.published import Published
from listener.web import streams
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import ADMIN, Client


async def opened(listener: Client, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a path over a connection whose buffers are small, and read no more than the first line."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(listener.url.rpartition(":")[2]), limit=1 << 10
    )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_a_reader_that_stops_reading_is_cut_off_and_may_resume(
    listening: Start,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(streams, "SLOWEST", 0.3)
    for number in range(900):
        (published.path / f"{number:04}-{'x' * 200}.xml").write_text("staged")
    published.git("add", "--all")
    published.git("commit", "--quiet", "-m", "much that is staged only")
    age(published, 60)
    async with listening() as listener:
        run = (await listener.sync())[2]["X-Run-Id"]
        lines = (await listener.call("GET", f"/api/v1/runs/{run}/log"))[1].splitlines()
        wide = max(lines, key=len)
        assert len(wide) > 150_000
        path = f"/api/v1/runs/{run}/log"
        monkeypatch.setattr(streams.LogStream, "line", repeated(streams.LogStream.line))
        stalled = [await opened(listener, path) for _ in range(3)]
        async with asyncio.timeout(300):
            for reader, _ in stalled:
                await asyncio.sleep(1)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await read_on(reader)
        for _, writer in stalled:
            writer.close()
        monkeypatch.undo()
        _, rest, _ = await listener.call("GET", f"{path}?after={len(lines) - 1}")
        assert json.loads(rest)["event"] == "run"
    assert "defect" not in capsys.readouterr().out


Line = Callable[[streams.LogStream, LogLine], Awaitable[None]]


def repeated(line: Line) -> Line:
    """Send every line two hundred times: more than any buffer on the way takes."""

    async def often(stream: streams.LogStream, each: LogLine) -> None:
        for _ in range(200):
            await line(stream, each)

    return often


async def read_on(reader: asyncio.StreamReader) -> None:
    """Read until the connection ends."""
    while True:
        await reader.readexactly(1 << 16)


async def test_a_reader_that_hangs_up_is_let_go(
    listening: Start, published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    (published.path / ".git" / "index.lock").touch()
    waiting = {"quiet": 0.2, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}
    async with listening(sync=waiting) as listener:
        _, view, _ = await listener.call("POST", "/api/v1/sites/mysite/environments/staging/sync")
        _, writer = await opened(listener, f"/api/v1/runs/{view['id']}/log")
        writer.transport.abort()
        await asyncio.sleep(0.5)
        (published.path / ".git" / "index.lock").unlink()
        assert (await listener.ended(view["id"]))["state"] == "succeeded"
    assert "defect" not in capsys.readouterr().out
