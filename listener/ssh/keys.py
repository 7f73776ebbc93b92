"""The files and the agent that prove who we are, and the file that says who a host is."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import asyncssh

from listener.errors import AgentUnavailableError, HostKeyRejectedError, IdentityUnusableError
from listener.ssh.destination import SSH_PORT, Destination

PEM = "-----"
"""What a private key begins and ends with, which asyncssh takes for the key of an unknown kind."""

ODD_MOST = 10
"""Odd lines of a known_hosts file that are named."""


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
                f"the key {path} has a passphrase, which nobody is there to type",
                remedy="load it into an ssh agent, set ssh.agent to the agent's socket and remove "
                "ssh.identity; or give a key of the listener's own without a passphrase",
            ) from error
        raise IdentityUnusableError(
            f"the file {path} is no private key that can be used: {error}",
            remedy="give the private half of a key, such as ssh-keygen -t ed25519 -N '' makes",
        ) from error


def public_key(path: Path) -> str:
    """Return the public key in a file, as a line of authorized_keys has it; raise `IdentityUnusableError`."""
    try:
        return asyncssh.read_public_key(path).export_public_key().decode().strip()
    except OSError as error:
        raise IdentityUnusableError(
            f"the key {path} can't be read: {error.strerror}", remedy="name a file that you may read"
        ) from error
    except (asyncssh.KeyImportError, ValueError) as error:
        raise IdentityUnusableError(
            f"the file {path} is no public key: {error}",
            remedy="name the public half of a key, such as id_ed25519.pub",
        ) from error


def known_keys(destination: Destination) -> tuple[Sequence[Any], ...]:
    """Return what known_hosts says of a host; raise `HostKeyRejectedError` if it says nothing.

    Only its name counts, as with OpenSSH: whoever rules the DNS could give it the address of another known
    host.
    """
    host, name = destination.host, destination.known_as
    known, odd = _known_hosts(host.known_hosts)
    said: tuple[Sequence[Any], ...] = asyncssh.match_known_hosts(known, name, "", host.port)
    keys, authorities, *_ = said
    if not keys and not authorities:
        wanted = name if host.port == SSH_PORT else f"[{name}]:{host.port}"
        alias = "" if name == host.address else f" under the name {name}"
        raise HostKeyRejectedError(
            f"{host.name}: {host.known_hosts} has no line for {wanted}{_but(odd)}",
            remedy=f"add what ssh-keyscan -p {host.port} {host.address} says{alias}, "
            "and compare its fingerprint",
        )
    return said


def _but(odd: Sequence[int]) -> str:
    return f" (it has lines that say nothing: {', '.join(map(str, odd[:ODD_MOST]))})" if odd else ""


def skipped(path: str) -> tuple[int, ...]:
    """Return the numbers of the lines of a known_hosts file that say nothing that can be understood."""
    return _known_hosts(path)[1]


def _known_hosts(path: str) -> tuple[asyncssh.SSHKnownHosts, tuple[int, ...]]:
    try:
        facts = Path(path).stat()
        known, odd, whole = _parsed(path, (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    except OSError as error:
        raise IdentityUnusableError(
            f"the known_hosts file {path} can't be read: {error.strerror}",
            remedy="correct ssh.known_hosts, and let the listener's user read the file",
        ) from error
    if not whole:
        # What was named by mistake may be a key: none of its lines is quoted.
        raise IdentityUnusableError(
            f"{path} is no known_hosts file: none of its lines is one",
            remedy="give a known_hosts file as OpenSSH has it; ssh-keygen -l -f shows what it can read",
        )
    return known, odd


@lru_cache(maxsize=4)
def _parsed(path: str, _stamp: tuple[int, ...]) -> tuple[asyncssh.SSHKnownHosts, tuple[int, ...], bool]:
    """Read a file once for all hosts, and again when it has changed.

    Like OpenSSH, line by line: one that is odd is skipped (asyncssh alone would refuse the whole file).
    Comments may be in any encoding. Returns what is known, the numbers of the odd lines, and whether it is
    such a file.
    """
    known, odd, others = asyncssh.SSHKnownHosts(), [], 0
    for number, line in enumerate(Path(path).read_bytes().decode("utf-8", "replace").split("\n"), 1):
        try:
            known.load(line)
        except ValueError:
            odd.append(number)
        else:
            others += bool(line.strip()) and not line.startswith(("#", PEM))
    return known, tuple(odd), bool(others) or not odd


class Agent:
    """An ssh agent: asked for its keys, and then to sign with them, until it is left alone."""

    def __init__(self, path: str, limit: float) -> None:
        self.path = path
        self._limit = limit
        self._client: asyncssh.SSHAgentClient | None = None

    async def keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        """Return the keys that it holds; raise `AgentUnavailableError` if it does not answer."""
        try:
            async with asyncio.timeout(self._limit):
                self._client = await asyncssh.connect_agent(self.path)
                return await self._client.get_keys()
        except FileNotFoundError as error:
            raise AgentUnavailableError(f"there is no socket {self.path} of an ssh agent") from error
        except ConnectionRefusedError as error:
            raise AgentUnavailableError(f"no ssh agent listens at {self.path}") from error
        except PermissionError as error:
            raise AgentUnavailableError(
                f"the ssh agent's socket {self.path} may not be opened",
                remedy="run the agent as the listener's user, who alone may use its socket",
            ) from error
        except TimeoutError as error:
            raise AgentUnavailableError(
                f"the ssh agent at {self.path} does not answer within {self._limit:g} s"
            ) from error
        except (OSError, ValueError) as error:
            raise AgentUnavailableError(f"what listens at {self.path} is no ssh agent: {error}") from error

    def leave(self) -> None:
        """Close the connection to it."""
        if self._client is not None:
            self._client.close()
