"""Secrets, searched for wherever the listener writes, answers, or shows itself to the machine."""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

from listener import config
from listener.deliveries import READERS
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.attack.conftest import Besiege
from tests.attack.siege import JSON, Siege
from tests.e2e.cli.shell import Shell
from tests.e2e.test_hooks import own_delivery, own_hook
from tests.listening import ADMIN, MEMBER, SYNC_STAGING
from tests.traps import processes


def made(scheme: str) -> str:
    """A random secret of a scheme."""
    text = secrets.token_hex(20)
    if scheme == "standard-webhooks":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return f"deployer:{text}" if scheme in {"basic", "azure-devops"} else text


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it may turn up, its halves too: who sees one has half of the work."""
    raw = secret.encode()
    for text in (raw, raw.partition(b":")[2] or raw):
        yield from (text, base64.b64encode(text), text.hex().encode(), quote(text, safe="").encode())
        yield text[::-1]
        if len(text) >= 32:
            yield from (text[: len(text) // 2], text[len(text) // 2 :])


class Watch:
    """Keeps what all processes show of themselves, and every answer."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = {name: set(spellings(secret)) for name, secret in known.items()}
        self.seen: dict[str, set[bytes]] = {}
        self.started: set[bytes] = set()
        """The programs that the daemon has started, itself included."""

    def add(self, where: str, text: bytes) -> None:
        self.seen.setdefault(where, set()).add(text)

    def found(self) -> list[tuple[str, str]]:
        """Where which secret was seen."""
        return [
            (where, name)
            for where, texts in self.seen.items()
            for name, spelt in self._known.items()
            if any(each in text for text in texts for each in spelt)
        ]

    async def processes_of(self, daemon: int) -> None:
        """Look at the command lines and environments of what the daemon, commands and hosts start."""
        while True:
            for pid in processes():
                self._look(pid, daemon)
            await asyncio.sleep(0.005)

    def _look(self, pid: int, daemon: int) -> None:
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):  # it has ended
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            # Those of other tests have tokens of the same name.
            if {pid, parent} & {daemon, os.getpid()} or b"sync-staging-" in command:
                self.add("command lines", command)
            if daemon in {pid, parent}:
                self.started.add(command.partition(b"\0")[0])
                self.add("environments", (folder / "environ").read_bytes())


SCHEMES = tuple(READERS)


async def test_no_secret_is_found_in_what_the_listener_writes_answers_or_shows(
    besiege: Besiege, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    known = {scheme: made(scheme) for scheme in SCHEMES}
    hooks = {scheme: own_hook(scheme, secrets=[secret]) for scheme, secret in known.items()}
    known |= {"studio": secrets.token_hex(20), "admin": ADMIN, "member": MEMBER}
    known["key of the listener"] = "".join(sshd.identity.read_text().splitlines()[2:-1])[:60]
    store = tmp_path / "secret-of-the-studio"
    store.write_text(known["studio"])
    store.chmod(0o600)
    studio = {"url": "http://127.0.0.1:9/studio", "token": f"file:{store}", "timeout": 1}
    other = tmp_path / "other.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(other))
    far = {"host": "studio", "path": str(other), "branch": "staging"}
    sites = {
        "mysite": {
            "repository": {"host": "studio", "path": str(published.path)},
            "environments": {"staging": {"follow": True}, "far": {"repositories": [far]}},
        },
        "broken": {
            "repository": {"host": "studio", "path": str(tmp_path / "nowhere")},
            "environments": {"staging": {"follow": True}},
        },
    }
    sync = {"quiet": 0.1, "patience": 1, "backoff": 0.1, "attempts": 1, "cache": str(tmp_path / "cache")}
    watch = Watch(known)
    async with (
        besiege(hooks=hooks, sites=sites, studio=studio, sync=sync) as siege,
        watching(watch, siege),
    ):
        settings = config.load(tmp_path / "listener.yaml")
        for scheme in SCHEMES:
            await drive(siege, watch, scheme, own_delivery(settings, scheme, known[scheme]))
        await call(siege, watch)
        shell = Shell(tmp_path / "listener.yaml")
        for words in (
            ("check-config", "--json"),
            ("hook", "send", "github"),
            ("hook", "send", "path"),
            ("status",),
        ):
            done = await shell(*words)
            watch.add("commands", (done.out + done.err).encode())
        await siege.quiet()
    gather(watch, siege, tmp_path)
    assert b"git" in watch.started
    assert watch.found() == []
    siege.tell(
        secrets=len(known), octets_searched=sum(len(text) for texts in watch.seen.values() for text in texts)
    )


@contextlib.asynccontextmanager
async def watching(watch: Watch, siege: Siege) -> AsyncIterator[None]:
    looking = asyncio.create_task(watch.processes_of(siege.daemon.process.pid))
    try:
        yield
    finally:
        looking.cancel()


async def drive(siege: Siege, watch: Watch, scheme: str, delivery: tuple[str, bytes, dict[str, str]]) -> None:
    """Deliver well, with another body, with too much, and in places where no secret belongs."""
    path, body, headers = delivery
    good = [(name, value) for name, value in headers.items() if name != "Content-Type"]
    for where in (path, f"{path}/more", f"{path}?x=1", path.upper(), f"{path}%00"):
        for sent, more in (
            (body, [JSON]),
            (body + b"x", [JSON]),
            (b"", []),
            (b"\xff", [("Content-Type", "x/y")]),
        ):
            for again in ([], good):
                answer = await siege.ask("POST", where, *good, *again, *more, body=sent, bearer=None)
                watch.add("answers", answer.head + answer.body)
    answer = await siege.ask("GET", path, *good, bearer=None)
    watch.add("answers", answer.head + answer.body)


async def call(siege: Siege, watch: Watch) -> None:
    """Make calls that succeed and that fail, and read all that there is to read."""
    for site, environment in (("mysite", "staging"), ("mysite", "far"), ("broken", "staging"), ("x", "y")):
        body = json.dumps({"site_id": site, "environment": environment}).encode()
        for token in (ADMIN, MEMBER):
            answer = await siege.ask(
                "POST", SYNC_STAGING, JSON, body=body, bearer=("Authorization", f"Bearer {token}")
            )
            watch.add("answers", answer.head + answer.body)
    for run in await siege.quiet():
        for path in (
            f"/api/v1/runs/{run['id']}",
            f"/api/v1/runs/{run['id']}/log",
            "/api/v1/sites",
            "/api/v1/runs",
        ):
            answer = await siege.ask("GET", path)
            watch.add("answers", answer.head + answer.body)


def gather(watch: Watch, siege: Siege, folder: Path) -> None:
    """Add the log, the database, and every other file that was made."""
    watch.add("log", siege.daemon.log.read_bytes())
    with contextlib.closing(sqlite3.connect(folder / "listener.db")) as database:
        for line in database.iterdump():
            watch.add("database", line.encode())
    for file in folder.glob("listener.db*"):
        watch.add("database file", file.read_bytes())
    for file in (folder / "cache").rglob("*"):
        if file.is_file():
            watch.add("cache", file.read_bytes())


def test_the_search_finds_what_is_there() -> None:
    """Else it would prove nothing."""
    secret = secrets.token_hex(20)
    for spelt in (secret, secret[::-1], secret[:20], base64.b64encode(secret.encode()).decode()):
        watch = Watch({"one": secret})
        watch.add("log", f"x {spelt} y".encode())
        assert watch.found() == [("log", "one")], spelt
