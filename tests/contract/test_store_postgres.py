"""What the store on PostgreSQL promises beyond the port: many listeners, leases, a server that goes away."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from listener.errors import (
    ConfigurationError,
    FencedError,
    RunNotFoundError,
    StoreTooNewError,
    StoreUnavailableError,
)
from listener.outcomes import Outcome
from listener.queue import Acceptance, Hold, LogLine, RunFilter, Signal
from listener.rehearsal.sshd import free_port
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.store import open_store
from listener.store.migrations import migrations
from listener.store.postgres import PostgresStore, server, wakeups
from listener.store.postgres import store as postgres_store
from listener.store.postgres.writer import PostgresTransaction
from listener.store.transaction import Reader
from tests.cluster import PASSWORD, QUOTED, USER, Cluster
from tests.conftest import unavailable
from tests.contract.test_store_sqlite import killed_while_accepting
from tests.proxy import Proxy

NOW = 1_700_000_000.0

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[PostgresStore]]


@pytest.fixture
def database(cluster: Cluster) -> str:
    return cluster.database()


@pytest.fixture
def store_url(cluster: Cluster, database: str) -> str:
    return cluster.url(database)


@pytest.fixture
async def way(cluster: Cluster) -> AsyncIterator[Proxy]:
    """A way to the server that can be cut and frozen."""
    async with Proxy(cluster.port) as running:
        yield running


@asynccontextmanager
async def another(url: str) -> AsyncIterator[PostgresStore]:
    """A listener's store by a URL of its own."""
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def claimed(store: PostgresStore, now: float = NOW) -> Run:
    run = await store.claim(now)
    assert run is not None
    return run


async def wakes(waited_for: Signal) -> None:
    async with asyncio.timeout(300):
        await waited_for.wait()
    waited_for.clear()


async def until_it_answers(asked: Callable[[], Awaitable[object]]) -> None:
    """Asks again and again, as a sender would, until the store is there again."""
    async with asyncio.timeout(300):
        while True:
            try:
                await asked()
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            else:
                return


# Group commit.


async def test_deliveries_that_come_at_once_share_transactions(
    store: PostgresStore, deliver: Ask, cluster: Cluster, database: str
) -> None:
    answers = await asyncio.gather(*(deliver(store, str(n), f"e{n}") for n in range(200)))
    assert len({answer.runs for answer in answers}) == 200
    transactions = cluster.sql("SELECT count(DISTINCT xmin::text) FROM deliveries", database)
    assert int(transactions) <= 2


async def spoil(transaction: PostgresTransaction) -> None:
    await transaction.write("DELETE FROM triggers", {})
    await transaction.write("SELECT 1 / 0", {})


async def change_and_fail(transaction: PostgresTransaction) -> None:
    await transaction.write("DELETE FROM triggers", {})
    raise RunNotFoundError


async def test_a_request_that_fails_does_not_take_its_batch_down(
    store: PostgresStore, deliver: Ask, call: Ask
) -> None:
    first, *failed, last = await asyncio.gather(
        deliver(store, "1", "staging"),
        store._writer.submit(spoil),
        store._writer.submit(change_and_fail),
        call(store, "qa"),
        return_exceptions=True,
    )
    assert [type(error).__name__ for error in failed] == ["DivisionByZeroError", "RunNotFoundError"]
    for answer in (first, last):
        assert isinstance(answer, Acceptance)
        assert (await store.run(answer.runs[0])).state is State.QUEUED
        assert len(await store.triggers(answer.runs[0])) == 1


async def test_an_answer_is_durable_whatever_the_database_has_as_its_default(
    cluster: Cluster, database: str, opened: Open
) -> None:
    cluster.sql(f"ALTER DATABASE {database} SET synchronous_commit = off", "postgres")
    store = await opened()
    row = await store._writer.submit(lambda transaction: transaction.one("SHOW synchronous_commit", {}))
    assert row is not None
    assert row["synchronous_commit"] == "on"


HOSTILE = {
    "default_transaction_isolation": "'serializable'",
    "default_transaction_deferrable": "on",
    "statement_timeout": "'3s'",
    "lock_timeout": "'1s'",
    "idle_in_transaction_session_timeout": "'1s'",
    "idle_session_timeout": "'2s'",
}


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read uncommitted"])
async def test_a_session_does_not_rely_on_the_databases_defaults(
    cluster: Cluster, database: str, opened: Open, deliver: Ask, isolation: str
) -> None:
    hostile = HOSTILE | {"default_transaction_isolation": f"'{isolation}'"}
    for name, value in hostile.items():
        cluster.sql(f"ALTER DATABASE {database} SET {name} = {value}", "postgres")
    one, other = await opened(), await opened()
    hammering = Hammering(deliver)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for store in (one, other):
            tasks.create_task(hammering.deliver_many(store, 30))
            tasks.create_task(hammering.work(store))
    assert {len(answers) for answers in hammering.deliveries.values()} == {1}

    ours = ["read committed", "off", "8s", "5s", "3s", "0"]

    async def told(reader: Reader) -> list[str]:
        rows = [await reader.one("SELECT current_setting(:name) AS it", {"name": name}) for name in HOSTILE]
        return [str(row and row["it"]) for row in rows]

    for asked in (one._read(told), one._look(told), one._write((), told)):
        assert await asked == ours


@pytest.fixture
def pooler(cluster: Cluster, tmp_path: Path) -> Iterator[int]:
    """PgBouncer in session mode, which refuses a start-up packet that sets what it does not know."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        unavailable("PgBouncer (pgbouncer)")
    folder = tmp_path / "pooler"
    folder.mkdir(mode=0o755)
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={cluster.port} user={USER} password={PASSWORD}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        "pool_mode = session\nunix_socket_dir =\n"
    )
    user = ["-u", "postgres"] if os.geteuid() == 0 else []
    with subprocess.Popen([program, "-q", *user, str(settings)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield port
        finally:
            process.terminate()


def wait_for_port(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail("nothing listens there")


async def test_a_pooler_in_session_mode_stands_between(
    cluster: Cluster, database: str, pooler: int, deliver: Ask
) -> None:
    cluster.sql(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'", "postgres")
    async with another(cluster.tcp_url(database, pooler)) as store:
        answers = await asyncio.gather(*(deliver(store, str(n), f"e{n}") for n in range(20)))
        assert len({answer.runs for answer in answers}) == 20
        run = await claimed(store)
        assert await store.beat([run]) == {run.id}
        await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
        row = await store._writer.submit(lambda transaction: transaction.one("SHOW lock_timeout"))
        assert row is not None
        assert row["lock_timeout"] == "5s"


async def test_text_may_hold_any_character(store: PostgresStore, call: Ask) -> None:
    await store.hold(Hold("site", "staging", "a\0b\u2028\U0001f680", "ada", NOW))
    assert [hold.reason for hold in await store.holds()] == ["a\ufffdb\u2028\U0001f680"]
    assert await store.runs(RunFilter(site="\0", sites=frozenset({"\0"}))) == []


# Many listeners.


class Hammering:
    """Two listeners, each with callers and workers on the same two environments."""

    def __init__(self, deliver: Ask) -> None:
        self.deliver = deliver
        self.clock = count(1)
        self.running: dict[str, str] = {}
        self.started: dict[str, int] = {}
        self.accepted: list[tuple[int, str]] = []
        """When a trigger was there, and its id."""
        self.deliveries: dict[str, set[tuple[str, ...]]] = {}
        self.calling = 0

    async def deliver_many(self, store: PostgresStore, deliveries: int) -> None:
        self.calling += 1
        for number in range(deliveries):
            environments = ("a", "b") if number % 2 else ("b", "a")
            answer = await self.deliver(store, f"{number}", *environments)
            self.accepted += [(next(self.clock), trigger) for trigger in answer.triggers]
            self.deliveries.setdefault(answer.delivery, set()).add(answer.triggers)
        self.calling -= 1

    async def work(self, store: PostgresStore) -> None:
        while True:
            run = await store.claim(NOW)
            if run is None:
                if not self.calling and await store.next_due() is None and not self.running:
                    return
                await asyncio.sleep(0.001)
                continue
            assert run.environment not in self.running, "two at a time"
            self.running[run.environment] = run.id
            self.started[run.id] = next(self.clock)
            store.append(run, [LogLine(run.lines + 1, "{}")])
            await asyncio.sleep(0)
            del self.running[run.environment]
            if run.attempt % 3:
                await store.requeue(run, Outcome(), NOW, NOW, failed=False)
            else:
                await store.finish(run, State.SUCCEEDED, Outcome(), NOW)


async def test_two_listeners_on_the_same_environments_never_run_one_twice_at_a_time(
    opened: Open, deliver: Ask
) -> None:
    one, other = await opened(), await opened()
    hammering = Hammering(deliver)
    async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
        for store in (one, other):
            for _ in range(4):
                tasks.create_task(hammering.deliver_many(store, 60))
            for _ in range(3):
                tasks.create_task(hammering.work(store))
    assert len(hammering.deliveries) == 60
    assert {len(answers) for answers in hammering.deliveries.values()} == {1}, "the same answer from both"
    first_seen: dict[str, int] = {}
    for at, trigger in hammering.accepted:
        first_seen.setdefault(trigger, at)
    for trigger in first_seen:
        assert (await one.serving(trigger)).state is State.SUCCEEDED
    triggers = [t.id for run in await one.runs(RunFilter(limit=10_000)) for t in await one.triggers(run.id)]
    assert len(triggers) == len(set(triggers)) == len(first_seen) == 120
    for run in await one.runs(RunFilter(limit=10_000)):
        assert [line.sequence for line in await one.lines(run.id, 0)] == list(range(1, run.lines + 1))


async def test_deliveries_in_opposite_orders_on_two_listeners_do_not_wait_for_each_other_in_a_circle(
    cluster: Cluster, database: str, opened: Open, deliver: Ask
) -> None:
    stores = [await opened(), await opened()]
    names = [f"e{number}" for number in range(20)]
    answers: list[Acceptance] = []

    async def delivered(store: PostgresStore, order: list[str]) -> None:
        answers.append(await deliver(store, None, *order))

    # Where the machine is busy one may wait for its turn too long: its sender sends again.
    await asyncio.gather(
        *(
            until_it_answers(partial(delivered, store, names if number % 2 else names[::-1]))
            for number in range(40)
            for store in stores
        )
    )
    assert len({frozenset(answer.runs) for answer in answers}) == 1
    deadlocks = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database}'"
    assert await asyncio.to_thread(cluster.sql, deadlocks, "postgres") == "0"


async def test_what_happens_on_one_listener_is_heard_on_the_others(opened: Open, call: Ask) -> None:
    one, other = await opened(), await opened()
    other.work.clear()
    accepted = await call(one, "staging")
    await wakes(other.work)
    with other.listen(accepted.runs[0]) as heard:
        run = await claimed(one)
        await wakes(heard)
        one.append(run, [LogLine(1, "{}")])
        await wakes(heard)
        assert await other.lines(run.id, 0) == [LogLine(1, "{}")]
        other.work.clear()
        await one.finish(run, State.SUCCEEDED, Outcome(), NOW)
        await wakes(heard)
        await wakes(other.work)


async def test_after_its_ear_was_cut_off_a_listener_looks_at_everything_again(
    cluster: Cluster, database: str, opened: Open, call: Ask, way: Proxy
) -> None:
    one = await opened()
    async with another(cluster.tcp_url(database, way.port)) as other:
        accepted = await call(one, "staging")
        await wakes(other.work)
        with other.listen(accepted.runs[0]) as heard:
            way.cut()
            await claimed(one)
            await wakes(heard)
            await wakes(other.work)
            await until_it_answers(other.ping)
            with other.listen(accepted.runs[0]) as again:
                await one.recover(NOW)
                await wakes(again)


async def test_hearing_that_fails_for_a_defect_is_told_tried_again_and_heals(
    cluster: Cluster, database: str, opened: Open, call: Ask, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "PAUSE", 0.01)
    one = await opened()

    async def broken(_: object) -> None:
        raise ValueError("a defect")

    async with another(cluster.tcp_url(database, way.port)) as other:
        with monkeypatch.context() as patched:
            patched.setattr(wakeups.Wakeups, "_listen", broken)
            way.cut()
            while "a defect" not in other._wakeups.failing:
                await asyncio.sleep(0.01)
            # The writer may have to connect anew before it has anything else to tell.
            await until_it_answers(lambda: other._writer.submit(server.demand_writable))
            with pytest.raises(StoreUnavailableError, match="a defect"):
                await other.ping()
        await until_it_answers(other.ping)
        await call(one, "staging")
        await wakes(other.work)


# Leases.


async def test_a_beat_extends_the_leases_of_the_runs_that_still_are_ones_own(
    opened: Open, call: Ask, cluster: Cluster, database: str
) -> None:
    one, other = await opened(), await opened()
    for environment in ("a", "b"):
        await call(one, environment)
    mine, lost = await claimed(one), await claimed(one)
    expired = "lease_until = statement_timestamp() - interval '1 second'"
    cluster.sql(f"UPDATE runs SET {expired} WHERE id = '{lost.id}'", database)
    assert [run.id for run in await other.take_over(NOW)] == [lost.id]
    again = await claimed(other)
    cluster.sql(f"UPDATE runs SET {expired} WHERE id = '{mine.id}'", database)
    assert await one.beat([mine, lost]) == {mine.id}
    assert await other.take_over(NOW) == []
    assert await other.beat([again]) == {lost.id}
    assert await one.beat([]) == frozenset()


async def test_a_listener_that_starts_leaves_the_runs_of_living_ones_alone(opened: Open, call: Ask) -> None:
    one = await opened()
    await call(one, "staging")
    run = await claimed(one)
    other = await opened()
    assert await other.recover(NOW) == []
    await one.finish(run, State.SUCCEEDED, Outcome(), NOW)


async def test_another_listener_can_not_write_for_the_owner(opened: Open, call: Ask) -> None:
    one, other = await opened(), await opened()
    await call(one, "staging")
    run = await claimed(one)
    with pytest.raises(FencedError):
        await other.finish(run, State.SUCCEEDED, Outcome(), NOW)
    with pytest.raises(FencedError):
        await other.keep(run, Outcome())
    assert await other.beat([run]) == frozenset()
    assert (await one.run(run.id)).state is State.RUNNING


async def test_a_listener_that_ends_leaves_nothing_to_be_waited_for(opened: Open, call: Ask) -> None:
    one, other = await opened(), await opened()
    await call(one, "staging")
    run = await claimed(one)
    await one.close()
    assert [back.id for back in await other.take_over(NOW)] == [run.id]


OWNER = """
import asyncio, sys
from listener.errors import FencedError
from listener.queue import LogLine
from listener.outcomes import Outcome
from listener.runs import State
from listener.store import open_store
from listener.store.migrations import migrations

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    run = await store.claim(1.7e9)
    store.append(run, [LogLine(1, "the first owner's")])
    await store.ping()
    print(run.environment, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    store.append(run, [LogLine(2, "written too late")])
    try:
        await store.finish(run, State.SUCCEEDED, Outcome(), 1.7e9)
    except FencedError:
        print("fenced", sorted(await store.beat([run])), flush=True)

asyncio.run(main())
"""


async def owner(url: str) -> tuple[Process, str]:
    """A listener of its own process that carries a run out, and the run's environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, url, stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


async def test_the_runs_of_a_dead_and_of_a_stopped_listener_are_taken_over_and_stay_so(
    store: PostgresStore, store_url: str, call: Ask
) -> None:
    for environment in ("a", "b"):
        await call(store, environment)
    dead, _ = await owner(store_url)
    stopped, _ = await owner(store_url)
    dead.kill()
    stopped.send_signal(signal.SIGSTOP)
    try:
        assert await store.take_over(NOW) == [], "their leases have not expired"
        taken: list[Run] = []
        async with asyncio.timeout(300):
            while len(taken) < 2:
                taken += await store.take_over(NOW)
                await asyncio.sleep(0.1)
        assert {(run.state, run.failures) for run in taken} == {(State.QUEUED, 0)}
        again = [await claimed(store), await claimed(store)]
        assert {(run.attempt, run.lines) for run in again} == {(2, 1)}
    finally:
        stopped.send_signal(signal.SIGCONT)
    said, _ = await stopped.communicate(b"\n")
    assert said == b"fenced []\n"
    for run in again:
        store.append(run, [LogLine(2, "the second owner's")])
        await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
        assert [line.text for line in await store.lines(run.id, 0)] == [
            "the first owner's", "the second owner's",
        ]  # fmt: skip
    await dead.wait()


async def test_a_listener_that_is_stopped_in_the_middle_of_a_transaction_holds_others_up_for_seconds_only(
    opened: Open, call: Ask
) -> None:
    one, other = await opened(), await opened()
    begun = asyncio.Event()

    async def dwell(transaction: PostgresTransaction) -> None:
        await transaction.all("SELECT 1", {})
        begun.set()
        while not transaction._connection.is_closed():
            await asyncio.sleep(0.05)
        await transaction.all("SELECT 1", {})

    stuck = one._writer.submit(dwell, lambda: [("site", "staging")])
    await begun.wait()
    assert len((await call(other, "staging")).runs) == 1
    with pytest.raises(StoreUnavailableError):
        await stuck
    assert len((await call(one, "staging")).runs) == 1


async def test_whatever_was_acknowledged_is_there_after_a_kill(
    store_url: str, opened: Open, deliver: Ask
) -> None:
    await (await opened()).close()
    acknowledged = await asyncio.to_thread(killed_while_accepting, store_url)
    assert len(acknowledged) >= 200
    store = await opened()
    for key, delivery, trigger, _run in acknowledged:
        again = await deliver(store, key, ignored="only asked whether it is known")
        assert (again.delivery, again.triggers, again.repeated) == (delivery, (trigger,), True)


# A server that goes away.


async def test_a_server_restarted_under_load_loses_nothing_that_was_accepted(
    store: PostgresStore, deliver: Ask, call: Ask, cluster: Cluster
) -> None:
    await call(store, "logged")
    run = await claimed(store)
    acknowledged: dict[str, Acceptance] = {}
    refused: list[str] = []
    going = True

    async def send(sender: int) -> None:
        for number in count():
            if not going:
                return
            key = f"{sender}-{number}"
            try:
                acknowledged[key] = await deliver(store, key, f"e{number % 5}")
            except StoreUnavailableError:
                refused.append(key)
                await asyncio.sleep(0.02)

    senders = [asyncio.create_task(send(sender)) for sender in range(6)]
    await wait_for(lambda: len(acknowledged) > 50)
    await asyncio.to_thread(cluster.stop, "immediate")
    try:
        await wait_for(lambda: len(refused) > 6)
        store.append(run, [LogLine(1, "{}")])
        for asked in (store.ping, store.holds, store.next_due):
            with pytest.raises(StoreUnavailableError, match="does not answer"):
                await asked()
    finally:
        await asyncio.to_thread(cluster.start)
    before = len(acknowledged)
    await wait_for(lambda: len(acknowledged) > before + 50)
    going = False
    await asyncio.gather(*senders)
    for key, answer in acknowledged.items():
        again = await deliver(store, key, ignored="only asked whether it is known")
        assert (again.delivery, again.triggers) == (answer.delivery, answer.triggers)
    store.append(run, [LogLine(2, "{}")])
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    assert [line.sequence for line in await store.lines(run.id, 0)] == [1, 2]
    assert store._unstored._lines == {}


async def wait_for(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not reached():
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_lost_between_two_questions_is_not_noticed(
    cluster: Cluster, database: str, way: Proxy, call: Ask
) -> None:
    async with another(cluster.tcp_url(database, way.port)) as store:
        accepted = await call(store, "staging")
        for _ in range(3):
            await store.run(accepted.runs[0])
            way.cut()
            assert (await store.run(accepted.runs[0])).state is State.QUEUED
            await until_it_answers(lambda: call(store, "staging"))


async def test_a_server_that_falls_silent_is_away_and_comes_back(
    cluster: Cluster, database: str, way: Proxy, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, limit in (
        (server, "ANSWER_LIMIT"),
        (postgres_store, "ANSWER_LIMIT"),
        (server, "CONNECT_LIMIT"),
    ):
        monkeypatch.setattr(place, limit, 0.5)
    async with another(cluster.tcp_url(database, way.port)) as store:
        accepted = await call(store, "staging")
        way.freeze()
        with pytest.raises(StoreUnavailableError):
            await call(store, "qa")
        with pytest.raises(StoreUnavailableError):
            await store.run(accepted.runs[0])
        way.thaw()
        await until_it_answers(lambda: call(store, "qa"))
        await until_it_answers(lambda: store.run(accepted.runs[0]))


async def test_a_database_that_only_reads_is_not_ready(
    store: PostgresStore, call: Ask, cluster: Cluster, database: str
) -> None:
    await store.ping()
    cluster.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on", "postgres")
    await store._writer._drop()
    with pytest.raises(StoreUnavailableError):
        await call(store, "staging")
    with pytest.raises(StoreUnavailableError, match="read-only"):
        await store.ping()
    cluster.sql(f"ALTER DATABASE {database} RESET default_transaction_read_only", "postgres")
    await store.ping()


async def test_a_closed_store_takes_nothing(store: PostgresStore, call: Ask) -> None:
    await store.close()
    for asked in (lambda: call(store, "staging"), store.ping, store.holds):
        with pytest.raises(StoreUnavailableError):
            await asked()


# Opening.


async def test_listeners_that_start_at_once_make_the_schema_once(
    opened: Open, call: Ask, cluster: Cluster, database: str
) -> None:
    stores = await asyncio.gather(*(opened() for _ in range(5)))
    assert cluster.sql("SELECT version FROM schema_version", database) == str(
        max(migrations("listener.store.postgres"))
    )
    assert len({(await call(store, "staging")).runs for store in stores}) == 1


async def test_a_newer_schema_is_refused_and_left_alone(
    store: PostgresStore, opened: Open, cluster: Cluster, database: str
) -> None:
    cluster.sql("UPDATE schema_version SET version = 99", database)
    with pytest.raises(StoreTooNewError, match="schema 99"):
        await opened()
    assert cluster.sql("SELECT version FROM schema_version", database) == "99"


async def refused(url: str, kind: type[Exception]) -> str:
    """What is said when a store can't be opened; never its password."""
    with pytest.raises(kind) as told:
        await open_store(url).open()
    said = f"{told.value} {getattr(told.value, 'remedy', '')} {told.value.__cause__!r}"
    for secret in (PASSWORD, QUOTED, "wr0ng"):
        assert secret not in said
    return said


async def test_what_keeps_a_store_from_being_opened_is_told_without_the_password(
    cluster: Cluster, database: str
) -> None:
    url = cluster.tcp_url(database)
    assert "password" in await refused(url.replace(QUOTED, "wr0ng"), ConfigurationError)
    assert "no_such" in await refused(url.replace(database, "no_such"), ConfigurationError)
    assert "URL" in await refused(url.replace("sslmode=disable", "sslmode=often"), ConfigurationError)
    assert "URL" in await refused(url.replace(QUOTED, "wr0ng/wr0ng"), ConfigurationError)
    port = f":{cluster.port}/"
    assert "does not answer" in await refused(url.replace(port, ":1/"), StoreUnavailableError)
    assert "does not answer" in await refused(url.replace("disable", "require"), StoreUnavailableError)


async def test_a_database_that_can_not_hold_every_character_is_refused(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "postgres")
    assert "LATIN1" in await refused(cluster.url("latin"), ConfigurationError)


def test_without_asyncpg_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("listener.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match="asyncpg") as told:
        open_store("postgresql://listener:hidden@db/listener")
    assert "pip install 'sync-staging[postgres]'" in told.value.remedy
    assert "hidden" not in str(told.value)


async def test_a_rollback_is_started_once_on_two_listeners(opened: Open, call: Ask) -> None:
    one, other = await opened(), await opened()
    await call(one, "staging")
    run = await claimed(one)
    await one.finish(run, State.SUCCEEDED, Outcome(), NOW)

    async def roll_back(store: PostgresStore) -> Run:
        trigger = Trigger(new_id(NOW), "site", "staging", Origin.ROLLBACK, "root", NOW)
        return await store.roll_back(trigger, run.id, Hold("site", "staging", "back", "root", NOW, "a" * 40))

    answers = await asyncio.gather(roll_back(one), roll_back(other), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["ConflictError", "Run"]
