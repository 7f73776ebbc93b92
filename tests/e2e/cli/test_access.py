"""Who may ask, and whom."""

from pathlib import Path

import pytest
from aiohttp import test_utils, web

from listener.rehearsal.sshd import Sshd, free_port
from tests.e2e.cli.shell import Shell
from tests.listening import MEMBER, Daemon

COMMANDS = [
    ["sync", "mysite", "staging"],
    ["status"],
    ["hold", "mysite", "staging", "--reason", "x"],
    ["release", "mysite", "staging"],
    ["runs", "list"],
    ["runs", "log", "some-run"],
]


async def test_without_a_known_token_or_a_listener_every_command_ends_with_2(
    running: Daemon, config: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for command in COMMANDS:
        for shell in (Shell(config, "sst_unknown"), Shell(config, None)):
            done = await shell.here(*command)
            assert (done.status, done.out) == (2, "")
            assert done.err.splitlines()[-1].startswith("remedy: ")
        done = await Shell(config).here(*command, "--url", nobody)
        assert (done.status, done.out) == (2, "")
        assert (
            done.err.splitlines()[0]
            == f"error: The listener at {nobody} does not answer: Connection refused."
        )


async def test_what_is_no_listener_is_told_from_one(shell: Shell, sshd: Sshd) -> None:
    done = await shell("status", "--url", f"http://127.0.0.1:{sshd.port}")
    assert (done.status, done.out) == (2, "")


async def test_a_token_file_serves_as_well(running: Daemon, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{MEMBER}\n")
    done = await Shell(config, None)("status", "--token-file", str(file), "--json")
    assert [site["site"] for site in done.document["sites"]] == ["mysite"]


@pytest.mark.parametrize(
    "command", [["status", "other"], ["sync", "mysite", "live"], ["runs", "show", "no/such run"]]
)
async def test_what_does_not_exist_ends_with_1(command: list[str], running: Daemon, shell: Shell) -> None:
    done = await shell(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: ")


@pytest.mark.parametrize("command", [["status"], ["runs", "log", "some-run"]])
async def test_another_program_at_the_address_is_told_from_a_listener(
    command: list[str], shell: Shell
) -> None:
    async def page(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="<h1>It works!</h1>", content_type="text/html")

    async with test_utils.RawTestServer(page) as server:
        done = await shell(*command, "--url", str(server.make_url("/")))
    assert (done.status, done.out) == (2, "")
    assert "is not a listener: it answers 200 OK." in done.err
