"""Hosts that lie: that never answer, never end, or answer what no script of ours would."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.ssh.git import MAX_OUTPUT
from listener.ssh.service import FETCH, open_service
from tests.attack.conftest import Besiege
from tests.attack.impostor import (
    Behaviour,
    Impostor,
    advertising,
    answering,
    greeting_then,
    pouring,
    silent,
)
from tests.attack.siege import Siege
from tests.conftest import age

LIMITS = {
    "quiet": 0.1,
    "patience": 1,
    "backoff": 0.1,
    "backoff_most": 0.2,
    "attempts": 1,
    "step_timeout": 2,
    "connect_timeout": 2,
    "transfer_timeout": 6,
    "interval": 2,
}

A, B = b"a" * 40, b"b" * 40

OBSERVED = b"\n".join(
    (
        b"now 1700000000.000",
        b"bare yes",
        b"worktree /srv/site",
        b"head ref: refs/heads/master",
        b"ref refs/heads/live:" + A + b":" + A + b":" + A + b":::<e@example.com>:",
        b"ref refs/heads/staging:" + B + b":" + B + b":" + B + b":::<e@example.com>:",
        b"file HEAD 1600000000.000 23 42",
        b"seen",
        b"differences",
        b"A\tnew.xml",
        b"counts 1 0 0 0",
        b"",
    )
)


def changed(old: bytes, new: bytes) -> Behaviour:
    assert old in OBSERVED
    return answering(OBSERVED.replace(old, new))


def lies(canary: Path) -> dict[str, Behaviour]:
    option = f"--output={canary}".encode()
    return {
        "a commit that is an option of git's": changed(A, option),
        "a tree that is one": changed(A + b"::", option + b"::"),
        "a commit of the branch that is one": changed(B, option),
        "a commit in capitals": changed(A, A.upper()),
        "a commit of 41 digits": changed(A, A + b"a"),
        "no commit": changed(A, b""),
        "no time": changed(b"now 1700000000.000", b"now"),
        "a time that is none": changed(b"1700000000.000", b"soon"),
        "nothing about the repository": changed(b"bare yes\n", b""),
        "a colon too few": changed(b"::<e", b":<e"),
        "numbers that are none": changed(b"counts 1", b"counts x"),
        "numbers that are missing": changed(b"counts 1 0 0 0", b"counts 1"),
        "a change of an unknown kind": changed(b"A\tnew", b"?\tnew"),
        "a number of 5,000 digits": changed(b"counts 1", b"counts " + b"1" * 5000),
        "nothing": answering(b""),
        "binary": answering(bytes(range(256)) * 1000),
        "an unknown error": answering(b"error no-such-code " + b"x" * (1 << 20)),
        "100,000 errors": answering(b"error busy x\n" * 100_000),
        "50,000 remarks": answering(OBSERVED, b"warning: x\n" * 50_000),
        "one remark of 1 MiB": answering(OBSERVED, b"x" * (1 << 20)),
        "20,000 branches": changed(
            b"seen\n",
            b"".join(b"ref refs/heads/x:" + A + b":" + A + b":" + A + b"::::\n" for _ in range(20_000))
            + b"seen\n",
        ),
    }


ENDLESS: dict[str, Behaviour] = {
    "silence": silent,
    "binary before a word was said": pouring(bytes(range(256)) * 256),
    "standard error before a word was said": pouring(b"x" * (1 << 16), error=True),
    "lines when nothing was asked": greeting_then(b"x\n" * (1 << 15)),
    "standard error when nothing was asked": greeting_then(b"\x1b[2J\n" * (1 << 13), error=True),
    "an answer whose end has no end": greeting_then(b"0" * (1 << 16), framed=True),
}

SERVICES: dict[str, Behaviour] = {
    "branches without end": advertising(None),
    "a million branches": advertising(1_000_000),
    "no git at all": pouring(b"HTTP/1.1 200 OK\r\n" * 1000),
}


@pytest.fixture
async def impostor(sshd: Sshd, tmp_path: Path) -> AsyncIterator[Impostor]:
    async with Impostor(sshd, tmp_path) as running:
        yield running


def surroundings(
    impostor: Impostor, sshd: Sshd, published: Published, tmp_path: Path, *sites: str
) -> dict[str, Any]:
    """A site on a real host, and those of the named ones: on the impostor, taking live from it."""
    real = {"address": "127.0.0.1", "port": sshd.port, "user": sshd.user}
    liar = {**real, "port": impostor.port}
    good = {"host": "studio", "path": str(published.path)}
    known = {
        "mysite": {
            "repository": good,
            "environments": {
                "staging": {"follow": True},
                "far": {"follow": False, "repositories": [{"host": "forge", "path": "/srv/x"}]},
            },
        },
        "evil": {
            "repository": {"host": "evil", "path": "/srv/site"},
            "environments": {"staging": {"follow": True}},
        },
        "taking": {
            "repository": {"host": "evil", "path": "/srv/taken"},
            "environments": {"staging": {"repositories": [{**good, "branch": "other"}]}},
        },
    }
    return {
        "hosts": {"studio": real, "evil": liar, "forge": {**liar, "access": "git"}},
        "ssh": {"known_hosts": str(impostor.known_hosts), "identity": str(sshd.identity)},
        "sync": {**LIMITS, "cache": str(tmp_path / "cache")},
        "sites": {name: known[name] for name in ("mysite", *sites)},
    }


async def check_unharmed(siege: Siege, published: Published) -> None:
    """Check that the other site is listed, and synced by the look at drift and when asked."""
    _, overview, _ = await siege.listener.call("GET", "/api/v1/sites")
    (site,) = [site for site in overview["sites"] if site["site"] == "mysite"]
    (drift,) = [each["drift"] for each in site["environments"] if each["name"] == "staging"]
    assert "error" not in drift
    published.git("update-ref", "refs/heads/staging", "refs/heads/master")
    age(published, 60)
    while published.tree("staging") != published.tree("live"):
        await siege.quiet()
    await siege.synced()


async def test_a_host_that_answers_what_it_can_t_have_seen_is_not_believed(
    besiege: Besiege, impostor: Impostor, sshd: Sshd, published: Published, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    async with besiege(**surroundings(impostor, sshd, published, tmp_path, "evil", "taking")) as siege:
        for what, behaviour in lies(canary).items():
            impostor.behave(behaviour)
            # Where live is taken from there, its commit goes to git's command line here.
            for site in ("evil", "taking") if "commit" in what or "tree" in what else ("evil",):
                siege.tried += 1
                status, _, headers = await siege.listener.sync(site=site)
                assert status == 500, what
                run = await siege.listener.ended(headers["X-Run-Id"])
                assert len(run["outcome"]["message"]) < 2000, what
                assert len(await siege.listener.events(run["id"])) < 200, what
        impostor.behave(answering(b""))
        await check_unharmed(siege, published)
    assert not canary.exists()
    assert siege.daemon.log.stat().st_size < 4 << 20


async def test_a_host_that_never_ends_costs_no_memory_and_no_other_site(
    besiege: Besiege, impostor: Impostor, sshd: Sshd, published: Published, tmp_path: Path
) -> None:
    async with besiege(**surroundings(impostor, sshd, published, tmp_path, "evil")) as siege:
        for what, behaviour in ENDLESS.items():
            impostor.behave(behaviour)
            siege.tried += 1
            began = time.monotonic()
            assert (await siege.listener.sync(site="evil"))[0] == 500, what
            siege.tell(kind=what, seconds=f"{time.monotonic() - began:.1f}")
            await siege.synced()
        await check_unharmed(siege, published)


PORTION = 1 << 14
SLOWLY_READ = 8 << 20
UNREAD_MOST = 12 << 20
"""Bytes: windows, and what the sockets between take."""


async def test_what_a_slow_git_has_not_read_waits_at_the_host(impostor: Impostor, sshd: Sshd) -> None:
    sent = read = unread = 0

    async def talkative(process: asyncssh.SSHServerProcess[bytes]) -> None:
        nonlocal sent
        while True:
            process.stdout.write(b"x" * PORTION)
            await process.stdout.drain()
            sent += PORTION

    impostor.behave(talkative)
    async with (
        asyncssh.connect(
            "127.0.0.1",
            impostor.port,
            username=sshd.user,
            client_keys=[str(sshd.identity)],
            known_hosts=str(impostor.known_hosts),
            config=None,
            agent_path=None,
        ) as connection,
        open_service(connection, FETCH, "/srv/x") as opened,
    ):
        with socket.socket(fileno=os.dup(opened.descriptor)) as git_end:
            git_end.setblocking(False)
            while read < SLOWLY_READ:
                await asyncio.sleep(0.001)
                with contextlib.suppress(BlockingIOError):
                    read += len(git_end.recv(PORTION))
                unread = max(unread, sent - read)
        opened.abandon()
    assert unread < UNREAD_MOST


async def test_a_git_service_that_never_ends_costs_no_memory_and_no_other_site(
    besiege: Besiege, impostor: Impostor, sshd: Sshd, published: Published, tmp_path: Path
) -> None:
    assert MAX_OUTPUT < 128 << 20
    async with besiege(**surroundings(impostor, sshd, published, tmp_path)) as siege:
        for what, behaviour in SERVICES.items():
            impostor.behave(behaviour)
            siege.tried += 1
            began = time.monotonic()
            assert (await siege.listener.sync("far"))[0] == 500, what
            siege.tell(kind=what, seconds=f"{time.monotonic() - began:.1f}")
            await siege.synced()
