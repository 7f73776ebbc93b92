"""The whole system, in this process or as a daemon, against a real sshd and a real repository."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from listener.config.settings import load
from listener.system import System
from tests.listening import Client, client

Start = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def listening(configured: Callable[..., Path]) -> Start:
    """Starts the system in this process and gives a client of it."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Client]:
        async with System(load(configured(**overrides))) as system:
            await system.listen()
            async with client(f"http://127.0.0.1:{system.port}") as speaking:
                yield speaking

    return start


@pytest.fixture
async def listener(listening: Start) -> AsyncIterator[Client]:
    """A client of a running system."""
    async with listening() as speaking:
        yield speaking
