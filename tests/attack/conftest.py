"""A listener in a process of its own, for each attack a fresh one."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.attack.siege import Siege, besieged

Besiege = Callable[..., AbstractAsyncContextManager[Siege]]


@pytest.fixture
def besiege(configured: Callable[..., Path], request: pytest.FixtureRequest) -> Besiege:
    """Starts a daemon to attack; what is given replaces sections of its configuration."""

    def start(*, anew: bool = False, **overrides: Any) -> AbstractAsyncContextManager[Siege]:
        name = request.node.name.removeprefix("test_").replace("_", " ")
        return besieged(configured(**overrides), name, anew=anew)

    return start


@pytest.fixture
async def siege(besiege: Besiege) -> AsyncIterator[Siege]:
    """A daemon under attack."""
    async with besiege() as attacked:
        yield attacked
