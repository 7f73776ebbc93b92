"""Options, commands and refs in names: nothing that a sender writes reaches git or a shell."""

import copy
import json
import re
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from listener.config.settings import load
from listener.errors import ConfigurationError
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.attack.conftest import Besiege
from tests.attack.siege import JSON, Siege
from tests.listening import SYNC_STAGING, configuration, push, signed, written

CANARY = f"canary-{secrets.token_hex(8)}"
"""What stands in everything that is sent, and is searched for afterwards."""

NAMES = (
    "--upload-pack=touch {0};",
    "-oProxyCommand=touch {0}",
    "--output={0}",
    "refs/heads/../../{0}",
    "live;touch {0}",
    "live\ntouch {0}\n",
    "$(touch {0})",
    "`touch {0}`",
    "live'; touch {0}; '",
    'live"; touch {0}; "',
    "${{IFS}}{0}",
    "{0}|sh",
    "&& touch {0}",
    "> {0}",
    "*{0}*",
    "[{0}]",
    "@{{-1}}{0}",
    "HEAD~1:{0}",
    "{0}.lock",
    "ext::sh -c touch% {0}",
    "\u202e{0}\u0000",
    "{0}" * 40,
)


def names() -> Iterator[str]:
    for name in NAMES:
        yield name.format(CANARY)


RECORDING = """\
#!/bin/sh
# Keep what a session is asked to run, and all that is said to it.
printf '%s\\n' "$SSH_ORIGINAL_COMMAND" >>{record}
cd {folder} || exit 1
tee -a {record} | sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True)
class Recorded:
    """A host that keeps what is said to it."""

    sshd: Sshd
    record: Path
    home: Path
    """Where its sessions start."""


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    home, record = tmp_path / "home", tmp_path / "record"
    home.mkdir()
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(RECORDING.format(record=shlex.quote(str(record)), folder=shlex.quote(str(home))))
    wrapper.chmod(0o755)
    folder = tmp_path / "recording-sshd"
    folder.mkdir()
    with Sshd(folder, f"ForceCommand {wrapper}\n") as running:
        yield Recorded(running, record, home)


HOOKS = {
    "forge": {
        "scheme": "github",
        "secrets": ["It's a Secret to Everybody"],
        "repositories": {"acme/{site}": "{site}", "acme/mysite": "mysite"},
    },
    "own": {
        "scheme": "bearer",
        "secrets": ["0123456789abcdef0123"],
        "sites": ["mysite", "*"],
        "payload": {"id": "id"},
    },
}


def fields(name: str) -> Iterator[bytes]:
    """Pushes to live with the name in each field that is read, and in those that are not."""
    good = json.loads(push())
    for changed in (
        {"ref": name},
        {"ref": f"refs/heads/{name}"},
        {"after": name},
        {"repository": {"full_name": name}},
        {"repository": {"full_name": f"acme/{name}"}},
        {
            "repository": {
                "full_name": "acme/mysite",
                "clone_url": name,
                "ssh_url": name,
                "default_branch": name,
            }
        },
        {"head_commit": {"id": name, "message": name, "author": {"name": name}}, "before": name},
        {"site_id": name, "environment": name, "branch": name, "path": name, "command": name},
    ):
        yield json.dumps({**copy.deepcopy(good), **changed}).encode()


async def test_nothing_that_is_sent_reaches_git_or_a_shell(
    besiege: Besiege, recorded: Recorded, published: Published, tmp_path: Path
) -> None:
    sites = {
        "mysite": {
            "repository": {"host": "studio", "path": str(published.path)},
            "environments": {"staging": {"follow": True}},
        },
        "*": {
            "repository": {"host": "studio", "path": f"{tmp_path}/{{site}}/published"},
            "environments": {"staging": {"follow": True}},
        },
    }
    async with besiege(sshd=recorded.sshd, hooks=HOOKS, sites=sites) as siege:
        for number, name in enumerate(names()):
            await send_everywhere(siege, number, name)
        ended = await siege.quiet()
        assert ended, "those that name it where nobody looks are good pushes"
        assert {(run["site"], run["environment"]) for run in ended} == {("mysite", "staging")}
    said = recorded.record.read_bytes()
    assert b" apply\n" in said
    assert said.count(CANARY.encode()) == 0
    assert list(recorded.home.iterdir()) == []
    assert touched(tmp_path) == []
    siege.tell(octets_that_the_host_was_sent=len(said), of_the_canary=0)


def touched(folder: Path) -> list[Path]:
    """Files of the canary's name that are no branches."""
    return [path for path in folder.rglob(f"*{CANARY}*") if "heads" not in path.parts]


async def send_everywhere(siege: Siege, number: int, name: str) -> None:
    """Send a name in all places that take one."""
    for place, body in enumerate(fields(name)):
        await siege.deliver(body, signed(body, f"{CANARY}-{number}-{place}").items())
    for call in ({"site_id": name}, {"branch": name}, {"ref": name}, {"event": name}, {"environment": name}):
        body = json.dumps({"site_id": "mysite", "id": f"{CANARY}{number}", **call}).encode()
        await siege.deliver(body, [("Authorization", "Bearer 0123456789abcdef0123"), JSON], "own")
    for call in ({"site_id": name, "environment": "staging"}, {"site_id": "mysite", "environment": name}):
        answer = await siege.ask("POST", SYNC_STAGING, JSON, body=json.dumps(call).encode())
        assert answer.status == 404
    at = quote(name, safe="")
    for path in (f"{at}/environments/staging", f"mysite/environments/{at}"):
        for what in ("sync", "hold", "release"):
            answer = await siege.ask("POST", f"/api/v1/sites/{path}/{what}", body=b'{"reason": "x"}')
            assert answer.status in {400, 404}
    reason = json.dumps({"reason": name[:500]}).encode()
    hold = "/api/v1/sites/mysite/environments/staging"
    assert (await siege.ask("POST", f"{hold}/hold", body=reason)).status == 200
    assert (await siege.ask("POST", f"{hold}/release")).status == 200


REFS = (
    "$(touch${{IFS}}{0})",
    "`touch${{IFS}}{0}`",
    "';touch${{IFS}}{0};'",
    '";touch${{IFS}}{0};"',
    ";touch${{IFS}}{0};#",
    "|touch${{IFS}}{0}",
    "-c{0}",
    "--output={0}",
    "\\u202e{0}",
    "%s%n%x{0}",
)
"""Names that git lets a branch have."""


@pytest.mark.parametrize("access", ["sh", "git"])
async def test_a_repository_s_own_names_reach_no_shell_and_are_no_options(
    besiege: Besiege, recorded: Recorded, published: Published, tmp_path: Path, access: str
) -> None:
    for ref in REFS:
        for ending in ("", "_in_progress"):
            name = f"refs/heads/{ref.format(CANARY)}{ending}"
            published.git("update-ref", name.encode().decode("unicode_escape"), "live")
    subject = f"$(touch {CANARY}) `touch {CANARY}` --output={CANARY}"
    published.git("commit", "--quiet", "--allow-empty", "-m", subject, "-m", subject)
    bare = tmp_path / "other.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(bare))
    (published.path / "x").write_text("staged")
    carrier = {"host": "other", "path": str(bare), "branch": "staging"}
    host = {"address": "127.0.0.1", "port": recorded.sshd.port, "user": recorded.sshd.user}
    sites = {
        "mysite": {
            "repository": {"host": "studio", "path": str(published.path)},
            "environments": {"staging": {"follow": True}, "far": {"repositories": [carrier]}},
        }
    }
    async with besiege(
        sshd=recorded.sshd,
        hosts={"studio": host, "other": {**host, "access": access}},
        sites=sites,
        sync={
            "quiet": 0.1,
            "patience": 0.5,
            "backoff": 0.2,
            "backoff_most": 0.3,
            "cache": str(tmp_path / "cache"),
        },
    ) as siege:
        for environment in ("staging", "far"):
            assert (await siege.listener.sync(environment))[0] == 200
    assert Published(bare).tree("staging") == published.tree("live") == published.tree("staging")
    assert touched(tmp_path) == []


WRONG: dict[str, Any] = {
    "branch": lambda whole, name: whole["sites"]["mysite"]["environments"]["staging"].update(branch=name),
    "live": lambda whole, name: whole["sites"]["mysite"].update(live=name),
    "site": lambda whole, name: whole["sites"].update({name: whole["sites"]["mysite"]}),
    "environment": lambda whole, name: whole["sites"]["mysite"]["environments"].update(
        {name: {"follow": True}}
    ),
    "host": lambda whole, name: whole["hosts"].update({name: whole["hosts"]["studio"]}),
    "address": lambda whole, name: whole["hosts"]["studio"].update(address=name),
    "user": lambda whole, name: whole["hosts"]["studio"].update(user=name),
    "hook": lambda whole, name: whole["hooks"].update({name: whole["hooks"]["forge"]}),
    "token": lambda whole, name: whole["tokens"][0].update(name=f"{name}\n"),
}


PLAIN = re.compile(r"[a-z0-9][a-z0-9.-]*")
BRANCH = re.compile(r"[^-\s~^:?*\[\\\x00-\x1f][^\s~^:?*\[\\\x00-\x1f]*")
"""What git lets a branch be called, which is quoted wherever it goes."""


@pytest.mark.parametrize("setting", WRONG)
def test_a_configuration_with_a_name_that_could_be_something_else_is_refused(
    tmp_path: Path, sshd: Sshd, published: Published, setting: str
) -> None:
    accepted = {name for name in names() if loads(tmp_path, sshd, published, setting, name)}
    taken = BRANCH if setting in {"branch", "live"} else PLAIN
    assert [name for name in accepted if not taken.fullmatch(name)] == []
    assert len(accepted) <= 4


def loads(tmp_path: Path, sshd: Sshd, published: Published, setting: str, name: str) -> bool:
    """Whether a configuration with this name is taken."""
    whole = copy.deepcopy(configuration(tmp_path, sshd, published.path))
    WRONG[setting](whole, name)
    try:
        load(written(tmp_path, whole))
    except ConfigurationError:
        return False
    return True
