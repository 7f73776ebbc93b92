"""`serve`."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell, behind, ended, varied
from tests.listening import Daemon, client, configuration, daemon, written
from tests.proxy import Proxy


async def test_serve_ends_with_0_when_it_is_stopped(running: Daemon) -> None:
    assert await running.terminate() == 0
    assert running.events()[-1]["event"] == "stopped"


async def test_serve_logs_the_warnings_of_its_configuration(running: Daemon) -> None:
    warnings = [event["warning"] for event in running.events() if event["event"] == "configuration"]
    assert any("removes the items that are staged for review" in warning for warning in warnings)


async def test_a_second_serve_with_the_same_store_is_refused(running: Daemon, shell: Shell) -> None:
    done = await shell("serve")
    assert (done.status, done.out) == (1, "")
    assert "has the store open" in done.err


async def test_a_taken_port_is_told(running: Daemon, tmp_path: Path, config: Path) -> None:
    other = varied(config, "store", value=f"sqlite:///{tmp_path}/other.db")
    done = await Shell(other)("serve")
    assert done.status == 1
    said = json.loads(done.err.splitlines()[-1])
    assert (said["event"], said["level"], said["error"]) == ("serve", "error", "configuration")
    assert said["remedy"] == "choose another server.port, or stop the program that listens there"


async def test_a_port_that_only_root_may_have_is_told_with_what_to_do(config: Path) -> None:
    other = varied(config, "server", "port", value=443)
    command = [sys.executable, "-m", "listener", "serve", "--config", str(other)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", *command]
    done = await ended(
        await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    )
    assert done.status == 1
    said = json.loads(done.err.splitlines()[-1])
    assert said["message"] == "server.port: this user may not listen on 127.0.0.1:443"
    assert said["remedy"].startswith("choose a server.port of 1024 or more")


async def test_a_configuration_that_can_t_be_read_is_one_line_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "listener.yaml").write_text("hosts: [\n")
    done = await Shell(tmp_path / "listener.yaml")("serve")
    (line,) = done.err.splitlines()
    said = json.loads(line)
    assert (done.status, said["event"], said["level"], said["error"]) == (
        1,
        "serve",
        "error",
        "configuration",
    )
    assert said["message"]
    assert said["remedy"]


async def test_a_second_signal_does_not_wait_for_running_syncs(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    async with Proxy(sshd.port) as proxy:
        slow = {"quiet": 0.2, "step_timeout": 3600, "connect_timeout": 3600}
        whole = configuration(tmp_path, sshd, published.path, sync=slow)
        whole["server"]["drain"] = 3600
        config = written(tmp_path, behind(proxy, whole, tmp_path))
        shell = Shell(config)
        async with daemon(config) as running, client(running.url) as api:
            assert (await shell("sync", "mysite", "staging")).status == 0
            proxy.freeze()
            await shell("sync", "mysite", "staging", "--no-wait")
            while not (await api.call("GET", "/api/v1/runs?state=running"))[1]["runs"]:
                await asyncio.sleep(0.02)
            running.process.send_signal(signal.SIGTERM)
            while "stopping" not in {event["event"] for event in running.events()}:
                await asyncio.sleep(0.02)
            assert await running.terminate() == 0
        assert [event["error"] for event in running.events() if event["event"] == "again"] == ["handed-back"]
