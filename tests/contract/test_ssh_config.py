"""The OpenSSH configuration that ssh.config names: it says how a host is reached, and never whom to trust."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from listener.errors import (
    ForwardingRefusedError,
    HostKeyRejectedError,
    HostUnreachableError,
    LoginRefusedError,
    SshConfigUnusableError,
)
from listener.rehearsal.sshd import Sshd, free_port
from listener.sites import Host
from listener.ssh.connection import HostConnection
from tests.contract.test_repository import Notes, host_of
from tests.login import Enter, agent_with, failure, stranger
from tests.proxy import Proxy
from tests.saying import say

Aliased = Callable[..., Host]


@pytest.fixture
def aliased(sshd: Sshd, tmp_path: Path) -> Aliased:
    """Makes the shared sshd an alias, `studio`, of a file of these lines; `{port}` is its port."""

    def make(text: str, **changes: object) -> Host:
        (tmp_path / "ssh_config").write_text(text.format(port=sshd.port, folder=tmp_path, user=sshd.user))
        host = replace(host_of(sshd), address="studio", port=None, config=str(tmp_path / "ssh_config"))
        return replace(host, **changes)  # type: ignore[arg-type] # any of its fields

    return make


STUDIO = "Host studio\n  HostName 127.0.0.1\n  Port {port}\n"


async def test_an_alias_leads_to_its_host_name_and_port(aliased: Aliased, enter: Enter) -> None:
    await enter(aliased(STUDIO))


async def test_what_the_listener_s_own_configuration_says_wins(
    sshd: Sshd, aliased: Aliased, enter: Enter
) -> None:
    wrong = f"Host studio\n  HostName 127.0.0.1\n  Port {free_port()}\n  User nobody\n"
    connection = await enter(aliased(wrong, port=sshd.port))
    assert connection.get_extra_info("username") == sshd.user


async def test_a_host_that_the_file_does_not_name_is_reached_at_port_22(
    aliased: Aliased, enter: Enter
) -> None:
    failed = await failure(enter(aliased("Host other\n  Port 1\n", address="127.0.0.1")))
    assert isinstance(failed, HostKeyRejectedError)
    assert "has no line for 127.0.0.1" in failed.message


async def test_without_the_setting_no_file_is_read_and_no_command_of_one_runs(
    sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'Match exec "touch {tmp_path}/executed"\n  UserKnownHostsFile none\n{STUDIO}'
    named = aliased(text, address="127.0.0.1", port=sshd.port)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(Path(str(named.config)).read_text())  # noqa: ASYNC240 (small)
    monkeypatch.setenv("HOME", str(tmp_path))
    await enter(replace(named, config=None))
    assert not (tmp_path / "executed").exists()
    await enter(named)
    assert (tmp_path / "executed").exists()


WEAK = """\
Host *
  StrictHostKeyChecking no
  UserKnownHostsFile none
  GlobalKnownHostsFile {folder}/ssh_config
  NoHostAuthenticationForLocalhost yes
  VerifyHostKeyDNS yes
"""


@pytest.mark.parametrize("line", ["", "studio {other}", "[127.0.0.1]:{port} {other}"])
async def test_nothing_in_the_file_makes_up_for_a_host_key_that_is_not_known(
    sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path, line: str
) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (tmp_path / "known").write_text(line.format(port=sshd.port, other=other))
    host = aliased(STUDIO + WEAK, known_hosts=str(tmp_path / "known"))
    assert isinstance(await failure(enter(host)), HostKeyRejectedError)


async def test_the_host_key_is_looked_up_by_the_alias_that_the_file_gives_it(
    sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    public = sshd.known_hosts.read_text().split(maxsplit=1)[1]
    (tmp_path / "known").write_text(f"the-studio {public}")
    await enter(aliased(STUDIO + "  HostKeyAlias the-studio\n", known_hosts=str(tmp_path / "known")))
    other = aliased(STUDIO + "  HostKeyAlias another\n", known_hosts=str(tmp_path / "known"))
    failed = await failure(enter(other))
    assert f"has no line for [another]:{sshd.port}" in failed.message
    assert "under the name another" in failed.remedy


async def test_keys_and_agents_that_the_file_names_do_not_count(
    sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    refused = await stranger(tmp_path / "stranger")
    async with agent_with(tmp_path, sshd.identity) as agent:
        text = f"{STUDIO}  IdentityFile {sshd.identity}\n  IdentityAgent {agent}\n  IdentitiesOnly yes\n"
        failed = await failure(enter(aliased(text, identity=refused)))
    assert isinstance(failed, LoginRefusedError)
    assert failed.message.endswith(f"log in with {refused}")
    no_keys = f"{STUDIO}  PubkeyAuthentication no\n  PreferredAuthentications password\n"
    await enter(aliased(no_keys + f"  IdentityFile {refused}\n  IdentitiesOnly yes\n"))


async def test_what_the_file_says_of_sessions_does_not_count(aliased: Aliased) -> None:
    text = (
        f"{STUDIO}  RemoteCommand /bin/false\n  RequestTTY force\n  SetEnv LEFT=behind\n  ForwardAgent yes\n"
    )
    connection = HostConnection(aliased(text), connect_timeout=60)
    said = await say(connection, "[ -t 0 ] || echo $LEFT$SSH_AUTH_SOCK.")
    await connection.close()
    assert said == ".\n"


async def test_the_file_chooses_algorithms(aliased: Aliased, enter: Enter) -> None:
    text = f"{STUDIO}  Ciphers no-such-cipher,aes256-ctr\n  MACs hmac-sha2-512\n"
    connection = await enter(aliased(text))
    assert connection.get_extra_info("send_cipher") == "aes256-ctr"
    assert connection.get_extra_info("send_mac") == "hmac-sha2-512"
    connection = await enter(aliased(STUDIO))
    assert connection.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"


async def test_the_shorter_limit_counts(sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path) -> None:
    async with Proxy(sshd.port) as proxy:
        proxy.freeze()
        sshd.trust(tmp_path / "known", proxy.port)
        host = aliased(STUDIO + "  ConnectTimeout 1\n", port=proxy.port, known_hosts=str(tmp_path / "known"))
        assert "within 1 s" in (await failure(enter(host, limit=60))).message
        assert "within 0.5 s" in (await failure(enter(host, limit=0.5))).message


RELAY = """\
import socket, sys, threading
near = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def out():
    while data := near.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
threading.Thread(target=out, daemon=True).start()
while data := sys.stdin.buffer.raw.read(65536):
    near.sendall(data)
"""


async def test_a_proxy_command_stands_for_the_network(
    sshd: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    (tmp_path / "relay.py").write_text(RELAY)
    text = STUDIO + f"  ProxyCommand {sys.executable} {tmp_path}/relay.py %p\n"
    await enter(
        aliased(text.replace("HostName 127.0.0.1", "HostName elsewhere.invalid"), **by_any_name(sshd))
    )
    for command, told in (
        ("/bin/false", "check its ProxyCommand"),
        ("/no/such", "correct ProxyCommand in the file"),
    ):
        failed = await failure(enter(aliased(f"{STUDIO}  ProxyCommand {command}\n")))
        assert isinstance(failed, HostUnreachableError)
        assert told in failed.remedy


def by_any_name(sshd: Sshd) -> dict[str, str]:
    """The setting that lets the sshd's key count under every name."""
    path = sshd.folder / "any_name"
    path.write_text(f"* {sshd.known_hosts.read_text().split(maxsplit=1)[1]}")
    return {"known_hosts": str(path)}


# ProxyJump.


def both_known(first: Sshd, second: Sshd, path: Path) -> dict[str, str]:
    """The setting with which the listener knows two sshds."""
    path.write_text(first.known_hosts.read_text() + second.known_hosts.read_text())
    return {"known_hosts": str(path)}


@pytest.fixture
def gate(own_sshd: Sshd, sshd: Sshd) -> Sshd:
    """An sshd that lets the shared one's key in as well."""
    with (own_sshd.folder / "authorized_keys").open("a") as file:
        file.write((sshd.folder / "authorized_keys").read_text())
    return own_sshd


async def test_a_jump_host_of_the_file_is_gone_through_and_left_with_its_host(
    sshd: Sshd, gate: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    text = (
        STUDIO + "  ProxyJump {user}@gate\nHost gate\n  HostName 127.0.0.1\n"
        f"  Port {gate.port}\n  ProxyJump {{user}}@[127.0.0.1]:{gate.port}\n"
    )
    connection = await enter(aliased(text, **both_known(sshd, gate, tmp_path / "known")))
    assert gate.log().count("Accepted publickey") == 2
    near = connection._tunnel
    assert isinstance(near, asyncssh.SSHClientConnection)
    far = near._tunnel
    assert isinstance(far, asyncssh.SSHClientConnection)
    connection.abort()
    await asyncio.gather(near.wait_closed(), far.wait_closed())


async def test_several_jump_hosts_are_gone_through_in_their_order(
    sshd: Sshd, gate: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    hops = f"127.0.0.1:{gate.port},ssh://{{user}}@127.0.0.1:{{port}}"
    connection = await enter(
        aliased(f"{STUDIO}  ProxyJump {hops}\n", **both_known(sshd, gate, tmp_path / "known"))
    )
    assert "Accepted publickey" in gate.log()
    near = connection._tunnel
    assert isinstance(near, asyncssh.SSHClientConnection)
    assert near.get_extra_info("port") == sshd.port


async def test_a_jump_host_must_be_known_too_and_an_error_says_that_it_is_the_jump_host(
    gate: Sshd, aliased: Aliased, enter: Enter
) -> None:
    text = f"{STUDIO}  ProxyJump 127.0.0.1:{gate.port}\n{WEAK}"
    failed = await failure(enter(aliased(text)))
    assert isinstance(failed, HostKeyRejectedError)
    assert failed.message.startswith("the jump host of studio: ")
    assert "Connection from" not in gate.log()


async def test_a_jump_host_that_is_down_or_does_not_forward_is_told_from_the_host(
    sshd: Sshd, gate: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    port = free_port()
    jump = aliased(
        f"{STUDIO}  ProxyJump 127.0.0.1:{gate.port}\n", **both_known(sshd, gate, tmp_path / "known")
    )
    sshd.trust(tmp_path / "closed", port)
    (tmp_path / "known").write_text((tmp_path / "known").read_text() + (tmp_path / "closed").read_text())
    failed = await failure(enter(replace(jump, port=port)))
    assert f"studio (127.0.0.1:{port}) can't be reached from the jump host of studio" in failed.message
    gate.stop()
    failed = await failure(enter(jump))
    assert isinstance(failed, HostUnreachableError)
    assert failed.message == f"the jump host of studio (127.0.0.1:{gate.port}) refuses the connection"
    (gate.folder / "sshd_config").write_text(
        (gate.folder / "sshd_config").read_text() + "AllowTcpForwarding no\n"
    )
    gate.start()
    failed = await failure(enter(jump))
    assert isinstance(failed, ForwardingRefusedError)
    assert "the jump host of studio does not forward connections" in failed.message


async def test_via_wins_over_the_file(
    sshd: Sshd, gate: Sshd, aliased: Aliased, enter: Enter, tmp_path: Path
) -> None:
    text = f"{STUDIO}  ProxyJump nowhere.invalid\n"
    both = both_known(sshd, gate, tmp_path / "known")
    near = HostConnection(replace(host_of(gate), name="near"), connect_timeout=60)
    far = HostConnection(aliased(text, via="near", **both), connect_timeout=60, via=near)
    await far.warm(Notes())
    assert "Accepted publickey" in gate.log()
    await asyncio.gather(far.close(), near.close())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (STUDIO + "  KexAlgorithms no-such\n  Port x\n", "line 5: Invalid port integer value"),
        (STUDIO + "  RekeyLimit much\n", "used for studio: could not convert"),
        (STUDIO + '  HostKeyAlias "open\n', "No closing quotation"),
        (STUDIO + "  Port\n", "Missing port value"),
        ("Match exec\n", "Missing exec match pattern"),
        (STUDIO + "  Include {folder}/other\n", "has an Include"),
        ("include=/etc/ssh/ssh_config\n", "has an Include"),
        ("Host *\n  ProxyJump gate\n", "is a loop"),
        (STUDIO + "  ProxyJump a:b:c\n", "is not [USER@]HOST[:PORT]"),
    ],
)
async def test_a_file_that_can_t_be_used_is_told_with_its_name(
    aliased: Aliased, enter: Enter, text: str, told: str
) -> None:
    host = aliased(text)
    failed = await failure(enter(host))
    assert isinstance(failed, SshConfigUnusableError)
    assert told.lower() in failed.message.lower()
    assert str(host.config) in failed.message
    assert failed.permanent


async def test_a_file_that_is_gone_is_told_with_its_name(aliased: Aliased, enter: Enter) -> None:
    failed = await failure(enter(aliased(STUDIO, config="/no/such/ssh_config")))
    assert isinstance(failed, SshConfigUnusableError)
    assert "/no/such/ssh_config can't be used for studio: No such file" in failed.message
