"""The systemd unit is valid, confined, and what its README says; the listener speaks to systemd."""

import asyncio
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.listening import Daemon, configuration, written

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "sync-staging.service"

EXPOSURE_MOST = 2.0
"""Of 10; `systemd-analyze security` calls what is below 2.1 safe."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/sync-staging", shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
def test_the_unit_is_confined() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=True,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) < EXPOSURE_MOST


def test_the_readme_speaks_of_what_is_in_the_unit() -> None:
    unit = UNIT.read_text()
    for directive in re.findall(r"`([A-Z][A-Za-z]+=\w*)`", (FOLDER / "README.md").read_text()):
        assert re.search(rf"^#?{re.escape(directive)}", unit, re.MULTILINE), directive


async def test_systemd_is_told_when_the_listener_is_ready_lives_and_stops(
    tmp_path: Path, sshd: Sshd, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    loop = asyncio.get_running_loop()
    running = Daemon(written(tmp_path, configuration(tmp_path, sshd, published.path)))
    with manager:
        await running.start()
        told = [(await loop.sock_recv(manager, 4096)).decode() for _ in range(3)]
        assert any(re.match(r"READY=1\nSTATUS=listening on 127\.0\.0\.1:\d+", text) for text in told)
        assert "WATCHDOG=1" in told
        assert await running.terminate() == 0
        rest = []
        while "STOPPING=1" not in rest:
            rest.append((await loop.sock_recv(manager, 4096)).decode())
