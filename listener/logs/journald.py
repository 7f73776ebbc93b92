"""Log lines for systemd's journal. Each has its priority, and its facts are fields for queries.

The protocol is https://systemd.io/JOURNAL_NATIVE_PROTOCOL/; systemd.exec(5) says when to use it.
"""

import errno
import fcntl
import io
import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "sync-staging"
PREFIX = "SYNC_STAGING_"

PATIENCE = 1.0
"""Seconds that a line waits if journald does not read. Then it goes to standard error."""
BUFFER = 8 << 20
"""Bytes that the kernel keeps while journald is busy or restarts."""

PRIORITIES: Mapping[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""The priority of syslog for each level (RFC 5424, 6.2.1)."""
_INFO = PRIORITIES["info"]

_OTHER = re.compile(r"[^A-Z0-9_]")
_NAME_MOST = 64
"""The most characters in the name of a field; journald drops longer ones."""


def is_stderr(target: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream goes to the journal. If so, `JOURNAL_STREAM` has its device and inode."""
    try:
        status = os.fstat(target.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def prefixed(text: str, level: str) -> str:
    """Return lines with the prefix that tells systemd their priority (sd-daemon(3))."""
    prefix = f"<{PRIORITIES.get(level, _INFO)}>"
    return "".join(f"{prefix}{line}\n" for line in text.splitlines())


class JournalStream(io.TextIOBase):
    """A text stream that takes lines of JSON, and sends each to journald as one entry.

    The message of the entry is the whole line. If journald does not answer, the line goes to `fallback`.
    """

    def __init__(self, fallback: TextIO, address: str = "") -> None:
        self._fallback = fallback
        self._address = address or SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._socket.settimeout(PATIENCE)

    def write(self, text: str) -> int:
        """Send each line of `text`."""
        for line in text.splitlines():
            level, entry = _entry(line)
            try:
                self._send(entry)
            except OSError:
                self._fallback.write(prefixed(line, level))
        return len(text)

    def flush(self) -> None:
        """Flush the fallback."""
        self._fallback.flush()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _send(self, entry: bytes) -> None:
        # The socket is not connected, so that the next line reaches a journald that was restarted.
        try:
            self._socket.sendto(entry, self._address)
        except OSError as error:
            if not _too_large(error):
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        """Send an entry that is too large for a datagram: as a sealed file in memory."""
        file = os.memfd_create(IDENTIFIER, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(file, "wb", closefd=False) as target:
                target.write(entry)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))]
            self._socket.sendmsg([], rights, 0, self._address)
        finally:
            os.close(file)


def _too_large(error: OSError) -> bool:
    return error.errno in {errno.EMSGSIZE, errno.ENOBUFS}


def _entry(line: str) -> tuple[str, bytes]:
    """Return the level of a line, and its entry for the journal."""
    try:
        facts = json.loads(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        facts = {}
    level = str(facts.get("level", "info"))
    fields = [
        ("MESSAGE", line),
        ("PRIORITY", str(PRIORITIES.get(level, _INFO))),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        *_fields(facts),
    ]
    return level, b"".join(_field(name, value) for name, value in fields)


def _fields(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        field = PREFIX + _OTHER.sub("_", name.upper())
        if value is not None and len(field) <= _NAME_MOST:
            yield field, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)
