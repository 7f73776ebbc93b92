"""A key that is bound to the gate, through a real sshd: it serves every sync, and a thief no further."""

import asyncio
import os
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from listener.errors import (
    BeyondKeyError,
    GitUnavailableError,
    RestrictedKeyError,
    ScriptOutdatedError,
    ShellUnavailableError,
    StepTimedOutError,
    SyncError,
)
from listener.plans import PlanKind
from listener.rehearsal.git import ENVIRONMENT, git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.sites import Access, Host, Policy, RepositoryAddress
from listener.ssh import HostPool
from listener.ssh.connection import HostConnection
from listener.ssh.dialogue import DIGEST
from listener.ssh.service import PUSH
from tests import figures
from tests.contract.test_repository import Notes, host_of, sync
from tests.gate import bound, install
from tests.legs import changed, environment_of, pool_of
from tests.login import Enter, agent_with
from tests.ways import refs_of

NAME = "sync-staging-0123456789abcdef"


def restricted(sshd: Sshd) -> Host:
    return replace(host_of(sshd), access=Access.RESTRICTED)


@pytest.fixture
async def connection(restricted_sshd: Sshd) -> AsyncIterator[HostConnection]:
    made = HostConnection(restricted(restricted_sshd), connect_timeout=60)
    yield made
    await made.close()


@pytest.fixture
async def pool(restricted_sshd: Sshd, tmp_path: Path) -> AsyncIterator[HostPool]:
    made = pool_of([restricted(restricted_sshd)], tmp_path / "cache")
    yield made
    await made.close()


async def test_a_repository_that_a_symbolic_link_leads_out_to_is_refused_with_what_to_do(
    tmp_path: Path, published: Published
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "mysite").symlink_to(published.path)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder, options=bound(install(folder), root)) as own:
        pool = pool_of([restricted(own)], tmp_path / "cache")
        with pytest.raises(BeyondKeyError, match="symbolic link") as refused:
            await sync(pool, environment_of(RepositoryAddress("studio", str(root / "mysite"))))
        await pool.close()
    assert "authorized_keys" in refused.value.remedy


async def test_a_key_s_line_that_was_mended_counts_from_the_next_sync_on(
    tmp_path: Path, published: Published
) -> None:
    folder = tmp_path / "sshd"
    folder.mkdir()
    narrow, wide = (bound(install(folder), root) for root in (tmp_path / "elsewhere", published.path))
    environment = environment_of(RepositoryAddress("studio", str(published.path)))
    with Sshd(folder, options=narrow) as own:
        pool = pool_of([restricted(own)], tmp_path / "cache")
        with pytest.raises(BeyondKeyError):
            await sync(pool, environment)
        keys = folder / "authorized_keys"
        keys.write_text(keys.read_text().replace(narrow, wide))
        await sync(pool, environment)
        await pool.close()
    assert published.tree("staging") == published.tree("live")


async def test_a_commit_is_brought_without_what_is_there_already(
    pool: HostPool, published: Published, tmp_path: Path
) -> None:
    """The namespace hides no history: git is still told which commits the leg has."""
    path = tmp_path / "other.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(path))
    other = Published(path)
    source, leg = (RepositoryAddress("studio", str(each.path)) for each in (published, other))
    had = int(other.git("count-objects").split()[0])
    assert (await sync(pool, environment_of(leg, source=source))).plan == PlanKind.FORWARD_COMMIT
    assert other.tree("staging") == published.tree("live")
    assert int(other.git("count-objects").split()[0]) == had + 1
    assert not other.git("for-each-ref", "refs/namespaces", "refs/sync-staging")


def ended(pid: str) -> bool:
    """Whether a process has gone, or only waits to be taken note of."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(") ")[2].startswith("Z")


@pytest.mark.parametrize("setting", ["transfer.hideRefs", "receive.hideRefs", "uploadpack.hideRefs"])
async def test_refs_that_a_repository_hides_take_no_backup_away(
    pool: HostPool, published: Published, tmp_path: Path, setting: str
) -> None:
    other = Published(tmp_path / "other.git")
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(other.path))
    other.git("config", setting, "refs/sync-staging")
    source, carrier = (RepositoryAddress("studio", str(each.path)) for each in (published, other))
    old = other.commit("staging")
    environment = changed(environment_of(carrier, source=source), policy=Policy.RESET)
    progress = await sync(pool, environment)
    assert other.commit("staging") == published.commit("live")
    assert other.git("rev-parse", progress.backup) == old


async def test_a_step_that_takes_too_long_is_ended_there(
    connection: HostConnection, published: Published
) -> None:
    hooks = published.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    pid = published.path / "pid"
    (hooks / "reference-transaction").write_text(f"#!/bin/sh\necho $$ >{shlex.quote(str(pid))}\nsleep 300\n")
    (hooks / "reference-transaction").chmod(0o755)
    backup = "refs/sync-staging/backup/staging/0-0"
    (published.path / ".git" / backup).parent.mkdir(parents=True)
    (published.path / ".git" / backup).write_text(published.commit("live") + "\n")
    question = {"path": str(published.path), "branch": "staging", "before": "zzz"}
    with pytest.raises(StepTimedOutError):
        await connection.call(Notes(), 2, "expire", question)
    assert ended(pid.read_text().strip())
    assert (await connection.call(Notes(), 5, "hello")).startswith("hello ")


async def failed(host: Host) -> SyncError:
    connection = HostConnection(host, connect_timeout=60)
    with pytest.raises(SyncError) as refused:
        await connection.call(Notes(), 5, "hello")
    await connection.close()
    return refused.value


async def test_what_does_not_fit_together_is_told_with_its_remedy(
    sshd: Sshd, restricted_sshd: Sshd, tmp_path: Path
) -> None:
    bound_but_sh = await failed(host_of(restricted_sshd))
    assert (type(bound_but_sh), "access to restricted" in bound_but_sh.remedy) == (RestrictedKeyError, True)
    unbound = await failed(restricted(sshd))
    assert (type(unbound), "host script" in unbound.remedy) == (ShellUnavailableError, True)
    script = install(tmp_path / "bin")
    script.write_text(script.read_text().replace(DIGEST, "0" * 16))
    with Sshd(tmp_path, options=bound(script, tmp_path)) as own:
        outdated = await failed(restricted(own))
    assert (type(outdated), "host script" in outdated.remedy) == (ScriptOutdatedError, True)


async def test_a_host_without_git_is_told_as_such(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "date", "stat", "cat", "env", "sed"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    script = install(tmp_path / "bin")
    with Sshd(tmp_path, f"SetEnv PATH={tools}\n", bound(script, tmp_path)) as own:
        assert isinstance(await failed(restricted(own)), GitUnavailableError)


def commands(inside: Path, outside: Path, canary: Path) -> list[str]:
    """What a thief of the key would like to run."""
    deed = f"touch {canary}"
    ours = f"sync-staging-dialogue {DIGEST} {NAME}"
    plain = [
        deed,
        f"sh -c '{deed}'",
        f"exec sh -s {NAME}",
        "sh",
        "bash -i",
        "/bin/sh",
        f"eval {deed}",
        "",
        " ",
    ]
    plain += [
        f"{ours}; {deed}",
        f"{ours}\n{deed}",
        f"{ours} $({deed})",
        f"{ours}`{deed}`",
        f"{ours} --branch live /",
    ]
    plain += [
        f"sync-staging-end 1 {NAME}",
        f"sync-staging-end -1 {NAME}",
        f"sync-staging-end 9;{deed} {NAME}",
    ]
    plain += [f"sync-staging-end $({deed}) {NAME}", "sync-staging-end 99 x", "sync-staging-dialogue"]
    plain += [f"scp -t {outside}", f"scp -f {outside}/HEAD", "sftp-server", "/usr/lib/openssh/sftp-server"]
    plain += [
        "internal-sftp",
        f"rsync --server -logDtpre.iLsfxC . {outside}",
        f"tar cf - {outside}",
        "env",
        "id",
    ]
    plain += [f"git-upload-archive '{inside}'", f"git upload-pack '{inside}'", f"git-shell -c {deed}"]
    plain += [
        f"git -c core.sshCommand='{deed}' fetch",
        f"git-receive-pack {inside}",
        f"git-upload-pack {inside}",
    ]
    services = [f"--upload-pack={deed}", f"-c core.sshCommand={deed}", "--help", f"$({deed})", f"`{deed}`"]
    services += [f"{inside}'; {deed} '", f"{inside}' '--exec={deed}", f"{inside}\n{deed}\n", f"{inside}\n"]
    services += [
        str(outside),
        f"{inside}/../../outside",
        f"{inside}/%2e%2e/outside",
        "~",
        "/",
        "",
        f"file://{outside}",
    ]
    return plain + [
        f"{name} '{path}'" for path in services for name in ("git-upload-pack", "git-receive-pack")
    ]


REFUSALS = (b"error restricted-key ", b"error beyond-key ", b"error not-a-repository ")


async def test_the_key_runs_nothing_else(
    restricted_sshd: Sshd,
    enter: Enter,
    published: Published,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    outside, canary = Path("/etc"), tmp_path / "canary"
    thief = await enter(restricted(restricted_sshd))
    before = refs_of(published)
    tried = commands(published.path, outside, canary)
    for command in tried:
        done = await thief.run(command, stdin=asyncssh.DEVNULL, encoding=None, timeout=10)
        assert done.exit_status == 1, command
        assert done.stdout == b"", command
        assert isinstance(done.stderr, bytes)
        assert done.stderr.startswith(REFUSALS), command
    assert (canary.exists(), refs_of(published)) == (False, before)
    figures.tell("commands of a thief of the key", tried=len(tried))


async def test_the_key_gets_no_terminal_file_transfer_or_forwarding(
    restricted_sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    thief = await enter(restricted(restricted_sshd))
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.create_process(request_pty="force", term_type="xterm")
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.create_process(x11_forwarding=True, x11_display=":0")
    with pytest.raises((asyncssh.SFTPError, asyncssh.ChannelOpenError)):
        async with asyncio.timeout(300):
            await thief.start_sftp_client()
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.open_connection("127.0.0.1", restricted_sshd.port)
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.open_unix_connection(str(tmp_path / "socket"))
    with pytest.raises(asyncssh.ChannelListenError):
        await thief.forward_remote_port("127.0.0.1", 0, "127.0.0.1", restricted_sshd.port)
    with pytest.raises(asyncssh.ChannelListenError):
        await thief.forward_remote_path(str(tmp_path / "socket"), str(tmp_path / "other"))
    with pytest.raises(asyncssh.ChannelOpenError):
        await thief.open_tun()
    figures.tell("terminals, transfers, forwardings of a thief", tried=8)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is left at the end of a test."""
    async with AsyncExitStack() as left:
        yield left


LISTENING = """\
#!/bin/sh
env >"{folder}/environment"
cat >>"{folder}/logged"
"""


async def test_what_is_refused_is_logged_and_no_environment_or_agent_comes_in(
    tmp_path: Path, published: Published, stack: AsyncExitStack
) -> None:
    """sshd is as careless here as it can be: it takes any variable for git, and forwards agents."""
    tools, canary = tmp_path / "tools", tmp_path / "canary"
    tools.mkdir()
    (tools / "logger").write_text(LISTENING.format(folder=tmp_path))
    (tools / "logger").chmod(0o755)
    script = install(tmp_path / "bin")
    sent = {
        "GIT_TRACE": str(canary),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": f"touch {canary}",
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath'='{tmp_path}'",
        "GIT_EXTERNAL_DIFF": f"touch {canary}",
        "GIT_EXEC_PATH": str(tools),
        "GIT_NAMESPACE": "elsewhere",
        "LC_ALL": f"$(touch {canary})",
        "LC_ANY": "() { :;}; touch " + str(canary),
    }
    careless = f"AcceptEnv LC_* GIT_*\nAllowAgentForwarding yes\nSetEnv PATH={tools}:/usr/bin:/bin\n"
    with Sshd(tmp_path, careless, bound(script, tmp_path)) as own:
        sent["SSH_AUTH_SOCK"] = await stack.enter_async_context(agent_with(tmp_path, own.identity))
        base = (
            "ssh", "-F", "none", "-A", "-i", str(own.identity), "-p", str(own.port),
            "-o", f"UserKnownHostsFile={own.known_hosts}", *(f"-oSendEnv={name}" for name in sent),
            f"{own.user}@127.0.0.1",
        )  # fmt: skip
        for command, status in (("id; \x1b[31mred\nline", 1), (f"git-upload-pack '{published.path}'", 0)):
            done = await asyncio.create_subprocess_exec(
                *base, command, env={"PATH": os.environ["PATH"], **sent},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, err = await done.communicate(b"0000")
            assert done.returncode == status, err
            assert status or b"refs/heads/live" in out
    assert not canary.exists()
    logged = (tmp_path / "logged").read_text()
    assert logged == f"{own.user} refused to 127.0.0.1: the command: id; ?[31mred?line\n"
    seen = (tmp_path / "environment").read_text()
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert not names & ({*sent, "SSH_TTY", "DISPLAY"} - {"LC_ALL", "LC_ANY"})
    assert "LC_ALL=C\n" in seen


PUSHED = (
    "refs/heads/live",
    "refs/heads/staging",
    "refs/heads/new",
    "refs/tags/v1",
    "refs/notes/x",
    "refs/sync-staging/backup/staging/x",
    "refs/sync-staging/incomingx",
    "refs/namespaces/other/refs/heads/live",
    "refs/replace/x",
)


async def test_a_push_reaches_nothing_but_what_has_come_in(
    restricted_sshd: Sshd, published: Published
) -> None:
    own = restricted_sshd
    ssh = f"ssh -F none -i {own.identity} -p {own.port} -o UserKnownHostsFile={own.known_hosts}"
    url = f"ssh://{own.user}@127.0.0.1{published.path}"
    before = refs_of(published)
    live = published.commit("live")

    def pushing(*specs: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "push", "--porcelain", "--force", url, *specs],
            cwd=published.path,
            env={"PATH": os.environ["PATH"], **ENVIRONMENT, "GIT_SSH_COMMAND": ssh},
            capture_output=True,
            text=True,
            check=False,
        )

    tried = 0
    for ref in PUSHED:
        for spec in (f"master:{ref}", f":{ref}"):
            assert pushing(spec).returncode != 0, spec
            tried += 1
    assert refs_of(published) == before
    taken = pushing(f"{live}:refs/sync-staging/incoming/staging", "master:refs/heads/live")
    assert "hidden ref" in taken.stdout
    now = refs_of(published)
    arrived = "refs/namespaces/sync-staging/refs/sync-staging/incoming/staging"
    assert now == {**before, arrived: live}
    figures.tell("pushes of a thief of the key", tried=tried)


def test_a_push_makes_no_repository_shallow_and_tells_its_hooks_nothing_of_the_pusher_s(
    restricted_sshd: Sshd, published: Published, tmp_path: Path
) -> None:
    """Whatever the repository lets others do."""
    for setting in ("receive.shallowUpdate", "receive.advertisePushOptions"):
        published.git("config", setting, "true")
    own, shallow = restricted_sshd, tmp_path / "shallow"
    git(tmp_path, "init", "--quiet", str(shallow))
    source = tmp_path / "source"
    git(tmp_path, "init", "--quiet", str(source))
    for number in range(2):
        git(source, "commit", "--quiet", "--allow-empty", "-m", str(number))
    git(shallow, "fetch", "--quiet", "--depth=1", f"file://{source}", "HEAD:refs/heads/cut")
    ssh = f"ssh -F none -i {own.identity} -p {own.port} -o UserKnownHostsFile={own.known_hosts}"
    url, spec = f"ssh://{own.user}@127.0.0.1{published.path}", "cut:refs/sync-staging/incoming/staging"
    before = refs_of(published)
    for words, said in (((), "shallow update not allowed"), (("--push-option=x",), "push options")):
        done = subprocess.run(
            ["git", "push", *words, url, spec],
            cwd=shallow,
            env={"PATH": os.environ["PATH"], **ENVIRONMENT, "GIT_SSH_COMMAND": ssh},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert said in done.stderr
    assert refs_of(published) == before
    assert not (published.path / ".git" / "shallow").exists()


async def test_a_service_for_what_lies_outside_is_refused_as_such(connection: HostConnection) -> None:
    async with connection.service(Notes(), PUSH, "/etc") as service:
        assert isinstance(await service.failure(), BeyondKeyError)
