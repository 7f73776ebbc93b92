"""The journal of systemd gets each line with its priority and its facts, and no line is lost without it."""

import io
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog

from listener import logs
from listener.logs import journald
from listener.logs.journald import JournalStream
from listener.redaction import Cleaner


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that stands for journald's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.setblocking(False)
        yield bound


def received(journal: socket.socket) -> dict[str, str]:
    """Return the fields of the next entry, read as journald reads them."""
    data, files, _, _ = socket.recv_fds(journal, 1 << 20, 4)
    if files:
        assert not data
        with os.fdopen(files[0], "rb") as file:
            file.seek(0)
            data = file.read()
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def line(**facts: object) -> str:
    return json.dumps(facts) + "\n"


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3")]
)
def test_a_line_has_its_priority_and_its_facts_as_fields(
    journal: socket.socket, level: str, priority: str
) -> None:
    stream = JournalStream(io.StringIO(), journal.getsockname())
    text = line(event="again", level=level, site="mysite", in_seconds=1.5, legs=[{"error": "x"}], none=None)
    stream.write(text)
    assert received(journal) == {
        "MESSAGE": text.rstrip("\n"),
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": "sync-staging",
        "SYNC_STAGING_EVENT": "again",
        "SYNC_STAGING_LEVEL": level,
        "SYNC_STAGING_SITE": "mysite",
        "SYNC_STAGING_IN_SECONDS": "1.5",
        "SYNC_STAGING_LEGS": '[{"error": "x"}]',
    }


def test_lines_that_are_written_at_once_are_entries_of_their_own(journal: socket.socket) -> None:
    JournalStream(io.StringIO(), journal.getsockname()).write(line(event="one") + line(event="two"))
    assert [received(journal)["SYNC_STAGING_EVENT"] for _ in range(2)] == ["one", "two"]


def test_no_fact_can_add_a_field(journal: socket.socket) -> None:
    stream = JournalStream(io.StringIO(), journal.getsockname())
    stream.write(line(message="first\nPRIORITY=0\n_UID=0", **{"a=b\nc": "x", "ü": "y", "n" * 99: "z"}))
    fields = received(journal)
    assert fields["SYNC_STAGING_MESSAGE"] == "first\nPRIORITY=0\n_UID=0"
    assert fields["SYNC_STAGING_A_B_C"] == "x"
    assert fields["PRIORITY"] == "6"
    assert "_UID" not in fields
    assert max(map(len, fields)) <= 64


def test_a_line_that_is_too_large_for_a_datagram_goes_as_a_file(journal: socket.socket) -> None:
    JournalStream(io.StringIO(), journal.getsockname()).write(line(event="large", text="x" * (9 << 20)))
    assert len(received(journal)["SYNC_STAGING_TEXT"]) == 9 << 20


def test_a_line_that_is_not_json_is_a_message(journal: socket.socket) -> None:
    JournalStream(io.StringIO(), journal.getsockname()).write("Traceback\n[1]\n")
    assert [received(journal)["MESSAGE"] for _ in range(2)] == ["Traceback", "[1]"]


def test_without_journald_lines_go_to_standard_error_with_their_priority(
    journal: socket.socket, tmp_path: Path
) -> None:
    address, said = journal.getsockname(), io.StringIO()
    stream = JournalStream(said, address)
    Path(address).unlink()
    stream.write(line(event="lost", level="error"))
    assert said.getvalue() == '<3>{"event": "lost", "level": "error"}\n'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(address)
        stream.write(line(event="found"))
        assert received(again)["SYNC_STAGING_EVENT"] == "found"


def test_a_journald_that_does_not_read_loses_no_line(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journald, "PATIENCE", 0.01)
    said = io.StringIO()
    stream = JournalStream(said, journal.getsockname())
    count = 0
    while not said.getvalue():
        stream.write(line(count=count))
        count += 1
    assert said.getvalue() == f'<6>{{"count": {count - 1}}}\n'
    assert [json.loads(received(journal)["MESSAGE"])["count"] for _ in range(count - 1)] == [
        *range(count - 1)
    ]


@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("form", ["auto", "console"])
def test_only_a_standard_error_that_is_the_journal_is_replaced_by_it(
    journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, *, mine: bool
) -> None:
    monkeypatch.setattr(journald, "SOCKET", journal.getsockname())
    path = tmp_path / "stderr"
    try:
        with path.open("w") as stderr:
            status = os.fstat(stderr.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + (not mine)}")
            logs.configure("info", form, Cleaner(), stderr)()
            structlog.get_logger().warning("host", host="studio")
            logging.getLogger("asyncssh").warning("foreign")
    finally:
        structlog.reset_defaults()
        logging.basicConfig(handlers=[], force=True)
    said = path.read_text()
    if mine and form == "auto":
        entries = [received(journal) for _ in range(2)]
        assert [each["SYNC_STAGING_EVENT"] for each in entries] == ["host", "foreign"]
        assert [each["PRIORITY"] for each in entries] == ["4", "4"]
        assert said == ""
    else:
        assert [text.startswith("<4>") for text in said.splitlines()] == [mine and form == "console"] * 2


def test_what_has_no_number_is_not_the_journal() -> None:
    assert not journald.is_stderr(cast("TextIO", io.StringIO()), {"JOURNAL_STREAM": "1:2"})
