"""What asyncssh and the network raise, told in this program's own errors.

What was raised says little without how far the attempt had come: a connection that is lost means another
thing before the host's greeting than after it has looked at a key.
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

MUTE = "check that the port is its sshd's; an sshd that is overrun (MaxStartups) or a guard such as fail2ban"


@dataclass(slots=True)
class Attempt:
    """One attempt to log in, and how far it came."""

    host: Host
    """With the address and port that it goes to."""
    limit: float
    """Seconds."""
    gate: str = ""
    """The host through which it goes, if there is one."""
    proxied: bool = False
    """Whether a ProxyCommand stands for the network."""
    connection: asyncssh.SSHClientConnection | None = None
    offered: list[str] = field(default_factory=list)
    """The keys that were shown, as told."""
    agent_keys: int = 0
    exhausted: bool = False
    """Whether every key was shown, and another asked for."""
    further: tuple[str, ...] = ()
    """What else the host wants to be shown."""

    @property
    def greeted(self) -> bool:
        """Whether the host has said that it speaks SSH."""
        return self.connection is not None and bool(self.connection.get_extra_info("server_version"))

    @property
    def verified(self) -> bool:
        """Whether the host has proved who it is."""
        return self.connection is not None and self.connection.get_server_host_key() is not None


@contextlib.contextmanager
def of_connecting(attempt: Attempt) -> Iterator[None]:
    """Turn what connecting and logging in raise into the error that names the cause."""
    try:
        yield
    except TimeoutError as error:
        raise _timed_out(attempt) from error
    except asyncssh.ChannelOpenError as error:
        raise _not_forwarded(attempt, error) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise _key_rejected(attempt, error.reason) from error
    except asyncssh.PermissionDenied as error:
        raise _refused(attempt) from error
    except asyncssh.KeyExchangeFailed as error:
        raise _no_agreement(attempt, error.reason) from error
    except asyncssh.Error as error:
        raise _ended(attempt, error) from error
    except OSError as error:
        raise (_ended if attempt.connection else _not_reached)(attempt, error) from error
    except UnicodeError as error:
        raise HostUnreachableError(
            f"{_where(attempt.host)}: its address is no name that can be looked up",
            remedy="correct hosts.*.address",
        ) from error


def _timed_out(attempt: Attempt) -> SyncError:
    where, limit = _where(attempt.host), f"within {attempt.limit:g} s"
    if attempt.connection is None:
        through = f" through {attempt.gate}" if attempt.gate else ""
        return HostUnreachableError(f"{where} did not answer{through} {limit}")
    if not attempt.greeted:
        return HostUnreachableError(
            f"{where} lets connect, but did not greet as an SSH server {limit}",
            remedy="check that the port is its sshd's, and that the sshd is not stuck",
        )
    what = "finish logging in" if attempt.verified else "finish the key exchange"
    return HostUnreachableError(
        f"{where} did not {what} {limit}",
        remedy="see what slows its sshd down (name lookups, PAM, its load), or raise sync.connect_timeout",
    )


_CAUSES = {
    errno.ECONNREFUSED: ("refuses the connection", "check that its sshd runs, and on that port"),
    errno.EHOSTUNREACH: ("can't be reached: no route to the host", "check that it is up, and the network"),
    errno.ENETUNREACH: ("can't be reached: no route to its network", "check this machine's network"),
    errno.EACCES: ("can't be reached: this machine forbids it", "check this machine's firewall"),
    errno.EPERM: ("can't be reached: this machine forbids it", "check this machine's firewall"),
    errno.ENOENT: ("can't be reached: there is no such ProxyCommand", "correct it in the file of ssh.config"),
}


def _not_reached(attempt: Attempt, error: OSError) -> SyncError:
    where = _where(attempt.host)
    if isinstance(error, socket.gaierror):
        passing = error.errno == socket.EAI_AGAIN
        return HostUnreachableError(
            f"{where}: the name {attempt.host.address} can't be looked up: {error.strerror}",
            remedy="check this machine's name server" if passing else "correct hosts.*.address, or the DNS",
        )
    said, remedy = _CAUSES.get(error.errno or 0, (f"can't be reached: {error.strerror or error}", ""))
    return HostUnreachableError(f"{where} {said}", remedy=remedy)


def _not_forwarded(attempt: Attempt, error: asyncssh.ChannelOpenError) -> SyncError:
    """Return why a jump host does not lead further."""
    where, gate = _where(attempt.host), attempt.gate
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return ForwardingRefusedError(f"{where}: {gate} does not forward connections to it")
    if error.reason == "SSH connection closed":
        return HostUnreachableError(f"{where} can't be reached: the connection to {gate} was lost")
    return HostUnreachableError(
        f"{where} can't be reached from {gate}: {error.reason}",
        remedy=f"check the address and port as {gate} sees them, and that the sshd there runs",
    )


_KEY_REMEDIES = (
    ("is revoked", "known_hosts revokes it (@revoked): give the host another key, and find out who had it"),
    ("expired", "let the authority sign the host's key anew, and mind the clock of this machine"),
    ("not yet valid", "mind the clock of this machine, or let the authority sign the host's key anew"),
    (
        "principal mismatch",
        "write the name that the certificate was made for as hosts.*.address, or have one made for this name",
    ),
    ("CA key is not trusted", "add its authority to known_hosts (@cert-authority), or the host's own key"),
)


def _key_rejected(attempt: Attempt, reason: str) -> SyncError:
    host = attempt.host
    remedy = next((remedy for words, remedy in _KEY_REMEDIES if words in reason), "")
    said = reason if remedy else f"its key is another than known_hosts has ({reason})"
    return HostKeyRejectedError(f"{_where(host)}: {said} ({host.known_hosts})", remedy=remedy)


def other_kind(attempt: Attempt, kind: str) -> SyncError:
    """Return the error of a host that has no key of a kind that is known of it."""
    host = attempt.host
    return HostKeyRejectedError(
        f"{_where(host)}: its key is an {kind} one, of which {host.known_hosts} has none, nor its authority",
        remedy="if it was reinstalled, replace its lines there by what ssh-keyscan says, and compare the "
        "fingerprints; if not, somebody may be between you and it",
    )


_DISAGREEMENT = re.compile(r"No matching (.+) algorithm found, sent .+ and received (.+)", re.DOTALL)


def _no_agreement(attempt: Attempt, reason: str) -> SyncError:
    found = _DISAGREEMENT.fullmatch(reason)
    said = f"no common algorithm for {found[1]}: it has {found[2]}" if found else reason
    return LoginRefusedError(
        f"{_where(attempt.host)}: {said}",
        remedy="update the host's OpenSSH, or allow what it has in a file that ssh.config names",
    )


def _refused(attempt: Attempt) -> SyncError:
    host, where = attempt.host, _where(attempt.host)
    if not attempt.offered:
        return LoginRefusedError(
            f"{where} takes no public key of {host.user}",
            remedy="allow it in the host's sshd_config: PubkeyAuthentication yes",
        )
    if not attempt.exhausted:
        more = " or ".join(attempt.further) or "another proof"
        return LoginRefusedError(
            f"{where} takes the key of {host.user}, and then wants more: {more}",
            remedy="let a key alone be enough in the host's sshd_config: AuthenticationMethods publickey in "
            f"a block Match User {host.user}",
        )
    return LoginRefusedError(
        f"{where} does not let {host.user} log in with {' or '.join(attempt.offered)}",
        remedy=_authorize(attempt),
    )


def _authorize(attempt: Attempt) -> str:
    """Return what to do, where only an agent's keys were shown."""
    if attempt.host.identity is not None:
        return ""
    return "add one of the agent's keys (ssh-add -L) to the user's authorized_keys on the host"


def _ended(attempt: Attempt, error: OSError | asyncssh.Error) -> SyncError:
    """Return what it means that the host ended the connection."""
    where = _where(attempt.host)
    said = error.reason if isinstance(error, asyncssh.Error) else error.strerror or str(error)
    if "Too many authentication failures" in said:
        return _too_many(attempt)
    if not attempt.greeted:
        command = "; or its ProxyCommand failed" if attempt.proxied else ""
        return HostUnreachableError(
            f"{where} does not greet as an SSH server: {said}",
            remedy=f"{MUTE} also hangs up{command}",
        )
    when = "while logging in" if attempt.verified else "during the key exchange"
    return HostUnreachableError(
        f"{where} ended the connection {when}: {said}", remedy="the log of its sshd says why"
    )


def _too_many(attempt: Attempt) -> SyncError:
    host = attempt.host
    shown = " or ".join(attempt.offered)
    remedy = "name the right key as ssh.identity, which is shown first, or load fewer keys into the agent"
    return LoginRefusedError(
        f"{_where(host)} gave up on {host.user} after too many keys (its MaxAuthTries): {shown}",
        remedy=remedy if attempt.agent_keys else "",
    )


def behind(host: Host, gate: Host, error: SyncError) -> SyncError:
    """Return the error of a host that can't be reached because the one before it can't."""
    told = type(error)(f"{host.name} lies behind {gate.name}: {error.message}", remedy=error.remedy)
    told.again_in = error.again_in
    return told


@contextlib.contextmanager
def of_sessions(host: Host) -> Iterator[None]:
    """Turn what opening a session raises into `ConnectionLostError`: no command has started."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionLostError(f"{_where(host)} opens no session") from error
    except asyncssh.ChannelOpenError as error:
        raise SessionRefusedError(f"{_where(host)} opens no session: {error.reason}") from error
    except (OSError, asyncssh.Error) as error:
        raise ConnectionLostError(f"{_where(host)} opens no session: {error}") from error


def _where(host: Host) -> str:
    return f"{host.name} ({host.address}{f':{host.port}' if host.port else ''})"
