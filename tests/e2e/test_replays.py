"""What one sender can store is bounded: a delivery that is replayed under new ids, and very many of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from listener.cli import wording
from listener.config.settings import load
from listener.store.acceptance import ALIKE_MOST
from listener.system import System
from tests.e2e.conftest import Start
from tests.listening import Client, client, push

REPLAYS, AT_ONCE = 2_000, 20


async def replayed(listener: Client) -> dict[str, list[str]]:
    """The runs of each id under which one signed delivery was sent."""
    runs: dict[str, list[str]] = {}
    ids = iter([f"d-{number}" for number in range(REPLAYS)])

    async def sending() -> None:
        for key in ids:
            status, answer, _ = await listener.deliver(key)
            assert status == 202, answer
            runs[key] = answer["runs"]

    await asyncio.gather(*(sending() for _ in range(AT_ONCE)))
    return runs


async def listed(listener: Client) -> list[dict[str, Any]]:
    """All rows of `/api/v1/deliveries`, read page by page."""
    found: list[dict[str, Any]] = []
    query = ""
    while True:
        _, page, _ = await listener.call("GET", f"/api/v1/deliveries?limit=100{query}")
        found += page["deliveries"]
        if page["before"] is None:
            return found
        query = f"&before={page['before']}"


async def figures(metrics: Client) -> dict[tuple[str, ...], float]:
    _, text, _ = await metrics.call("GET", "/metrics", token=None)
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_a_delivery_that_is_replayed_under_2000_ids_takes_few_rows_and_few_runs(
    configured: Callable[..., Path],
) -> None:
    path = configured(sync={"settle": "20s", "settle_most": "60s"}, history={"deliveries": 5_000})
    async with System(load(path)) as system:
        await system.listen()
        async with (
            client(f"http://127.0.0.1:{system.port}") as listener,
            client(f"http://127.0.0.1:{system.metrics_port}") as metrics,
        ):
            served = await replayed(listener)
            runs = {run for each in served.values() for run in each}
            rows = await listed(listener)
            assert len(served) == REPLAYS
            assert len(runs) <= REPLAYS / 10
            assert len(rows) <= ALIKE_MOST + len(runs)
            assert sum(row["count"] for row in rows) == REPLAYS
            counted = max(rows, key=lambda row: row["count"])
            assert counted["last_received_at"] >= counted["received_at"]
            last = f"d-{REPLAYS - 1}"
            status, again, _ = await listener.deliver(last)
            assert (status, again["runs"]) == (200, served[last])
            told = await figures(metrics)
            assert told["sync_staging_kept_deliveries", "forge"] == len(rows)
            assert told["sync_staging_kept_deliveries_limit",] == 5_000
            assert told["sync_staging_deliveries_total", "forge", "accepted"] == REPLAYS
            await listener.sync()
            ended = [await listener.ended(run) for run in runs]
            assert {run["state"] for run in ended} == {"succeeded"}


async def test_a_delivery_of_which_only_the_outcome_is_left_is_known_but_not_redelivered(
    configured: Callable[..., Path],
) -> None:
    async with System(load(configured())) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            _, first, _ = await listener.deliver("d-1")
            await listener.ended(first["runs"][0])
            await listener.deliver("d-2", push(more="another body"))
            assert (await system.store.trim(1, 0, 100)).details == 1
            _, shown, _ = await listener.call("GET", f"/api/v1/deliveries/{first['delivery']}")
            assert (shown["outcome"], shown["runs"], shown["sender_id"]) == ("accepted", first["runs"], "d-1")
            assert (shown["headers"], shown["refs"]) == ({}, None)
            status, problem, _ = await listener.call(
                "POST", f"/api/v1/deliveries/{first['delivery']}/redeliver"
            )
            assert status == 409
            assert "is not stored any more" in problem["detail"]
            status, again, _ = await listener.deliver("d-1")
            assert (status, again["runs"]) == (200, first["runs"])


async def test_a_row_tells_how_often_its_body_came_and_when_last(listening: Start) -> None:
    async with listening(sync={"settle": "1h", "settle_most": "1h"}) as listener:
        for number in range(ALIKE_MOST + 3):
            await listener.deliver(f"d-{number}")
        _, page, _ = await listener.call("GET", "/api/v1/deliveries?limit=1")
        (row,) = page["deliveries"]
        assert row["count"] == 4
        lines = list(wording.delivery(row))
        assert "requests     4" in lines
        assert f"last one     {wording.moment(row['last_received_at'])}" in lines
