"""The keys that are shown to a host: those of the identity and of an ssh agent, and what is unusable."""

import asyncio
import errno
import socket
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from listener.errors import (
    AgentUnavailableError,
    HostKeyRejectedError,
    IdentityUnusableError,
    LoginRefusedError,
)
from listener.rehearsal.sshd import Sshd
from tests.contract.test_repository import host_of
from tests.login import Enter, agent_with, failure, stranger


async def test_a_key_of_the_agent_logs_in_without_an_identity(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    async with agent_with(tmp_path, await stranger(tmp_path / "other"), sshd.identity) as agent:
        await enter(replace(host_of(sshd), identity=None, agent=agent))


async def test_the_identity_comes_first_and_the_agent_is_not_asked_where_it_is_enough(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    await enter(replace(host_of(sshd), agent=str(tmp_path / "absent")))


async def test_the_agent_s_keys_follow_an_identity_that_is_refused_and_none_is_shown_twice(
    own_sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    refused = await stranger(tmp_path / "stranger")
    async with agent_with(tmp_path, refused, own_sshd.identity) as agent:
        await enter(replace(host_of(own_sshd), identity=refused, agent=agent))
    assert own_sshd.log().count("Failed publickey") == 1


async def test_an_agent_without_its_socket_is_told_as_such(sshd: Sshd, enter: Enter, tmp_path: Path) -> None:
    host = replace(host_of(sshd), identity=None, agent=str(tmp_path / "absent"))
    failed = await failure(enter(host))
    assert isinstance(failed, AgentUnavailableError)
    assert f"socket {tmp_path}/absent does not exist" in failed.message
    assert not failed.permanent


async def test_an_agent_that_is_missed_only_where_the_identity_is_refused_is_told_then(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    refused = await stranger(tmp_path / "stranger")
    failed = await failure(enter(replace(host_of(sshd), identity=refused, agent=str(tmp_path / "absent"))))
    assert isinstance(failed, AgentUnavailableError)


async def test_an_agent_that_has_ended_is_told_as_such(sshd: Sshd, enter: Enter, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    failed = await failure(enter(replace(host_of(sshd), identity=None, agent=str(tmp_path / "left"))))
    assert isinstance(failed, AgentUnavailableError)
    assert "no ssh agent listens" in failed.message


async def test_an_agent_whose_socket_is_another_user_s_is_told_as_such(
    sshd: Sshd, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(asyncssh, "connect_agent", forbidden)
    failed = await failure(enter(replace(host_of(sshd), identity=None, agent="/run/agent")))
    assert isinstance(failed, AgentUnavailableError)
    assert "may not open" in failed.message
    assert "as the listener's user" in failed.remedy


async def test_an_agent_that_holds_no_key_is_told_before_the_host_is_bothered(
    own_sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    async with agent_with(tmp_path) as agent:
        failed = await failure(enter(replace(host_of(own_sshd), identity=None, agent=agent)))
    assert isinstance(failed, AgentUnavailableError)
    assert "holds no key" in failed.message
    assert f"SSH_AUTH_SOCK={agent} ssh-add" in failed.remedy
    assert "Connection from" not in own_sshd.log()


@pytest.mark.parametrize(
    ("answer", "told"), [(b"", "within 0.5 s"), (b"HTTP/1.1 400\r\n", "is not the socket of an ssh agent")]
)
async def test_what_is_no_agent_is_told_as_such(
    sshd: Sshd, enter: Enter, tmp_path: Path, answer: bytes, told: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if answer:
            writer.close()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "other"):
        host = replace(host_of(sshd), identity=None, agent=str(tmp_path / "other"))
        failed = await failure(enter(host, limit=0.5))
    assert isinstance(failed, AgentUnavailableError)
    assert told in failed.message


async def test_an_agent_whose_keys_are_all_refused_is_told_with_their_number(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    strangers = [await stranger(tmp_path / name) for name in ("one", "two")]
    async with agent_with(tmp_path, *strangers) as agent:
        failed = await failure(enter(replace(host_of(sshd), identity=None, agent=agent)))
        assert isinstance(failed, LoginRefusedError)
        assert f"any of the 2 keys of the ssh agent at {agent}" in failed.message
        assert "ssh-add -L" in failed.remedy
        both = await failure(enter(replace(host_of(sshd), identity=strangers[0], agent=agent)))
    assert f"{strangers[0]} or the one key of the ssh agent" in both.message
    assert "ssh.identity" in both.remedy


async def test_an_agent_full_of_keys_uses_up_the_attempts_unless_an_identity_comes_first(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    strangers = [await stranger(tmp_path / f"key{n}") for n in range(7)]
    async with agent_with(tmp_path, *strangers, sshd.identity) as agent:
        failed = await failure(enter(replace(host_of(sshd), identity=None, agent=agent)))
        assert isinstance(failed, LoginRefusedError)
        assert "after too many keys" in failed.message
        assert "set ssh.identity to the right key" in failed.remedy
        await enter(replace(host_of(sshd), agent=agent))


# The files.


async def test_each_way_in_which_an_identity_is_unusable_is_told_with_its_own_remedy(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    locked = await stranger(tmp_path / "locked", passphrase="secret")
    (tmp_path / "text").write_text("no key\n")
    for path, told, remedy in (
        (locked, "has a passphrase", "ssh.agent"),
        (f"{locked}.pub", "is not a usable private key", "private key file"),
        (str(tmp_path / "text"), "is not a usable private key", "private key file"),
        (str(tmp_path / "absent"), "can't be read: No such file", "correct ssh.identity"),
        (str(tmp_path), "can't be read: Is a directory", "correct ssh.identity"),
    ):
        failed = await failure(enter(replace(host_of(sshd), identity=path)))
        assert isinstance(failed, IdentityUnusableError)
        assert (told in failed.message, remedy in failed.remedy) == (True, True), failed.message


async def test_a_known_hosts_file_that_is_none_is_told_without_a_word_of_it(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    (tmp_path / "other").write_text("c2VjcmV0\n")
    failed = await failure(enter(replace(host_of(sshd), known_hosts=str(tmp_path / "other"))))
    assert isinstance(failed, IdentityUnusableError)
    assert "is not a known_hosts file" in failed.message
    assert "c2VjcmV0" not in failed.message
    failed = await failure(enter(replace(host_of(sshd), known_hosts=str(tmp_path / "absent"))))
    assert "correct ssh.known_hosts" in failed.remedy


async def test_a_known_hosts_file_is_read_again_when_it_has_changed(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    path = tmp_path / "known_hosts"
    path.touch()
    host = replace(host_of(sshd), known_hosts=str(path))
    assert isinstance(await failure(enter(host)), HostKeyRejectedError)
    sshd.trust(path, sshd.port)
    await enter(host)
    path.write_text("")
    assert isinstance(await failure(enter(host)), HostKeyRejectedError)
