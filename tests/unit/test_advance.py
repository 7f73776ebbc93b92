"""A move without a look: it waits for its word, and nothing of it is left waiting."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from listener.advance import Advance, Early, LateNotes
from listener.observations import Observation
from listener.plans import Applied, Signing
from tests.unit.test_runs import run as a_run

SEEN = Observation(None, None, "", bare=False, worktree="", now=0.0)


class Host:
    """A repository that answers with the word that it was given."""

    def __init__(self) -> None:
        self.word: bool | None = None

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        self.word = await may_move
        return Applied(changed=not self.word)


class Silent(Host):
    """It never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.ended = False

    async def advance(
        self, expected: Observation, signing: Signing, quiet: float, may_move: Awaitable[bool]
    ) -> Applied:
        await may_move
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True
        raise AssertionError


class Kept:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, level: str = "info", *, repeated: bool = False, **facts: Any) -> None:
        self.events.append((event, facts))


def advance(host: Host) -> Advance:
    return Advance(host, SEEN, Signing("run", 0), 1.0)  # type: ignore[arg-type]  # nothing else is asked


async def until_begun() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("may_move", [True, False])
async def test_the_host_gets_the_word_that_is_given(may_move: bool) -> None:
    host = Host()
    done = await advance(host).answer(may_move=may_move)
    assert (host.word, done.changed) == (may_move, not may_move)


async def test_after_it_is_withdrawn_nothing_moves_whatever_is_said() -> None:
    host = Host()
    begun = advance(host)
    begun.withdraw()
    begun.withdraw()
    assert begun.spent
    assert (await begun.answer(may_move=True)).changed
    assert host.word is False


async def test_a_cancel_ends_the_request() -> None:
    host = Silent()
    waiting = asyncio.create_task(advance(host).answer(may_move=True))
    await host.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert host.ended


async def test_only_the_attempt_that_was_claimed_gets_what_has_begun() -> None:
    early, claimed, host = Early(), replace(a_run(), attempt=1), Host()
    early.begin(claimed, begun := advance(host))
    assert early.taken(replace(claimed, id="another")) is None
    assert early.taken(replace(claimed, attempt=2)) is None
    assert early.taken(claimed) is begun
    assert early.taken(claimed) is None
    early.withdraw()
    await until_begun()
    assert not begun.spent, "it is the run's now"
    begun.withdraw()


async def test_what_no_run_has_taken_is_withdrawn() -> None:
    early, host = Early(), Host()
    early.begin(a_run(), advance(host))
    early.withdraw()
    await until_begun()
    assert host.word is False


async def test_a_claim_that_is_made_again_withdraws_what_the_first_one_has_begun() -> None:
    early, first, second, claimed = Early(), Host(), Host(), a_run()
    early.begin(claimed, advance(first))
    early.begin(claimed, begun := advance(second))
    await until_begun()
    assert first.word is False
    assert early.taken(claimed) is begun
    assert not begun.spent
    begun.withdraw()


async def test_what_no_run_takes_in_time_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.advance.UNCLAIMED", 0.0)
    early, host = Early(), Host()
    early.begin(a_run(), begun := advance(host))
    while not begun.spent:
        await asyncio.sleep(0)
    assert (await begun.answer(may_move=True)).changed
    assert early.taken(a_run()) is None


def test_events_go_to_the_run_once_it_is_known_and_in_their_order() -> None:
    late, kept = LateNotes(), Kept()
    late.note("connect", seconds=1)
    late.note("remote", level="warning", stderr="text")
    late.hand_to(kept)
    late.note("remote", level="warning", stderr="more")
    assert kept.events == [
        ("connect", {"seconds": 1}),
        ("remote", {"stderr": "text"}),
        ("remote", {"stderr": "more"}),
    ]
