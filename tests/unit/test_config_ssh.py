"""What the listener logs in with, and how it finds its hosts: keys, an agent, an OpenSSH configuration."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.config.describe import describe, to_dict
from tests.unit.test_config import Folder, changed


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def agent(folder: Folder) -> Iterator[Path]:
    """The socket of an agent."""
    path = folder.path / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        yield path


def test_an_agent_may_stand_beside_the_identity_or_alone(folder: Folder, agent: Path) -> None:
    tree = changed("ssh/agent", "agent")
    both = folder.load(tree).hosts["studio"]
    assert (both.identity, both.agent) == (str(folder.path / "id_ed25519"), str(agent))
    del tree["ssh"]["identity"]
    alone = folder.load(tree)
    assert (alone.hosts["studio"].identity, alone.hosts["studio"].agent) == (None, str(agent))
    assert f"ssh: logs in with the keys of the agent at {agent}" in describe(alone)
    assert to_dict(alone)["hosts"]["studio"]["agent"] == str(agent)


def test_an_agent_may_be_the_environment_s(folder: Folder, agent: Path) -> None:
    folder.environ["SSH_AUTH_SOCK"] = str(agent)
    assert folder.load(changed("ssh/agent", "env:SSH_AUTH_SOCK")).hosts["studio"].agent == str(agent)
    del folder.environ["SSH_AUTH_SOCK"]
    assert "ssh.agent: names an environment variable that is not set" in folder.refused(
        changed("ssh/agent", "env:SSH_AUTH_SOCK")
    )


def test_without_identity_and_agent_there_is_nothing_to_log_in_with(folder: Folder) -> None:
    message = folder.refused(changed("ssh/identity", None))
    assert "ssh.identity: is missing: the path of the private key to log in with; or write agent" in message


@pytest.mark.parametrize("path", ["absent", "id_ed25519"])
def test_an_agent_is_a_socket_that_exists(folder: Folder, path: str) -> None:
    message = folder.refused(changed("ssh/agent", path))
    assert "ssh.agent: is not the path of a usable socket; start an agent" in message
    assert path not in message


def test_an_openssh_configuration_lets_a_host_s_port_be_what_it_says(folder: Folder) -> None:
    file = folder.put("ssh_config", "Host studio\n  Port 2222\n", 0o644)
    tree = changed("ssh/config", "ssh_config")
    tree["hosts"]["other"] = {"address": "other", "user": "crafter", "port": 22}
    loaded = folder.load(tree)
    studio, other = loaded.hosts["studio"], loaded.hosts["other"]
    assert (studio.config, studio.port, other.port) == (str(file), None, 22)
    assert "host studio: crafter@studio.example.com" in describe(loaded)
    assert f"ssh: logs in with the key {studio.identity}, reaches hosts as {file} says" in describe(loaded)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_openssh_configuration_that_others_may_write_to_is_refused(folder: Folder, mode: int) -> None:
    file = folder.put("ssh_config", "", mode)
    message = folder.refused(changed("ssh/config", "ssh_config"))
    assert f"ssh.config: other users can write to {file}, which can name commands" in message
    assert f"run chmod go-w {file}" in message


def test_an_openssh_configuration_is_a_file_that_exists(folder: Folder) -> None:
    assert "ssh.config: is not the path of a readable file" in folder.refused(changed("ssh/config", "absent"))
