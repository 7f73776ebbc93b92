"""No statement reads what has ended: each is held against 200,000 ended runs and 500,000 log lines."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any

import pytest

from listener.access import Session, digest
from listener.errors import FencedError
from listener.events import START
from listener.outcomes import LegOutcome, Outcome
from listener.queue import DeliveryRecord, Hold, LogLine, RunFilter
from listener.records import ArrivalFilter, Fate, Refusal, Use
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.store import (
    Store,
    acceptance,
    history,
    joining,
    lifecycle,
    looked,
    open_store,
    pruning,
    records,
    sessions,
)
from listener.store.postgres import leases, server
from listener.store.sqlite import dialect
from tests import past
from tests.cluster import Cluster

NOW = 1_700_000_000.0
STEPS = 150_000
"""Steps of SQLite's machine: as many as reading a sixth of what has ended would take."""
ROWS = 20_000
"""Rows that PostgreSQL reads, or reads and throws away: a tenth of what has ended."""

Cost = dict[str, float]


@contextmanager
def spied_on_sqlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    """Counts the machine's steps of each statement, and looks whether its plan scans a table."""
    costs: Cost = {}
    ask = dialect.SqliteReader.all

    async def counting(self: dialect.SqliteReader, sql: str, values: Any = None) -> Any:
        text, lists = dialect.translated(sql)
        values = dict(values or {})
        if text.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            bound = {**values, **{name: json.dumps(values[name]) for name in lists}}
            plan = [row[3] for row in self.connection.execute(f"EXPLAIN QUERY PLAN {text}", bound)]
            scanned = [step for step in plan if re.match(r"SCAN (runs|triggers|deliveries|log_lines)$", step)]
            assert not scanned, f"{sql}: {plan}"
        steps = 0

        def another() -> int:
            nonlocal steps
            steps += 100
            return 0

        self.connection.set_progress_handler(another, 100)
        try:
            rows = await ask(self, sql, values)
        finally:
            self.connection.set_progress_handler(None, 0)
        costs[sql] = max(costs.get(sql, 0), steps)
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(dialect.SqliteReader, "all", counting)
        yield costs


def rows_read(node: Any) -> float:
    """The rows that a plan's nodes took from tables and indexes, those that they threw away included."""
    own = 0.0
    if "Relation Name" in node or "Index Name" in node:
        names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        own = sum(node.get(name, 0) for name in names) * node["Actual Loops"]
    return own + sum(map(rows_read, node.get("Plans", ())))


def literal(value: Any) -> str:
    """A value as PostgreSQL's words."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return literal(f"{{{', '.join(json.dumps(str(each)) for each in value)}}}")
    return "'" + str(value).replace("'", "''") + "'"


@contextmanager
def spied_on_postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    """Counts the rows that each statement reads: it is explained, taken back, and carried out."""
    costs: Cost = {}
    ask = server.PostgresReader.all

    async def counting(self: server.PostgresReader, sql: str, values: Any = None) -> Any:
        values = dict(values or {})
        text, names = server._numbered(sql)
        if "pg_" not in text:
            taken_back = self._connection.transaction()
            await taken_back.start()
            try:
                # Prepared, as the store's own statements are: the plan is made without the values.
                await self._connection.execute(f"PREPARE explained AS {text}")
                words = ", ".join(literal(server._storable(values[name])) for name in names)
                explained = await self._connection.fetchval(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained{words and f'({words})'}"
                )
            finally:
                await taken_back.rollback()
                await self._connection.execute("DEALLOCATE explained")
            costs[sql] = max(costs.get(sql, 0), rows_read(json.loads(explained)[0]["Plan"]))
        return await ask(self, sql, values)

    with monkeypatch.context() as patched:
        patched.setattr(server.PostgresReader, "all", counting)
        yield costs


def trigger(environment: str, origin: Origin = Origin.HOOK, **facts: Any) -> Trigger:
    return Trigger(new_id(NOW), "site-1", environment, origin, "forge", NOW, **facts)


async def claimed(store: Store, full: tuple[str, ...] = ()) -> Run:
    run = await store.claim(NOW, full)
    assert run is not None
    return run


async def everything(store: Store) -> None:
    """Asks for all that a store does, in all the ways that make it say something else to its database."""
    await store.recover(NOW)
    record = DeliveryRecord(new_id(NOW), "forge-1", "k", NOW, 2, "digest-5", {}, {}, "a ping")
    await store.accept([], record, NOW)
    taken = await store.accept(
        [trigger("new", settle=5, settle_most=9)],
        DeliveryRecord(new_id(NOW), "forge-1", "k", NOW, 2, "digest-5", {}, {}),
        NOW,
    )
    await store.accept([trigger("new", settle=5, settle_most=9)], None, NOW)
    await store.accept([trigger("new", Origin.API), trigger("newer", Origin.API)], None, NOW)
    await store.accept(
        [trigger("new")], DeliveryRecord(new_id(NOW), "forge-1", "k", NOW, 2, "d", {}, {}), NOW
    )
    await store.redeliver(taken.delivery, [trigger("new", Origin.REDELIVERY)], NOW)
    full = tuple(f"host-{n}" for n in range(4))
    for which in ((), full, (*full, "host-4")):
        await store.next_due(which)
        await store.claim(NOW, which)
    run = await claimed(store)
    for _ in ("stored", "stored already"):
        store.append(run, [LogLine(1, "{}")])
        await store.ping()
    await store.keep(run, Outcome())
    await store.beat([run])
    await store.recover(NOW)
    run = await claimed(store)
    await store.take_over(NOW)
    await store.requeue(run, Outcome((LegOutcome(),)), NOW + 50, NOW, failed=True)
    await store.accept([Trigger(new_id(NOW), run.site, run.environment, Origin.API, "ci", NOW)], None, NOW)
    run = await claimed(store)
    await store.accept([Trigger(new_id(NOW), run.site, run.environment, Origin.API, "ci", NOW)], None, NOW)
    superseded = await store.requeue(run, Outcome(), NOW, NOW, failed=False)
    assert superseded.state is State.SUPERSEDED
    for state in (State.SUCCEEDED, State.FAILED):
        store.append(run := await claimed(store), [LogLine(1, "{}")])
        await store.finish(run, state, Outcome(), NOW)
    await store.finish_and_claim(await claimed(store), State.SUCCEEDED, Outcome(), NOW, full)
    with pytest.raises(FencedError):
        await store.finish(run, State.FAILED, Outcome(), NOW)
    await store.requeue(await claimed(store), Outcome(), NOW + 50, NOW, failed=True)
    await store.accept([trigger("waits")], None, NOW)
    await store.cancel((await store.accept([trigger("waits")], None, NOW)).runs[0], NOW)
    ended = (await store.runs(RunFilter(site="site-1", state=State.SUCCEEDED, limit=1)))[0]
    back = trigger(ended.environment, Origin.ROLLBACK)
    await store.roll_back(back, ended.id, Hold(back.site, back.environment, "back", "root", NOW, "f" * 40))
    await store.hold(Hold("site-1", "qa", "test", "ada", NOW))
    await store.accept([trigger("qa")], None, NOW)
    await store.holds()
    await store.release("site-1", "qa", trigger("qa", Origin.RELEASE))
    await everything_that_is_read(store)
    await store.hasten(NOW - 7200)
    for _ in range(2):
        await store.prune(past.START + 60 * 100, 1_000, 50)
    await store.prune(past.START, 1_000, 50)
    await a_flood(store)
    await store.record(
        [Refusal(new_id(NOW), NOW, "POST /", "signature", 401)], [Use("token", "", "ci", 1, NOW)], 1_990
    )
    await store.uses()
    await a_sign_in(store)


async def a_sign_in(store: Store) -> None:
    for at in (NOW, NOW + 60):
        await store.begin_session(Session(digest(b"%f" % at), "ci", "", at))
    await store.session(digest(b"id"))
    await store.end_session(digest(b"id"))
    await the_last_looks(store)
    await the_events(store)
    await store.prune_sessions(NOW)


async def the_last_looks(store: Store) -> None:
    await store.looks([("site-1", "qa"), ("site-2", "staging")])
    await store.look_summaries()
    await store.keep_looks([])
    await store.forget_looks([("site-1", "qa")])


async def the_events(store: Store) -> None:
    await store.events(START)
    await store.events_since(NOW)
    await store.newest_event()


async def a_flood(store: Store) -> None:
    for number in range(acceptance.ALIKE_MOST + 2):
        flood = DeliveryRecord(new_id(NOW), "forge-1", f"flood-{number}", NOW, 2, "flood", {}, {}, "a ping")
        await store.accept([], flood, NOW)
    assert set((await store.kept(100)).values()) == {100}
    for _ in range(2):
        await store.trim(100, NOW + 60, 50)


async def everything_that_is_read(store: Store) -> None:
    waiting = await store.accept([trigger("another")], None, NOW)
    run = waiting.runs[0]
    await store.run(run)
    await store.triggers(run)
    await store.serving(waiting.triggers[0])
    await store.queue_position(run, NOW)
    await store.lines(run, 0)
    await store.backlog()
    await store.holds(["site-1"])
    await store.last_successes([("site-1", "qa"), ("site-2", "staging")])
    own_names = [(f"site-{number}", f"own-{number}") for number in range(300)]
    await store.last_successes(own_names)
    await store.last_failures(own_names)
    await store.looks(own_names)
    for facts in (
        {},
        {"state": State.FAILED},
        {"state": State.SUPERSEDED},
        {"site": "site-3"},
        {"site": "site-3", "environment": "qa"},
        {"site": "site-3", "environment": "qa", "state": State.FAILED},
        {"site": "site-3", "state": State.QUEUED},
        {"site": "nothing"},
        {"environment": "staging"},
        {"state": State.QUEUED},
        {"state": State.RUNNING},
        {"sites": frozenset({"site-1", "site-5"})},
        {"sites": frozenset({"site-1", "site-5"}), "state": State.CANCELLED},
    ):
        which = RunFilter(**facts)
        page = await store.runs(which)
        if page:
            await store.runs(RunFilter(**facts, before=page[-1].id))
    for hook in (None, "forge-1", "nobody's"):
        for fate in (None, *Fate):
            page_of = await store.arrivals(ArrivalFilter(hook, fate))
            for each in page_of[-1:]:
                await store.arrivals(ArrivalFilter(hook, fate, before=each.id))
                await store.arrival(each.id)


def unasked(costs: Cost, *modules: ModuleType) -> list[str]:
    """The statements of modules that were not asked, whole or as a part of another."""
    found = []
    for module in (acceptance, joining, history, lifecycle, looked, pruning, records, sessions, *modules):
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value):
                fragment = value.replace("FOR UPDATE OF q SKIP LOCKED", "").strip()
                asked = [sql.replace("FOR UPDATE OF q SKIP LOCKED", "") for sql in costs]
                if not any(fragment in sql for sql in asked) and "{" not in value:
                    found.append(f"{module.__name__}.{name}")
    return found


ELSEWHERE = {"_NEW_DELIVERY", "_NEW_TRIGGER", "_REPEAT", "_NEW_LINE", "_REFUSAL", "_USE", "_RUNNING", "_KEEP"}
"""What is carried out for several rows at once, and reads nothing; what only SQLite is asked."""


def dear(costs: Cost, most: float) -> dict[str, float]:
    return {sql: cost for sql, cost in costs.items() if cost > most}


@pytest.fixture
async def on_sqlite(tmp_path: Any) -> str:
    path = tmp_path / "listener.db"
    store = open_store(f"sqlite://{path}")
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(past.for_sqlite())
    return f"sqlite://{path}"


@pytest.fixture(params=[False, True], ids=["not-analyzed", "analyzed"])
async def on_postgres(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """With and without statistics: what PostgreSQL knows of a table changes its plans."""
    database = cluster.database()
    store = open_store(cluster.url(database))
    await store.open()
    await store.close()
    cluster.sql(past.for_postgres(), database)
    if request.param:
        cluster.sql("VACUUM ANALYZE", database)
    return cluster.url(database)


async def test_no_statement_on_sqlite_reads_what_has_ended(
    on_sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check(on_sqlite, spied_on_sqlite(monkeypatch), STEPS)


async def test_no_statement_on_postgresql_reads_what_has_ended(
    on_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check(on_postgres, spied_on_postgres(monkeypatch), ROWS, leases)


async def check(url: str, spied: Any, most: float, *modules: ModuleType) -> None:
    store = open_store(url)
    await store.open()
    with spied as costs:
        try:
            await everything(store)
        finally:
            await store.close()
    missed = [name for name in unasked(costs, *modules) if name.rpartition(".")[2] not in ELSEWHERE]
    assert missed == []
    assert dear(costs, most) == {}
