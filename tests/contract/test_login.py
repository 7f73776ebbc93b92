"""Each way in which a connection or a login fails is told as such, with its own remedy."""

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from listener.errors import (
    ConnectionLostError,
    ForwardingRefusedError,
    HostKeyRejectedError,
    HostUnreachableError,
    LoginRefusedError,
)
from listener.rehearsal.sshd import Sshd, free_port
from listener.ssh.connection import HostConnection
from tests.contract.test_repository import Notes, host_of
from tests.login import Enter, failure, known, stranger
from tests.proxy import Proxy
from tests.saying import say


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to the host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no route to its network"),
        (OSError(errno.EPERM, "Operation not permitted"), "this machine forbids it"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "did not answer within"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "can't be resolved: Temporary failure"),
        (OSError("Multiple exceptions: one, another"), "can't be reached: Multiple exceptions"),
    ],
)
async def test_what_the_kernel_says_is_told_with_a_remedy(
    sshd: Sshd, enter: Enter, monkeypatch: pytest.MonkeyPatch, raised: OSError, told: str
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", failing)
    failed = await failure(enter(host_of(sshd)))
    assert isinstance(failed, HostUnreachableError)
    assert failed.message.startswith("studio (127.0.0.1:")
    assert told in failed.message


async def test_a_closed_port_and_a_name_that_is_none_are_told_apart(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    port = free_port()
    closed = replace(host_of(sshd), port=port, known_hosts=known(sshd, port, tmp_path / "known_hosts"))
    assert "refuses the connection" in (await failure(enter(closed))).message
    public = sshd.known_hosts.read_text().split(maxsplit=1)[1]
    (tmp_path / "names").write_text(f"* {public}")
    for name, told in (
        ("no-such-host.invalid", "can't be resolved"),
        ("two..dots", "is not a valid host name"),
    ):
        host = replace(closed, address=name, known_hosts=str(tmp_path / "names"))
        assert told in (await failure(enter(host))).message


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def old_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-1.5-old\r\n")
    await reader.read()


async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x" * 20_000)
    await reader.read()


async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-stuck\r\n")
    await reader.read()


async def greeting_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-short\r\n")
    await reader.readline()


@pytest.mark.parametrize(
    ("peer", "told", "remedy"),
    [
        (silent, "did not send an SSH greeting within 0.5 s", "not stuck"),
        (hanging_up, "does not answer as an SSH server", "MaxStartups"),
        (resetting, "does not answer as an SSH server: Connection reset by peer", "MaxStartups"),
        (web_server, "does not answer as an SSH server", "sshd listens on this port"),
        (
            old_server,
            "does not answer as an SSH server: Unsupported SSH version",
            "sshd listens on this port",
        ),
        (babbling, "does not answer as an SSH server: Banner line too long", "sshd listens on this port"),
        (stuck, "did not finish the key exchange within 3 s", "sync.connect_timeout"),
        (greeting_only, "ended the connection during the key exchange", "log of its sshd"),
    ],
)
async def test_how_far_the_connection_came_is_told(
    sshd: Sshd, enter: Enter, tmp_path: Path, peer: Peer, told: str, remedy: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        host = replace(host_of(sshd), port=port, known_hosts=known(sshd, port, tmp_path / "known_hosts"))
        # A short limit for who keeps silent; what is told first must have the time to come.
        failed = await failure(enter(host, limit=0.5 if peer is silent else 3 if peer is stuck else 60))
    assert isinstance(failed, HostUnreachableError)
    assert told in failed.message
    assert remedy in failed.remedy


class Unfriendly(asyncssh.SSHServer):
    """Proves who it is, and then does not go on."""

    def __init__(self, hangs_up: bool) -> None:
        self._hangs_up = hangs_up

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    async def begin_auth(self, username: str) -> bool:
        if self._hangs_up:
            self._connection.abort()
        await asyncio.sleep(60)
        return True


@pytest.mark.parametrize(
    ("hangs_up", "told"),
    [(True, "ended the connection during the login"), (False, "did not finish the login")],
)
async def test_a_host_that_hangs_up_or_hangs_while_logging_in_is_told_as_such(
    sshd: Sshd, enter: Enter, tmp_path: Path, hangs_up: bool, told: str
) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(sshd.folder / "host_key")],
        server_factory=lambda: Unfriendly(hangs_up),
    )
    async with server:
        port = server.get_port()
        host = replace(host_of(sshd), port=port, known_hosts=known(sshd, port, tmp_path / "known_hosts"))
        failed = await failure(enter(host, limit=60 if hangs_up else 3))
    assert isinstance(failed, HostUnreachableError)
    assert told in failed.message


# What the host agrees to.


MORE = """\
Match user *
  {enabled} yes
  AuthenticationMethods publickey,{method}
"""


@pytest.mark.parametrize(
    ("extra", "told", "remedy"),
    [
        (
            "Match user *\n PubkeyAuthentication no\n PasswordAuthentication yes\n",
            "does not accept public keys",
            "PubkeyAuth",
        ),
        (
            MORE.format(enabled="PasswordAuthentication", method="password"),
            "accepts the key of {user}, but asks for more: password",
            "AuthenticationMethods publickey",
        ),
        (
            MORE.format(enabled="KbdInteractiveAuthentication", method="keyboard-interactive"),
            "accepts the key of {user}, but asks for more: keyboard-interactive",
            "AuthenticationMethods publickey",
        ),
        ("DenyUsers *\n", "does not let {user} log in with", "authorized_keys"),
        (
            "KexAlgorithms diffie-hellman-group1-sha1\n",
            "no common algorithm for key exchange: it offers diffie",
            "OpenSSH",
        ),
        ("Ciphers 3des-cbc\n", "no common algorithm for encryption: it offers 3des-cbc", "OpenSSH"),
    ],
)
async def test_what_an_account_or_an_sshd_does_not_agree_to_is_told(
    enter: Enter, tmp_path: Path, extra: str, told: str, remedy: str
) -> None:
    with Sshd(tmp_path, extra) as own:
        for _ in range(10):
            failed = await failure(enter(host_of(own)))
            # Both ends see that they have no algorithm in common: an sshd that hangs up first is tried again.
            if failed.permanent:
                break
        assert isinstance(failed, LoginRefusedError)
        assert told.format(user=own.user) in failed.message
        assert remedy in failed.remedy
        assert failed.permanent


async def test_an_identity_that_alone_is_too_many_is_a_refused_identity(enter: Enter, tmp_path: Path) -> None:
    refused = await stranger(tmp_path / "stranger")
    with Sshd(tmp_path, "MaxAuthTries 1\n") as own:
        failed = await failure(enter(replace(host_of(own), identity=refused)))
    assert isinstance(failed, LoginRefusedError)
    assert "ssh.identity to the user's authorized_keys" in failed.remedy


@pytest.mark.parametrize(
    ("line", "told", "remedy"),
    [
        ("[127.0.0.1]:{port} {other}", "its key is not the one in known_hosts", "reinstalled"),
        ("[127.0.0.1]:{port} {rsa}", "its key is of type ssh-ed25519", "ssh-keyscan"),
        ("@cert-authority [127.0.0.1]:{port} {other}", "and no authority", "ssh-keyscan"),
        ("{own}@revoked {own}", "Host key is revoked", "give the host a new one"),
        ("", "has no line for", "ssh-keyscan"),
    ],
)
async def test_each_way_in_which_a_host_key_is_not_trusted_is_told(
    sshd: Sshd, enter: Enter, tmp_path: Path, line: str, told: str, remedy: str
) -> None:
    publics = {
        name: asyncssh.generate_private_key(kind).export_public_key().decode()
        for name, kind in (("other", "ssh-ed25519"), ("rsa", "ssh-rsa"))
    }
    path = tmp_path / "known_hosts"
    path.write_text(line.format(port=sshd.port, own=sshd.known_hosts.read_text(), **publics))
    failed = await failure(enter(replace(host_of(sshd), known_hosts=str(path))))
    assert isinstance(failed, HostKeyRejectedError)
    assert told in failed.message
    assert remedy in failed.remedy
    assert failed.permanent


@pytest.mark.parametrize(
    ("facts", "told", "remedy"),
    [
        ({"valid_before": "20200101"}, "Certificate expired", "sign the host's key again"),
        ({"valid_after": "20900101"}, "Certificate not yet valid", "clock"),
        ({"principals": ["other"]}, "Certificate principal mismatch", "the name that the certificate has"),
        ({"forged": True}, "Host CA key is not trusted", "@cert-authority"),
    ],
)
async def test_each_way_in_which_a_host_certificate_does_not_count_is_told(
    enter: Enter, tmp_path: Path, facts: dict[str, Any], told: str, remedy: str
) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    with Sshd(tmp_path, f"HostCertificate {tmp_path}/host_key-cert.pub\n") as own:
        signer = asyncssh.generate_private_key("ssh-ed25519") if facts.pop("forged", False) else authority
        key = asyncssh.read_private_key(str(tmp_path / "host_key"))
        made = signer.generate_host_certificate(key, "host", **({"principals": ["127.0.0.1"]} | facts))
        made.write_certificate(str(tmp_path / "host_key-cert.pub"))
        own.stop()
        own.start()
        path = tmp_path / "authorities"
        path.write_text(f"@cert-authority [127.0.0.1]:{own.port} {authority.export_public_key().decode()}")
        failed = await failure(enter(replace(host_of(own), known_hosts=str(path))))
    assert isinstance(failed, HostKeyRejectedError)
    assert told in failed.message
    assert remedy in failed.remedy


async def test_an_sshd_that_gives_no_session_is_told_as_such(tmp_path: Path) -> None:
    with Sshd(tmp_path, "MaxSessions 0\n") as own:
        connection = HostConnection(host_of(own), connect_timeout=60)
        failed = await failure(say(connection, "true"))
        await connection.close()
    assert isinstance(failed, ConnectionLostError)
    assert "did not open a session" in failed.message
    assert "MaxSessions" in failed.remedy


# The way through another host.


async def test_a_gate_that_does_not_forward_and_a_host_that_the_gate_does_not_reach_are_told_apart(
    sshd: Sshd, own_sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    gate = await enter(host_of(own_sshd))
    await enter(host_of(sshd), tunnel=gate)
    port = free_port()
    closed = replace(host_of(sshd), port=port, known_hosts=known(sshd, port, tmp_path / "known_hosts"))
    failed = await failure(enter(closed, tunnel=gate))
    assert isinstance(failed, HostUnreachableError)
    assert f"studio (127.0.0.1:{port}) can't be reached from gate: Connection refused" in failed.message
    own_sshd.stop()
    await gate.wait_closed()
    failed = await failure(enter(host_of(sshd), tunnel=gate))
    assert isinstance(failed, HostUnreachableError)
    assert "the connection to gate was lost" in failed.message


async def test_a_gate_that_forbids_forwarding_is_told_as_such(
    sshd: Sshd, enter: Enter, tmp_path: Path
) -> None:
    with Sshd(tmp_path, "AllowTcpForwarding no\n") as own:
        failed = await failure(enter(host_of(sshd), tunnel=await enter(host_of(own))))
    assert isinstance(failed, ForwardingRefusedError)
    assert "gate does not forward connections to it" in failed.message
    assert "AllowTcpForwarding" in failed.remedy


async def test_a_gate_that_waits_in_vain_for_a_host_is_told_as_such(
    sshd: Sshd, own_sshd: Sshd, enter: Enter
) -> None:
    async with Proxy(own_sshd.port) as proxy:
        there = replace(host_of(own_sshd), port=proxy.port)
        there = replace(there, known_hosts=known(own_sshd, proxy.port, own_sshd.folder / "behind"))
        gate = await enter(there)
        proxy.freeze()
        failed = await failure(enter(host_of(sshd), limit=0.5, tunnel=gate))
    assert isinstance(failed, HostUnreachableError)
    assert "did not answer through gate within 0.5 s" in failed.message


async def test_a_host_behind_one_that_fails_names_both_and_which_of_them_it_was(
    sshd: Sshd, own_sshd: Sshd, tmp_path: Path
) -> None:
    near = replace(host_of(own_sshd), name="near")
    gate = HostConnection(near, connect_timeout=60)
    far = HostConnection(replace(host_of(sshd), name="far", via="near"), connect_timeout=60, via=gate)
    own_sshd.stop()
    failed = await failure(far.warm(Notes()))
    assert isinstance(failed, HostUnreachableError)
    assert failed.message == f"far is behind near: near (127.0.0.1:{near.port}) refuses the connection"
    own_sshd.start()
    own_sshd.new_host_key()
    failed = await failure(far.warm(Notes()))
    assert isinstance(failed, HostKeyRejectedError)
    assert failed.message.startswith("far is behind near: near")
    await asyncio.gather(gate.close(), far.close())
