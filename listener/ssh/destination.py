"""Where a host's name leads: itself, or an alias of the OpenSSH configuration that `ssh.config` names.

Of that file counts how a host is reached and by which algorithms. What proves who the host is, and who we
are, is the listener's own configuration, whatever the file says: `OURS` and the known hosts.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh

from listener.errors import SshConfigUnusableError
from listener.sites import Host

SSH_PORT = 22

OURS: Mapping[str, Any] = {
    # Without these, asyncssh asks an agent, smart cards, Kerberos and what lies in ~/.ssh by itself.
    "agent_forwarding": False,
    "agent_path": None,
    "client_certs": [],
    "client_host_keysign": None,
    "client_keys": None,
    "gss_host": None,
    "host_based_auth": False,
    "pkcs11_provider": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    # The last two are never answered: that they are asked for tells that a key is not enough.
    "preferred_auth": ["publickey", "keyboard-interactive", "password"],
    "public_key_auth": True,
    "kbdint_auth": True,
    "password_auth": True,
    # The session is the script's.
    "command": None,
    "env": None,
    "send_env": None,
    "request_pty": False,
    "x11_forwarding": False,
    # Another name than the one that known_hosts is asked for would be connected to.
    "canonicalize_hostname": False,
    # A banner may be in any encoding: a plain ssh logs in, whatever it says.
    "utf8_decode_errors": "replace",
    # A host that is frozen is noticed.
    "keepalive_interval": 10,
    "keepalive_count_max": 3,
}
"""What no file decides."""

_INCLUDE = re.compile(r"""^\s*["']?include["'\s=]""", re.IGNORECASE | re.MULTILINE)

_HOP = re.compile(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:@/]+)(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect to, in the end."""

    host: Host
    """With the address, port and user that result."""
    known_as: str
    """The name that known_hosts has it by."""
    options: asyncssh.SSHClientConnectionOptions
    limit: float | None
    """ConnectTimeout, in seconds."""
    jumps: tuple[Host, ...]
    """ProxyJump: the hosts on the way, the nearest first."""

    @property
    def proxied(self) -> bool:
        """Whether a ProxyCommand stands for the network."""
        return self.options.proxy_command is not None

    @property
    def ciphers(self) -> str | tuple[()]:
        """The ciphers, as asyncssh takes them: the file's, or else the cheapest good one first."""
        return () if self.options.config.get("Ciphers") else "^aes128-gcm@openssh.com"


async def find(host: Host) -> Destination:
    """Return where a host's name leads; raise `SshConfigUnusableError`."""
    if host.config is None:
        return resolve(host)
    # The file may hold Match exec, which waits for a command.
    return await asyncio.to_thread(resolve, host)


def resolve(host: Host) -> Destination:
    """Do what `find` does, on this thread."""
    try:
        if host.config is not None and _INCLUDE.search(Path(host.config).read_text()):
            raise SshConfigUnusableError(
                f"{host.config} has an Include",
                remedy="write the lines of that file in its place: no file is read but the one that is named",
            )
        options = _options(host)
        jumps = () if host.via else _jumps(host, options.tunnel)
    except (OSError, ValueError, LookupError, asyncssh.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        blamed = f"{host.config} can't be used for " if host.config else ""
        raise SshConfigUnusableError(f"{blamed}{host.name}: {reason}") from error
    found = replace(host, address=options.host, port=options.port, user=options.username)
    known_as = options.host_key_alias or options.host
    return Destination(found, known_as, options, options.connect_timeout or None, jumps)


def _options(host: Host) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(
        host=host.address,
        port=() if host.port is None else host.port,
        username=host.user or (),
        config=host.config,
        **OURS,
    )


def _jumps(host: Host, written: object) -> tuple[Host, ...]:
    """Return the hosts that a ProxyJump names, each to be logged in to as strictly as any."""
    if not isinstance(written, str):
        return ()
    found = []
    for hop in written.split(","):
        match = _HOP.fullmatch(hop.strip())
        if match is None:
            raise ValueError(f"ProxyJump {hop.strip()} is not [USER@]HOST[:PORT]")
        user, name, port = match.groups()
        found.append(
            replace(
                host,
                name=f"the jump host of {host.name}",
                address=name.strip("[]"),
                port=int(port) if port else None,
                user=user or "",
            )
        )
    return tuple(found)
