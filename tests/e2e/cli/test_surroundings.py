"""What a process is started with and is sent: streams, signals, a service manager; and how it ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell, behind, varied
from tests.listening import Client, Daemon, client, configuration, daemon, written
from tests.proxy import Proxy

SIGNALS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


async def logged(running: Daemon, event: str) -> list[dict[str, object]]:
    """What the daemon has logged under a name, once there is any."""
    while not (found := [each for each in running.events() if each["event"] == event]):
        await asyncio.sleep(0.02)
    return found


# Signals.


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_that_means_nothing_to_it_is_logged_and_ends_nothing(
    running: Daemon, api: Client, number: signal.Signals
) -> None:
    running.process.send_signal(number)
    (told,) = await logged(running, "signal ignored")
    assert (told["level"], told["signal"]) == ("warning", number.name)
    assert (await api.sync())[0] == 200
    assert await running.terminate() == 0


async def test_such_signals_do_not_end_a_listener_that_drains(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    async with Proxy(sshd.port) as proxy:
        slow = {"quiet": 0.2, "step_timeout": 3600, "connect_timeout": 3600}
        whole = configuration(tmp_path, sshd, published.path, sync=slow)
        whole["server"]["drain"] = 3600
        config = written(tmp_path, behind(proxy, whole, tmp_path))
        async with daemon(config) as running, client(running.url) as api:
            assert (await api.sync())[0] == 200
            proxy.freeze()
            await api.deliver("d-1")
            while not (await api.call("GET", "/api/v1/runs?state=running"))[1]["runs"]:
                await asyncio.sleep(0.02)
            running.process.send_signal(signal.SIGTERM)
            await logged(running, "stopping")
            for number in SIGNALS:
                running.process.send_signal(number)
            while len(await logged(running, "signal ignored")) < len(SIGNALS):
                await asyncio.sleep(0.02)
            assert await running.terminate() == 0


# The service manager.


@pytest.mark.parametrize("address", ["/nonexistent/sock", "@nobody-listens-there"])
async def test_a_notify_socket_that_leads_nowhere_is_warned_of_and_the_listener_serves(
    config: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    async with daemon(config) as running, client(running.url) as api:
        assert (await api.sync())[0] == 200
        assert await running.terminate() == 0
        assert len(await logged(running, "service manager")) == 1


@asynccontextmanager
async def managed(config: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """A daemon whose service manager, bound at a path, reads nothing."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        async with daemon(config) as running:
            yield running


async def test_a_service_manager_that_does_not_read_holds_up_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(config, tmp_path / "notify", monkeypatch) as running, client(running.url) as api:
        (told,) = await logged(running, "service manager")
        assert told["reason"] == "nobody reads it"
        assert (await api.sync())[0] == 200
        assert await running.terminate() == 0


async def test_a_notify_socket_that_vanishes_stops_neither_the_watchdog_nor_the_listener(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(config, tmp_path / "notify", monkeypatch) as running, client(running.url) as api:
        (tmp_path / "notify").unlink()
        await logged(running, "service manager")
        assert (await api.call("GET", "/readyz", token=None))[0] == 200
        assert await running.terminate() == 0
        assert not [event for event in running.events() if event["event"] == "task failed"]


# Standard streams.

CLOSED = ["2>&-", "0<&- 1>&- 2>&-"]


def leads_to(pid: int, number: str) -> Path:
    """Where a descriptor of a process leads."""
    return Path(f"/proc/{pid}/fd/{number}").readlink()


async def under(redirected: str, config: Path, *words: str) -> asyncio.subprocess.Process:
    """A command that a shell starts with its streams as told."""
    line = f'exec "{sys.executable}" -m listener "$@" {redirected}'
    return await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        line,
        "sh",
        *words,
        env=Shell(config).environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("closed", CLOSED)
async def test_serve_runs_with_closed_streams_and_writes_into_no_file_of_its_own(
    config: Path, closed: str
) -> None:
    process = await under(closed, config, "serve")
    running = Daemon(config)
    async with client(running.url) as api:
        while not await running.ready(api.session):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        for number in filter(closed.__contains__, "012"):
            assert leads_to(process.pid, number) == Path(os.devnull)
        assert (await api.sync())[0] == 200
        process.terminate()
        _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (0, False)


@pytest.mark.parametrize(
    ("closed", "words", "status"),
    [
        (">&-", ["check-config"], 0),
        (">&-", ["--help"], 0),
        (">&-", ["check-config", "--nonsense"], 2),
        ("2>&-", ["check-config", "--json"], 0),
        ("2>&-", ["status"], 2),
        ("<&- >&- 2>&-", ["check-config"], 0),
        ("<&- >&- 2>&-", ["nonsense"], 2),
    ],
)
async def test_exit_statuses_are_the_same_with_closed_streams(
    config: Path, closed: str, words: list[str], status: int
) -> None:
    process = await under(closed, config, *words)
    _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (status, False)


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
@pytest.mark.parametrize("command", ["check-config", "serve"])
async def test_a_wrong_configuration_ends_with_1_with_closed_streams(
    config: Path, closed: str, command: str
) -> None:
    process = await under(closed, varied(config, "store", value="nothing"), command)
    _, err = await process.communicate()
    assert (process.returncode, b"Traceback" in err) == (1, False)


@pytest.mark.parametrize("words", [["check-config", "--json"], ["--help"], ["token", "new", "ci", "--admin"]])
async def test_an_answer_that_can_not_be_written_is_a_failure(config: Path, words: list[str]) -> None:
    process = await under(">/dev/full", config, *words)
    _, err = await process.communicate()
    assert err.decode().splitlines()[-2:] == [
        "error: The output can't be written: No space left on device.",
        "remedy: write the output to a disk with free space",
    ]
    assert (process.returncode, b"Traceback" in err) == (1, False)


@pytest.mark.parametrize(
    ("words", "status"), [(["sync", "mysite", "staging", "--local"], 0), (["status"], 2), (["nonsense"], 2)]
)
async def test_what_goes_on_may_have_nowhere_to_be_told(config: Path, words: list[str], status: int) -> None:
    process = await under("2>/dev/full", config, *words)
    await process.communicate()
    assert process.returncode == status


async def test_serve_ends_with_0_where_its_log_has_no_room(config: Path) -> None:
    process = await under("2>/dev/full", config, "serve")
    async with client(Daemon(config).url) as api:
        while not await Daemon(config).ready(api.session):
            assert process.returncode is None
            await asyncio.sleep(0.02)
        process.terminate()
    await process.communicate()
    assert process.returncode == 0
