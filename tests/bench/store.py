"""What a long past costs the store: the same figures beside nothing and beside 200,000 ended runs.

The two stores are asked in turns, so that whatever else the machine does weighs on both.
"""

import asyncio
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from listener.cli.printing import say
from listener.outcomes import Outcome
from listener.queue import DeliveryRecord, LogLine, RunFilter
from listener.runs import Origin, State, Trigger, new_id
from listener.store import Store, open_store
from tests import past
from tests.cluster import Cluster, find_programs

ROUNDS = 12
ASKED = 40
"""How often each question is asked in a round."""
WAITING = 5_000
PART = 500
"""Runs at the beginning and at the end of the queue that are timed."""

KINDS = (
    "acknowledgement",
    "run (8 at once)",
    "claim",
    "next_due",
    "backlog",
    "page",
    "page of a state",
    "page of a site",
)

Series = dict[str, list[float]]


async def accept(store: Store, environment: str, lane: str = "") -> None:
    now = time.time()
    trigger = Trigger(new_id(now), "site", environment, Origin.HOOK, "forge", now, lane=lane)
    delivery = DeliveryRecord(new_id(now), "forge", new_id(now), now, 2, "digest", {}, {})
    await store.accept([trigger], delivery, now)


async def carry_out(store: Store) -> None:
    run = await store.claim(time.time())
    if run is not None:
        store.append(run, [LogLine(1, "{}"), LogLine(2, "{}")])
        await store.finish(run, State.SUCCEEDED, Outcome(), time.time())


async def timed(asked: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await asked()
    return time.perf_counter() - begun


async def a_round(store: Store, number: int, series: Series) -> None:
    """Ask for everything, so many times each."""
    names = [f"e{number}-{n}" for n in range(ASKED)]
    series["acknowledgement"] += [await timed(lambda name=name: accept(store, name)) for name in names]  # type: ignore[misc]
    series["next_due"] += [await timed(store.next_due) for _ in names]
    series["backlog"] += [await timed(store.backlog) for _ in names]
    claims = [time.perf_counter()]
    for _ in range(ASKED // 2):
        run = await store.claim(time.time())
        claims.append(time.perf_counter())
        assert run is not None
        await store.finish(run, State.SUCCEEDED, Outcome(), time.time())
        claims.append(time.perf_counter())
    series["claim"] += [after - before for before, after in zip(claims[::2], claims[1::2], strict=False)]
    for name, which in {
        "page": RunFilter(),
        "page of a state": RunFilter(state=State.SUCCEEDED),
        "page of a site": RunFilter(site="site"),
    }.items():
        series[name] += [await timed(lambda which=which: store.runs(which)) for _ in names]  # type: ignore[misc]
    while (await store.backlog()).queued:
        await carry_out(store)
    for name in names:
        await accept(store, name)
    series["run (8 at once)"].append(
        await timed(lambda: asyncio.gather(*(carry_out(store) for _ in names))) / ASKED
    )


async def compare(name: str, empty: Store, old: Store) -> bool:
    """Print each figure of both; return whether all are within bounds."""
    figures: list[Series] = [{kind: [] for kind in KINDS} for _ in (empty, old)]
    for store in (empty, old):
        await a_round(store, -1, {kind: [] for kind in KINDS})
    for number in range(ROUNDS):
        for store, series in zip((empty, old), figures, strict=True):
            await a_round(store, number, series)
    good = True
    for kind in KINDS:
        before, after = (statistics.median(series[kind]) * 1000 for series in figures)
        good &= after <= 1.2 * before
        say(f"{name:11} {kind:17} {before:8.3f} ms {after:8.3f} ms  x {after / before:.2f}")
    return good


async def queue(name: str, store: Store) -> bool:
    """Fill the queue, carry it out, and compare its beginning with its end."""
    while (await store.backlog()).queued:
        await carry_out(store)
    await asyncio.gather(*(accept(store, f"w{n}", f"host-{n % 50}") for n in range(WAITING)))
    rates = []
    for _ in range(WAITING // PART):
        took = await timed(lambda: asyncio.gather(*(many(store, PART // 8) for _ in range(8))))
        rates.append(PART // 8 * 8 / took)
    # The first part pays for what was accepted: it is moved from the log into the file meanwhile.
    first, last = statistics.mean(rates[1:4]), statistics.mean(rates[-4:-1])
    say(f"{name:11} {WAITING} waiting: {first:.0f} runs a second at the beginning, {last:.0f} at the end")
    return last <= 1.2 * first


async def many(store: Store, count: int) -> None:
    for _ in range(count):
        await carry_out(store)


async def bench(name: str, empty_url: str, old_url: str) -> bool:
    empty, old = open_store(empty_url), open_store(old_url)
    await empty.open()
    await old.open()
    try:
        within = [await compare(name, empty, old)]
        within += [await queue(told, store) for told, store in ((name, empty), (f"{name}, old", old))]
        return all(within)
    finally:
        await empty.close()
        await old.close()


def on_sqlite(folder: Path) -> bool:
    async def made(url: str) -> None:
        store = open_store(url)
        await store.open()
        await store.close()

    old = folder / "old.db"
    asyncio.run(made(f"sqlite://{old}"))
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(past.for_sqlite(waiting=False))
    return asyncio.run(bench("SQLite", f"sqlite://{folder}/empty.db", f"sqlite://{old}"))


def on_postgres(programs: Path) -> bool:
    with Cluster(programs) as cluster:
        empty, old = cluster.database(), cluster.database()

        async def made() -> None:
            store = open_store(cluster.url(old))
            await store.open()
            await store.close()

        asyncio.run(made())
        cluster.sql(past.for_postgres(waiting=False), old)
        cluster.sql("VACUUM ANALYZE", old)
        return asyncio.run(bench("PostgreSQL", cluster.url(empty), cluster.url(old)))


def main() -> int:
    """Print the table; the status says whether all is within its bounds."""
    say(f"{'':11} {'':17} {'empty':>11} {past.RUNS:>8} ended")
    folder = Path(tempfile.mkdtemp(prefix="sync-staging-bench-"))
    try:
        good = on_sqlite(folder)
    finally:
        shutil.rmtree(folder)
    programs = find_programs()
    return 0 if (programs is None or on_postgres(programs)) and good else 1


if __name__ == "__main__":
    sys.exit(main())
