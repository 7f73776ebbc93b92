"""The edge's own rules: who counts as whom, how often one is refused, who makes room for whom."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.errors import NoRoomError
from listener.networks import address_of, household, networks_of, within
from listener.signatures import SCHEMES, Accepted, Form, Request, hopeless, sign, verify
from listener.web.edge.crowd import Crowd
from listener.web.edge.guesses import LONGEST, Guesses
from listener.web.edge.limits import CLIENTS_MOST, WINDOW, Seldom
from listener.web.edge.refusals import Refusals
from listener.web.edge.room import FREE, Lease, Room


class Clock:
    """A time that the test decides about."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_of_ipv4_is_the_same_inside_ipv6() -> None:
    assert str(address_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(address_of("fe80::1%eth0")) == "fe80::1"
    assert address_of("unknown") is None
    assert within("::ffff:192.0.2.1", networks_of(["192.0.2.0/24"]))
    assert not within("192.0.3.1", networks_of(["192.0.2.0/24", "2001:db8::/32"]))
    assert not within(None, networks_of(["0.0.0.0/0"]))


def test_one_client_of_ipv6_has_a_whole_64_to_choose_from() -> None:
    assert household("2001:db8:1:2:3::1") == household("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert household("2001:db8:1:3::1") != household("2001:db8:1:2::1")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1") == "192.0.2.1"


def test_a_client_may_be_refused_so_often_and_again_when_time_has_passed() -> None:
    clock = Clock()
    refusals = Refusals(30, clock)
    for _ in range(30):
        assert not refusals.over("192.0.2.1")
        refusals.count("192.0.2.1")
    assert refusals.over("192.0.2.1")
    assert not refusals.over("192.0.2.2")
    assert refusals.again_in("192.0.2.1") == 2
    clock.now += 2
    assert not refusals.over("192.0.2.1")
    refusals.count("192.0.2.1")
    assert refusals.over("192.0.2.1")


@given(st.lists(st.floats(0, 10), max_size=200))
def test_no_client_is_refused_more_often_than_the_limit_and_the_burst(pauses: list[float]) -> None:
    clock = Clock()
    refusals, counted = Refusals(30, clock), 0
    for pause in pauses:
        clock.now += pause
        if not refusals.over("192.0.2.1"):
            refusals.count("192.0.2.1")
            counted += 1
    assert counted <= 30 + sum(pauses) / 2 + 1


def test_the_memory_of_who_was_refused_is_bounded() -> None:
    refusals = Refusals(30, Clock())
    for number in range(CLIENTS_MOST + 500):
        refusals.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(refusals._left) == CLIENTS_MOST


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def log(self, level: int, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})


def test_a_cause_is_told_once_a_window_and_the_others_are_counted() -> None:
    clock, lines = Clock(), Lines()
    seldom = Seldom(lines, clock)
    for _ in range(500):
        seldom.tell("refused", "192.0.2.1", client="192.0.2.1")
    seldom.tell("refused", "192.0.2.2", client="192.0.2.2")
    clock.now += WINDOW
    seldom.tell("refused", "192.0.2.1", client="192.0.2.1")
    assert lines.said == [
        {"event": "refused", "client": "192.0.2.1"},
        {"event": "refused", "client": "192.0.2.2"},
        {"event": "refused", "client": "192.0.2.1", "unsaid": 499},
    ]


def test_a_client_s_wrong_secrets_are_answered_one_a_second_when_it_had_some_for_free() -> None:
    clock = Clock()
    guesses = Guesses(30, clock)
    assert [guesses.wait("192.0.2.1", "forge") for _ in range(30)] == [0] * 30
    assert [guesses.wait("192.0.2.1", "forge") for _ in range(20)] == [*range(1, 11), *[LONGEST] * 10]
    assert guesses.wait("192.0.2.2", "forge") == 0
    clock.now += 10
    assert guesses.wait("192.0.2.1", "forge") == 1
    clock.now += 3600
    assert guesses.wait("192.0.2.1", "forge") == 0


def test_a_hook_that_is_guessed_at_from_everywhere_answers_ten_a_second() -> None:
    clock = Clock()
    guesses = Guesses(30, clock)
    waits = [guesses.wait(f"10.0.{number >> 8}.{number & 255}", "forge") for number in range(350)]
    assert waits[:300] == [0] * 300
    assert waits[300:] == pytest.approx([(number + 1) / 10 for number in range(50)])
    assert guesses.wait("192.0.2.1", "another") == 0


def test_the_memory_of_who_guessed_is_bounded() -> None:
    guesses = Guesses(30, Clock())
    for number in range(CLIENTS_MOST):
        guesses.wait(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"hook-{number}")
    assert len(guesses._due) == CLIENTS_MOST


@dataclass(eq=False)
class Visitor:
    """A connection that notes whether it was ended."""

    client: str
    trusted: bool = False
    evicted: bool = field(default=False, init=False)

    def evict(self) -> None:
        self.evicted = True


def test_who_waited_longest_without_asking_makes_room() -> None:
    crowd = Crowd(8)
    guests = [Visitor(f"192.0.2.{number}") for number in range(8)]
    assert all(crowd.enter(guest) for guest in guests)
    crowd.works(guests[0])
    assert crowd.enter(Visitor("198.51.100.1"))
    assert [guest.evicted for guest in guests[:3]] == [False, True, False]
    assert len(crowd) == 8
    crowd.waits(guests[0])
    assert crowd.enter(Visitor("198.51.100.2"))
    assert [guest.evicted for guest in guests[:3]] == [False, True, True]


def test_a_client_has_a_share_of_the_connections_and_a_trusted_proxy_all() -> None:
    crowd = Crowd(8)
    mine = [Visitor("192.0.2.1") for _ in range(3)]
    assert all(crowd.enter(guest) for guest in mine)
    assert [guest.evicted for guest in mine] == [True, False, False]
    for guest in mine:
        crowd.works(guest)
    assert not crowd.enter(Visitor("192.0.2.1"))
    assert all(crowd.enter(Visitor("10.0.0.1", trusted=True)) for _ in range(6))
    assert len(crowd) == 8


def test_when_everybody_is_being_answered_nobody_is_let_in() -> None:
    crowd = Crowd(8)
    guests = [Visitor(f"192.0.2.{number}") for number in range(8)]
    for guest in guests:
        crowd.enter(guest)
        crowd.works(guest)
    assert not crowd.enter(Visitor("198.51.100.1"))
    crowd.leaves(guests[0])
    crowd.leaves(guests[0])
    assert crowd.enter(Visitor("198.51.100.1"))
    assert len(crowd) == 8


async def test_a_body_of_the_usual_size_never_waits_for_room() -> None:
    room = Room(4000)
    await room.take("192.0.2.1", 1000)
    lease = Lease(room, "192.0.2.1")
    async with asyncio.timeout(300):
        await lease.hold(FREE)
    assert room.held == 1000


async def test_a_client_waits_for_its_own_share_and_others_do_not() -> None:
    room = Room(4000)
    greedy, second, other = (Lease(room, address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"))
    await greedy.hold(FREE + 900)
    waiting = asyncio.create_task(second.hold(FREE + 200))
    await asyncio.sleep(0)
    await other.hold(FREE + 1000)
    assert not waiting.done()
    assert second.waiting
    greedy.end()
    await waiting
    assert not second.waiting
    second.end()
    other.end()
    assert room.held == 0


async def test_of_bodies_that_wait_for_each_other_the_last_gives_way() -> None:
    room = Room(4000)
    first, second = Lease(room, "192.0.2.1"), Lease(room, "192.0.2.1")
    await first.hold(FREE + 500)
    await second.hold(FREE + 500)
    waiting = asyncio.create_task(first.hold(FREE + 900))
    await asyncio.sleep(0)
    with pytest.raises(NoRoomError):
        await second.hold(FREE + 900)
    second.end()
    async with asyncio.timeout(300):
        await waiting
    assert room.held == 900


async def test_who_gives_up_waiting_takes_no_room() -> None:
    room = Room(4000)
    first, second = Lease(room, "192.0.2.1"), Lease(room, "192.0.2.1")
    await first.hold(FREE + 1000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await second.hold(FREE + 1000)
    assert second.waiting
    first.end()
    assert (room.held, len(room._waiting)) == (0, 0)


async def test_who_gives_up_in_the_moment_of_being_let_in_gives_the_room_back() -> None:
    room = Room(4000)
    first, second = Lease(room, "192.0.2.1"), Lease(room, "192.0.2.1")
    await first.hold(FREE + 1000)
    waiting = asyncio.create_task(second.hold(FREE + 1000))
    await asyncio.sleep(0)
    first.end()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert room.held == 0


SECRETS = {
    "azure-devops": b"user:It's a Secret",
    "basic": b"user:It's a Secret",
    "standard-webhooks": b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_delivery_without_credentials_is_hopeless_before_its_body_and_a_good_one_never_is(
    scheme: str,
) -> None:
    secret = SECRETS.get(scheme, b"Its-a-Secret-to-Everybody-0123456789")
    form = Form("X-Signature", "sha256", "hex") if scheme == "hmac" else None
    body, now = b'{"a": 1}', 1_700_000_000.0
    headers = sign(scheme, secret, "d-1", "push", body, now, form)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    good = Request(raw, body, secret if scheme == "path" else b"")
    assert isinstance(verify(scheme, [secret], good, now, form), Accepted)
    assert not hopeless(scheme, [secret], good, now, form)
    assert hopeless(scheme, [secret], Request([], body), now, form)
