"""A PostgreSQL cluster of the tests' own, on a socket and on loopback, that is gone when they are."""

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from listener.rehearsal.sshd import free_port

USER = "listener"
PASSWORD = "s3cret/of:the@listener"
QUOTED = "s3cret%2Fof%3Athe%40listener"
"""The password as it stands in a URL."""

# The processes are killed here, but never the machine: what the kernel has is as good as on the disk.
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = off
full_page_writes = off
shared_buffers = 32MB
autovacuum = off
log_min_messages = fatal
"""


def find_programs() -> Path | None:
    """Return the folder with the newest server's programs, or None where there is none."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *Path("/usr").glob("pgsql-*/bin/initdb")]
    newest = max(found, key=lambda path: int("".join(filter(str.isdigit, path.parts[-3]))), default=None)
    named = newest or shutil.which("initdb")
    return Path(named).resolve().parent if named else None


class Cluster:
    """A running server; enter it to start it, leave it to end it and remove what it wrote."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="sync-staging-postgres-"))
        self.port = free_port()
        # The server refuses to run as root: it runs as the user that its package has made.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-N", "-A", "scram-sha-256", "-U", USER, "--pwfile", str(password), "-E", "UTF8")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(port=self.port, folder=self._folder))
        hba = self._data / "pg_hba.conf"
        hba.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        self._run("pg_ctl", "-w", "-s", "-l", str(self._folder / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` leaves it as after a crash."""
        self._run("pg_ctl", "-w", "-s", "-m", mode, "stop")

    def database(self) -> str:
        """Make an empty database, and return its name."""
        name = f"listener_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return name

    def url(self, database: str) -> str:
        """Return the URL of a database by way of the socket."""
        return f"postgresql://{USER}@/{database}?host={self._folder}&port={self.port}"

    def tcp_url(self, database: str, port: int | None = None) -> str:
        """Return the URL of a database by way of loopback, with the password."""
        return f"postgresql://{USER}:{QUOTED}@127.0.0.1:{port or self.port}/{database}?sslmode=disable"

    def sql(self, statement: str, database: str) -> str:
        """Carry out one statement, and return what it says."""
        where = ["-h", str(self._folder), "-p", str(self.port), "-U", USER, "-d", database]
        return self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *where, "-c", statement).strip()

    def _run(self, program: str, *arguments: str) -> str:
        output = self._folder / "output"
        # To a file: the server inherits it, and a pipe would stay open for as long as it runs.
        with output.open("w") as file:
            done = subprocess.run(
                [self._programs / program, *arguments],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd=self._folder,
                env={**os.environ, "PGDATA": str(self._data), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        said = output.read_text()
        assert done.returncode == 0, f"{program}: {said}"
        return said
