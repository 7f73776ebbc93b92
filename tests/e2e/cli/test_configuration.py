"""`check-config`."""

from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell, varied
from tests.listening import ADMIN, configuration, on_a_closed_port, written
from tests.strangers import certificate
from tests.studio import FakeStudio, status_of_4


async def test_check_config_connects_to_every_host_and_environment(shell: Shell) -> None:
    done = await shell("check-config", "--connect")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[-1] == "environment mysite/staging: ok: forward-commit"
    assert lines[-2].startswith("host studio: ok: git version ")
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
        "  remedy: check that sshd runs on the host and listens on this port",
        "environment mysite/staging: failed: not checked: no answer from studio",
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


async def test_check_config_tells_which_host_runs_nothing_but_git(
    tmp_path: Path, git_sshd: Sshd, published: Published
) -> None:
    published.git("checkout", "--quiet", "master")
    whole = configuration(tmp_path, git_sshd, published.path)
    done = await Shell(written(tmp_path, whole))("check-config", "--connect")
    assert done.status == 1
    assert "set hosts.studio.access to git" in done.out
    whole["hosts"]["studio"]["access"] = "git"
    whole["sync"]["cache"] = str(tmp_path / "cache")
    done = await Shell(written(tmp_path, whole))("check-config", "--connect")
    assert done.status == 0, done.out
    assert done.out.splitlines()[-1] == "environment mysite/staging: ok: forward-commit"
    assert "sync.quiet can't be kept" in done.out
    for words in (
        ("sync", "mysite", "staging", "--local"),
        ("sync", "mysite", "staging", "--local", "--dry-run"),
    ):
        done = await Shell(written(tmp_path, whole))(*words)
        assert done.status == 0, done.err
    assert published.tree("staging") == published.tree("live")


async def test_check_config_asks_studio_where_it_is_configured(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = configuration(tmp_path, sshd, published.path)
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("ready")
        whole["studio"] = {"url": studio.url, "token": studio.token}
        done = await Shell(written(tmp_path, whole))("check-config", "--connect")
        assert (done.status, "studio: ok" in done.out.splitlines()) == (0, True)
        whole["studio"]["token"] = "wrong-token"
        done = await Shell(written(tmp_path, whole))("check-config", "--connect")
        assert (done.status, "studio, site mysite: failed" in done.out) == (1, True)
        assert "wrong-token" not in done.out + done.err


async def test_until_when_the_certificate_is_good_is_told(config: Path, tmp_path: Path) -> None:
    for days, status, told in ((30.0, 0, "certificate: ok: valid until "), (-1.0, 1, "expired on ")):
        tls = certificate(tmp_path, days=days)
        done = await Shell(varied(config, "server", "tls", value=tls))("check-config")
        (line,) = [line for line in done.out.splitlines() if line.startswith("certificate: ")]
        assert (done.status, told in line) == (status, True)
