"""What asyncssh and the network raise, told in this program's own errors."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import asyncssh

from listener.errors import (
    ConnectionLostError,
    HostKeyRejectedError,
    HostUnreachableError,
    IdentityUnusableError,
    LoginRefusedError,
    SyncError,
)
from listener.sites import Host

SSH_PORT = 22


@contextlib.contextmanager
def of_files(host: Host) -> Iterator[None]:
    """Turn what reading the key or the known hosts raises into `IdentityUnusableError`."""
    try:
        yield
    except OSError as error:
        raise IdentityUnusableError(f"{error.filename}: {error.strerror}") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise IdentityUnusableError(
            f"{host.identity} or {host.known_hosts} can't be read: {error}",
            remedy="give an unencrypted OpenSSH private key and an OpenSSH known_hosts file",
        ) from error


def known_keys(host: Host) -> tuple[Sequence[Any], ...]:
    """Return what known_hosts says of a host; raise `HostKeyRejectedError` if it says nothing.

    Only the configured name counts, as with OpenSSH: whoever rules the DNS could give it the address of
    another known host.
    """
    said: tuple[Sequence[Any], ...] = asyncssh.match_known_hosts(
        asyncssh.read_known_hosts(host.known_hosts), host.address, "", host.port
    )
    keys, authorities, *_ = said
    if not keys and not authorities:
        name = host.address if host.port == SSH_PORT else f"[{host.address}]:{host.port}"
        raise HostKeyRejectedError(
            f"{host.known_hosts} has no line for {name}",
            remedy=f"add it with ssh-keyscan -p {host.port} {host.address}, and compare its fingerprint",
        )
    return said


@contextlib.contextmanager
def of_connecting(host: Host, limit: float) -> Iterator[None]:
    """Turn what connecting and logging in raise into the error that names the cause."""
    try:
        yield
    except TimeoutError as error:
        raise HostUnreachableError(f"{_where(host)} did not answer within {limit:g} s") from error
    except (OSError, asyncssh.Error) as error:
        raise _connecting(host, error) from error


def _connecting(host: Host, error: OSError | asyncssh.Error) -> SyncError:
    where = _where(host)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return HostKeyRejectedError(f"{where}: {error.reason} ({host.known_hosts})")
        case asyncssh.PermissionDenied():
            return LoginRefusedError(f"{where} does not let {host.user} log in with {host.identity}")
        case asyncssh.KeyExchangeFailed():
            return LoginRefusedError(
                f"{where}: no common algorithms: {error.reason}", remedy="update the host's OpenSSH"
            )
        case asyncssh.Error():
            return HostUnreachableError(f"{where}: {error.reason}")
        case _:
            return HostUnreachableError(f"{where}: {error.strerror or error}")


@contextlib.contextmanager
def of_sessions(host: Host) -> Iterator[None]:
    """Turn what opening a session raises into `ConnectionLostError`: no command has started."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectionLostError(f"{_where(host)} opens no session") from error
    except (OSError, asyncssh.Error) as error:
        raise ConnectionLostError(f"{_where(host)} opens no session: {error}") from error


def _where(host: Host) -> str:
    return f"{host.name} ({host.address}:{host.port})"
