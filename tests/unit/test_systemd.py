"""Telling the service manager: what it can't take is dropped, with one warning."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from listener.systemd import ServiceManager
from tests.kept_log import KeptLog


@pytest.fixture
def end(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


def manager(said: KeptLog, address: object, **more: str) -> ServiceManager:
    return ServiceManager(said, {"NOTIFY_SOCKET": str(address), **more})


def test_states_are_sent_a_line_each(end: socket.socket, tmp_path: Path) -> None:
    said = KeptLog()
    assert manager(said, tmp_path / "notify").notify("READY=1", "STATUS=here")
    assert end.recv(99) == b"READY=1\nSTATUS=here"
    assert said.lines == []


def test_a_leading_at_sign_names_an_abstract_socket() -> None:
    name = f"sync-staging-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{name}")
        assert manager(KeptLog(), f"@{name}").notify("READY=1")
        assert bound.recv(99) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_an_address_nothing_is_sent_and_nothing_said(address: str) -> None:
    said = KeptLog()
    assert not manager(said, address).notify("READY=1")
    assert said.lines == []


@pytest.mark.parametrize("address", ["/nonexistent/sock", "/" + "x" * 500, "/dev/null", "@nobody-is-there"])
def test_a_socket_that_leads_nowhere_is_warned_of_once(address: str) -> None:
    said = KeptLog()
    dead = manager(said, address)
    assert [dead.notify("READY=1"), dead.notify("WATCHDOG=1")] == [False, False]
    (line,) = said.lines
    assert (line["level"], line["socket"]) == ("warning", address)
    assert "NOTIFY_SOCKET" in line["remedy"]


def test_what_a_manager_that_does_not_read_has_no_room_for_is_dropped(
    end: socket.socket, tmp_path: Path
) -> None:
    said = KeptLog()
    busy = manager(said, tmp_path / "notify")
    while busy.notify("WATCHDOG=1"):
        pass
    assert [line["reason"] for line in said.lines] == ["nobody reads it"]
    end.recv(99)
    assert busy.notify("STOPPING=1"), "what there is room for again is sent"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({}, None),
        *(({"WATCHDOG_USEC": text}, None) for text in ("", "0", "-1", "soon", "²", "9" * 400, "9" * 5000)),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked_for(
    environ: dict[str, str], interval: float | None
) -> None:
    assert ServiceManager(KeptLog(), environ).watchdog == interval
