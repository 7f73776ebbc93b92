"""`sync-staging demo`: real syncs on loopback, with every claim checked.

It starts an SSH server, makes a repository as Studio does, and runs a listener on a free port. Then it sends
a signed webhook, a direct call, a replay and a forged delivery, and prints the log as it streams. It removes
everything that it made. The exit status says whether every check passed.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from listener import logs, signatures
from listener.config.settings import load
from listener.redaction import Cleaner
from listener.rehearsal.embedded import EmbeddedServer
from listener.rehearsal.published import Published, build
from listener.rehearsal.sshd import Sshd, find_sshd, free_port
from listener.system import System

CALL = "/api/1/services/api/1/publish/sync-staging.json"


class Failed(Exception):  # noqa: N818 (not an error of the program, but a finding of the demo)
    """A claim is wrong."""


def say(text: str = "") -> None:
    """Print one line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check(claim: str, holds: bool) -> None:
    """Print a claim and whether it holds; raise `Failed` if it does not."""
    say(f"  {'✓' if holds else '✗'} {claim}")
    if not holds:
        raise Failed(claim)


def demo(_arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit status."""
    return asyncio.run(run())


async def run() -> int:
    """Run the demo; return the exit status."""
    started = time.monotonic()
    logs.configure("error", "json", Cleaner())
    try:
        with tempfile.TemporaryDirectory(prefix="sync-staging-demo-") as name:
            folder = Path(name)
            async with _ssh_server(folder) as server:
                published = await asyncio.to_thread(build, folder / "mysite")
                await _with_listener(folder, server, published)
    except Failed as failed:
        say(f"\nThis check failed: {failed}")
        return 1
    say(f"\nEvery check passed, in {time.monotonic() - started:.0f} s. Everything is removed again.")
    return 0


@contextlib.asynccontextmanager
async def _ssh_server(folder: Path) -> AsyncIterator[Sshd | EmbeddedServer]:
    """Run OpenSSH's sshd, or an embedded server if sshd is not installed."""
    keys = folder / "ssh"
    keys.mkdir(mode=0o700)
    if find_sshd() is None:
        async with EmbeddedServer(keys) as embedded:
            say(f"An embedded SSH server listens on 127.0.0.1:{embedded.port} (sshd is not installed).")
            yield embedded
    else:
        with Sshd(keys) as sshd:
            say(f"An OpenSSH sshd listens on 127.0.0.1:{sshd.port}.")
            yield sshd


async def _with_listener(folder: Path, server: Sshd | EmbeddedServer, published: Published) -> None:
    token, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    whole = _configuration(folder, server, published, token, secret)
    path = folder / "listener.yaml"
    path.touch(mode=0o600)
    path.write_text(json.dumps(whole))
    async with System(load(path)) as system:
        await system.listen()
        url = f"http://127.0.0.1:{system.port}"
        say(f"The listener listens on {url}.")
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(url, headers=headers) as session:
            await _Steps(session, published, secret).take()


def _configuration(
    folder: Path, server: Sshd | EmbeddedServer, published: Published, token: str, secret: str
) -> dict[str, Any]:
    """Return the configuration: like the example, with the demo's paths and ports."""
    return {
        "server": {"port": free_port()},
        "metrics": {"listen": "off"},
        "store": f"sqlite:///{folder}/listener.db",
        "ssh": {"known_hosts": str(server.known_hosts), "identity": str(server.identity)},
        "hosts": {"studio": {"address": "127.0.0.1", "port": server.port, "user": server.user}},
        "sites": {
            "mysite": {
                "repository": {"host": "studio", "path": str(published.path)},
                "environments": {"staging": {"follow": True}},
            }
        },
        "hooks": {
            "forge": {"scheme": "github", "secrets": [secret], "repositories": {"acme/mysite": "mysite"}}
        },
        "tokens": [{"name": "demo", "sha256": hashlib.sha256(token.encode()).hexdigest(), "role": "admin"}],
    }


class _Steps:
    """The steps of the demo, in order."""

    def __init__(self, session: aiohttp.ClientSession, published: Published, secret: str) -> None:
        self._session = session
        self._published = published
        self._secret = secret.encode()

    async def take(self) -> None:
        """Take every step."""
        old, live = self._published.commit("staging"), self._published.commit("live")
        say("\nBefore:")
        self._show_branches()
        check("HEAD is on staging, as a publish leaves it", self._published.head().endswith("/staging"))
        say("\nSomebody publishes to live; the forge sends a signed webhook:")
        first = await self._deliver("delivery-1", 202)
        await self._show_log(first["runs"][0])
        say("\nAfter:")
        self._show_branches()
        self._check_branches(old, live)
        say("\nThe forge sends the same delivery again:")
        again = await self._deliver("delivery-1", 200)
        check("the answer is the same", again == first)
        check("no second run was made", len(await self._runs()) == 1)
        say("\nA direct call, as Studio documents it:")
        await self._call({"site_id": "mysite", "environment": "staging"}, 200, {"message": "OK"})
        await self._call(
            {"site_id": "mysite", "environment": "live"}, 404, {"message": "Environment not found"}
        )
        check("staging was already equal to live and has not moved", len(await self._runs()) == 2)  # noqa: PLR2004
        say("\nSomebody sends a forged delivery:")
        await self._forge()

    def _show_branches(self) -> None:
        for branch in ("live", "staging"):
            commit, tree = self._published.commit(branch), self._published.tree(branch)
            count = len(self._published.files(branch))
            say(f"  {branch:8} commit {commit[:12]}  tree {tree[:12]}  {count} files")

    def _check_branches(self, old: str, live: str) -> None:
        published = self._published
        new = published.commit("staging")
        check("the trees of live and staging are equal", published.tree("live") == published.tree("staging"))
        check("live has not moved", published.commit("live") == live)
        check("the old staging commit is an ancestor of the new one", published.is_ancestor(old, new))
        check("so is live: every pull is a fast-forward", published.is_ancestor(live, new))
        check("`git status` in the published repository is clean", published.is_clean())

    async def _deliver(self, delivery: str, expected: int) -> dict[str, Any]:
        body = json.dumps({"ref": "refs/heads/live", "repository": {"full_name": "acme/mysite"}}).encode()
        headers = signatures.sign("github", self._secret, delivery, "push", body, time.time())
        async with self._session.post("/hooks/forge", data=body, headers=headers) as response:
            answer: dict[str, Any] = await response.json()
            say(f"  POST /hooks/forge → {response.status} {json.dumps(answer)}")
            check(f"the status is {expected}", response.status == expected)
        return answer

    async def _show_log(self, run: str) -> None:
        """Print a run's log as it streams, to the end of the run."""
        last: dict[str, Any] = {}
        async with self._session.get(f"/api/v1/runs/{run}/log") as response:
            async for line in response.content:
                if line.strip():
                    last = json.loads(line)
                    say(f"  | {_brief(last)}")
        check("the run succeeded", last.get("outcome") == "succeeded")

    async def _runs(self) -> list[Any]:
        async with self._session.get("/api/v1/runs") as response:
            runs: list[Any] = (await response.json())["runs"]
            return runs

    async def _call(self, body: dict[str, str], expected: int, answer: dict[str, str]) -> None:
        async with self._session.post(CALL, json=body) as response:
            said = await response.json()
            say(f"  POST …/sync-staging.json {json.dumps(body)} → {response.status} {json.dumps(said)}")
            check(
                f"{expected}, exactly as documented",
                (response.status, said) == (expected, answer),
            )

    async def _forge(self) -> None:
        body = b'{"ref": "refs/heads/live", "repository": {"full_name": "acme/mysite"}}'
        headers = signatures.sign("github", b"a guess", "delivery-2", "push", body, time.time())
        async with self._session.post("/hooks/forge", data=body, headers=headers) as response:
            say(f"  POST /hooks/forge → {response.status}")
            check("the listener refuses it", response.status == 401)  # noqa: PLR2004
        check("no run was made", len(await self._runs()) == 2)  # noqa: PLR2004


def _brief(event: dict[str, Any]) -> str:
    """Return one event of a log, without the facts that the demo has printed already."""
    known = {"at", "level", "event", "run", "site", "environment", "host"}
    facts = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in known)
    return f"{event['at'][11:23]} {event['event']:8} {facts}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:12] if len(text) == 40 and text.isalnum() else text  # noqa: PLR2004 (a commit id)
