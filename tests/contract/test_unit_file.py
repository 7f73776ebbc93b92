"""The systemd unit is valid, confined, and what its README says; the listener speaks to systemd."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from listener.cli.options import DEFAULT_PATH
from listener.config.sections import ServerSection
from listener.edge import places
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.conftest import unavailable
from tests.listening import Daemon, configuration, daemon, written

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "sync-staging.service"
README = (FOLDER / "README.md").read_text()

EXPOSURE_MOST = 1.5
"""Of 10; `systemd-analyze security` calls what is below 2.1 safe."""

COMMAND = "/usr/local/bin/sync-staging"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze` finds."""
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze (systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def settings(name: str) -> list[str]:
    """The values that the unit gives a directive, in their order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(COMMAND, shutil.which("true") or ""))
    done = analyze("verify", "--man=no", str(copy))
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])


def test_the_unit_is_confined() -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) < EXPOSURE_MOST


def test_the_unit_starts_what_the_readme_installs_with_the_configuration_that_is_read_by_default() -> None:
    assert settings("ExecStart") == [f"{COMMAND} serve --config {DEFAULT_PATH}"]
    assert f"ln -s /opt/sync-staging/.venv/bin/sync-staging {COMMAND}\n" in README
    assert f"/etc/{settings('ConfigurationDirectory')[0]}" == str(Path(DEFAULT_PATH).parent)
    for user in settings("User"):
        assert re.search(rf"^useradd .* {user}$", README, re.MULTILINE)


def test_systemd_waits_longer_than_the_listener_drains() -> None:
    drain = re.search(r"`server\.drain` \((\d+) s\)", README)
    assert drain is not None
    assert int(settings("TimeoutStopSec")[0]) > int(drain[1])


def test_the_unit_has_room_for_what_the_configuration_allows_by_default() -> None:
    server = ServerSection.model_validate({})
    (files,) = settings("LimitNOFILE")
    found = places(server.connections, hosts=1000, syncs=8, files=int(files))
    assert found.most == server.connections
    (high,), (most,) = settings("MemoryHigh"), settings("MemoryMax")
    assert int(high.removesuffix("G")) << 30 > 3 * server.unverified_bytes
    assert int(most.removesuffix("M")) << 20 > int(high.removesuffix("G")) << 30
    assert settings("LimitCORE") == ["0"]


def test_the_readme_speaks_of_what_is_in_the_unit() -> None:
    unit = UNIT.read_text()
    spoken = re.findall(r"`([A-Z][A-Za-z]+=\w*)`", README)
    assert len(spoken) > 10
    assert [directive for directive in spoken if not re.search(rf"^{directive}", unit, re.MULTILINE)] == []


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end: what a daemon that is started now tells arrives here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield end


async def told(manager: socket.socket) -> str:
    """The next thing that the daemon tells."""
    return (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()


@asynccontextmanager
async def service(tmp_path: Path, sshd: Sshd, published: Published) -> AsyncIterator[Daemon]:
    """The daemon, as the unit would start it."""
    async with daemon(written(tmp_path, configuration(tmp_path, sshd, published.path))) as running:
        yield running


async def test_systemd_is_told_when_the_listener_listens_and_when_it_stops(
    tmp_path: Path, sshd: Sshd, published: Published, manager: socket.socket
) -> None:
    async with service(tmp_path, sshd, published) as running:
        port = running.url.rpartition(":")[2]
        assert await told(manager) == f"READY=1\nSTATUS=listening on 127.0.0.1:{port}"
        assert await running.terminate() == 0
        assert await told(manager) == "STOPPING=1"


async def test_a_listener_that_is_watched_tells_that_it_lives_for_as_long_as_it_does(
    tmp_path: Path,
    sshd: Sshd,
    published: Published,
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    async with service(tmp_path, sshd, published) as running:
        assert (await told(manager)).startswith("READY=1")
        assert [await told(manager) for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert await running.terminate() == 0
        last = await told(manager)
        while last == "WATCHDOG=1":
            last = await told(manager)
        assert last == "STOPPING=1"


async def test_a_watchdog_that_is_meant_for_another_process_is_not_fed(
    tmp_path: Path,
    sshd: Sshd,
    published: Published,
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    async with service(tmp_path, sshd, published) as running:
        assert (await told(manager)).startswith("READY=1")
        assert await running.terminate() == 0
        assert await told(manager) == "STOPPING=1"
