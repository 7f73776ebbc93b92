"""`hook send`."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from listener.deliveries import READERS
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell, varied
from tests.listening import GITHUB_SECRET, Client, Daemon, configuration, daemon, written


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


SCHEMES = {
    "gitlab": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    "gitea": ["a secret"],
    "forgejo": ["a secret"],
    "gogs": ["a secret"],
    "bitbucket": ["a secret"],
    "azure-devops": ["azure:a long password"],
    "hmac": ["a secret"],
    "basic": ["deployer:a long password"],
    "bearer": ["9f8e7d6c5b4a39281706f5e4d3c2b1a0"],
    "path": ["0123456789abcdef-path"],
}


async def test_a_test_delivery_is_signed_by_each_scheme(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    forge, own = {"repositories": {"acme/{site}": "{site}"}}, {"site": "mysite"}
    hooks: dict[str, Any] = {
        scheme: {"scheme": scheme, "secrets": secrets, **(own if READERS[scheme].configurable else forge)}
        for scheme, secrets in SCHEMES.items()
    }
    hooks["hmac"]["hmac"] = {"header": "X-Own", "timestamp_header": "X-Time"}
    config = written(tmp_path, configuration(tmp_path, sshd, published.path, hooks=hooks))
    shell = Shell(config)
    async with daemon(config):
        for scheme, reader in READERS.items():
            if scheme in hooks:
                done = await shell.here("hook", "send", scheme, "--site", "mysite")
                assert (done.status, done.out[:13]) == (0, "202 Accepted:"), scheme
            if scheme in hooks and reader.ping is not None:
                done = await shell.here("hook", "send", scheme, "--ping", "--json")
                assert (done.status, done.document["status"]) == (0, 200)
                assert "is not a publish" in done.document["answer"]["ignored"]


async def test_a_test_delivery_for_a_public_key_is_signed_with_the_private_one_that_is_named(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    hook = {
        "scheme": "standard-webhooks",
        "secrets": [f"whpk_{b64encode(public).decode()}"],
        "site": "mysite",
    }
    config = written(tmp_path, configuration(tmp_path, sshd, published.path, hooks={"publisher": hook}))
    (tmp_path / "private").write_text(f"whsk_{b64encode(private + public).decode()}\n")
    shell = Shell(config)
    async with daemon(config):
        without = await shell("hook", "send", "publisher")
        assert (without.status, without.out) == (2, "")
        assert "name the private key, whsk_, with --secret file:PATH" in without.err
        done = await shell("hook", "send", "publisher", "--secret", f"file:{tmp_path}/private")
        assert (done.status, done.out[:13]) == (0, "202 Accepted:")
        absent = await shell("hook", "send", "publisher", "--secret", "private")
        assert (absent.status, absent.out) == (1, "")
        assert "write file:PATH, env:NAME or credential:NAME" in absent.err


async def test_a_test_delivery_with_another_secret_is_refused(running: Daemon, config: Path) -> None:
    other = varied(config, "hooks", "forge", "secrets", value=["an old secret of the forge's"])
    done = await Shell(other)("hook", "send", "forge")
    assert (done.status, done.out[:16]) == (1, "401 Unauthorized")


async def test_a_hook_is_tried_out_by_who_can_read_its_secret_and_no_other(
    running: Daemon, config: Path, tmp_path: Path
) -> None:
    other = varied(config, "ssh", "identity", value="credential:identity")
    other = varied(other, "studio", value={"url": "http://127.0.0.1:9/studio", "token": "credential:studio"})
    (tmp_path / "secret").write_text(GITHUB_SECRET)
    (tmp_path / "secret").chmod(0o600)
    other = varied(other, "hooks", "forge", "secrets", value=["file:secret", "credential:next"])
    assert (await Shell(other)("hook", "send", "forge")).out[:12] == "202 Accepted"
    other = varied(other, "hooks", "forge", "secrets", value=["credential:now", "credential:next"])
    done = await Shell(other)("hook", "send", "forge")
    assert (done.status, done.out) == (1, "")
    assert "hooks.forge.secrets.0: needs $CREDENTIALS_DIRECTORY" in done.err
    assert "--secret file:PATH" in done.err.splitlines()[-1]
    named = await Shell(other)("hook", "send", "forge", "--secret", f"file:{tmp_path}/secret")
    assert named.out[:12] == "202 Accepted"


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("scheme",), "githup", "hooks.forge.scheme: is an unknown scheme; did you mean github?"),
        (("repositories",), {}, "hooks.forge: selects no site"),
        (("networks",), ["nowhere"], "hooks.forge.networks.0: is not a network"),
        (("secrets",), [], "hooks.forge.secrets: is empty: write a list"),
    ],
)
async def test_a_hook_that_can_not_be_used_is_told_before_anything_is_sent(
    place: tuple[str, ...], value: Any, told: str, config: Path
) -> None:
    other = varied(config, "hooks", "forge", *place, value=value)
    for options in ([], ["--secret", f"file:{config}"]):
        done = await Shell(other)("hook", "send", "forge", *options)
        assert (done.status, done.out) == (1, "")
        assert told in done.err


async def test_a_ref_that_is_no_full_one_is_told_before_anything_is_sent(config: Path) -> None:
    done = await Shell(config)("hook", "send", "forge", "--ref", "main")
    assert (done.status, done.out) == (2, "")
    assert "write one such as refs/heads/live" in done.err


async def test_who_was_refused_too_often_is_told_what_that_means(
    config: Path, tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    whole = configuration(tmp_path, sshd, published.path)
    whole["server"]["refusals"] = 1
    config = written(tmp_path, whole)
    wrong = varied(config, "hooks", "forge", "secrets", value=["an old secret of the forge's"])
    async with daemon(config):
        while (done := await Shell(wrong, None)("hook", "send", "forge")).out[:3] == "401":
            pass
        assert (done.status, done.out[:3]) == (1, "429")
        assert "A valid delivery is accepted all the same" in done.err
        stranger = await Shell(config, "no-token")("runs", "list")
        assert (stranger.status, stranger.out) == (2, "")
        assert "remedy: check the token: a good one is let in all the same" in stranger.err
        assert (await Shell(config)("hook", "send", "forge")).out[:12] == "202 Accepted"


async def test_a_hook_that_is_not_configured_is_told_by_those_that_are(shell: Shell) -> None:
    done = await shell("hook", "send", "forgery")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == "remedy: name a configured one: forge"
