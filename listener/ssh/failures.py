"""What asyncssh and the network raise, turned into this program's own errors.

The same exception means different things at different stages of a login: a connection that is lost before
the SSH greeting has another cause than one that is lost after the host has seen a key.
"""

import contextlib
import errno
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import asyncssh

from listener.errors import (
    ConnectionLostError,
    ForwardingRefusedError,
    HostKeyRejectedError,
    HostUnreachableError,
    LoginRefusedError,
    SessionRefusedError,
    SyncError,
)
from listener.sites import Host


@dataclass(slots=True)
class LoginAttempt:
    """One attempt to log in, and how far it got."""

    host: Host
    """With the address and port that are connected to."""
    limit: float
    """Seconds."""
    jump_host: str = ""
    """The name of the host that the connection goes through; empty for none."""
    proxied: bool = False
    """Whether a ProxyCommand makes the connection."""
    connection: asyncssh.SSHClientConnection | None = None
    offered: list[str] = field(default_factory=list)
    """The keys that were offered to the host, as an error describes them."""
    agent_keys: int = 0
    exhausted: bool = False
    """Whether the host asked for one more key after all of them."""
    other_methods: tuple[str, ...] = ()
    """The login methods besides a key that the host asked for."""

    @property
    def greeted(self) -> bool:
        """Whether the host has sent its SSH greeting."""
        return self.connection is not None and bool(self.connection.get_extra_info("server_version"))

    @property
    def verified(self) -> bool:
        """Whether the host has proved its identity."""
        return self.connection is not None and self.connection.get_server_host_key() is not None


@contextlib.contextmanager
def login_errors(attempt: LoginAttempt) -> Iterator[None]:
    """Turn each exception of connecting and logging in into the error that names its cause."""
    try:
        yield
    except TimeoutError as error:
        raise _timed_out(attempt) from error
    except asyncssh.ChannelOpenError as error:
        raise _not_forwarded(attempt, error) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise _host_key_rejected(attempt, error.reason) from error
    except asyncssh.PermissionDenied as error:
        raise _login_refused(attempt) from error
    except asyncssh.KeyExchangeFailed as error:
        raise _no_common_algorithm(attempt, error.reason) from error
    except asyncssh.Error as error:
        raise _hung_up(attempt, error) from error
    except OSError as error:
        raise (_hung_up if attempt.connection else _unreachable)(attempt, error) from error
    except UnicodeError as error:
        raise HostUnreachableError(
            f"{_label(attempt.host)}: its address is not a valid host name",
            remedy="correct hosts.*.address",
        ) from error


def _timed_out(attempt: LoginAttempt) -> SyncError:
    label, limit = _label(attempt.host), f"within {attempt.limit:g} s"
    if attempt.connection is None:
        through = f" through {attempt.jump_host}" if attempt.jump_host else ""
        return HostUnreachableError(f"{label} did not answer{through} {limit}")
    if not attempt.greeted:
        return HostUnreachableError(
            f"{label} accepts connections, but did not send an SSH greeting {limit}",
            remedy="check that sshd listens on this port, and that it is not stuck",
        )
    stage = "login" if attempt.verified else "key exchange"
    return HostUnreachableError(
        f"{label} did not finish the {stage} {limit}",
        remedy="find what slows sshd down there (DNS lookups, PAM, load), or raise sync.connect_timeout",
    )


_CAUSES = {
    errno.ECONNREFUSED: (
        "refuses the connection",
        "check that sshd runs on the host and listens on this port",
    ),
    errno.EHOSTUNREACH: ("can't be reached: no route to the host", "check that it is up, and the network"),
    errno.ENETUNREACH: ("can't be reached: no route to its network", "check this machine's network"),
    errno.EACCES: ("can't be reached: this machine forbids it", "check this machine's firewall"),
    errno.EPERM: ("can't be reached: this machine forbids it", "check this machine's firewall"),
    errno.ENOENT: (
        "can't be reached: its ProxyCommand does not exist",
        "correct ProxyCommand in the file that ssh.config names",
    ),
}
"""What an operating system error means, and its remedy."""


def _unreachable(attempt: LoginAttempt, error: OSError) -> SyncError:
    label = _label(attempt.host)
    if isinstance(error, socket.gaierror):
        temporary = error.errno == socket.EAI_AGAIN
        return HostUnreachableError(
            f"{label}: the name {attempt.host.address} can't be resolved: {error.strerror}",
            remedy="check this machine's DNS server"
            if temporary
            else "correct hosts.*.address, or the DNS entry",
        )
    cause, remedy = _CAUSES.get(error.errno or 0, (f"can't be reached: {error.strerror or error}", ""))
    return HostUnreachableError(f"{label} {cause}", remedy=remedy)


def _not_forwarded(attempt: LoginAttempt, error: asyncssh.ChannelOpenError) -> SyncError:
    """Return why a jump host does not forward the connection."""
    label, jump_host = _label(attempt.host), attempt.jump_host
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return ForwardingRefusedError(f"{label}: {jump_host} does not forward connections to it")
    if error.reason == "SSH connection closed":
        return HostUnreachableError(f"{label} can't be reached: the connection to {jump_host} was lost")
    return HostUnreachableError(
        f"{label} can't be reached from {jump_host}: {error.reason}",
        remedy=f"check the address and port as {jump_host} sees them, and that sshd runs there",
    )


_HOST_KEY_REMEDIES = (
    (
        "is revoked",
        "known_hosts marks this key as @revoked: give the host a new one, and find out who had it",
    ),
    ("expired", "let the authority sign the host's key again, and check this machine's clock"),
    ("not yet valid", "check this machine's clock, or let the authority sign the host's key again"),
    (
        "principal mismatch",
        "set hosts.*.address to the name that the certificate has, or get a certificate for this name",
    ),
    ("CA key is not trusted", "add its authority to known_hosts (@cert-authority), or the host's own key"),
)
"""What asyncssh says about a host key, and the remedy."""


def _host_key_rejected(attempt: LoginAttempt, reason: str) -> SyncError:
    host = attempt.host
    remedy = next((remedy for words, remedy in _HOST_KEY_REMEDIES if words in reason), "")
    cause = reason if remedy else f"its key is not the one in known_hosts ({reason})"
    return HostKeyRejectedError(f"{_label(host)}: {cause} ({host.known_hosts})", remedy=remedy)


def unknown_key_type(attempt: LoginAttempt, key_type: str) -> SyncError:
    """Return the error for a host whose key is of a type that known_hosts doesn't have for it."""
    host = attempt.host
    return HostKeyRejectedError(
        f"{_label(host)}: its key is of type {key_type}; {host.known_hosts} has no key of this type for it, "
        "and no authority",
        remedy="if the host was reinstalled, replace its lines there by the output of ssh-keyscan, and "
        "compare the fingerprints; if not, somebody may be between you and it",
    )


_NO_COMMON_ALGORITHM = re.compile(r"No matching (.+) algorithm found, sent .+ and received (.+)", re.DOTALL)


def _no_common_algorithm(attempt: LoginAttempt, reason: str) -> SyncError:
    found = _NO_COMMON_ALGORITHM.fullmatch(reason)
    cause = f"no common algorithm for {found[1]}: it offers {found[2]}" if found else reason
    return LoginRefusedError(
        f"{_label(attempt.host)}: {cause}",
        remedy="update OpenSSH on the host, or allow one of its algorithms in a file that ssh.config names",
    )


def _login_refused(attempt: LoginAttempt) -> SyncError:
    host, label = attempt.host, _label(attempt.host)
    if not attempt.offered:
        return LoginRefusedError(
            f"{label} does not accept public keys for {host.user}",
            remedy="allow them in the host's sshd_config: PubkeyAuthentication yes",
        )
    if not attempt.exhausted:
        more = " or ".join(attempt.other_methods) or "another proof"
        return LoginRefusedError(
            f"{label} accepts the key of {host.user}, but asks for more: {more}",
            remedy="let a key alone be enough in the host's sshd_config: AuthenticationMethods publickey in "
            f"a block Match User {host.user}",
        )
    return LoginRefusedError(
        f"{label} does not let {host.user} log in with {' or '.join(attempt.offered)}",
        remedy=_authorize(attempt),
    )


def _authorize(attempt: LoginAttempt) -> str:
    """Return the remedy if only the agent's keys were offered."""
    if attempt.host.identity is not None:
        return ""
    return "add one of the agent's keys (ssh-add -L) to the user's authorized_keys on the host"


def _hung_up(attempt: LoginAttempt, error: OSError | asyncssh.Error) -> SyncError:
    """Return why the host ended the connection."""
    label = _label(attempt.host)
    reason = error.reason if isinstance(error, asyncssh.Error) else error.strerror or str(error)
    if "Too many authentication failures" in reason:
        return _too_many_keys(attempt)
    if not attempt.greeted:
        command = "; check its ProxyCommand" if attempt.proxied else ""
        return HostUnreachableError(
            f"{label} does not answer as an SSH server: {reason}",
            remedy="check that sshd listens on this port, that it is not overloaded (MaxStartups), and that "
            f"no guard such as fail2ban blocks this machine{command}",
        )
    stage = "login" if attempt.verified else "key exchange"
    return HostUnreachableError(
        f"{label} ended the connection during the {stage}: {reason}", remedy="see the log of its sshd"
    )


def _too_many_keys(attempt: LoginAttempt) -> SyncError:
    host = attempt.host
    offered = " or ".join(attempt.offered)
    remedy = "set ssh.identity to the right key, which is offered first, or load fewer keys into the agent"
    return LoginRefusedError(
        f"{_label(host)} ended the login of {host.user} after too many keys (its MaxAuthTries): {offered}",
        remedy=remedy if attempt.agent_keys else "",
    )


def behind(host: Host, jump_host: Host, error: SyncError) -> SyncError:
    """Return the error for a host whose jump host can't be reached."""
    found = type(error)(f"{host.name} is behind {jump_host.name}: {error.message}", remedy=error.remedy)
    found.again_in = error.again_in
    return found


@contextlib.contextmanager
def session_errors(host: Host) -> Iterator[None]:
    """Turn each exception of opening a session into `ConnectionLostError`: no command has started."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionLostError(f"{_label(host)} did not open a session in time") from error
    except asyncssh.ChannelOpenError as error:
        raise SessionRefusedError(f"{_label(host)} did not open a session: {error.reason}") from error
    except (OSError, asyncssh.Error) as error:
        raise ConnectionLostError(f"{_label(host)} did not open a session: {error}") from error


def _label(host: Host) -> str:
    return f"{host.name} ({host.address}{f':{host.port}' if host.port else ''})"
