"""The stores that the contract suite runs over (one more is one more parameter here), and logging in."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import asyncssh
import pytest

from listener.queue import Acceptance, DeliveryRecord
from listener.runs import Origin, Trigger, new_id
from listener.sites import Host
from listener.ssh.login import log_in
from listener.store import Store, open_store
from tests.cluster import Cluster
from tests.login import Enter

NOW = 1_700_000_000.0


@pytest.fixture(params=["sqlite", "postgres"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of another empty store each time."""
    numbers = count(1)

    def sqlite() -> str:
        return f"sqlite://{tmp_path}/listener-{next(numbers)}.db"

    def postgres() -> str:
        cluster = request.getfixturevalue("cluster")
        assert isinstance(cluster, Cluster)
        return cluster.url(cluster.database())

    return {"sqlite": sqlite, "postgres": postgres}[request.param]


@pytest.fixture
def store_url(new_store: Callable[[], str]) -> str:
    return new_store()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of a store in one."""
    return tmp_path / "listener.db"


@pytest.fixture
def file_store(database: Path) -> str:
    """The URL of a store in a file."""
    return f"sqlite://{database}"


@pytest.fixture
async def opened(store_url: str) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens the store; closes at the end what was opened."""
    async with AsyncExitStack() as stores:

        async def opening() -> Store:
            store = open_store(store_url)
            await store.open()
            stores.push_async_callback(store.close)
            return store

        yield opening


@pytest.fixture
async def store(opened: Callable[[], Awaitable[Store]]) -> Store:
    return await opened()


@pytest.fixture
def deliver() -> Callable[..., Awaitable[Acceptance]]:
    """Brings a delivery with the key `key` that selects `environments`, with fresh ids of ours."""

    async def delivering(
        store: Store,
        key: str | None,
        *environments: str,
        now: float = NOW,
        ignored: str = "",
        origin: Origin = Origin.HOOK,
    ) -> Acceptance:
        record = DeliveryRecord(
            new_id(now), "forge", key, now, 2, "digest", {"x-event": "push"}, {"ref": "live"}, ignored
        )
        triggers = [Trigger(new_id(now), "site", e, origin, "forge", now) for e in environments]
        return await store.accept(triggers, record, now)

    return delivering


@pytest.fixture
def call() -> Callable[..., Awaitable[Acceptance]]:
    """Asks explicitly for one environment."""
    numbers = count(1)

    async def calling(
        store: Store, environment: str, *, now: float = NOW, origin: Origin = Origin.API, site: str = "site"
    ) -> Acceptance:
        trigger = Trigger(f"call-{next(numbers)}", site, environment, origin, "ci", now)
        return await store.accept([trigger], None, now)

    return calling


@pytest.fixture
async def enter() -> AsyncIterator[Enter]:
    """Logs in as the listener does; what was made is closed at last."""
    async with AsyncExitStack() as made:

        async def entering(
            host: Host, limit: float = 5, tunnel: asyncssh.SSHClientConnection | None = None
        ) -> asyncssh.SSHClientConnection:
            connection = await log_in(host, limit, tunnel, "gate" if tunnel else "")
            made.push_async_callback(connection.wait_closed)
            made.callback(connection.abort)
            return connection

        yield entering
