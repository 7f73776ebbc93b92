"""`hook send`."""

from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell, varied
from tests.listening import Client, Daemon, configuration, daemon, written


async def test_a_test_delivery_is_signed_taken_and_synced(
    running: Daemon, shell: Shell, api: Client, published: Published
) -> None:
    done = await shell("hook", "send", "forge", "--json")
    assert (done.status, done.document["status"]) == (0, 202)
    [run] = done.document["answer"]["runs"]
    assert (await api.ended(run))["state"] == "succeeded"
    assert published.tree("staging") == published.tree("live")
    again = await shell("hook", "send", "forge", "--id", done.document["id"], "--json")
    assert (again.document["status"], again.document["answer"]) == (200, done.document["answer"])


@pytest.mark.parametrize(
    "options", [["--ping"], ["--ref", "refs/heads/staging"], ["--repository", "acme/other"]]
)
async def test_a_test_delivery_that_selects_nothing_is_taken_and_ignored(
    options: list[str], running: Daemon, shell: Shell
) -> None:
    done = await shell("hook", "send", "forge", *options, "--json")
    assert (done.status, done.document["status"]) == (0, 200)
    assert done.document["answer"]["ignored"]


async def test_a_test_delivery_by_standard_webhooks_names_its_site(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    hook = {"scheme": "standard-webhooks", "secrets": [secret], "sites": ["mysite"]}
    config = written(tmp_path, configuration(tmp_path, sshd, published.path, hooks={"publisher": hook}))
    shell = Shell(config)
    async with daemon(config):
        done = await shell("hook", "send", "publisher")
        assert done.status == 0
        assert done.out.startswith("202 Accepted: ")
        other = await shell("hook", "send", "publisher", "--site", "other")
        assert (other.status, other.out[:7]) == (0, "200 OK:")
        wrong = await shell("hook", "send", "publisher", "--repository", "acme/mysite")
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.err.splitlines()[-1] == "remedy: leave out --repository"


async def test_a_test_delivery_with_another_secret_is_refused(running: Daemon, config: Path) -> None:
    other = varied(config, "hooks", "forge", "secrets", value=["an old secret of the forge's"])
    done = await Shell(other)("hook", "send", "forge")
    assert (done.status, done.out[:16]) == (1, "401 Unauthorized")


async def test_a_hook_that_is_not_configured_is_told_by_those_that_are(shell: Shell) -> None:
    done = await shell("hook", "send", "forgery")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == "remedy: name a configured one: forge"
