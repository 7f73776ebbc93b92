"""Where a host's name leads: to itself, or through an alias in the OpenSSH configuration (`ssh.config`).

That file decides how a host is reached and with which algorithms. It does not decide how the host and we
prove our identities: `FIXED_OPTIONS` and the listener's own known hosts and keys do.
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

FIXED_OPTIONS: Mapping[str, Any] = {
    # Without these, asyncssh uses an agent, smart cards, Kerberos and the keys in ~/.ssh by itself.
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
    # The last two are never answered. The host asks for them if a key is not enough, and an error can say so.
    "preferred_auth": ["publickey", "keyboard-interactive", "password"],
    "public_key_auth": True,
    "kbdint_auth": True,
    "password_auth": True,
    # The session belongs to our script.
    "command": None,
    "env": None,
    "send_env": None,
    "request_pty": False,
    "x11_forwarding": False,
    # It would connect to another name than the one that is looked up in known_hosts.
    "canonicalize_hostname": False,
    # A banner may be in any encoding. OpenSSH logs in all the same; asyncssh would end the login.
    "utf8_decode_errors": "replace",
    # Notices a host that is frozen.
    "keepalive_interval": 10,
    "keepalive_count_max": 3,
}
"""The options that no configuration file can change."""

_INCLUDE = re.compile(r"""^\s*["']?include["'\s=]""", re.IGNORECASE | re.MULTILINE)

_JUMP = re.compile(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:@/]+)(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect to, with all aliases resolved."""

    host: Host
    """With the resulting address, port and user."""
    known_as: str
    """Its name in known_hosts."""
    options: asyncssh.SSHClientConnectionOptions
    limit: float | None
    """ConnectTimeout, in seconds."""
    jumps: tuple[Host, ...]
    """The hosts of ProxyJump, the nearest first."""

    @property
    def proxied(self) -> bool:
        """Whether a ProxyCommand makes the connection."""
        return self.options.proxy_command is not None

    @property
    def ciphers(self) -> str | tuple[()]:
        """The ciphers in asyncssh's form: those of the file, or the cheapest safe one first."""
        return () if self.options.config.get("Ciphers") else "^aes128-gcm@openssh.com"


async def find(host: Host) -> Destination:
    """Return where a host's name leads; raise `SshConfigUnusableError`."""
    if host.config is None:
        return resolve(host)
    # The file may have Match exec, which runs a command and waits for it.
    return await asyncio.to_thread(resolve, host)


def resolve(host: Host) -> Destination:
    """Do the same as `find`, but block this thread."""
    try:
        if host.config is not None and _INCLUDE.search(Path(host.config).read_text()):
            raise SshConfigUnusableError(
                f"{host.config} has an Include, which is not supported",
                remedy="replace it by the lines of that file: only the file that ssh.config names is read",
            )
        options = _options(host)
        jumps = () if host.via else _jumps(host, options.tunnel)
    except (OSError, ValueError, LookupError, asyncssh.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        used_for = f"{host.config} can't be used for " if host.config else ""
        raise SshConfigUnusableError(f"{used_for}{host.name}: {reason}") from error
    found = replace(host, address=options.host, port=options.port, user=options.username)
    known_as = options.host_key_alias or options.host
    return Destination(found, known_as, options, options.connect_timeout or None, jumps)


def _options(host: Host) -> asyncssh.SSHClientConnectionOptions:
    return asyncssh.SSHClientConnectionOptions(
        host=host.address,
        port=() if host.port is None else host.port,
        username=host.user or (),
        config=host.config,
        **FIXED_OPTIONS,
    )


def _jumps(host: Host, written: object) -> tuple[Host, ...]:
    """Return the hosts that a ProxyJump names. Each login to them is as strict as to any other host."""
    if not isinstance(written, str):
        return ()
    found = []
    for jump in written.split(","):
        match = _JUMP.fullmatch(jump.strip())
        if match is None:
            raise ValueError(f"ProxyJump {jump.strip()} is not [USER@]HOST[:PORT]")
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
