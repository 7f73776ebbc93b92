"""`status`, `hold` and `release`."""

from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell
from tests.listening import Client, Daemon, configuration, daemon, on_a_closed_port, written


async def test_status_tells_how_every_environment_stands(
    running: Daemon, shell: Shell, published: Published
) -> None:
    before = await shell("status", "--fresh")
    assert before.status == 0
    assert before.out.splitlines()[1].split()[:4] == ["mysite", "staging", "differs:", "forward-commit"]
    await shell("sync", "mysite", "staging")
    after = await shell("status", "mysite")
    row = after.out.splitlines()[1].split()
    assert row[:5] == [
        "mysite",
        "staging",
        "equal",
        published.commit("live")[:10],
        published.commit("staging")[:10],
    ]


async def test_status_tells_why_a_host_can_not_be_asked(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = on_a_closed_port(tmp_path, configuration(tmp_path, sshd, published.path))
    config = written(tmp_path, whole)
    async with daemon(config):
        done = await Shell(config)("status", "--fresh")
    assert done.status == 0
    assert "error: host-unreachable" in done.out
    assert done.out.splitlines()[-1].startswith("  remedy: check that sshd runs on the host")


async def test_status_tells_of_every_site_however_many_pages_there_are(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = on_a_closed_port(tmp_path, configuration(tmp_path, sshd, published.path))
    names = [f"site-{number:03}" for number in range(401)]
    sites = {
        name: {
            "repository": {"host": "studio", "path": f"/srv/{name}"},
            "environments": {"staging": {"follow": True}},
        }
        for name in names
    }
    config = written(tmp_path, {**whole, "sites": sites, "hooks": {}, "tokens": whole["tokens"][:1]})
    async with daemon(config):
        done = await Shell(config)("status", "--json")
        rows = (await Shell(config)("status")).out.splitlines()
    assert [each["site"] for each in done.document["sites"]] == names
    assert [row.split()[0] for row in rows[1:402]] == names


async def test_a_hold_freezes_an_environment_until_it_is_released(
    running: Daemon, shell: Shell, api: Client, published: Published
) -> None:
    held = await shell("hold", "mysite", "staging", "--reason", "acceptance \x1b[31mtest")
    assert (held.status, held.out) == (0, "mysite/staging is on hold: acceptance \\x1b[31mtest\n")
    refused = await shell("sync", "mysite", "staging")
    assert (refused.status, refused.out) == (1, "mysite/staging: failed (on-hold)\n")
    assert "on hold by root since" in (await shell("status")).out
    released = await shell("release", "mysite", "staging", "--json")
    assert released.status == 0
    [run] = released.document["runs"]
    assert (await api.ended(run))["state"] == "succeeded"
    again = await shell("release", "mysite", "staging")
    assert (again.status, again.out) == (0, "mysite/staging was not on hold\n")
