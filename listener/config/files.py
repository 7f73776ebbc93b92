"""The files that a configuration names: whether they can be used, and who can read and write them.

Whoever can write to a trusted file or folder can make the listener do anything.
"""

import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from listener.config.file import Written
from listener.config.problems import Location, Problem, exposed, quoted
from listener.config.references import Surroundings
from listener.config.sections import PathTo, SshSection, TlsSection
from listener.errors import ConfigurationError

OTHERS = stat.S_IWGRP | stat.S_IWOTH

_REASONS: Mapping[str, tuple[str, str]] = {
    "KEY_VALUES_MISMATCH": (
        "the key doesn't belong to the certificate",
        "name the key that it was made with",
    ),
    "NO_START_LINE": ("it contains no PEM", "write PEM: the certificate first, then those that signed it"),
}
"""OpenSSL's reason, in words, and what to do."""


class _PasswordError(Exception):
    """The key needs a password, and nobody is there to type it."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context with this pair; raise `ConfigurationError` if it can't be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    fault = _tls_fault(context, certificate, key)
    if fault:
        raise ConfigurationError(f"server.tls: can't be used: {fault[0]}.", remedy=fault[1])
    return context


def _tls_fault(context: ssl.SSLContext, certificate: Path, key: Path) -> tuple[str, str] | None:
    """Load a pair into a context; return what is wrong with it and what to do, or None."""
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _PasswordError:
        return "the key needs a password", "write it without one: openssl pkey -in OLD -out NEW"
    except ssl.SSLError as error:
        said = error.reason or "no PEM"
        return _REASONS.get(said, (f"OpenSSL says {said}", "write a certificate and its key as PEM"))
    except (OSError, ValueError):
        return (
            "one of the files can't be read",
            "write the paths of both, and let the listener's user read them",
        )
    return None


def _no_password() -> NoReturn:
    raise _PasswordError


def broken_tls(tls: TlsSection, surroundings: Surroundings) -> Iterator[Problem]:
    """Yield what is wrong with the certificate and its key. No path is shown: it may be the key itself."""
    certificate, key = Path(tls.certificate), Path(tls.key)
    fault = _tls_fault(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    if fault:
        yield Problem(("server", "tls"), f"can't be used: {fault[0]}; {fault[1]}")
    elif surroundings.exposed(key, key.stat().st_mode):
        yield exposed(("server", "tls", "key"), key)


def broken_ssh(ssh: SshSection, surroundings: Surroundings) -> Iterator[Problem]:
    """Yield what is wrong with the files of the section `ssh`."""
    for key, field in SshSection.model_fields.items():
        text: str | None = getattr(ssh, key)
        if text is not None:
            (wanted,) = (each for each in field.metadata if isinstance(each, PathTo))
            yield from _ssh_file(("ssh", key), Path(text), wanted, surroundings)
    known_hosts = Path(ssh.known_hosts)
    if not surroundings.is_credential(known_hosts):
        yield from _folder(known_hosts.parent, ("ssh", "known_hosts"))


def _ssh_file(
    location: Location, path: Path, wanted: PathTo, surroundings: Surroundings
) -> Iterator[Problem]:
    what, kind, needed = ("a readable file", stat.S_ISREG, os.R_OK)
    if wanted.socket:
        what, kind, needed = ("a usable socket", stat.S_ISSOCK, os.W_OK)
    remedy = wanted.remedy
    try:
        mode = path.stat().st_mode
        usable = kind(mode)
    except PermissionError:
        usable, remedy = False, "let the listener's user enter its folder"
    except (OSError, ValueError):
        usable = False
    if usable and not os.access(path, needed):
        usable, remedy = False, "let the listener's user own and read it"
    if not usable:
        # The path is not shown: somebody may have put the key itself here.
        yield Problem(location, f"is not the path of {what}; {remedy}")
    elif wanted.private and surroundings.exposed(path, mode):
        yield exposed(location, path)
    elif wanted.trusted and not surroundings.is_credential(path):
        yield from _written_by_others(location, path, wanted.trusted)


def broken_modes(written: Written) -> Iterator[Problem]:
    """Yield the configuration's own files and folders to which other users can write."""
    path = written.path
    yield from _written_by_others((), path, "which is this configuration")
    for folder in {path.absolute().parent, path.resolve().parent} | _folders_of_included(written):
        yield from _folder(folder, ())
    if written.folder is not None:
        # Even with the sticky bit, others can put a file of their own there.
        why = "which lets them configure the listener"
        yield from _written_by_others(("include",), written.folder, why)
    for file, mode in written.modes.items():
        if mode & OTHERS:
            yield from _written_by_others((), file, "which is part of this configuration")


def _folders_of_included(written: Written) -> set[Path]:
    """Return the folders in which others could replace the folder of included files, or one of these."""
    if written.folder is None:
        return set()
    links = {link.resolve().parent for link in written.links}
    return {written.folder.parent, written.folder.resolve().parent} | links


def broken_cache(cache: str) -> Iterator[Problem]:
    """Yield the problem of a cache to which other users can write."""
    yield from _written_by_others(("sync", "cache"), Path(cache), "which is where commits are made")


def _folder(folder: Path, location: Location) -> Iterator[Problem]:
    """Yield the problem of a folder whose files other users can replace. In a sticky one they can't."""
    yield from _written_by_others(location, folder, "which lets them replace its files", sticky=True)


def _written_by_others(
    location: Location, path: Path, why: str, *, sticky: bool = False
) -> Iterator[Problem]:
    """Yield the problem of a file or folder to which users other than its owner can write."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # A missing or unreadable file is reported where it is used.
    if mode & OTHERS and not (sticky and mode & stat.S_ISVTX):
        yield Problem(
            location, f"other users can write to {quoted(path)}, {why}; run chmod go-w {quoted(path)}"
        )
