"""A configured listener to test against: in this process, or as a daemon of its own that can be killed."""

import asyncio
import hashlib
import hmac
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from listener.config.address import read_server
from listener.rehearsal.sshd import free_port
from tests import forks
from tests.forks import Process

ADMIN = "admin-token-of-the-tests"
MEMBER = "member-token-of-the-tests"
GITHUB_SECRET = "It's a Secret to Everybody"

SYNC_STAGING = "/api/1/services/api/1/publish/sync-staging.json"
RESET_STAGING = "/api/1/services/api/1/publish/reset-staging.json"


def configuration(folder: Path, sshd: Any, path: Path, **overrides: Any) -> dict[str, Any]:
    """The configuration of one site whose repository lies at `path` on `sshd`; overrides replace sections."""
    sha256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in (ADMIN, MEMBER)}
    whole: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": free_port(), "drain": 5, "refusals": 10**6},
        "store": f"sqlite:///{folder}/listener.db",
        "ssh": {"known_hosts": str(sshd.known_hosts), "identity": str(sshd.identity)},
        "hosts": {"studio": {"address": "127.0.0.1", "port": sshd.port, "user": sshd.user}},
        "sites": {
            "mysite": {
                "repository": {"host": "studio", "path": str(path)},
                "environments": {"staging": {"follow": True}},
            }
        },
        "hooks": {
            "forge": {
                "scheme": "github",
                "secrets": [GITHUB_SECRET],
                "repositories": {"acme/mysite": "mysite"},
            }
        },
        "tokens": [
            {"name": "root", "sha256": sha256[ADMIN], "role": "admin"},
            {"name": "editors", "sha256": sha256[MEMBER], "role": "member", "sites": ["mysite"]},
        ],
        "sync": {"quiet": 0.2, "patience": 3, "backoff": 0.1, "backoff_most": 0.5},
        "metrics": {"listen": "127.0.0.1:0"},
        "log": {"format": "json", "level": "debug"},
    }
    whole |= overrides
    # What looks by itself, and syncs, would be in the way of most tests.
    whole["sync"] = {"interval": 0, **whole["sync"]}
    return whole


def on_a_closed_port(folder: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """The same configuration for a host that is known and does not answer."""
    port = free_port()
    public = Path(whole["ssh"]["known_hosts"]).read_text().split(maxsplit=1)[1]
    known_hosts = folder / "known_hosts_of_nobody"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public}")
    studio = {**whole["hosts"]["studio"], "port": port}
    return {**whole, "ssh": {**whole["ssh"], "known_hosts": str(known_hosts)}, "hosts": {"studio": studio}}


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice: a configuration has no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(folder: Path, whole: dict[str, Any]) -> Path:
    """The path of the configuration, written to a file that only its owner reads."""
    path = folder / "listener.yaml"
    path.write_text(yaml.dump(whole, Dumper=_Plain))
    path.chmod(0o600)
    return path


def push(ref: str = "refs/heads/live", repository: str = "acme/mysite", **more: Any) -> bytes:
    """The body of a forge's push."""
    body = {"ref": ref, "after": "1" * 40, "deleted": False, "repository": {"full_name": repository}, **more}
    return json.dumps(body).encode()


def signed(body: bytes, delivery: str, event: str = "push", secret: str = GITHUB_SECRET) -> dict[str, str]:
    """The headers with which GitHub sends a body."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={digest}",
    }


class Client:
    """Speaks HTTP to a listener."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def call(
        self, method: str, path: str, *, token: str | None = ADMIN, **more: Any
    ) -> tuple[int, Any, Any]:
        """Status, parsed JSON (or text), headers."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, self.url + path, headers=headers, **more) as response:
            text = await response.text()
            body = (
                json.loads(text)
                if "json" in response.content_type and "nd" not in response.content_type
                else text
            )
            return response.status, body, response.headers

    async def sync(
        self, environment: str = "staging", site: str = "mysite", **more: Any
    ) -> tuple[int, Any, Any]:
        """The Crafter call."""
        return await self.call(
            "POST", SYNC_STAGING, json={"site_id": site, "environment": environment}, **more
        )

    async def deliver(self, delivery: str, body: bytes | None = None, **more: Any) -> tuple[int, Any, Any]:
        """A signed push to the hook `forge`."""
        body = push() if body is None else body
        return await self.call(
            "POST", "/hooks/forge", token=None, data=body, headers=signed(body, delivery, **more)
        )

    async def ended(self, run: str) -> dict[str, Any]:
        """A run, once it has ended (followed through its successors)."""
        while True:
            _, view, _ = await self.call("GET", f"/api/v1/runs/{run}")
            if view["state"] == "superseded":
                run = view["successor"]
            elif view["state"] in {"succeeded", "failed", "cancelled"}:
                found: dict[str, Any] = view
                return found
            else:
                await asyncio.sleep(0.02)

    async def first_event(self, run: str) -> dict[str, Any]:
        """The first line of a run's log, read as soon as it is stored."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with self.session.get(f"{self.url}/api/v1/runs/{run}/log", headers=headers) as response:
            return dict(json.loads(await response.content.readline()))

    async def events(self, run: str) -> list[dict[str, Any]]:
        """A run's whole log, read until the run has ended."""
        _, text, _ = await self.call("GET", f"/api/v1/runs/{run}/log")
        return [json.loads(line) for line in text.splitlines() if line.strip()]


class Daemon:
    """`sync-staging serve` in a process of its own: a forked one, or `anew` one that was started."""

    def __init__(self, configuration: Path, *, anew: bool = False, cwd: Path | None = None) -> None:
        self.configuration = configuration
        self._anew = anew
        self._cwd = cwd
        address = read_server(configuration)
        self.url = f"{'https' if address.certificate else 'http'}://127.0.0.1:{address.port}"
        self.log = configuration.with_suffix(".log")
        self._process: Process | None = None
        self._began = 0
        """Where the log of this start begins."""

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._began = log.tell()
            words = ("serve", "--config", str(self.configuration))
            self._process = (
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "listener", *words, stderr=log, cwd=self._cwd
                )
                if self._anew
                else await forks.start(*words, stderr=log.fileno())
            )
        async with aiohttp.ClientSession() as session:
            while not await self.ready(session):
                if self._process.returncode is not None:
                    raise RuntimeError(self.log.read_text())
                await asyncio.sleep(0.02)

    async def ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz", ssl=False) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    async def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """End it as systemd does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    def events(self) -> list[dict[str, Any]]:
        """What it has written to its log so far."""
        return self._events_from(0)

    async def metrics_port(self) -> int:
        """The port of its figures. A thread writes the log: the line may come after the first answer."""
        while True:
            for event in self._events_from(self._began):
                if event["event"] == "listening":
                    return int(event["metrics"])
            await asyncio.sleep(0.02)

    async def logged(self) -> list[dict[str, Any]]:
        """Everything that it has logged until now, at level debug: a request of our own marks the place."""
        before = self._marks()
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/healthz", ssl=False):
            pass
        while self._marks() == before:
            await asyncio.sleep(0.02)
        return self.events()

    def _marks(self) -> int:
        return sum(event.get("path") == "/healthz" for event in self.events())

    def _events_from(self, place: int) -> list[dict[str, Any]]:
        whole = self.log.read_bytes()[place:].rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.decode().split("\n") if line]


@asynccontextmanager
async def daemon(configuration: Path, *, anew: bool = False) -> AsyncIterator[Daemon]:
    """A running daemon, ended at last."""
    running = Daemon(configuration, anew=anew)
    await running.start()
    try:
        yield running
    finally:
        if running.process.returncode is None:
            await running.kill()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """A client of a listener."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        yield Client(session, url)
