"""What a stranger may say over HTTP: aiohttp's parser and the whole application, without a network."""

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from listener.config.settings import load
from listener.edge.connection import Connection
from listener.edge.parser import server_log
from listener.system import System
from tests.fuzz.target import Target
from tests.kept_log import KeptLog
from tests.listening import ADMIN, GITHUB_SECRET, RESET_STAGING, SYNC_STAGING, push, signed

LIMIT = 5.0
"""Seconds within which everything that was said must be answered."""


class Wire(asyncio.Transport):
    """The other end of a connection: keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 12345)})
        self.written = bytearray()
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Everything is taken at once."""

    def pause_reading(self) -> None:
        """There is no more to read."""

    def resume_reading(self) -> None:
        """There is no more to read."""


class Surface(logging.Handler):
    """A listener without hosts and without a worker, spoken to in this process."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._folder = tempfile.TemporaryDirectory(prefix="sync-staging-fuzz-")
        self.loop = asyncio.new_event_loop()
        logging.getLogger("aiohttp.server").addHandler(self)
        logging.getLogger("aiohttp.server").propagate = False
        self.log = KeptLog()
        self.system = System(load(_written(Path(self._folder.name))))
        for part in (self.system, self.system.intake, self.system.directory):
            vars(part)["log" if part is self.system else "_log"] = self.log
        self.loop.run_until_complete(self._open())

    def emit(self, record: logging.LogRecord) -> None:
        """Take what the server did not expect for a defect."""
        self.log.error("defect", exc_info=record.exc_info and record.exc_info[1])

    async def _open(self) -> None:
        await self.system.store.open()
        self.runner = web.AppRunner(
            self.system._application(),
            auto_decompress=False,
            access_log=None,
            logger=server_log(),
            lingering_time=0,
        )
        await self.runner.setup()

    def end(self) -> None:
        logging.getLogger("aiohttp.server").removeHandler(self)
        logging.getLogger("aiohttp.server").propagate = True
        self.loop.run_until_complete(self._close())
        self.loop.close()
        self._folder.cleanup()

    async def _close(self) -> None:
        await self.runner.cleanup()
        await self.system.close()
        await self.system.store.close()

    async def say(self, data: bytes) -> bytes:
        """Say it on a connection, hang up, and return what was answered."""
        server = self.runner.server
        assert server is not None
        shared = self.system.edge.acceptor(server, None)._shared
        protocol, wire = Connection(shared, "192.0.2.1", trusted=False), Wire()
        protocol.connection_made(wire)
        for piece in _pieces(data):
            protocol.data_received(piece)
            await asyncio.sleep(0)
        protocol.eof_received()
        async with asyncio.timeout(LIMIT):
            await _quiet(protocol, wire)
            protocol.connection_lost(None)
            await _quiet(protocol, wire)
        return bytes(wire.written)


async def _quiet(protocol: web.RequestHandler, wire: Wire) -> None:
    """Wait until everything is answered."""
    for _ in range(3):
        await asyncio.sleep(0)
    while protocol._current_request or (protocol._messages and not wire.is_closing()):
        await asyncio.sleep(0)


def _pieces(data: bytes) -> list[bytes]:
    """`~~` stands between two pieces that arrive after each other."""
    return [piece.replace(b"\\r\\n", b"\r\n") for piece in data.split(b"~~")]


def _written(folder: Path) -> Path:
    for name in ("known_hosts", "id_ed25519"):
        (folder / name).write_text("content\n")
        (folder / name).chmod(0o600)
    whole = {
        "server": {"wait": 0, "body_timeout": 0.02},
        "store": f"sqlite://{folder}/listener.db",
        "ssh": {"known_hosts": "known_hosts", "identity": "id_ed25519"},
        "hosts": {"studio": {"address": "127.0.0.1", "port": 1, "user": "crafter"}},
        "sites": {
            "mysite": {
                "repository": {"host": "studio", "path": "/srv/mysite"},
                "environments": {"staging": {"follow": True}},
            }
        },
        "hooks": {
            "forge": {
                "scheme": "github",
                "secrets": [GITHUB_SECRET],
                "repositories": {"acme/mysite": "mysite"},
            },
            "hidden": {"scheme": "path", "secrets": ["0123456789abcdef0123"], "site": "mysite"},
        },
        "tokens": [{"name": "root", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest(), "role": "admin"}],
        "metrics": {"listen": "off"},
    }
    path = folder / "listener.yaml"
    path.write_text(json.dumps(whole))
    path.chmod(0o600)
    return path


_SURFACES: list[Surface] = []


def surface() -> Surface:
    """The one that all share, made when it is first needed."""
    if not _SURFACES:
        _SURFACES.append(Surface())
    return _SURFACES[0]


def close() -> None:
    """Close it."""
    for each in _SURFACES:
        each.end()
    _SURFACES.clear()


SECRETS = (GITHUB_SECRET, "0123456789abcdef0123")


def try_http(data: bytes) -> None:
    """Whatever is said is answered in time, without a defect, and without a secret."""
    shared = surface()
    shared.log.lines.clear()
    answered = shared.loop.run_until_complete(shared.say(data))
    for line in shared.log.lines:
        if line["event"] == "defect":
            raise AssertionError(line) from line["exc_info"]
    logged = repr(shared.system.clean(shared.log.lines))
    assert not any(secret in logged for secret in SECRETS), "a secret is logged"
    # What is no HTTP is answered by aiohttp alone, which quotes it to the one who said it.
    quoted = answered.startswith(b"HTTP/1.0 400")
    assert quoted or not any(secret.encode() in answered for secret in SECRETS), "a secret is told"
    assert not answered or answered.startswith(b"HTTP/"), answered[:100]


def request(method: str, path: str, body: bytes = b"", /, **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def http_seeds() -> Iterator[bytes]:
    token = {"Authorization": f"Bearer {ADMIN}"}
    asked = b'{"site_id": "mysite", "environment": "staging"}'
    one = "/api/v1/sites/mysite/environments/staging"
    yield request("POST", SYNC_STAGING, asked, **token)
    yield request(
        "POST", f"/studio{RESET_STAGING}", b'{"site_id": "mysite"}', **token, Prefer="respond-async, wait=0"
    )
    yield request(
        "POST", SYNC_STAGING, asked, **token, Accept="text/event-stream;q=0.9, */*;q=0.1", Prefer="wait=0"
    )
    yield request("POST", "/hooks/forge", push(), **signed(push(), "d-1"))
    yield request(
        "POST", "/hooks/forge", b"payload=%7B%7D", **{"Content-Type": "application/x-www-form-urlencoded"}
    )
    yield request(
        "POST",
        "/hooks/hidden/0123456789abcdef0123",
        b'{"site_id": "mysite"}',
        Content_Type="application/json",
    )
    yield request("GET", "/api/v1/runs?state=failed&limit=3&before=x", **token)
    yield request(
        "GET", "/api/v1/runs/019a0000-0000-7000-8000-000000000000/log?after=1", **token, Last_Event_ID="5"
    )
    yield request("POST", f"{one}/hold", b'{"reason": "a test"}', **token) + request(
        "POST", f"{one}/release", **token
    )
    yield request("GET", "/openapi.json", If_None_Match='"x", W/"y"') + request("GET", "/readyz")
    chunked = {**signed(push(), "d-2"), "Transfer-Encoding": "chunked"}
    head = request("POST", "/hooks/forge", **chunked).replace(b"Content-Length: 0\r\n", b"")
    yield head + b"5\r\n" + push()[:5] + b"\r\n~~0\r\n\r\n"
    both = request("POST", "/hooks/forge", b"01234", **{"Transfer-Encoding": "chunked"})
    yield both + b"0\r\n\r\nGET"
    yield request("GET", "/api/v1/sites/..%2f..%00/x?%ff=%zz", **token)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


TARGETS = {"http": Target(try_http, http_seeds)}
