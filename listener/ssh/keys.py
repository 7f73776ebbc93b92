"""Our keys (files and the ssh agent), and the host keys that known_hosts has."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

from listener.errors import AgentUnavailableError, HostKeyRejectedError, IdentityUnusableError
from listener.ssh.destination import SSH_PORT, Destination

PEM = "-----"
"""The first characters of a private key's lines. asyncssh takes such a line for a key of an unknown type."""

MAX_UNREADABLE = 10
"""Unreadable lines of a known_hosts file that a message lists."""


def identity(path: str) -> asyncssh.SSHKey:
    """Return the private key in a file; raise `IdentityUnusableError`."""
    try:
        return asyncssh.read_private_key(path)
    except OSError as error:
        raise IdentityUnusableError(
            f"the key {path} can't be read: {error.strerror}",
            remedy="correct ssh.identity, and let the listener's user own and read the file",
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        if "assphrase" in str(error):
            raise IdentityUnusableError(
                f"the key {path} has a passphrase, and nobody can type it here",
                remedy="load it into an ssh agent, set ssh.agent to the agent's socket and remove "
                "ssh.identity; or use a separate key without a passphrase",
            ) from error
        raise IdentityUnusableError(
            f"the file {path} is not a usable private key: {error}",
            remedy="use a private key file, for example one made by ssh-keygen -t ed25519 -N ''",
        ) from error


def public_key(path: Path) -> str:
    """Return the public key in a file, as a line of authorized_keys has it; raise `IdentityUnusableError`."""
    try:
        return asyncssh.read_public_key(path).export_public_key().decode().strip()
    except OSError as error:
        raise IdentityUnusableError(
            f"the key {path} can't be read: {error.strerror}", remedy="name a file that you can read"
        ) from error
    except (asyncssh.KeyImportError, ValueError) as error:
        raise IdentityUnusableError(
            f"the file {path} is not a public key: {error}",
            remedy="name a public key file, for example id_ed25519.pub",
        ) from error


def known_keys(destination: Destination) -> tuple[Sequence[Any], ...]:
    """Return the keys that known_hosts has for a host; raise `HostKeyRejectedError` if it has none.

    As in OpenSSH, only the name counts, not the address. Otherwise somebody who controls the DNS could point
    this name to another known host, whose key would then be accepted.
    """
    host, name = destination.host, destination.known_as
    known, unreadable = _known_hosts(host.known_hosts)
    matched: tuple[Sequence[Any], ...] = asyncssh.match_known_hosts(known, name, "", host.port)
    keys, authorities, *_ = matched
    if not keys and not authorities:
        wanted = name if host.port == SSH_PORT else f"[{name}]:{host.port}"
        alias = "" if name == host.address else f" under the name {name}"
        raise HostKeyRejectedError(
            f"{host.name}: {host.known_hosts} has no line for {wanted}{_listed(unreadable)}",
            remedy=f"add the output of ssh-keyscan -p {host.port} {host.address}{alias}, "
            "and compare the fingerprint",
        )
    return matched


def _listed(lines: Sequence[int]) -> str:
    return f" (unreadable lines: {', '.join(map(str, lines[:MAX_UNREADABLE]))})" if lines else ""


def unreadable_lines(path: str) -> tuple[int, ...]:
    """Return the numbers of the lines of a known_hosts file that can't be read, and are skipped."""
    return _known_hosts(path)[1]


def _known_hosts(path: str) -> tuple[asyncssh.SSHKnownHosts, tuple[int, ...]]:
    try:
        stat = Path(path).stat()
        stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        known, unreadable, valid = _parsed(path, stamp)
    except OSError as error:
        raise IdentityUnusableError(
            f"the known_hosts file {path} can't be read: {error.strerror}",
            remedy="correct ssh.known_hosts, and let the listener's user read the file",
        ) from error
    if not valid:
        # The file may be a private key, named by mistake: the message quotes none of its lines.
        raise IdentityUnusableError(
            f"{path} is not a known_hosts file: none of its lines can be read",
            remedy="use a file in OpenSSH's format; ssh-keygen -l -f shows the lines that it can read",
        )
    return known, unreadable


@lru_cache(maxsize=4)
def _parsed(path: str, _stamp: tuple[int, ...]) -> tuple[asyncssh.SSHKnownHosts, tuple[int, ...], bool]:
    """Read a file once for all hosts, and again when it has changed (`_stamp`).

    Like OpenSSH, it skips each line that it can't read. asyncssh alone would refuse the whole file.
    Comments may be in any encoding. Returns the known hosts, the numbers of the unreadable lines, and whether
    the file is a known_hosts file at all.
    """
    known, unreadable, readable = asyncssh.SSHKnownHosts(), [], 0
    for number, line in enumerate(Path(path).read_bytes().decode("utf-8", "replace").split("\n"), 1):
        try:
            known.load(line)
        except ValueError:
            unreadable.append(number)
        else:
            readable += bool(line.strip()) and not line.startswith(("#", PEM))
    return known, tuple(unreadable), bool(readable) or not unreadable


class Agent:
    """An ssh agent, which lists its keys and signs with them until it is closed."""

    def __init__(self, path: str, limit: float) -> None:
        self.path = path
        self._limit = limit
        self._client: asyncssh.SSHAgentClient | None = None

    async def keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        """Return its keys; raise `AgentUnavailableError` if it does not answer."""
        try:
            async with asyncio.timeout(self._limit):
                self._client = await asyncssh.connect_agent(self.path)
                return await self._client.get_keys()
        except FileNotFoundError as error:
            raise AgentUnavailableError(f"the ssh agent's socket {self.path} does not exist") from error
        except ConnectionRefusedError as error:
            raise AgentUnavailableError(f"no ssh agent listens at {self.path}") from error
        except PermissionError as error:
            raise AgentUnavailableError(
                f"the listener's user may not open the ssh agent's socket {self.path}",
                remedy="run the agent as the listener's user: an agent serves only its own user",
            ) from error
        except TimeoutError as error:
            raise AgentUnavailableError(
                f"the ssh agent at {self.path} did not answer within {self._limit:g} s"
            ) from error
        except (OSError, ValueError) as error:
            raise AgentUnavailableError(f"{self.path} is not the socket of an ssh agent: {error}") from error

    def close(self) -> None:
        """Close the connection to it."""
        if self._client is not None:
            self._client.close()
