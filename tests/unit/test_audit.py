"""Notes of who was refused and which credentials were used: bounded, cleaned, and written down in one go."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from listener.audit import KEPT, PENDING, SIZE_MOST, Audit
from listener.deliveries import Hook
from listener.errors import StoreUnavailableError
from listener.records import SECRET, TOKEN, Refusal, Use
from listener.redaction import Cleaner
from tests import figures
from tests.kept_log import KeptLog

NOW = 1_700_000_000.0
HOOK = Hook("forge", "github", (b"a", b"b", b"c"), secret_names=("", "file:new", "file:new"))


class Taken:
    """A store that takes what is recorded, unless it is away."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.uses: list[Use] = []
        self.writes = 0
        self.away = False

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        assert keep == KEPT
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailableError
        self.writes += 1
        self.refusals += refusals
        self.uses += uses


def audit(taken: Taken, said: KeptLog | None = None, *secrets: str) -> Audit:
    # The rest of the port is not asked for by those who only write.
    return Audit(taken, lambda: NOW, said or KeptLog(), Cleaner(secrets))  # type: ignore[arg-type]


async def test_a_refused_request_is_logged_at_once_and_written_down_later_under_the_id_it_was_given() -> None:
    taken, said = Taken(), KeptLog()
    notes = audit(taken, said)
    found = notes.refused("POST /hooks/forge", reason="no", status=401, client="192.0.2.1", hook="forge")
    assert taken.refusals == []
    (line,) = said.lines
    assert (line["event"], line["id"], line["client"]) == ("delivery refused", found, "192.0.2.1")
    await notes.flush()
    (refusal,) = taken.refusals
    assert (refusal.id, refusal.reason, refusal.status, refusal.count) == (found, "no", 401, 1)


async def test_a_refused_call_is_told_from_a_refused_delivery() -> None:
    said = KeptLog()
    audit(Taken(), said).refused("GET /api/v1/runs", reason="no", status=401, credential="token ci")
    assert [(line["event"], line["credential"]) for line in said.lines] == [("call refused", "token ci")]


async def test_however_many_are_refused_what_is_kept_of_them_has_its_bounds_and_the_rest_is_counted() -> None:
    taken = Taken()
    notes = audit(taken)
    begun = time.perf_counter()
    for _ in range(PENDING + 4711):
        notes.refused("POST /hooks/forge", reason="no", status=401, hook="forge")
    spent = time.perf_counter() - begun
    await notes.flush()
    assert taken.writes == 1
    assert len(taken.refusals) == PENDING + 1
    assert taken.refusals[-1].count == 4711
    assert sum(each.count for each in taken.refusals) == PENDING + 4711
    figures.tell("refused requests", noted=PENDING + 4711, microseconds_each=round(spent / 5711 * 1e6, 1))


async def test_what_a_stranger_sends_is_cut_short_and_a_secret_in_it_taken_out() -> None:
    taken, said = Taken(), KeptLog()
    notes = audit(taken, said, "the-secret")
    notes.refused(
        "POST /" + "x" * 9999,
        reason="bad\x1b[31m",
        status=404,
        hook="the-secret",
        headers={"user-agent": "has the-secret in it"},
    )
    await notes.flush()
    (refusal,) = taken.refusals
    assert "the-secret" not in str(refusal) + str(said.lines)
    assert len(refusal.request) < 200
    assert refusal.reason.isprintable()


async def test_uses_are_counted_by_name_and_written_down_once() -> None:
    taken = Taken()
    notes = audit(taken)
    for at, secret in ((NOW, 0), (NOW + 2, 1), (NOW + 1, 2)):
        notes.used_secret(HOOK, secret, at)
    notes.used_token("ci", NOW)
    await notes.flush()
    assert taken.uses == [
        Use(SECRET, "forge", "secret 1", 1, NOW),
        Use(SECRET, "forge", "file:new", 2, NOW + 2),
        Use(TOKEN, "", "ci", 1, NOW),
    ]
    await notes.flush()
    assert taken.writes == 1


async def test_while_the_store_is_away_notes_are_kept_within_their_bounds_and_none_is_counted_twice() -> None:
    taken = Taken()
    notes = audit(taken)
    taken.away = True
    noted = 0
    for _ in range(3):
        for _ in range(PENDING - 10):
            notes.refused("POST /hooks/forge", reason="no", status=401, hook="forge")
            notes.used_token("ci", NOW)
            noted += 1
        with pytest.raises(StoreUnavailableError):
            await notes.flush()
    taken.away = False
    await notes.flush()
    assert len(taken.refusals) == PENDING + 1
    assert sum(each.count for each in taken.refusals) == noted
    assert [use.count for use in taken.uses] == [noted]


async def test_what_is_noted_while_it_is_written_down_goes_with_the_next_time() -> None:
    taken = Taken()
    notes = audit(taken)
    notes.used_token("ci", NOW)
    first = asyncio.create_task(notes.flush())
    await asyncio.sleep(0)
    notes.used_token("ci", NOW + 1)
    await asyncio.gather(first, notes.flush())
    assert [use.count for use in taken.uses] == [1, 1]


class Picky(Taken):
    """A store that raises at some rows, as a driver does at a value that no column can hold."""

    def __init__(self, *unbearable: str) -> None:
        super().__init__()
        self.unbearable = set(unbearable)

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        if self.unbearable.intersection(each.reason for each in refusals):
            raise OverflowError
        if self.unbearable.intersection(each.name for each in uses):
            raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        await super().record(refusals, uses, keep)


async def test_a_row_that_the_store_can_not_hold_takes_no_other_with_it_and_is_counted() -> None:
    taken, said = Picky("unbearable", "odd"), KeptLog()
    notes = audit(taken, said)
    for reason in ("one", "unbearable", "two"):
        notes.refused("POST /hooks/forge", reason=reason, status=401, hook="forge")
    notes.used_token("odd", NOW)
    notes.used_token("ci", NOW)
    await notes.flush()
    assert [each.reason for each in taken.refusals] == ["one", "two"]
    assert [use.name for use in taken.uses] == ["ci"]
    assert [line["event"] for line in said.lines].count("defect") == 3
    await notes.flush()
    assert taken.refusals[-1].count == 1


async def test_a_store_that_goes_away_between_single_rows_loses_none_of_the_others() -> None:
    class Going(Picky):
        async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
            self.away = [each.reason for each in refusals] == ["two"] and self.writes == 1
            await super().record(refusals, uses, keep)

    taken = Going("unbearable")
    notes = audit(taken)
    for reason in ("one", "unbearable", "two"):
        notes.refused("POST /hooks/forge", reason=reason, status=401, hook="forge")
    await notes.flush()
    taken.writes = 2
    await notes.flush()
    assert [each.reason for each in taken.refusals if each.reason in ("one", "two")] == ["one", "two"]
    assert sum(each.count for each in taken.refusals) == 3


async def test_a_size_that_no_store_can_hold_is_recorded_as_the_largest_one() -> None:
    taken = Taken()
    notes = audit(taken)
    notes.refused("POST /hooks/nothing", reason="no", status=404, size=2**63 + 1)
    await notes.flush()
    assert [each.size for each in taken.refusals] == [SIZE_MOST]
