"""Secrets, searched for wherever the listener writes, answers, or shows itself to the machine."""

import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

from aiohttp import ClientSession

from listener.config.settings import load
from listener.deliveries import READERS
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
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


LOOKS = 40
"""At each process."""


class Watch:
    """Keeps what all processes show of themselves, and every answer."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = {name: set(spellings(secret)) for name, secret in known.items()}
        self.seen: dict[str, set[bytes]] = {}
        self.started: set[bytes] = set()
        """The programs that the daemon has started, itself included."""

    def know(self, name: str, secret: str) -> None:
        """Search for one more."""
        self._known[name] = set(spellings(secret))

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
        looks: Counter[int] = Counter()
        while True:
            # What is young may still become another program; what is old has shown itself.
            for pid in processes():
                if looks[pid] < LOOKS:
                    looks[pid] += 1
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
    url = "http://127.0.0.1:9/studio"
    studio = {"url": url, "token": f"file:{store}", "timeout": 1, "callers": ["admin"]}
    known["somebody's Studio token"] = ".".join(secrets.token_urlsafe(16) for _ in range(5))
    figures = free_port()
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
        besiege(
            anew=True,  # What it shows of itself is what it was started with.
            hooks=hooks,
            sites=sites,
            studio=studio,
            sync=sync,
            metrics={"listen": f"127.0.0.1:{figures}"},
        ) as siege,
        watching(watch, siege),
    ):
        settings = load(tmp_path / "listener.yaml")
        for scheme in SCHEMES:
            await drive(siege, watch, scheme, own_delivery(settings, scheme, known[scheme]))
        await call(siege, watch)
        await show(siege, watch, known["somebody's Studio token"])
        watch.add("figures", await scraped(figures))
        shell = Shell(tmp_path / "listener.yaml")
        for words in (
            ("check-config", "--json"),
            ("doctor", "--json", "--verbose"),
            ("doctor", "--verbose"),
            ("hook", "send", "github"),
            ("hook", "send", "path"),
            ("hook", "list"),
            ("token", "list"),
            ("deliveries", "list"),
            ("status",),
        ):
            done = await shell(*words)
            watch.add("commands", (done.out + done.err).encode())
        await siege.quiet()
        # Git is there for some milliseconds only, and may not have been there when somebody looked.
        while b"git" not in watch.started:
            await shell("sync", "mysite", "far", "--dry-run")
    gather(watch, siege, tmp_path)
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


async def show(siege: Siege, watch: Watch, studios: str) -> None:
    """Show credentials in every way that there is, good and bad, and read what is on record of it."""
    sign_in = await siege.ask(
        "POST", "/session", JSON, body=json.dumps({"token": ADMIN}).encode(), bearer=None
    )
    set_cookie = re.search(rb"sync-staging=([^;]+)", sign_in.head)
    assert set_cookie is not None
    session = set_cookie[1].decode()
    watch.know("a session", session)
    watch.add("answers", sign_in.body)
    basic = base64.b64encode(f"x:{ADMIN}".encode()).decode()
    for credential in (
        ("Cookie", f"sync-staging={session}"),
        ("Authorization", f"Basic {basic}"),
        ("Authorization", f"Bearer {studios}"),
        ("Authorization", f"Bearer {ADMIN} {MEMBER}"),
        ("Authorization", f"Digest {ADMIN}"),
        ("X-Token", ADMIN),
    ):
        for path in ("/", "/api/v1/sites", "/api/v1/deliveries?limit=200", f"/api/v1/runs?token={MEMBER}"):
            answer = await siege.ask("GET", path, credential, bearer=None)
            watch.add("answers", answer.head + answer.body)
    for path in ("/api/v1/hooks", "/api/v1/tokens", "/openapi.json", "/api/v1/deliveries?limit=200"):
        answer = await siege.ask("GET", path)
        assert answer.status == 200
        watch.add("answers", answer.head + answer.body)


async def scraped(port: int) -> bytes:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        told = await answer.read()
    assert b"sync_staging_refused_deliveries_total" in told
    return told


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
