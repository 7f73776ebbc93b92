"""A listener in a process of its own, for each attack a fresh one."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.attack.siege import Siege, besieged
from tests.listening import configuration, written

Besiege = Callable[..., AbstractAsyncContextManager[Siege]]


@pytest.fixture
def besiege(tmp_path: Path, sshd: Sshd, published: Published, request: pytest.FixtureRequest) -> Besiege:
    """Starts a daemon to attack; what is given replaces sections of its configuration."""

    def start(**overrides: Any) -> AbstractAsyncContextManager[Siege]:
        at = overrides.pop("sshd", sshd)
        whole = configuration(tmp_path, at, published.path, **overrides)
        return besieged(written(tmp_path, whole), request.node.name.removeprefix("test_").replace("_", " "))

    return start


@pytest.fixture
async def siege(besiege: Besiege) -> AsyncIterator[Siege]:
    """A daemon under attack."""
    async with besiege() as attacked:
        yield attacked
