"""The edge's own rules: who counts as whom, how often one is refused, who makes room for whom."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from aiohttp import StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.web import RequestPayloadError
from hypothesis import given
from hypothesis import strategies as st

from listener.edge.body_memory import BodyMemory, Reservation
from listener.edge.connection_budget import places
from listener.edge.connection_limit import ConnectionLimit
from listener.edge.guess_delay import LONGEST, GuessDelay
from listener.edge.limits import CLIENTS_MOST, WINDOW, RateLimitedLog
from listener.edge.parser import NOTHING, FailFastParser, Fed
from listener.edge.refusal_limit import RefusalLimit
from listener.errors import NoRoomError
from listener.networks import NetworkKey, address_of, client_key, network_keys, networks_of, within
from listener.request_context import UNRESERVED
from listener.signatures import SCHEMES, Accepted, Form, Request, rejected_by_headers, sign, verify
from tests.kept_log import KeptLog


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
    assert client_key("2001:db8:1:2:3::1") == client_key("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert client_key("2001:db8:1:3::1") != client_key("2001:db8:1:2::1")
    assert client_key("::ffff:192.0.2.1") == client_key("192.0.2.1") == "192.0.2.1"


def test_a_client_may_be_refused_so_often_and_again_when_time_has_passed() -> None:
    clock = Clock()
    refusals = RefusalLimit(30, clock)
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
    refusals, counted = RefusalLimit(30, clock), 0
    for pause in pauses:
        clock.now += pause
        if not refusals.over("192.0.2.1"):
            refusals.count("192.0.2.1")
            counted += 1
    assert counted <= 30 + sum(pauses) / 2 + 1


def test_the_memory_of_who_was_refused_is_bounded() -> None:
    refusals = RefusalLimit(30, Clock())
    for number in range(CLIENTS_MOST + 500):
        refusals.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(refusals._left) == CLIENTS_MOST


def test_a_cause_is_told_once_a_window_and_the_others_are_counted() -> None:
    clock, lines = Clock(), KeptLog()
    limited_log = RateLimitedLog(lines, clock)
    for _ in range(500):
        limited_log.warning("refused", "192.0.2.1", client="192.0.2.1")
    limited_log.warning("refused", "192.0.2.2", client="192.0.2.2")
    clock.now += WINDOW
    limited_log.warning("refused", "192.0.2.1", client="192.0.2.1")
    assert lines.lines == [
        {"level": "warning", "event": "refused", "client": "192.0.2.1"},
        {"level": "warning", "event": "refused", "client": "192.0.2.2"},
        {"level": "warning", "event": "refused", "client": "192.0.2.1", "unsaid": 499},
    ]


def test_a_client_s_wrong_secrets_are_answered_one_a_second_when_it_had_some_for_free() -> None:
    clock = Clock()
    guesses = GuessDelay(30, clock)
    assert [guesses.wait("192.0.2.1", "forge") for _ in range(30)] == [0] * 30
    assert [guesses.wait("192.0.2.1", "forge") for _ in range(20)] == [*range(1, 11), *[LONGEST] * 10]
    assert guesses.wait("192.0.2.2", "forge") == 0
    clock.now += 10
    assert guesses.wait("192.0.2.1", "forge") == 1
    clock.now += 3600
    assert guesses.wait("192.0.2.1", "forge") == 0


def test_a_hook_that_is_guessed_at_from_everywhere_answers_ten_a_second() -> None:
    clock = Clock()
    guesses = GuessDelay(30, clock)
    waits = [guesses.wait(f"10.0.{number >> 8}.{number & 255}", "forge") for number in range(350)]
    assert waits[:300] == [0] * 300
    assert waits[300:] == pytest.approx([(number + 1) / 10 for number in range(50)])
    assert guesses.wait("192.0.2.1", "another") == 0


def test_the_memory_of_who_guessed_is_bounded() -> None:
    guesses = GuessDelay(30, Clock())
    for number in range(CLIENTS_MOST):
        guesses.wait(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"hook-{number}")
    assert len(guesses._due) == CLIENTS_MOST


@dataclass(eq=False)
class Visitor:
    """A connection that notes whether it was ended."""

    client: str
    costs: float = 1.0
    verified: bool = False
    asking: bool = False
    evicted: bool = field(default=False, init=False)

    @property
    def networks(self) -> tuple[NetworkKey, ...]:
        return network_keys(self.client)

    def cost(self, now: float) -> float:
        return self.costs

    def evict(self) -> None:
        self.evicted = True


def gathered(most: int, *guests: Visitor) -> ConnectionLimit:
    """A limit of these guests."""
    limit = ConnectionLimit(most, Clock())
    assert all(limit.admit(guest) for guest in guests)
    return limit


def test_the_slowest_stranger_leaves_for_who_comes() -> None:
    guests = [Visitor(f"192.0.{number}.1", costs=number) for number in range(8)]
    limit = gathered(8, *guests)
    assert limit.admit(Visitor("198.51.100.1", costs=0.02))
    assert [guest.evicted for guest in guests] == [False] * 7 + [True]
    assert len(limit) == 8


@pytest.mark.parametrize(
    ("numerous", "alone"),
    [
        (["192.0.2.1"] * 7, "198.51.100.1"),
        (["192.0.2.1"] * 7, "192.0.2.2"),
        ([f"192.0.2.{number}" for number in range(7)], "192.0.3.1"),
        ([f"192.0.{number}.1" for number in range(7)], "192.1.2.1"),
        ([f"2001:db8:1:2::{number}" for number in range(7)], "2001:db8:1:3::1"),
        ([f"2001:db8:1:{number}::1" for number in range(7)], "2001:db8:2:1::1"),
        ([f"2001:db8:{number}::1" for number in range(7)], "2001:db9::1"),
    ],
)
def test_the_most_numerous_leave_before_one_who_is_alone_and_slower(numerous: list[str], alone: str) -> None:
    many, one = [Visitor(address) for address in numerous], Visitor(alone, costs=3)
    limit = gathered(8, one, *many)
    for number in range(4):
        assert limit.admit(Visitor(f"203.0.{number}.1", costs=0.02))
    assert sum(guest.evicted for guest in many) == 4
    assert not one.evicted


def test_whoever_is_verified_stays_and_makes_room_only_where_there_is_no_stranger_and_nothing_is_asked() -> (
    None
):
    answered = [Visitor(f"192.0.2.{number}", verified=True, asking=True) for number in range(6)]
    idle = Visitor("198.51.100.1", verified=True)
    stranger = Visitor("203.0.113.1", costs=0.02, asking=True)
    limit = gathered(8, *answered, idle, stranger)
    assert limit.admit(next_one := Visitor("203.0.113.2", verified=True, asking=True))
    assert stranger.evicted
    assert limit.admit(Visitor("203.0.113.3", verified=True, asking=True))
    assert idle.evicted
    assert not limit.admit(Visitor("203.0.113.4"))
    assert not any(guest.evicted for guest in [*answered, next_one])
    limit.remove(answered[0])
    limit.remove(answered[0])
    assert limit.admit(Visitor("203.0.113.4"))
    assert len(limit) == 8


def test_a_client_keeps_a_quarter_of_the_connections_by_being_verified() -> None:
    mine = [Visitor("192.0.2.1", verified=True, asking=True) for _ in range(8)]
    limit = gathered(8, *mine)
    for number in range(6):
        assert limit.admit(Visitor(f"198.51.{number}.1", verified=True, asking=True))
    assert [guest.evicted for guest in mine] == [False, False, *[True] * 6]
    assert not limit.admit(Visitor("203.0.113.1"))


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 100), st.booleans(), st.booleans()), max_size=60))
def test_there_are_never_more_than_allowed_and_no_stranger_outlasts_a_verified_one(
    guests: list[tuple[int, float, bool, bool]],
) -> None:
    limit = ConnectionLimit(8, Clock())
    inside: list[Visitor] = []
    for address, costs, verified, asking in guests:
        guest = Visitor(f"192.{address}.{address % 3}.1", costs, verified, asking)
        before = [each for each in inside if not each.evicted]
        if limit.admit(guest):
            inside.append(guest)
        left = [each for each in before if each.evicted]
        assert len(limit) == sum(not each.evicted for each in inside) <= 8
        if any(each.verified for each in left):
            clients = Counter(each.client for each in before if each.verified)
            assert all(each.verified for each in before) or max(clients.values()) > 2


def leased(room: BodyMemory, address: str, costs: float = 1.0) -> tuple[Reservation, Visitor]:
    visitor = Visitor(address, costs, asking=True)
    return Reservation(room, visitor), visitor


async def test_a_body_of_the_usual_size_never_waits_for_room() -> None:
    room = BodyMemory(4000, Clock())
    lease, _ = leased(room, "192.0.2.1")
    await lease.hold(UNRESERVED + 4000)
    usual, _ = leased(room, "192.0.2.1")
    async with asyncio.timeout(300):
        await usual.hold(UNRESERVED)
    assert room.held == 4000


async def test_who_holds_the_most_for_the_longest_gives_it_to_others() -> None:
    room = BodyMemory(4000, Clock())
    slow, slow_visitor = leased(room, "192.0.2.1", costs=9)
    quick, quick_visitor = leased(room, "192.1.2.1", costs=0.02)
    await slow.hold(UNRESERVED + 1000)
    await quick.hold(UNRESERVED + 3000)
    other, _ = leased(room, "198.51.100.1")
    async with asyncio.timeout(300):
        await other.hold(UNRESERVED + 900)
    assert (slow_visitor.evicted, quick_visitor.evicted) == (True, False)
    assert room.held == 3900


async def test_who_is_verified_gives_no_room_away() -> None:
    room = BodyMemory(4000, Clock())
    known, visitor = leased(room, "192.0.2.1", costs=9)
    await known.hold(UNRESERVED + 3900)
    visitor.verified = True
    other, _ = leased(room, "198.51.100.1")
    waiting = asyncio.create_task(other.hold(UNRESERVED + 900))
    await asyncio.sleep(0)
    assert not visitor.evicted
    assert other.waiting
    known.end()
    await waiting
    assert room.held == 900


async def test_a_client_waits_for_its_own_bodies_and_others_do_not() -> None:
    room = BodyMemory(4000, Clock())
    greedy, _ = leased(room, "192.0.2.1")
    second, _ = leased(room, "192.0.2.1")
    other, _ = leased(room, "192.0.2.2")
    await greedy.hold(UNRESERVED + 3000)
    waiting = asyncio.create_task(second.hold(UNRESERVED + 1200))
    await asyncio.sleep(0)
    await other.hold(UNRESERVED + 1000)
    assert not waiting.done()
    assert second.waiting
    greedy.end()
    await waiting
    assert not second.waiting
    second.end()
    other.end()
    assert room.held == 0


async def test_of_bodies_that_wait_for_each_other_the_last_gives_way() -> None:
    room = BodyMemory(1000, Clock())
    first, _ = leased(room, "192.0.2.1")
    second, _ = leased(room, "192.0.2.1")
    await first.hold(UNRESERVED + 500)
    await second.hold(UNRESERVED + 500)
    waiting = asyncio.create_task(first.hold(UNRESERVED + 900))
    await asyncio.sleep(0)
    with pytest.raises(NoRoomError):
        await second.hold(UNRESERVED + 900)
    second.end()
    async with asyncio.timeout(300):
        await waiting
    assert room.held == 900


async def test_who_gives_up_waiting_takes_no_room() -> None:
    room = BodyMemory(1000, Clock())
    first, _ = leased(room, "192.0.2.1")
    second, _ = leased(room, "192.0.2.1")
    await first.hold(UNRESERVED + 1000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await second.hold(UNRESERVED + 1000)
    assert second.waiting
    first.end()
    assert (room.held, len(room._waiting)) == (0, 0)


async def test_who_gives_up_in_the_moment_of_being_let_in_gives_the_room_back_at_the_end() -> None:
    room = BodyMemory(1000, Clock())
    first, _ = leased(room, "192.0.2.1")
    second, _ = leased(room, "192.0.2.1")
    await first.hold(UNRESERVED + 1000)
    waiting = asyncio.create_task(second.hold(UNRESERVED + 1000))
    await asyncio.sleep(0)
    first.end()
    waiting.cancel()
    await asyncio.wait({waiting})
    second.end()
    assert room.held == 0


async def test_who_has_to_leave_while_it_waits_is_told_at_once() -> None:
    room = BodyMemory(1000, Clock())
    first, visitor = leased(room, "192.0.2.1", costs=9)
    await first.hold(UNRESERVED + 600)
    waiting = asyncio.create_task(first.hold(UNRESERVED + 2000))
    second, _ = leased(room, "192.0.2.1")
    await second.hold(UNRESERVED + 300)
    await asyncio.sleep(0)
    other, _ = leased(room, "198.51.100.1")
    await other.hold(UNRESERVED + 500)
    assert visitor.evicted
    with pytest.raises(NoRoomError):
        await waiting


@pytest.mark.parametrize(
    ("wanted", "hosts", "syncs", "files"),
    [(1000, 1, 8, 1024), (1000, 1000, 8, 1024), (1000, 1, 256, 1024), (8, 1, 8, 1024), (1000, 3, 8, 256)],
)
def test_strangers_never_take_the_descriptors_that_syncs_need(
    wanted: int, hosts: int, syncs: int, files: int
) -> None:
    found = places(wanted, hosts, syncs, files)
    left = files - found.most - found.scrapers
    assert found.most <= wanted
    assert left >= min(96 + 4 * hosts + 8 * syncs, files // 5)
    assert found.most == wanted or found.most >= files // 4


class Failing:
    """A parser to which nothing is HTTP, and which counts how often it is asked."""

    def __init__(self) -> None:
        self.fed = 0
        self.pause_reading = self.message_consumed = self.set_upgraded = lambda *_: None

    def feed_data(self, data: bytes) -> Fed:
        self.fed += 1
        raise BadStatusLine(data.decode())


def test_the_first_error_of_a_connection_is_the_last_and_keeps_nothing_of_what_was_sent() -> None:
    failing = Failing()
    told: list[str] = []
    parser = FailFastParser(failing, told.append)
    [(error, body)], upgraded, rest = parser.feed_data(b"Zx9Marker" * 100)
    assert not upgraded
    assert (rest, body.is_eof()) == (b"", True)
    assert error.exc.__traceback__ is error.exc.__cause__ is error.exc.__context__ is None
    assert "Zx9Marker" not in f"{error!r}{error.exc!r}"
    for _ in range(10):
        assert parser.feed_data(b"Zx9Marker" * 100) == NOTHING
    assert failing.fed == 1
    assert told == ["BadStatusLine"]


async def test_a_body_that_can_not_become_whole_ends_with_an_error_and_not_as_a_whole_one() -> None:
    parser = FailFastParser(Failing(), lambda _: None)
    parser.payload = StreamReader(ResponseHandler(asyncio.get_running_loop()), 1000)
    parser.payload.feed_data(b"the beginning")
    assert parser.feed_data(b"garbage") == NOTHING
    assert parser.payload.is_eof()
    with pytest.raises(RequestPayloadError):
        await parser.payload.readany()


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
    assert not rejected_by_headers(scheme, [secret], good, now, form)
    assert rejected_by_headers(scheme, [secret], Request([], body), now, form)
