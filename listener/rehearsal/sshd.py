"""An OpenSSH server on loopback, for the current user, with its own keys."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import asyncssh

from listener.rehearsal.processes import MARK, descendants, end, end_marked

START_LIMIT = 10.0
"""Seconds within which sshd must listen."""

CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PermitUserEnvironment {mark}
LogLevel VERBOSE
"""


class SshdError(Exception):
    """The SSH server did not start."""


def find_sshd() -> str | None:
    """Return the path of OpenSSH's server; None if it is not installed."""
    return shutil.which(
        "sshd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    )


def free_port() -> int:
    """Return a TCP port of loopback on which nothing listens.

    It is below the ports that a system assigns by itself: no other program gets it while the server is down.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class LoopbackHost:
    """How to reach the SSH server: its port, a user, a key that it accepts, its host key.

    `options` are written before the key in authorized_keys.
    """

    def __init__(self, folder: Path, options: str = "") -> None:
        self.folder = folder
        self.address = "127.0.0.1"
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = folder / "client_key"
        self.known_hosts = folder / "known_hosts"
        self.mark = secrets.token_hex(8)
        self._log = folder / "sshd.log"
        client = asyncssh.generate_private_key("ssh-ed25519")
        _write_private(self.identity, client.export_private_key())
        public = client.export_public_key().decode()
        options = ",".join(filter(None, (options, f'environment="{MARK}={self.mark}"')))
        (folder / "authorized_keys").write_text(f"{options} {public}")
        self._make_host_key()
        self.trust(self.known_hosts, self.port)

    def trust(self, known_hosts: Path, port: int) -> None:
        """Write a known_hosts file with the present host key for a port of loopback."""
        public = (self.folder / "host_key.pub").read_text()
        known_hosts.write_text(f"[{self.address}]:{port} {public}")
        known_hosts.chmod(0o644)  # Whatever the umask is: a file that others may write is refused.

    def log(self) -> str:
        """Return the log of the server."""
        return self._log.read_text(errors="replace")

    def _make_host_key(self) -> None:
        host = asyncssh.generate_private_key("ssh-ed25519")
        _write_private(self.folder / "host_key", host.export_private_key())
        (self.folder / "host_key.pub").write_bytes(host.export_public_key())


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


class Sshd(LoopbackHost):
    """A running sshd. Leaving it ends the server, its sessions, and the processes that they left behind.

    `folder` is empty. `extra` is added to the end of its configuration; `options` are written before its key.
    """

    def __init__(self, folder: Path, extra: str = "", options: str = "") -> None:
        binary = find_sshd()
        if binary is None:
            raise SshdError("sshd is not installed: install openssh-server.")
        super().__init__(folder, options)
        self._binary = binary
        configuration = CONFIGURATION.format(port=self.port, folder=folder, mark=MARK)
        # An empty home: no start-up file of the user slows a shell down or changes what it finds.
        home = "" if "SetEnv" in extra else f"SetEnv HOME={folder}\n"
        (folder / "sshd_config").write_text(configuration + extra + home)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it on its port, and return when it listens; raise `SshdError`."""
        if os.geteuid() == 0:
            # The folder for privilege separation is missing until sshd's package has started it once.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 (our own arguments)
                [self._binary, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        # Its log is read, no connection is made: another process may have taken the port.
        while b"Server listening on" not in self._log.read_bytes()[begin:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SshdError(f"sshd did not start: {self.log()[-500:].strip()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server and its sessions, as a power cut does."""
        if self._process is None:
            return
        sessions = descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        end(sessions)
        end_marked(self.mark)
        self._process = None

    def new_host_key(self) -> None:
        """Replace the host key, as on a reinstalled or impersonated host."""
        self._make_host_key()
        self.stop()
        self.start()
