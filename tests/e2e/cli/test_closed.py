"""Nothing starts open: what would let somebody in is refused at start and by check-config, with a remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Shell
from tests.listening import configuration, written
from tests.strangers import certificate

Opening = Callable[[dict[str, Any], Path], None]


def secret(folder: Path, mode: int) -> str:
    file = folder / "secret"
    file.write_text("It's a Secret to Everybody")
    file.chmod(mode)
    return f"file:{file}"


def no_secret(whole: dict[str, Any], folder: Path) -> None:
    whole["hooks"]["forge"]["secrets"] = []


def empty_secret(whole: dict[str, Any], folder: Path) -> None:
    whole["hooks"]["forge"]["secrets"] = [""]


def secret_for_others(whole: dict[str, Any], folder: Path) -> None:
    whole["hooks"]["forge"]["secrets"] = [secret(folder, 0o644)]


def secret_missing(whole: dict[str, Any], folder: Path) -> None:
    whole["hooks"]["forge"]["secrets"] = [f"file:{folder}/missing"]


def token_for_others(whole: dict[str, Any], folder: Path) -> None:
    whole["studio"] = {"url": "http://127.0.0.1:1/studio", "token": secret(folder, 0o640)}


def no_known_hosts(whole: dict[str, Any], folder: Path) -> None:
    whole["ssh"]["known_hosts"] = str(folder / "missing")


def known_hosts_unsaid(whole: dict[str, Any], folder: Path) -> None:
    del whole["ssh"]["known_hosts"]


def key_for_others(whole: dict[str, Any], folder: Path) -> None:
    whole["server"]["tls"] = certificate(folder)
    (folder / "key.pem").chmod(0o644)


def another_key(whole: dict[str, Any], folder: Path) -> None:
    (folder / "other").mkdir()
    whole["server"]["tls"] = {**certificate(folder), "key": certificate(folder / "other")["key"]}


def everybody_trusted(whole: dict[str, Any], folder: Path) -> None:
    whole["server"]["trusted_proxies"] = ["::/0"]


@pytest.mark.parametrize(
    ("opening", "told"),
    [
        (no_secret, "hooks.forge.secrets: is empty: write a list of one or more secrets"),
        (empty_secret, "hooks.forge.secrets.0: is empty, so anybody can guess it; write a secret"),
        (secret_for_others, "hooks.forge.secrets.0: other users can open"),
        (secret_missing, "which is not a file; create it, or correct the path"),
        (token_for_others, "studio.token: other users can open"),
        (no_known_hosts, "make it with ssh-keyscan, and verify each key with its host's administrator"),
        (known_hosts_unsaid, "ssh.known_hosts: is missing: the path of a file with the hosts' keys"),
        (key_for_others, "server.tls.key: other users can open"),
        (another_key, "the key doesn't belong to the certificate; name the key that it was made with"),
        (
            everybody_trusted,
            "covers every address, so anybody could claim any address; write the proxies' own",
        ),
    ],
)
async def test_what_would_let_somebody_in_is_refused(
    tmp_path: Path, sshd: Sshd, published: Published, opening: Opening, told: str
) -> None:
    whole = configuration(tmp_path, sshd, published.path)
    opening(whole, tmp_path)
    shell = Shell(written(tmp_path, whole))
    for command in ("serve", "check-config"):
        done = await shell(command)
        assert (done.status, done.out) == (1, "")
        assert told in done.err


async def test_a_secret_in_a_configuration_that_everybody_may_read_is_refused(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    file = written(tmp_path, configuration(tmp_path, sshd, published.path))
    file.chmod(0o644)
    done = await Shell(file)("serve")
    assert done.status == 1
    assert f"run chmod 600 {file}" in done.err
