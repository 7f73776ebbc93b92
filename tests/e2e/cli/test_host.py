"""`host`: what it prints, put on a host, is what the listener needs there."""

from pathlib import Path
from typing import Any

import yaml

from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import PATIENT, Shell
from tests.listening import client, configuration, daemon, written


def read(config: Path) -> Any:
    return yaml.safe_load(config.read_text())


def rewritten(config: Path, **host: Any) -> None:
    whole = read(config)
    whole["hosts"]["studio"].update(host)
    config.write_text(yaml.safe_dump(whole))
    config.chmod(0o600)


async def test_what_is_printed_binds_the_key_and_the_listener_goes_on(
    tmp_path: Path, own_sshd: Sshd, published: Published
) -> None:
    config = written(tmp_path, configuration(tmp_path, own_sshd, published.path, sync=PATIENT))
    shell, script = Shell(config), tmp_path / "sync-staging-shell"
    script.write_text((await shell("host", "script")).out)
    script.chmod(0o755)
    printed = await shell("host", "key", "studio", "--script", str(script), "--from", "127.0.0.1")
    assert printed.status == 0, printed.err
    assert "access: restricted" in printed.err
    (own_sshd.folder / "authorized_keys").write_text(printed.out)
    told = await shell("check-config", "--connect")
    assert told.status == 1
    assert "  remedy: set hosts.*.access to restricted" in told.out
    rewritten(config, access="restricted")
    done = await shell("sync", "mysite", "staging", "--local")
    assert done.status == 0, done.err
    assert published.tree("staging") == published.tree("live")


async def test_what_is_printed_is_enough_for_a_listener_that_carries_to_two_repositories_and_takes_it_back(
    tmp_path: Path, own_sshd: Sshd, published: Published
) -> None:
    other = tmp_path / "it's the other.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), str(other))
    carriers = {path: Published(path) for path in (published.path, other)}
    repositories = [{"host": "studio", "path": str(path), "branch": "staging"} for path in carriers]
    site: dict[str, Any] = {"repository": {"host": "studio", "path": str(published.path)}}
    site["environments"] = {"staging": {"repositories": repositories, "follow": True}}
    whole = configuration(tmp_path, own_sshd, published.path, sites={"mysite": site})
    whole["sync"] = {**PATIENT, "cache": str(tmp_path / "cache")}
    whole["hosts"]["studio"]["access"] = "restricted"
    config = written(tmp_path, whole)
    shell, script = Shell(config), tmp_path / "bin" / "sync-staging-shell"
    script.parent.mkdir()
    script.write_text((await shell("host", "script")).out)
    script.chmod(0o755)
    printed = await shell("host", "key", "studio", "--script", str(script), "--from", "127.0.0.0/8")
    (own_sshd.folder / "authorized_keys").write_text(printed.out)
    told = await shell("check-config", "--connect")
    assert told.status == 0, told.out
    old = published.tree("staging")
    async with daemon(config) as running, client(running.url) as listener:
        status, _, headers = await listener.sync()
        assert status == 200
        assert {each.tree("staging") for each in carriers.values()} == {published.tree("live")}
        _, back, _ = await listener.call("POST", f"/api/v1/runs/{headers['X-Run-Id']}/rollback")
        assert (await listener.ended(back["id"]))["state"] == "succeeded"
    assert {each.tree("staging") for each in carriers.values()} == {old}


async def test_the_line_names_what_the_configuration_needs(tmp_path: Path, sshd: Sshd, config: Path) -> None:
    whole = read(config)
    whole["sites"]["*"] = {
        "repository": {"host": "studio", "path": "/srv/all of them/{site}/published"},
        "live": "main",
        "environments": {"qa": {"follow": False}},
    }
    config = written(tmp_path, whole)
    line = (await Shell(config)("host", "key", "studio", "--json")).document["line"]
    assert line.startswith(
        'restrict,command="exec /usr/local/bin/sync-staging-shell --branch qa --branch staging'
    )
    assert "--protect live --protect main " in line
    assert "'/srv/all of them'" in line
    public = (sshd.folder / "authorized_keys").read_text().split("ssh-ed25519 ")[1].strip()
    assert line.endswith(f" ssh-ed25519 {public}")


async def test_a_host_with_nothing_but_git_gets_git_shell(config: Path) -> None:
    rewritten(config, access="git")
    printed = await Shell(config)("host", "key", "studio")
    assert printed.out.startswith('restrict,command="git-shell -c \\"$SSH_ORIGINAL_COMMAND\\"" ssh-ed25519 ')


async def test_what_is_no_address_is_not_put_into_a_line_that_sshd_would_ignore(config: Path) -> None:
    for wrong in ("192.0.2.300", "192.0.2.1/24", "listener.example.com", "192.0.2.1,", "*", 'a",b'):
        done = await Shell(config)("host", "key", "studio", "--from", wrong)
        assert (done.status, done.out) == (2, ""), wrong
        assert "write one such as 192.0.2.10,198.51.100.0/24" in done.err
    printed = await Shell(config)("host", "key", "studio", "--from", "192.0.2.10,2001:db8::/32")
    assert printed.out.startswith('restrict,from="192.0.2.10,2001:db8::/32",command=')


async def test_what_can_not_be_bound_is_told(config: Path, tmp_path: Path) -> None:
    unknown = await Shell(config)("host", "key", "nowhere")
    assert (unknown.status, unknown.out) == (2, "")
    assert "studio" in unknown.err
    no_key = await Shell(config)("host", "key", "studio", "--key", str(config))
    assert (no_key.status, no_key.out) == (1, "")
    whole = read(config)
    other = {"host": "studio", "path": "/srv/other.git", "branch": "live"}
    whole["sites"]["mysite"]["environments"]["elsewhere"] = {"repositories": [other]}
    torn = await Shell(written(tmp_path, whole))("host", "key", "studio")
    assert (torn.status, torn.out) == (1, "")
    assert "is the live branch of one site and an environment's branch of another" in torn.err
