"""`doctor`: a healthy listener has no finding, and each thing that is broken has one of its own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from listener.cli.doctor.storage import kind_of
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import Ended, Shell
from tests.studio import FakeStudio, status_of_4
from tests.listening import configuration, daemon, written

SECRET = "a9c1e5f0b7d24c3e8f6a1b0c9d8e7f60"


@asynccontextmanager
async def examined(folder: Path, whole: dict[str, Any]) -> AsyncIterator[Shell]:
    """A shell beside a running listener with this configuration."""
    config = written(folder, whole)
    async with daemon(config):
        yield Shell(config)


def found(done: Ended) -> dict[str, dict[str, str]]:
    """The findings of a JSON document by their codes; none of the machine that the tests run on."""
    findings = done.document["findings"]
    return {each["code"]: each for each in findings if each["group"] not in {"disk", "service"}}


@pytest.fixture
async def studio() -> AsyncIterator[FakeStudio]:
    async with FakeStudio() as running:
        running.bodies["mysite"] = status_of_4("ready")
        yield running


@pytest.fixture
def whole(tmp_path: Path, sshd: Sshd, published: Published, studio: FakeStudio) -> dict[str, Any]:
    """A configuration that nothing is wrong with."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    whole = configuration(tmp_path, sshd, published.path)
    whole["sites"]["mysite"]["environments"]["staging"]["follow"] = False
    whole["hooks"]["forge"]["secrets"] = [f"file:{secret}"]
    whole["sync"]["cache"] = str(tmp_path / "cache")
    tokens = {"token": studio.token, "management_token": studio.management_token}
    whole["studio"] = {"url": studio.url, **{key: f"file:{secret}-{key}" for key in tokens}}
    for key, text in tokens.items():
        file = tmp_path / f"secret-{key}"
        file.write_text(text)
        file.chmod(0o600)
    return whole


async def test_a_healthy_listener_has_no_finding(tmp_path: Path, whole: dict[str, Any]) -> None:
    async with examined(tmp_path, whole) as shell:
        done = await shell("doctor", "--json")
        assert (done.status, found(done)) == (0, {}), done.out
        spoken = await shell("doctor", "--verbose")
    assert spoken.status == 0
    assert "  ok: host studio: git version " in spoken.out
    assert "  ok: environment mysite/staging: forward-commit" in spoken.out
    assert SECRET not in done.out + done.err + spoken.out + spoken.err


async def test_x(tmp_path: Path, whole: dict[str, Any]) -> None:
    async with examined(tmp_path, whole) as shell:
        print((await shell("doctor")).out)
        print((await shell("doctor", "--verbose")).out)
        print((await shell("doctor", "--json", "--verbose")).out)
    print((await shell("doctor")).out)
    assert 0
