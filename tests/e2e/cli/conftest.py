"""A listener in a process of its own, and a shell to type commands into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import PATIENT, Shell
from tests.listening import Client, Daemon, client, configuration, daemon, written


@pytest.fixture
def config(tmp_path: Path, sshd: Sshd, published: Published) -> Path:
    return written(tmp_path, configuration(tmp_path, sshd, published.path, sync=PATIENT))


@pytest.fixture
async def running(config: Path) -> AsyncIterator[Daemon]:
    async with daemon(config) as started:
        yield started


@pytest.fixture
async def api(running: Daemon) -> AsyncIterator[Client]:
    async with client(running.url) as asking:
        yield asking


@pytest.fixture
def shell(config: Path) -> Shell:
    return Shell(config)
