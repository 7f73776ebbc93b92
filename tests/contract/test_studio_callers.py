"""Studio says whose a credential is and what they may sync; whatever else it says lets nobody in."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from listener.access import Caller, Role, StudioCredential
from listener.errors import StudioUnavailableError
from listener.studio import StudioCallers, fair_queue
from listener.studio.callers import (
    AT_ONCE,
    FAILED_LASTS,
    KNOWN_LASTS,
    REMEMBERED,
    UNKNOWN_LASTS,
    UNKNOWN_MOST,
)
from listener.studio.fair_queue import WAITING_MOST
from tests import figures
from tests.studio import FakeStudio

CLIENT = "192.0.2.1"


class Clock:
    """A clock that stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def studio() -> AsyncIterator[FakeStudio]:
    async with FakeStudio() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


Ask = Callable[..., StudioCallers]


@pytest.fixture
async def connect(studio: FakeStudio, clock: Clock) -> AsyncIterator[Ask]:
    """Makes what asks the studio about callers of the sites `mysite` and `site-…`; closed at the end."""
    made: list[StudioCallers] = []

    def connecting(timeout: float = 20) -> StudioCallers:
        asking = StudioCallers(
            studio.url,
            roles=["admin", "publisher"],
            concerns=lambda site: site == "mysite" or site.startswith("site-"),
            timeout=timeout,
            clock=clock,
        )
        made.append(asking)
        return asking

    yield connecting
    for asking in made:
        await asking.close()


@pytest.fixture
def callers(connect: Ask) -> StudioCallers:
    return connect()


def shown(token: str) -> StudioCredential:
    return StudioCredential(bearer=token)


def made_up(number: int) -> StudioCredential:
    return shown(f"eyJ.made.up.{number}.tag")


async def test_a_user_is_a_member_of_the_sites_on_which_a_role_of_theirs_may_sync(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["author", "publisher"], **{"site-1": ["author"], "site-2": ["admin"]})
    assert await callers.caller(shown(token), CLIENT) == Caller(
        "studio:jane", Role.MEMBER, frozenset({"mysite", "site-2"}), "Studio access token"
    )


async def test_even_an_administrator_of_studio_is_a_member_here(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("root", mysite=["system_admin", "admin"])
    caller = await callers.caller(shown(token), CLIENT)
    assert caller is not None
    assert (caller.admin, caller.visible) == (False, frozenset({"mysite"}))


async def test_a_session_counts_with_its_xsrf_token(studio: FakeStudio, callers: StudioCallers) -> None:
    studio.user("jane", mysite=["admin"])
    studio.sessions["4F3A", "b0c1-d2"] = "jane"
    caller = await callers.caller(StudioCredential(session="4F3A", xsrf="b0c1-d2"), CLIENT)
    assert caller is not None
    assert caller.name == "studio:jane"
    assert await callers.caller(StudioCredential(session="4F3A", xsrf="other"), CLIENT) is None


async def test_sites_that_are_not_configured_here_are_not_asked_about(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    caller = await callers.caller(shown(studio.user("jane", mysite=["admin"], other=["admin"])), CLIENT)
    assert caller is not None
    assert caller.sites == {"mysite"}
    assert not any("other" in path for path in studio.requests)


async def test_membership_beyond_studios_ten_and_beyond_a_page_counts(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    sites = {f"site-{number}": ["admin"] for number in range(120)}
    studio.page_most = 50
    caller = await callers.caller(shown(studio.user("jane", **sites)), CLIENT)
    assert caller is not None
    assert caller.sites == sites.keys()
    assert studio.most_under_way <= AT_ONCE


async def test_a_user_without_a_site_is_known_and_covers_nothing(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    caller = await callers.caller(shown(studio.user("jane")), CLIENT)
    assert caller is not None
    assert not caller.covers("mysite")


async def test_a_site_that_is_gone_in_the_meantime_is_not_covered(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["admin"], **{"site-1": ["admin"]})

    async def gone(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/site-1/roles"):
            return web.json_response({"message": "Site not found"}, status=404)
        return await studio._answered(request)

    studio.misbehave = gone
    caller = await callers.caller(shown(token), CLIENT)
    assert caller is not None
    assert caller.sites == {"mysite"}


async def test_an_answer_counts_for_a_while_and_then_not(
    studio: FakeStudio, callers: StudioCallers, clock: Clock
) -> None:
    token = studio.user("jane", mysite=["admin"])
    assert await callers.caller(shown(token), CLIENT)
    asked = len(studio.requests)
    del studio.access_tokens[token]
    clock.now += KNOWN_LASTS - 1
    assert await callers.caller(shown(token), CLIENT)
    assert len(studio.requests) == asked
    clock.now += 1
    assert await callers.caller(shown(token), CLIENT) is None


async def test_a_refused_credential_counts_as_refused_for_a_shorter_while(
    studio: FakeStudio, callers: StudioCallers, clock: Clock
) -> None:
    token = studio.user("jane", mysite=["admin"])
    whose = studio.access_tokens.pop(token)
    assert await callers.caller(shown(token), CLIENT) is None
    studio.access_tokens[token] = whose
    clock.now += UNKNOWN_LASTS - 1
    assert await callers.caller(shown(token), CLIENT) is None
    clock.now += 1
    assert await callers.caller(shown(token), CLIENT)


async def test_who_asks_at_once_about_one_credential_shares_one_question(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["admin"])
    studio.answering.clear()
    asking = [asyncio.create_task(callers.caller(shown(token), CLIENT)) for _ in range(50)]
    while not studio.requests:
        await asyncio.sleep(0)
    studio.answering.set()
    assert len({caller.name for caller in await asyncio.gather(*asking) if caller}) == 1
    assert studio.requests.count("/studio/api/2/users/me") == 1


def answering(status: int, **more: object) -> Callable[[web.Request], object]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, **more)  # type: ignore[arg-type]

    return answer


ME = b'{"authenticatedUser": {"username": "jane"}}'
ODD = [
    (500, {}),
    (503, {}),
    (429, {}),
    (404, {}),
    (202, {"body": ME}),
    (204, {}),
    (302, {"headers": {"Location": "/studio/login"}}),
    (200, {"body": b""}),
    (200, {"body": b"<html>"}),
    (200, {"body": b"[]"}),
    (200, {"body": b"null"}),
    (200, {"body": b"{}"}),
    (200, {"body": b"[" * 100_000}),
    (200, {"body": b'{"authenticatedUser": null}'}),
    (200, {"body": b'{"authenticatedUser": {"username": null}}'}),
    (200, {"body": b'{"authenticatedUser": {"username": ""}}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "a\\nb"}}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "\\ud800"}}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "jane"}}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "jane"}, "sites": {}, "total": 1}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "jane"}, "sites": [7], "total": 1}'}),
    (200, {"body": b'{"authenticatedUser": {"username": "jane"}, "sites": [], "total": "1"}'}),
    (
        200,
        {
            "body": b'{"authenticatedUser": {"username": "jane"},'
            b' "sites": [{"siteId": "mysite"}], "total": 1, "roles": "admin"}'
        },
    ),
    (
        200,
        {
            "body": b'{"authenticatedUser": {"username": "jane"},'
            b' "sites": [{"siteId": "mysite"}], "total": 1, "roles": [{"admin": true}]}'
        },
    ),
    (
        200,
        {
            "body": b'{"authenticatedUser": {"username": "jane"}, "sites": [{"siteId": "mysite"}],'
            b' "total": 1000000, "roles": ["admin"]}'
        },
    ),
]


@pytest.mark.parametrize(("status", "more"), ODD, ids=[f"{s} {str(m)[:60]}" for s, m in ODD])
async def test_an_answer_that_is_none_lets_nobody_in(
    studio: FakeStudio, callers: StudioCallers, status: int, more: dict[str, object]
) -> None:
    studio.misbehave = answering(status, **more)  # type: ignore[assignment]
    with pytest.raises(StudioUnavailableError):
        await callers.caller(made_up(0), CLIENT)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_denied_credential_is_nobodys(
    studio: FakeStudio, callers: StudioCallers, status: int
) -> None:
    studio.misbehave = answering(status)  # type: ignore[assignment]
    assert await callers.caller(made_up(0), CLIENT) is None


async def test_a_studio_that_is_slow_lets_nobody_in_and_is_asked_again_soon(
    studio: FakeStudio, connect: Ask, clock: Clock
) -> None:
    callers = connect(timeout=0.05)
    token = studio.user("jane", mysite=["admin"])
    studio.answering.clear()
    with pytest.raises(StudioUnavailableError, match=r"within 0\.05 s"):
        await callers.caller(shown(token), CLIENT)
    asked = len(studio.requests)
    with pytest.raises(StudioUnavailableError, match=r"within 0\.05 s"):
        await callers.caller(shown(token), CLIENT)
    assert len(studio.requests) == asked
    studio.answering.set()
    clock.now += FAILED_LASTS
    again = connect()
    assert await again.caller(shown(token), CLIENT)


async def test_a_studio_that_fails_for_one_site_lets_nobody_in(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["admin"], **{"site-1": ["admin"]})

    async def failing(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/site-1/roles"):
            return web.Response(status=500)
        return await studio._answered(request)

    studio.misbehave = failing
    with pytest.raises(StudioUnavailableError, match="500"):
        await callers.caller(shown(token), CLIENT)


async def test_a_credential_is_carried_to_no_other_address(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    async with FakeStudio() as other:
        studio.misbehave = answering(307, headers={"Location": f"{other.url}/api/2/users/me"})  # type: ignore[assignment]
        with pytest.raises(StudioUnavailableError, match="redirect"):
            await callers.caller(made_up(0), CLIENT)
        assert other.requests == []


async def test_no_error_and_no_representation_tells_a_credential(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    credential = StudioCredential("Zx9Marker.a.b.c.d", "Zx9Marker", "Zx9Marker")
    assert "Zx9Marker" not in repr(credential) + credential.key
    studio.misbehave = answering(500)  # type: ignore[assignment]
    with pytest.raises(StudioUnavailableError) as raised:
        await callers.caller(credential, CLIENT)
    assert "Zx9Marker" not in f"{raised.value!r}{raised.value.__cause__!r}{raised.value.__context__!r}"
    assert "Zx9Marker" not in repr(callers._answers)


async def shown_many_unknown(callers: StudioCallers, client: str = CLIENT) -> None:
    """An address has shown as many made-up credentials as may be before it is slowed."""
    for number in range(UNKNOWN_MOST):
        assert await callers.caller(made_up(number), client) is None


async def test_who_was_good_keeps_their_way_behind_an_address_that_makes_credentials_up(
    studio: FakeStudio, callers: StudioCallers, clock: Clock
) -> None:
    token = studio.user("jane", mysite=["admin"])
    assert await callers.caller(shown(token), CLIENT)
    clock.now += KNOWN_LASTS * 60
    await shown_many_unknown(callers)
    studio.answering.clear()
    flood = [asyncio.create_task(callers.caller(made_up(1000 + number), CLIENT)) for number in range(60)]
    while studio.under_way < 1:
        await asyncio.sleep(0)
    asking = asyncio.create_task(callers.caller(shown(token), CLIENT))
    while studio.under_way < 2:
        await asyncio.sleep(0)
    studio.answering.set()
    assert await asking, "Studio was asked at once, though the address has to wait for its turns"
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_good_credential_that_studio_takes_back_has_to_wait_like_others(
    studio: FakeStudio, callers: StudioCallers, clock: Clock
) -> None:
    token = studio.user("jane", mysite=["admin"])
    assert await callers.caller(shown(token), CLIENT)
    del studio.access_tokens[token]
    clock.now += KNOWN_LASTS
    assert await callers.caller(shown(token), CLIENT) is None
    assert not callers._good


async def test_an_address_that_makes_credentials_up_is_slowed_and_not_locked_out(
    studio: FakeStudio, callers: StudioCallers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "REST", 0.05)
    token = studio.user("jane", mysite=["admin"])
    await shown_many_unknown(callers)
    studio.answering.clear()
    flood = [asyncio.create_task(callers.caller(made_up(1000 + number), CLIENT)) for number in range(20)]
    asking = asyncio.create_task(callers.caller(shown(token), CLIENT))
    while studio.under_way < 1:
        await asyncio.sleep(0)
    assert studio.under_way == 1, "one question, and the next ones after a rest"
    studio.answering.set()
    assert await asking
    await asyncio.gather(*flood)


async def test_clients_take_turns_so_that_one_that_asks_much_waits_behind_itself(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["admin"])
    studio.answering.clear()
    flood = [asyncio.create_task(callers.caller(made_up(number), CLIENT)) for number in range(UNKNOWN_MOST)]
    while studio.under_way < fair_queue.AT_ONCE:
        await asyncio.sleep(0)
    asking = asyncio.create_task(callers.caller(shown(token), "192.0.2.2"))
    await asyncio.sleep(0)
    studio.answering.set()
    assert await asking
    await asyncio.gather(*flood)
    asked = [path for path in studio.requests if path.endswith("/users/me")]
    assert len(asked) == UNKNOWN_MOST + 1
    assert next(n for n, path in enumerate(studio.requests) if path not in asked) < UNKNOWN_MOST


async def test_where_too_many_wait_the_client_of_whom_the_most_wait_gives_up(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    token = studio.user("jane", mysite=["admin"])
    studio.answering.clear()
    flood = [asyncio.create_task(callers.caller(made_up(number), CLIENT)) for number in range(300)]
    while sum(task.done() for task in flood) < 300 - fair_queue.AT_ONCE - WAITING_MOST:
        await asyncio.sleep(0)
    asking = asyncio.create_task(callers.caller(shown(token), "192.0.2.2"))
    while sum(task.done() for task in flood) <= 300 - fair_queue.AT_ONCE - WAITING_MOST:
        await asyncio.sleep(0)
    studio.answering.set()
    assert await asking
    for task in flood:
        task.cancel()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert any("too many unknown credentials" in str(answer) for answer in answers)


async def test_an_address_of_ipv6_is_no_other_client_than_its_neighbours(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    for number in range(UNKNOWN_MOST):
        assert await callers.caller(made_up(number), f"2001:db8::{number:x}") is None
    assert callers._slowed("2001:db8::/64")
    assert not callers._slowed("2001:db8:0:1::/64")


async def test_credentials_that_studio_knows_are_not_counted(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    for number in range(UNKNOWN_MOST * 2):
        assert await callers.caller(shown(studio.user(f"user-{number}")), CLIENT)


async def test_a_flood_from_many_addresses_does_not_become_one_at_studio(
    studio: FakeStudio, callers: StudioCallers
) -> None:
    studio.answering.clear()
    flood = [
        asyncio.create_task(callers.caller(made_up(number), f"192.0.2.{number % 250}"))
        for number in range(2000)
    ]
    asked = fair_queue.AT_ONCE + WAITING_MOST
    while studio.under_way < fair_queue.AT_ONCE or sum(task.done() for task in flood) < 2000 - asked:
        await asyncio.sleep(0)
    studio.answering.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert len(studio.requests) == asked == answers.count(None)
    assert studio.most_under_way == fair_queue.AT_ONCE
    figures.tell(
        "test_a_flood_from_many_addresses_does_not_become_one_at_studio",
        credentials=len(flood),
        asked=len(studio.requests),
        at_once=studio.most_under_way,
    )


async def test_what_is_kept_in_memory_is_bounded(studio: FakeStudio, callers: StudioCallers) -> None:
    studio.misbehave = answering(401)  # type: ignore[assignment]
    for number in range(REMEMBERED + 50):
        await callers.caller(made_up(number), f"10.0.{number // 250}.{number % 250}")
    assert len(callers._answers) == len(callers._unknown) == REMEMBERED
