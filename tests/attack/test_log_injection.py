"""Text from outside that would break a log's lines, drive a terminal, or hide something in it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.attack.conftest import Besiege
from tests.attack.siege import JSON, Siege
from tests.e2e.cli.shell import Shell
from tests.listening import SYNC_STAGING, push, signed

FORGED = '{"event": "run", "outcome": "succeeded", "forged": true}'

EVIL = (
    f"x\n{FORGED}\n",
    f"x\r\n{FORGED}\r\n",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\u2028b\u2029c\x85d",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
    "zero\u200bwidth\ufeff",
    "\x00\x08\x7f",
    "\x1bP+q\x1b\\",
)


def check_plain(text: str) -> None:
    """Check that text moves no cursor, and hides and reorders nothing."""
    wrong = {char for char in text if not char.isprintable() and char != "\n"}
    assert wrong == set()


async def check_log(siege: Siege) -> list[dict[str, object]]:
    """Check that the log is one JSON object a line, none of which was written by others."""
    await siege.daemon.logged()
    text = siege.daemon.log.read_text()
    check_plain(text)
    lines = text.rpartition("\n")[0].split("\n")
    assert all("\u2028" not in line for line in lines)
    events: list[dict[str, object]] = [json.loads(line) for line in lines]
    assert not any("forged" in event for event in events)
    return events


def carried(evil: str) -> bytes:
    """The text as a header can carry it."""
    return evil.replace("\r", "\t").replace("\n", "\t").replace("\0", "\t").encode()


async def test_what_strangers_and_callers_send_stays_within_its_log_line(siege: Siege) -> None:
    for number, evil in enumerate(EVIL):
        body = push()
        for name in (
            "User-Agent",
            "X-GitHub-Delivery",
            "X-GitHub-Event",
            "X-GitHub-Hook-Id",
            "Prefer",
            "Accept",
        ):
            headers = {**signed(body, f"d-{number}-{name}"), name: carried(evil)}
            await siege.deliver(body, headers.items())
        await siege.deliver(body, [("X-Hub-Signature-256", carried(evil))])
        for changed in (
            {"ref": f"refs/heads/{evil}"},
            {"repository": {"full_name": evil}},
            {"deleted": evil},
        ):
            body = json.dumps({**json.loads(push()), **changed}).encode()
            await siege.deliver(body, signed(body, f"d-{number}-{list(changed)}").items())
        for call in ({"site_id": evil, "environment": "staging"}, {"site_id": "mysite", "environment": evil}):
            await siege.ask("POST", SYNC_STAGING, JSON, body=json.dumps(call).encode())
        for path in ("/{}", "/hooks/{}", "/hooks/forge/{}", "/api/v1/sites/{}", "/api/v1/runs/{}/log"):
            await siege.ask("GET", path.format(quote(evil, safe="")))
            await siege.ask("POST", path.format(quote(evil, safe="")))
            raw = evil.encode().replace(b" ", b"").replace(b"\r", b"").replace(b"\n", b"")
            await siege.ask("POST", path.format("X").encode().replace(b"X", raw))
        await siege.ask("GET", f"/api/v1/runs?state={quote(evil)}")
        reason = json.dumps({"reason": evil + "x"}).encode()
        hold = await siege.ask("POST", "/api/v1/sites/mysite/environments/staging/hold", body=reason)
        assert hold.status == 200
        assert all(byte >= 0x20 and byte < 0x7F for byte in hold.body), "an answer is ASCII"
    await check_log(siege)


async def test_a_terminal_is_not_driven_by_what_a_listener_tells(besiege: Besiege, tmp_path: Path) -> None:
    async with besiege() as siege:
        shell = Shell(tmp_path / "listener.yaml")
        reason = json.dumps({"reason": f"because {''.join(EVIL)}"}).encode()
        await siege.ask("POST", "/api/v1/sites/mysite/environments/staging/hold", body=reason)
        done = await shell("status")
        assert done.status == 0
        assert "because" in done.out
        check_plain(done.out + done.err)
        assert FORGED not in done.out.split("\n")
        refused = await siege.ask(
            "POST", SYNC_STAGING, JSON, body=b'{"site_id":"mysite","environment":"staging"}'
        )
        run = refused.head.partition(b"X-Run-Id: ")[2].split()[0].decode()
        for words in (("runs", "show", run), ("runs", "log", run), ("runs", "log", run, "--json")):
            done = await shell(*words)
            check_plain(done.out + done.err)
        await check_log(siege)


NOISY = """\
#!/bin/sh
# A git whose every word is meant for a terminal.
printf '%b' '{evil}' >&2
exec {git} "$@"
"""


@pytest.fixture
def noisy(tmp_path: Path) -> Iterator[Sshd]:
    """A host whose git says hostile things on standard error, and now and then fails."""
    folder = tmp_path / "noisy"
    (folder / "programs").mkdir(parents=True)
    evil = "".join(f"\\0{byte:03o}" for each in EVIL for byte in each.encode())
    real = next(path for path in ("/usr/bin/git", "/usr/local/bin/git") if os.access(path, os.X_OK))
    program = folder / "programs" / "git"
    program.write_text(NOISY.format(evil=evil, git=real))
    program.chmod(0o755)
    (folder / "sshd").mkdir()
    path = f"{program.parent}:{os.environ['PATH']}"
    with Sshd(folder / "sshd", f'SetEnv HOME={folder} "PATH={path}"\n') as running:
        yield running


async def test_a_host_s_words_drive_no_terminal_and_break_no_line(
    besiege: Besiege, noisy: Sshd, published: Published, tmp_path: Path
) -> None:
    evil = f"\x1b[31m\u202e{FORGED}"
    (published.path / "\x1b[2Jx\n\u202egnp.exe").write_text("staged only")
    published.git("add", "--all")
    published.git(
        *("-c", f"user.name={evil}", "-c", "user.email=\x1b[1m@\u202e"),
        *("commit", "--quiet", "-m", f"{evil}\n\n{evil}"),
    )
    published.git("branch", "\u202e\u2066-\u200b_in_progress", "live")
    quick = {"quiet": 0.1, "patience": 0.3, "backoff": 0.1, "backoff_most": 0.3}
    async with besiege(sshd=noisy, sync=quick) as siege:
        call = b'{"site_id": "mysite", "environment": "staging"}'
        answer = await siege.ask("POST", SYNC_STAGING, JSON, body=call)
        assert answer.status == 200
        run = answer.head.partition(b"X-Run-Id: ")[2].split()[0].decode()
        shell = Shell(tmp_path / "listener.yaml")
        for words in (("status",), ("runs", "show", run), ("runs", "log", run), ("runs", "list")):
            done = await shell(*words)
            assert done.status == 0
            check_plain(done.out + done.err)
        events = await check_log(siege)
        remote = [event for event in events if event["event"] == "remote"]
        assert remote
        for form in ("application/x-ndjson", "text/event-stream"):
            log = await siege.ask("GET", f"/api/v1/runs/{run}/log", ("Accept", form))
            check_plain(log.body.decode().replace("\r\n", "\n"))
            assert b"\n" + FORGED.encode() not in log.body
    assert published.tree("staging") == published.tree("live")
