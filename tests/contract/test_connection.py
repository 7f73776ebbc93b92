"""Connections to a real sshd: each way in which they fail is told, and what ran there is ended for sure."""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import asyncssh
import pytest

from listener.errors import (
    ConnectionLostError,
    GitUnavailableError,
    HostKeyRejectedError,
    HostUnreachableError,
    IdentityUnusableError,
    LoginRefusedError,
    RemoteStepError,
    ShellUnavailableError,
    StepTimedOutError,
)
from listener.rehearsal.embedded import EmbeddedServer
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
from listener.sites import Host
from listener.ssh import channel as channel_module
from listener.ssh import pool as pool_module
from listener.ssh.connection import MAX_STDERR_LINES, SHELLS, HostConnection
from tests.bench.pool import ROOMY, hosts_on, warm
from tests.conftest import unavailable
from tests.contract.test_repository import Notes, host_of
from tests.legs import pool_of
from tests.proxy import Proxy
from tests.saying import say

SLOW = f"sleep 300.{os.getpid()}"
"""A step that would take five minutes, told from those of other test runs."""


@pytest.fixture
async def connected() -> AsyncIterator["Connect"]:
    """Makes connections that are closed at last."""
    made: list[HostConnection] = []

    def connect(host: Host, limit: float = 60) -> HostConnection:
        made.append(HostConnection(host, connect_timeout=limit))
        return made[-1]

    yield connect
    await asyncio.gather(*(connection.close() for connection in made))


Connect = Callable[..., HostConnection]


async def processes_of(marker: str) -> list[int]:
    """The processes whose command line has the marker."""
    found = []
    for entry in Path("/proc").iterdir():  # noqa: ASYNC240 (procfs does not block)
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(300):
        while not await condition():
            await asyncio.sleep(0.02)


async def gone(marker: str) -> bool:
    return not await processes_of(marker)


async def there(marker: str) -> bool:
    return bool(await processes_of(marker))


async def test_a_connection_stays_warm_and_nothing_of_a_call_stays_behind(
    sshd: Sshd, connected: Connect
) -> None:
    connection, notes = connected(host_of(sshd)), Notes()
    assert await say(connection, "echo $$; cd /; left=behind", notes=notes) == await say(
        connection, "echo $$${left}; [ $PWD != / ]", notes=notes
    )
    assert len(notes.named("connect")) == 1


async def test_stderr_is_told_line_by_line_and_any_bytes_pass(sshd: Sshd, connected: Connect) -> None:
    connection, notes = connected(host_of(sshd)), Notes()
    said = await say(connection, r"printf 'caf\351 \000 end'; printf 'first\nsec\377ond\n' >&2", notes=notes)
    assert said.encode("utf-8", "surrogateescape") == b"caf\xe9 \0 end"
    assert [facts["stderr"] for facts in notes.named("remote")] == ["first", "sec\udcffond"]


async def test_what_a_host_says_each_time_is_nothing_new(sshd: Sshd, connected: Connect) -> None:
    """Else a run that waits would write it down with each look."""
    connection, notes = connected(host_of(sshd)), Notes()
    for said in ("first", "first", "second", "", "second"):
        await say(connection, f"printf '{said}' >&2", notes=notes)
    assert [(facts["stderr"], facts["repeated"]) for facts in notes.named("remote")] == [
        ("first", False), ("first", True), ("second", False), ("second", False),
    ]  # fmt: skip


async def test_much_output_on_both_streams_blocks_neither(sshd: Sshd, connected: Connect) -> None:
    connection, notes = connected(host_of(sshd)), Notes()
    flood = (
        "i=0; while [ $i -lt 3000 ]; do printf '%01000d\\n' 1 >&2; printf '%01000d\\n' 2; i=$((i+1)); done"
    )
    said = await say(connection, flood, limit=60, notes=notes)
    assert len(said.splitlines()) == 3000
    remarks = notes.named("remote")
    assert len(remarks) == MAX_STDERR_LINES + 1, "the log gets a little of it"
    assert remarks[-1]["stderr"] == f"… and {3000 - MAX_STDERR_LINES} more lines"


async def test_a_reply_without_end_is_not_read_on(
    sshd: Sshd, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_REPLY", 1 << 20)
    connection = connected(host_of(sshd))
    with pytest.raises(RemoteStepError, match="1 MiB"):
        await say(connection, "yes")
    assert await say(connection, "echo still here") == "still here\n"


async def test_more_calls_than_shells_wait_for_their_turn(sshd: Sshd, connected: Connect) -> None:
    connection, notes = connected(host_of(sshd)), Notes()
    said = await asyncio.gather(*(say(connection, f"sleep 0.05; echo {n}", notes=notes) for n in range(20)))
    assert said == [f"{n}\n" for n in range(20)]
    shells = set(await asyncio.gather(*(say(connection, "echo $$") for _ in range(20))))
    assert len(shells) <= SHELLS


async def test_a_shell_that_is_killed_alone_is_not_waited_for_and_what_it_started_is_ended(
    sshd: Sshd, connected: Connect
) -> None:
    """As where a host that is out of memory ends the shell, and a hook of git's still holds its streams."""
    connection = connected(host_of(sshd))
    with pytest.raises(ConnectionLostError):
        await say(connection, f"kill -9 $$; {SLOW}6666", limit=30)
    await until(lambda: gone(f"{SLOW}6666".replace(" ", "\0")))
    assert await say(connection, "echo anew") == "anew\n"


async def test_a_step_that_takes_too_long_is_ended_on_the_host_too(sshd: Sshd, connected: Connect) -> None:
    connection = connected(host_of(sshd))
    with pytest.raises(StepTimedOutError, match=r"0\.5 s"):
        await say(connection, f"{SLOW}1111", limit=0.5)
    await until(lambda: gone(f"{SLOW}1111".replace(" ", "\0")))
    assert await say(connection, "echo still here") == "still here\n"


async def test_a_cancelled_call_is_ended_on_the_host_too(sshd: Sshd, connected: Connect) -> None:
    connection = connected(host_of(sshd))
    marker = f"{SLOW}2222".replace(" ", "\0")
    call = asyncio.create_task(say(connection, f"{SLOW}2222 | {SLOW}2222", limit=60))
    await until(lambda: there(marker))
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    await until(lambda: gone(marker))
    assert await say(connection, "echo still here") == "still here\n"


async def test_what_could_not_be_ended_is_ended_when_the_host_is_reached_again(
    sshd: Sshd, connected: Connect
) -> None:
    async with Proxy(sshd.port) as proxy:
        connection = connected(through(proxy, sshd))
        marker = f"{SLOW}3333".replace(" ", "\0")
        call = asyncio.create_task(say(connection, f"trap '' HUP PIPE; {SLOW}3333", limit=60))
        await until(lambda: there(marker))
        proxy.freeze()
        call.cancel()
        await asyncio.wait({call})
        proxy.cut()
        assert await there(marker)
        proxy.thaw()
        assert await say(connection, "echo back") == "back\n"
        await until(lambda: gone(marker))


def through(proxy: Proxy, sshd: Sshd) -> Host:
    """The host as seen through the proxy, whose port known_hosts must have as well."""
    known_hosts = sshd.folder / f"known_hosts_{proxy.port}"
    public = (sshd.folder / "known_hosts").read_text().split(maxsplit=1)[1]
    known_hosts.write_text(f"[127.0.0.1]:{proxy.port} {public}")
    return replace(host_of(sshd), port=proxy.port, known_hosts=str(known_hosts))


async def test_a_connection_cut_in_the_middle_of_a_step_is_an_error_not_an_empty_reply(
    sshd: Sshd, connected: Connect
) -> None:
    async with Proxy(sshd.port) as proxy:
        connection = connected(through(proxy, sshd))
        marker = "sleep\0007.4444"
        call = asyncio.create_task(say(connection, "echo half a reply; sleep 7.4444"))
        await until(lambda: there(marker))
        proxy.cut()
        with pytest.raises(ConnectionLostError):
            await call
        assert await say(connection, "echo again") == "again\n"
        assert proxy.connections == 2


async def test_a_killed_remote_shell_is_an_error_and_replaced(sshd: Sshd, connected: Connect) -> None:
    connection = connected(host_of(sshd))
    with pytest.raises(ConnectionLostError):
        await say(connection, "kill -KILL $$")
    assert await say(connection, "echo another") == "another\n"


async def test_a_connection_lost_while_idle_is_made_anew(sshd: Sshd, connected: Connect) -> None:
    async with Proxy(sshd.port) as proxy:
        connection = connected(through(proxy, sshd))
        await say(connection, "true")
        proxy.cut()
        await asyncio.sleep(0.1)
        assert await say(connection, "echo again") == "again\n"


async def test_a_frozen_host_is_given_up_within_the_limit(sshd: Sshd, connected: Connect) -> None:
    async with Proxy(sshd.port) as proxy:
        proxy.freeze()
        with pytest.raises(HostUnreachableError, match=r"0\.5 s"):
            await say(connected(through(proxy, sshd), 0.5), "true")
        connection = connected(through(proxy, sshd))
        proxy.thaw()
        await say(connection, "true")
        proxy.freeze()
        with pytest.raises(StepTimedOutError):
            await say(connection, "true", limit=0.5)
        proxy.thaw()
        assert await say(connection, "echo again") == "again\n"


async def test_a_host_that_is_down_and_comes_back(own_sshd: Sshd, connected: Connect) -> None:
    connection = connected(host_of(own_sshd))
    health = connection.health
    assert (health.up, health.answered_at, health.failures.total()) == (None, None, 0)
    await say(connection, "true")
    assert health.up
    answered_at = health.answered_at
    own_sshd.stop()
    with pytest.raises((ConnectionLostError, HostUnreachableError)):
        await say(connection, "true")
    with pytest.raises(HostUnreachableError, match="refuses the connection"):
        await say(connection, "true")
    assert health.up is False
    assert health.answered_at == answered_at
    assert health.failures["host-unreachable"] >= 1
    own_sshd.start()
    assert await say(connection, "echo back") == "back\n"
    assert health.up


async def test_a_host_whose_repository_has_a_fault_is_up(sshd: Sshd, connected: Connect) -> None:
    connection = connected(host_of(sshd))
    with pytest.raises(RemoteStepError):
        await say(connection, "false")
    with pytest.raises(StepTimedOutError):
        await say(connection, "sleep 60", limit=0.2)
    assert connection.health.up
    assert connection.health.failures["step-timed-out"] == 1
    assert connection.health.failures.total() == 1


async def test_a_changed_host_key_is_refused(own_sshd: Sshd, connected: Connect) -> None:
    own_sshd.new_host_key()
    with pytest.raises(HostKeyRejectedError) as refused:
        await say(connected(host_of(own_sshd)), "true")
    assert refused.value.permanent
    assert str(own_sshd.known_hosts) in refused.value.message
    assert "known_hosts" in refused.value.remedy


async def test_a_host_without_a_line_in_known_hosts_is_refused(
    sshd: Sshd, connected: Connect, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(HostKeyRejectedError, match=rf"no line for \[127\.0\.0\.1\]:{sshd.port}") as refused:
        await say(connected(replace(host_of(sshd), known_hosts=str(tmp_path / "empty"))), "true")
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in refused.value.remedy


async def test_only_the_configured_name_of_a_host_counts_and_not_its_address(
    sshd: Sshd, connected: Connect
) -> None:
    with pytest.raises(HostKeyRejectedError, match="no line for"):
        await say(connected(replace(host_of(sshd), address="localhost")), "true")


async def test_a_key_that_is_not_let_in_is_refused_though_an_agent_holds_the_right_one(
    sshd: Sshd, connected: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(tmp_path / "agent"))
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        await until(lambda: asyncio.to_thread((tmp_path / "agent").exists))
        adding = await asyncio.create_subprocess_exec("ssh-add", "-q", str(sshd.identity))
        assert await adding.wait() == 0
        stranger = tmp_path / "stranger"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(stranger))
        with pytest.raises(LoginRefusedError, match="stranger"):
            await say(connected(replace(host_of(sshd), identity=str(stranger))), "true")
    finally:
        agent.terminate()
        await agent.wait()


async def test_the_users_own_ssh_configuration_is_not_read(
    sshd: Sshd, connected: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f'Match exec "touch {tmp_path}/executed"\n  UserKnownHostsFile none\nHost *\n  Port 1\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await say(connected(host_of(sshd)), "echo in") == "in\n"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("broken", ["missing", "empty", "encrypted"])
async def test_an_unusable_key_is_told_as_such(
    sshd: Sshd, connected: Connect, tmp_path: Path, broken: str
) -> None:
    path = tmp_path / broken
    if broken == "empty":
        path.touch()
    if broken == "encrypted":
        making = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-N", "secret", "-f", str(path))
        assert await making.wait() == 0
    with pytest.raises(IdentityUnusableError, match=broken) as refused:
        await say(connected(replace(host_of(sshd), identity=str(path))), "true")
    assert refused.value.permanent


async def test_a_closed_port_and_an_unknown_name_are_unreachable(
    sshd: Sshd, connected: Connect, tmp_path: Path
) -> None:
    closed = replace(host_of(sshd), port=free_port())
    unknown = replace(closed, address="no-such-host.invalid")
    public = sshd.known_hosts.read_text().split(maxsplit=1)[1]
    both = tmp_path / "known_hosts"
    both.write_text(f"[127.0.0.1]:{closed.port},[no-such-host.invalid]:{closed.port} {public}")
    for host in (
        closed,
        unknown,
    ):
        with pytest.raises(HostUnreachableError) as refused:
            await say(connected(replace(host, known_hosts=str(both))), "true")
        assert not refused.value.permanent


FORCED = """\
Match all
  ForceCommand {command}
"""


@pytest.mark.parametrize("command", ["/bin/false", "git-shell -c git-upload-pack", "echo welcome"])
async def test_an_account_without_a_shell_is_told_as_such(
    connected: Connect, tmp_path: Path, command: str
) -> None:
    with Sshd(tmp_path, FORCED.format(command=command)) as own, pytest.raises(ShellUnavailableError):
        await say(connected(host_of(own)), "true")


@pytest.mark.parametrize(("version", "said"), [("2.24.9", "too old"), (None, "not installed")])
async def test_a_host_with_an_old_git_or_none_is_refused(
    connected: Connect, tmp_path: Path, version: str | None, said: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "date", "stat", "cat"):
        (tools / name).symlink_to(f"/bin/{name}")
    if version is not None:
        git = tools / "git"
        git.write_text(f"#!/bin/sh\necho git version {version}\n")
        git.chmod(git.stat().st_mode | stat.S_IXUSR)
    with Sshd(tmp_path, f"SetEnv PATH={tools}\n") as own, pytest.raises(GitUnavailableError, match=said):
        await say(connected(host_of(own)), "true")


@pytest.mark.parametrize("program", ["dash", "bash", "busybox"])
async def test_the_script_runs_in_every_posix_shell(
    connected: Connect, tmp_path: Path, published: Published, program: str
) -> None:
    found = next((path for path in (f"/bin/{program}", f"/usr/bin/{program}") if os.path.exists(path)), None)  # noqa: ASYNC240, PTH110
    if found is None:
        unavailable(program)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sh").write_text(f'#!/bin/sh\nexec {found}{" sh" if program == "busybox" else ""} "$@"\n')
    (tools / "sh").chmod(0o755)
    with Sshd(tmp_path, f"SetEnv PATH={tools}:/usr/bin:/bin\n") as own:
        connection = connected(host_of(own))
        question = {"path": str(published.path), "live": "live", "branch": "staging"}
        question |= {"compare": "tree", "listed": "10", "room": "9999", "counting": "yes"}
        said = await connection.call(Notes(), 10, "observe", question)
        assert published.commit("staging") in said
        assert re.search(r"^apart \d+\t\d+\ndifferences\n", said, re.MULTILINE)
        assert "D\tsite/website/staged-for-review/index.xml\n" in said
        assert said.endswith("counts 1 1 1 0\n")


async def test_the_embedded_server_serves_as_sshd_does(
    connected: Connect, tmp_path: Path, published: Published
) -> None:
    async with EmbeddedServer(tmp_path) as server:
        host = Host(
            "studio", "127.0.0.1", server.port, server.user, str(server.known_hosts), str(server.identity)
        )
        connection, notes = connected(host), Notes()
        assert await say(connection, "echo out; echo err >&2", notes=notes) == "out\n"
        assert notes.named("remote")[0]["stderr"] == "err"
        with pytest.raises(StepTimedOutError):
            await say(connection, f"{SLOW}5555", limit=0.5)
        await until(lambda: gone(f"{SLOW}5555".replace(" ", "\0")))
        await connection.close()


async def test_those_who_wait_for_a_dead_host_share_one_attempt_and_soon_do_not_wait_at_all(
    sshd: Sshd, connected: Connect
) -> None:
    async with Proxy(sshd.port) as proxy:
        proxy.freeze()
        connection = connected(through(proxy, sshd), 1)
        for attempt in range(1, 4):
            calls = await asyncio.gather(*(say(connection, "true") for _ in range(3)), return_exceptions=True)
            assert [type(call) for call in calls] == [HostUnreachableError] * 3
            assert proxy.connections == attempt
        with pytest.raises(HostUnreachableError, match="next attempt in"):
            await say(connection, "true")
        assert proxy.connections == 3


async def test_a_host_behind_another_is_reached_through_it(
    own_sshd: Sshd, sshd: Sshd, tmp_path: Path
) -> None:
    near, far = host_of(own_sshd), replace(host_of(sshd), name="far", via="near")
    pool = pool_of([far, replace(near, name="near")], tmp_path / "unused")
    notes = Notes()
    await pool.warm("far", notes)
    assert len(notes.named("connect")) == 2
    own_sshd.stop()
    with pytest.raises((ConnectionLostError, HostUnreachableError)):
        await pool._connections["far"].call(Notes(), 5, "hello")
    own_sshd.start()
    assert "git version" in await pool._connections["far"].call(Notes(), 5, "hello")
    await pool.close()


def known_by(sshd: Sshd, text: str, path: Path) -> Host:
    path.write_text(text)
    return replace(host_of(sshd), known_hosts=str(path))


async def test_a_hashed_line_of_known_hosts_is_read(sshd: Sshd, connected: Connect, tmp_path: Path) -> None:
    hashed = tmp_path / "hashed"
    hashed.write_text(sshd.known_hosts.read_text())
    making = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-H", "-f", str(hashed))
    assert await making.wait() == 0
    assert "127.0.0.1" not in hashed.read_text()
    assert await say(connected(replace(host_of(sshd), known_hosts=str(hashed))), "echo in") == "in\n"


async def test_a_revoked_host_key_is_refused(sshd: Sshd, connected: Connect, tmp_path: Path) -> None:
    line = sshd.known_hosts.read_text()
    host = known_by(sshd, f"{line}@revoked {line}", tmp_path / "revoked")
    with pytest.raises(HostKeyRejectedError):
        await say(connected(host), "true")


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_host_certificate_counts_if_its_authority_is_known(
    connected: Connect, tmp_path: Path, trusted: bool
) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    with Sshd(tmp_path, f"HostCertificate {tmp_path}/host_key-cert.pub\n") as own:
        key = asyncssh.read_private_key(str(tmp_path / "host_key"))
        certificate = authority.generate_host_certificate(key, "host", principals=["127.0.0.1"])
        certificate.write_certificate(str(tmp_path / "host_key-cert.pub"))
        own.stop()
        own.start()
        signer = authority if trusted else asyncssh.generate_private_key("ssh-ed25519")
        line = f"@cert-authority [127.0.0.1]:{own.port} {signer.export_public_key().decode()}"
        connection = connected(known_by(own, line, tmp_path / "authorities"))
        if trusted:
            assert await say(connection, "echo in") == "in\n"
        else:
            with pytest.raises(HostKeyRejectedError):
                await say(connection, "true")


@pytest.mark.parametrize(("kind", "form"), [("ssh-rsa", "pkcs1-pem"), ("ecdsa-sha2-nistp256", "openssh")])
async def test_keys_of_other_kinds_and_forms_log_in(
    own_sshd: Sshd, connected: Connect, tmp_path: Path, kind: str, form: str
) -> None:
    key = asyncssh.generate_private_key(kind)
    key.write_private_key(str(tmp_path / "key"), form)
    with (own_sshd.folder / "authorized_keys").open("ab") as file:
        file.write(key.export_public_key())
    connection = connected(replace(host_of(own_sshd), identity=str(tmp_path / "key")))
    assert await say(connection, "echo in") == "in\n"


async def test_many_hosts_are_connected_to_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_LOGINS", 4)
    with Sshd(tmp_path, ROOMY) as own:
        pool = pool_of(
            hosts_on(own, tmp_path / "known", 20).values(), tmp_path / "unused", connect_timeout=60
        )
        await warm(pool, [f"host-{n}" for n in range(20)])
        assert await pool._connections["host-19"].call(Notes(), 10, "hello")
        await pool.close()
        log = own.log()
    steps = re.findall(r"^(Connection from|Accepted publickey) ", log, re.MULTILINE)
    assert steps.count("Connection from") == steps.count("Accepted publickey") == 20
    entering = list(accumulate(1 if step == "Connection from" else -1 for step in steps))
    assert 1 < max(entering) <= 4


@pytest.mark.parametrize(
    "odd", [b"=", b"@unknown host KEY", b"|1|x KEY", b"|2|AAAA|BBBB KEY", b"caf\xe9\t", b"x"]
)
async def test_an_odd_line_of_known_hosts_is_skipped_and_told_by_its_number(
    sshd: Sshd, connected: Connect, tmp_path: Path, odd: bytes
) -> None:
    """As OpenSSH does."""
    path, notes, good = tmp_path / "odd", Notes(), sshd.known_hosts.read_bytes()
    odd = odd.replace(b"KEY", good.split(maxsplit=1)[1].strip())
    path.write_bytes(b"# caf\xe9\n" + odd + b"\n" + good)
    assert (
        await say(connected(replace(host_of(sshd), known_hosts=str(path))), "echo in", notes=notes) == "in\n"
    )
    (told,) = notes.named("known hosts")
    assert re.search(r"are skipped: 2$", told["reason"])
    assert told["level"] == "warning"


async def test_a_key_of_an_unknown_kind_in_known_hosts_is_passed_over(
    sshd: Sshd, connected: Connect, tmp_path: Path
) -> None:
    host = known_by(sshd, f"host caf\u00e9 AAAA\n{sshd.known_hosts.read_text()}", tmp_path / "other")
    assert await say(connected(host), "echo in") == "in\n"


async def test_a_file_without_the_host_names_its_odd_lines(
    sshd: Sshd, connected: Connect, tmp_path: Path
) -> None:
    host = known_by(sshd, f"=\nother {sshd.known_hosts.read_text().split(maxsplit=1)[1]}", tmp_path / "odd")
    with pytest.raises(HostKeyRejectedError, match=r"no line for .* \(unreadable lines: 1\)"):
        await say(connected(host), "true")


async def test_a_banner_in_another_encoding_keeps_nobody_out(connected: Connect, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_bytes("Zugriff nur für Befugte\n".encode("iso-8859-1"))
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder, f"Banner {banner}\n") as own:
        assert await say(connected(host_of(own)), "echo in") == "in\n"
