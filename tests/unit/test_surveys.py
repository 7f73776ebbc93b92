"""Looks come in batches, host by host; what is known is shared, and a newer look is never lost."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from listener import surveys
from listener.errors import StoreUnavailableError
from listener.looks import EnvironmentLook, LegLook, LookState, LookSummary, Place
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.plans import PlanKind
from listener.runs import Run, State
from listener.sites import Environment, Leg, Policy, RepositoryAddress
from listener.surveys import BATCH, Surveys
from tests.kept_log import KeptLog

if TYPE_CHECKING:
    from listener.sync import Synchronizer


def environment(site: str, host: str = "studio", path: str = "") -> Environment:
    at = RepositoryAddress(host, path or f"/srv/{site}")
    return Environment.of(site, "staging", at, "live", Policy.FORWARD, [(at, "staging")], follow=True)


def look(each: Environment, at: float, state: LookState = LookState.EQUAL) -> EnvironmentLook:
    legs = tuple(LegLook(*leg.key, state=state, plan=PlanKind.UP_TO_DATE) for leg in each.legs)
    return EnvironmentLook(each.site, each.name, at, legs)


class Found:
    """What a look at one leg has found."""

    def __init__(self, leg: Leg) -> None:
        self.found = LegLook(*leg.key, state=LookState.DIFFERS, plan=PlanKind.FORWARD_COMMIT)


class Hosts:
    """Hosts that answer a survey, unless they are silent."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.silent = asyncio.Event()
        self.busy: dict[str, float] = {}
        self.broken = False

    async def survey(
        self, environments: Sequence[Environment], _notes: object, busy_since: Callable[[Leg], float]
    ) -> list[list[Any]]:
        self.asked.append([each.site for each in environments])
        self.busy |= {each.site: busy_since(each.legs[0]) for each in environments}
        if self.broken:
            raise ValueError("a defect")
        if any("silent" in each.hosts for each in environments):
            await self.silent.wait()
        await asyncio.sleep(0)
        return [[Found(leg) for leg in each.legs] for each in environments]

    def standing(self, _leg: Leg) -> str:
        return "standing"


class Kept:
    """A store of looks in memory."""

    def __init__(self) -> None:
        self.rows: dict[Place, EnvironmentLook] = {}
        self.away = False

    async def keep_looks(self, looks: Sequence[EnvironmentLook]) -> None:
        if self.away:
            raise StoreUnavailableError
        for each in looks:
            before = self.rows.get(each.place)
            if before is None or before.looked_at <= each.looked_at:
                self.rows[each.place] = each

    async def looks(self, places: Collection[Place]) -> Mapping[Place, EnvironmentLook]:
        if self.away:
            raise StoreUnavailableError
        return {place: each for place, each in self.rows.items() if place in places}

    async def look_summaries(self) -> list[LookSummary]:
        return [each.summary for each in self.rows.values()]

    async def forget_looks(self, places: Collection[Place]) -> None:
        for place in places:
            del self.rows[place]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


class Bench:
    """Surveys over hosts and a store that a test controls."""

    def __init__(self) -> None:
        self.hosts, self.kept, self.clock, self.log = Hosts(), Kept(), Clock(), KeptLog()
        self.surveys = Surveys(cast("Synchronizer", self.hosts), self.kept, self.clock, self.log)

    async def arrived(self, *environments: Environment, **more: Any) -> list[str]:
        return [each.site async for each in self.surveys.arriving(environments, **more)]


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    await bench.surveys.close()


async def test_many_environments_are_looked_at_in_small_batches(bench: Bench) -> None:
    sites = [f"s{number:02}" for number in range(BATCH * 2 + 1)]
    assert sorted(await bench.arrived(*map(environment, sites))) == sites
    assert [len(batch) for batch in bench.hosts.asked] == [BATCH, BATCH, 1]


async def test_a_silent_host_holds_nobody_else_up(bench: Bench) -> None:
    silent, other = environment("silent", "silent"), environment("other")
    assert await bench.arrived(silent, other, limit=0.2) == ["other"]
    bench.hosts.silent.set()
    assert await bench.surveys.ask(silent)
    await bench.surveys.keep()
    assert set(bench.kept.rows) == {("silent", "staging"), ("other", "staging")}


async def test_a_look_that_somebody_waits_for_goes_before_the_schedule(bench: Bench) -> None:
    usual = [bench.surveys.ask(environment(f"s{number:02}")) for number in range(BATCH * 2)]
    assert await bench.arrived(environment("urgent"), urgent=True) == ["urgent"]
    assert "urgent" in bench.hosts.asked[0]
    await asyncio.gather(*usual)


async def test_what_was_looked_at_by_another_listener_since_is_not_looked_at_again(bench: Bench) -> None:
    one, other = environment("one"), environment("other")
    bench.kept.rows = {("one", "staging"): look(one, 500), ("other", "staging"): look(other, 499)}
    assert sorted(await bench.arrived(one, other, enough=500)) == ["one", "other"]
    assert bench.hosts.asked == [["other"]]


async def test_looks_that_have_not_begun_are_shared(bench: Bench) -> None:
    answers = [bench.surveys.ask(environment("one")) for _ in range(3)]
    found = await asyncio.gather(*answers)
    assert bench.hosts.asked == [["one"]]
    assert found[0] is found[2]


async def test_a_look_that_has_begun_is_not_fresh_for_somebody_who_asks_later(bench: Bench) -> None:
    silent = environment("one", "silent")
    first = bench.surveys.ask(silent)
    while not bench.hosts.asked:
        await asyncio.sleep(0)
    second = bench.surveys.ask(silent)
    bench.hosts.silent.set()
    assert (await second).looked_at > (await first).looked_at


async def test_what_was_found_is_known_before_it_is_stored(bench: Bench) -> None:
    one = environment("one")
    await bench.surveys.ask(one)
    assert not bench.kept.rows
    (known,) = (await bench.surveys.known([one])).values()
    assert known.summary.differs


async def test_a_run_s_end_counts_as_a_look_and_an_older_one_does_not_replace_it(bench: Bench) -> None:
    one = environment("one")
    bench.surveys.note_run(one, run(), ended(one), at=2000.0)
    bench.surveys.note(look(one, 1999.0, LookState.DIFFERS))
    known = (await bench.surveys.known([one]))["one", "staging"]
    assert (known.summary.state, known.looked_at) == (LookState.EQUAL, 2000.0)
    assert (known.legs[0].live, known.legs[0].standing) == ("a" * 40, "standing")


def run(**more: Any) -> Run:
    return replace(Run("r", "one", "staging", State.RUNNING, created_at=1.0, not_before=1.0), **more)


def ended(one: Environment, state: LegState = LegState.MADE_EQUAL) -> Outcome:
    return Outcome((LegOutcome(*one.legs[0].key, state=state, live="a" * 40, new="b" * 40),))


@pytest.mark.parametrize("undoes", [None, "r0"])
async def test_after_a_failure_or_a_rollback_the_environment_is_looked_at(
    bench: Bench, undoes: str | None
) -> None:
    one = environment("one")
    outcome = ended(one, LegState.MADE_EQUAL if undoes else LegState.WAITING)
    bench.surveys.note_run(one, run(undoes=undoes), outcome, at=2000.0)
    await bench.surveys.ask(one)
    assert bench.hosts.asked == [["one"]]


async def test_a_look_at_another_repository_than_the_configured_one_does_not_count(bench: Bench) -> None:
    bench.kept.rows = {("one", "staging"): look(environment("one", path="/old"), 500)}
    assert await bench.surveys.known([environment("one")]) == {}


async def test_since_when_a_repository_is_busy_is_known_to_the_next_look(bench: Bench) -> None:
    one = environment("one")
    leg = LegLook(*one.legs[0].key, plan=PlanKind.BUSY, busy_since=77.0)
    bench.kept.rows = {("one", "staging"): EnvironmentLook("one", "staging", 500, (leg,))}
    await bench.surveys.ask(one)
    assert bench.hosts.busy == {"one": 77.0}


async def test_a_store_that_is_away_loses_no_look(bench: Bench) -> None:
    one = environment("one")
    bench.kept.away = True
    await bench.surveys.ask(one)
    with pytest.raises(StoreUnavailableError):
        await bench.surveys.keep()
    bench.kept.away = False
    await bench.surveys.keep()
    assert ("one", "staging") in bench.kept.rows


async def test_a_defect_is_an_answer_with_an_error_and_the_next_look_goes_on(bench: Bench) -> None:
    one = environment("one")
    bench.hosts.broken = True
    assert (await bench.surveys.ask(one)).summary.error == "internal"
    bench.hosts.broken = False
    assert (await bench.surveys.ask(one)).summary.error == ""


async def test_looks_at_what_does_not_exist_any_more_are_pruned(bench: Bench) -> None:
    one, gone = environment("one"), environment("gone")
    bench.kept.rows = {("one", "staging"): look(one, 500), ("gone", "staging"): look(gone, 500)}
    await bench.surveys.prune(lambda place: place[0] == "one")
    assert set(bench.kept.rows) == {("one", "staging")}


async def test_a_stored_look_that_can_t_be_read_does_not_stop_the_looks_on_its_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(_places: Collection[Place]) -> Mapping[Place, EnvironmentLook]:
        raise ValueError("a state of a later version")

    one = environment("one")
    monkeypatch.setattr(bench.kept, "looks", unreadable)
    async with asyncio.timeout(5):
        assert (await bench.surveys.ask(one)).summary.differs
        assert (await bench.surveys.ask(one)).summary.differs
    assert "defect" in bench.log.events


async def test_a_store_that_is_away_is_reported_once_for_each_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "KEEP_AFTER", 0)
    bench.kept.away = True
    keeping = asyncio.create_task(bench.surveys.keep_forever())
    await bench.surveys.ask(environment("one"))
    while "looks" not in bench.log.events:
        await asyncio.sleep(0)
    await bench.surveys.ask(environment("other"))
    for _ in range(100):
        await asyncio.sleep(0)
    keeping.cancel()
    assert bench.log.events.count("looks") == 1
