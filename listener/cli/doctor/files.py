"""Whether the configuration can be read, and whether the files that it names are safe."""

import os
import stat
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from listener.cli.doctor.findings import Finding, Group
from listener.cli.doctor.storage import user_name
from listener.config.file import files_in
from listener.config.references import CREDENTIALS_DIRECTORY, Surroundings
from listener.config.settings import Settings
from listener.errors import ConfigurationError

ENDS_SOON = timedelta(days=14)

_AS_A_SERVICE = (
    "only a service gets credentials: run doctor as a service, with systemd-run --pipe --wait -p User=USER "
    "-p LoadCredential=NAME:PATH (systemd/README.md, secrets as credentials)"
)


def unusable(path: Path, error: ConfigurationError) -> Iterator[Finding]:
    """Yield a finding for each problem that the error of a configuration lists."""
    first, *rest = error.message.splitlines()
    for line in rest or [first]:
        if CREDENTIALS_DIRECTORY in line:
            code, remedy = "credential-outside-service", _AS_A_SERVICE
            yield Finding.problem(Group.CREDENTIALS, str(path), code, line.strip(), remedy)
        else:
            remedy = error.remedy
            yield Finding.problem(
                Group.CONFIGURATION, str(path), "configuration-invalid", line.strip(), remedy
            )


def findings(path: Path, settings: Settings, users: Collection[int]) -> Iterator[Finding]:
    """Check a configuration that can be used. `users` are those that its files may belong to."""
    for warning in settings.warnings:
        yield Finding.warning(Group.CONFIGURATION, str(path), "configuration-warning", warning)
    if not settings.warnings:
        yield Finding.good(Group.CONFIGURATION, str(path))
    owners = list(_owners(path, settings, users))
    yield from owners
    if not owners:
        yield Finding.good(Group.CREDENTIALS, "files", "only the listener's user and root can change them")
    yield from certificate(settings)


def named_files(path: Path, settings: Settings) -> list[Path]:
    """Return the configuration's files, and those of its references: a change of one needs a restart."""
    surroundings = Surroundings(path.absolute().parent, os.environ)
    include = settings.document.include
    # The folder changes when a file is added to it or removed from it.
    found = [path, *([Path(include), *files_in(Path(include))] if include else ())]
    for reference in settings.references.values():
        kind, _, name = reference.partition(":")
        if kind == "file":
            found.append(surroundings.path(name))
    return list(dict.fromkeys(found))


def _owners(path: Path, settings: Settings, users: Collection[int]) -> Iterator[Finding]:
    """Yield the trusted files that belong to another user. That user can change them."""
    ssh, tls = settings.document.ssh, settings.server.tls
    named = [ssh.known_hosts, ssh.identity, ssh.config] if ssh else []
    named += [tls.certificate, tls.key] if tls else []
    surroundings = Surroundings(path.absolute().parent, os.environ)
    for file in dict.fromkeys([*named_files(path, settings), *map(Path, filter(None, named))]):
        try:
            found = file.stat()
        except OSError:
            continue  # It was there when the configuration was read.
        if surroundings.is_credential(file) or found.st_uid in users or not stat.S_ISREG(found.st_mode):
            continue
        message = f"{file} belongs to {user_name(found.st_uid)}: that user can change it"
        remedy = "give it to root or to the listener's user (chown)"
        yield Finding.problem(Group.CREDENTIALS, str(file), "wrong-owner-file", message, remedy)


def certificate(settings: Settings) -> list[Finding]:
    """Check how long the listener's own certificate is valid. The listener also uses an expired one."""
    tls, what = settings.server.tls, "certificate"
    if tls is None:
        return []
    ends = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes()).not_valid_after_utc
    now, at = datetime.now(UTC), f"{ends:%Y-%m-%d %H:%M:%S} UTC"
    remedy = "renew it; the listener loads a new certificate and key without a restart"
    if ends <= now:
        return [Finding.problem(Group.CERTIFICATE, what, "certificate-expired", f"expired on {at}", remedy)]
    if ends - now < ENDS_SOON:
        return [Finding.warning(Group.CERTIFICATE, what, "certificate-ends", f"valid until {at}", remedy)]
    return [Finding.good(Group.CERTIFICATE, what, f"valid until {at}")]
