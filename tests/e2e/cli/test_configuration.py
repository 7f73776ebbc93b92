"""`check-config`."""

from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell
from tests.listening import ADMIN, configuration, on_a_closed_port, written


async def test_check_config_connects_to_every_host_and_environment(shell: Shell) -> None:
    done = await shell("check-config", "--connect")
    assert done.status == 0, done.err
    assert done.out.splitlines()[-2:] == ["host studio: ok", "environment mysite/staging: ok: forward-commit"]
    asked = await shell("check-config", "--connect", "--json")
    assert [check["ok"] for check in asked.document["checks"]] == [True, True]
    assert asked.document["configuration"]["sites"]["mysite"]["live"] == "live"


async def test_check_config_tells_what_does_not_answer(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = on_a_closed_port(tmp_path, configuration(tmp_path, sshd, published.path))
    done = await Shell(written(tmp_path, whole))("check-config", "--connect")
    assert done.status == 1
    assert done.out.splitlines()[-2:] == [
        "  remedy: check that its sshd runs, and on that port",
        "environment mysite/staging: failed: not looked at: no answer from studio",
    ]


async def test_check_config_tells_which_repository_is_missing(tmp_path: Path, sshd: Sshd) -> None:
    config = written(tmp_path, configuration(tmp_path, sshd, tmp_path / "nowhere"))
    done = await Shell(config)("check-config", "--connect")
    assert done.status == 1
    assert done.out.splitlines()[-2].startswith("environment mysite/staging: failed: ")
    assert done.out.splitlines()[-1].startswith("  remedy: check sites.*.repository.path")


async def test_check_config_alone_connects_to_nothing(tmp_path: Path, sshd: Sshd) -> None:
    config = written(tmp_path, configuration(tmp_path, sshd, tmp_path / "nowhere"))
    done = await Shell(config)("check-config", "--json")
    assert done.status == 0
    assert done.document["checks"] == []
    assert ADMIN not in done.out


async def test_check_config_tries_the_openssh_configuration_that_is_named(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = configuration(tmp_path, sshd, published.path)
    whole["hosts"]["studio"] = {"address": "the-studio", "user": sshd.user}
    whole["ssh"]["config"] = str(tmp_path / "ssh_config")
    (tmp_path / "ssh_config").write_text(f"Host the-studio\n  HostName 127.0.0.1\n  Port {sshd.port}\n")
    config = written(tmp_path, whole)
    done = await Shell(config)("check-config", "--connect")
    assert done.status == 0, done.out
    (tmp_path / "ssh_config").write_text("Host the-studio\n  Port none\n")
    done = await Shell(config)("check-config")
    assert done.status == 1
    assert f"host studio: failed: {tmp_path}/ssh_config can't be used for studio: " in done.out
    assert "line 2: Invalid Port integer value: none" in done.out
    assert "remedy: correct the file that ssh.config names" in done.out
