"""The edge over HTTP: who the client is, who is refused how often, and what is read of whom."""

import asyncio
import base64
import contextlib
import json
import re
import socket
import struct

import pytest

from listener.edge import connection, middlewares
from listener.edge.body_memory import BodyMemory
from listener.edge.connection import HEAD_MOST
from tests.e2e.conftest import Start
from tests.listening import ADMIN, GITHUB_SECRET, SYNC_STAGING, Client, push, signed
from tests.strangers import answers, connections, cut, delivered, delivery, head, loopback, status_of

LOOPBACK = {"host": "127.0.0.1", "port": 0, "drain": 5}

Logged = pytest.CaptureFixture[str]


def port_of(listener: Client) -> int:
    return int(listener.url.rpartition(":")[2])


def with_headers(*headers: str) -> bytes:
    """A delivery to a hook that there is not, with these headers."""
    return head("/hooks/none", "Content-Length: 0", *headers)


def client_in(logged: str) -> str:
    """The client of the last request that was logged."""
    return next(
        part.removeprefix("client=")
        for line in reversed(logged.splitlines())
        if " request " in line
        for part in line.split()
        if part.startswith("client=")
    )


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "127.0.0.1"),
        (["X-Forwarded-For: 192.0.2.7"], "192.0.2.7"),
        (["X-Forwarded-For: 198.51.100.9, 192.0.2.7"], "192.0.2.7"),
        (["X-Forwarded-For: 198.51.100.9", "X-Forwarded-For: 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
        (["X-Forwarded-For: nonsense, 192.0.2.7"], "192.0.2.7"),
        (["X-Forwarded-For: 192.0.2.7:4711"], "192.0.2.7"),
        (["X-Forwarded-For: [2001:db8::7]:4711"], "2001:db8::7"),
        (["X-Forwarded-For: ::ffff:192.0.2.7"], "192.0.2.7"),
        (["X-Forwarded-For: 10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        (["Forwarded: for=192.0.2.7"], "127.0.0.1"),
    ],
)
async def test_behind_a_trusted_proxy_the_client_is_the_last_one_that_is_none(
    listening: Start, headers: list[str], client: str, capsys: Logged
) -> None:
    trusted = ["127.0.0.1", "10.0.0.0/8"]
    async with listening(server={**LOOPBACK, "trusted_proxies": trusted}) as listener:
        assert status_of(await answers(port_of(listener), with_headers(*headers))) == 404
    assert client_in(capsys.readouterr().out) == client


async def test_nobody_else_is_believed_about_whose_a_request_is(listening: Start, capsys: Logged) -> None:
    async with listening(server={**LOOPBACK, "trusted_proxies": ["10.0.0.0/8"]}) as listener:
        await answers(port_of(listener), with_headers("X-Forwarded-For: 192.0.2.7"))
    assert client_in(capsys.readouterr().out) == "127.0.0.1"


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 1.2.3",
        "X-Forwarded-For: unknown host",
        "X-Forwarded-For: -",
        "X-Forwarded-Proto: gopher",
    ],
)
async def test_what_is_no_address_where_a_proxy_writes_the_clients_is_refused(
    listening: Start, header: str
) -> None:
    async with listening(server={**LOOPBACK, "trusted_proxies": ["127.0.0.1"]}) as listener:
        port = port_of(listener)
        assert status_of(await answers(port, with_headers(header))) == 400
        assert await delivered(port, "d-1")


@pytest.mark.parametrize(
    "said", ["unknown", "Unknown", "unix:", "unix:/run/x.sock", "192.0.2.7, unknown", "_x9"]
)
async def test_a_client_that_a_proxy_does_not_know_is_taken_where_its_address_does_not_matter(
    listening: Start, said: str, capsys: Logged
) -> None:
    forge = {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": {"acme/mysite": "mysite"}}
    hooks = {"forge": forge, "local": {**forge, "networks": ["127.0.0.0/8", "192.0.2.0/24", "::/0"]}}
    server = {**LOOPBACK, "trusted_proxies": ["127.0.0.1"]}
    async with listening(server=server, hooks=hooks) as listener:
        named = f"X-Forwarded-For: {said}\r\nX-GitHub-Event:".encode()
        good = delivery("d-1").replace(b"X-GitHub-Event:", named)
        assert status_of(await answers(port_of(listener), good)) == 202
        assert status_of(await answers(port_of(listener), good.replace(b"/forge", b"/local"))) == 404
        page = await answers(port_of(listener), head("/", f"X-Forwarded-For: {said}", method="GET"))
        assert b"others could read the token on its way" in page
    assert client_in(capsys.readouterr().out) == "unknown"


async def test_a_hook_with_networks_does_not_exist_for_anybody_else(listening: Start, capsys: Logged) -> None:
    forge = {"scheme": "github", "secrets": ["secret"], "repositories": {"acme/mysite": "mysite"}}
    hooks = {"forge": {**forge, "networks": ["127.0.0.2", "2001:db8::/32"]}}
    async with listening(server=LOOPBACK, hooks=hooks) as listener:
        port = port_of(listener)
        good = delivery("d-1", secret="secret")
        refused = await answers(port, good, "127.0.0.3")
        unknown = await answers(port, good.replace(b"/hooks/forge", b"/hooks/gorge"), "127.0.0.3")
        assert status_of(refused) == 404
        assert without_marks(refused) == without_marks(unknown)
        assert "the address is in none of the hook's networks" in capsys.readouterr().out
        assert status_of(await answers(port, good, "127.0.0.2")) == 202


def without_marks(answer: bytes) -> list[bytes]:
    """An answer without its time and its id."""
    return [line for line in answer.splitlines() if not line.startswith((b"Date:", b"X-Delivery-Id:"))]


async def refused_until_429(port: int, sent: bytes, source: str = "127.0.0.1") -> bytes:
    """The first answer that says 429; before it come as many refusals as are allowed."""
    for _ in range(3):
        assert status_of(await answers(port, sent, source)) in {400, 401, 403, 404}
    return await answers(port, sent, source)


@pytest.mark.parametrize(
    "sent",
    [
        head("/hooks/none", "Content-Length: 0"),
        head("/hooks/forge", "Content-Length: 0"),
        delivery("d-1", secret="wrong"),
        head("/nowhere", method="GET"),
        head("/api/v1/runs", method="GET"),
        head("/api/v1/runs", "Authorization: Bearer wrong", method="GET"),
        head(SYNC_STAGING, "Content-Length: 2") + b"{}",
        head("/", "Authorization: Bearer wrong", method="GET"),
        head("/session", "Sec-Fetch-Site: cross-site", "Content-Length: 0"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32 + b"\r\n\r\n",
    ],
    ids=[
        "no-hook",
        "unsigned",
        "badly-signed",
        "no-route",
        "no-token",
        "bad-token",
        "crafter",
        "page",
        "form",
        "no-http",
    ],
)
async def test_who_is_refused_too_often_is_told_to_wait_and_good_requests_still_pass(
    listening: Start, sent: bytes
) -> None:
    async with listening(server={**LOOPBACK, "refusals": 3}) as listener:
        port = port_of(listener)
        answer = await refused_until_429(port, sent)
        if sent[0] != 0x16:  # what is no HTTP gets no other answer, and counts
            assert status_of(answer) == 429
            # One refusal is forgiven every 20 s: a part of that may have passed.
            waits = re.search(rb"\r\nRetry-After: (\d+)\r\n", answer)
            assert waits
            assert 0 < int(waits[1]) <= 20
            assert b"Too Many Requests" in answer
        assert status_of(await answers(port, head("/nowhere", method="GET"))) == 429
        assert status_of(await answers(port, head("/nowhere", method="GET"), "127.0.0.2")) == 404
        assert await delivered(port, "d-2")
        assert (await listener.call("GET", "/api/v1/runs"))[0] == 200
        assert (await listener.call("GET", "/api/v1/runs/none"))[0] == 404
        assert (await listener.call("GET", "/readyz", token=None))[0] == 200


async def test_a_large_delivery_that_is_good_passes_among_refused_ones(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "refusals": 3}) as listener:
        port = port_of(listener)
        await refused_until_429(port, delivery("d-1", secret="wrong"))
        large = push(ref="refs/heads/other", filler="x" * (20 << 20))
        assert status_of(await answers(port, delivery("d-2", large))) == 200


async def test_who_was_refused_too_often_is_not_read_when_its_headers_suffice(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "refusals": 3}) as listener:
        port = port_of(listener)
        await refused_until_429(port, head("/hooks/none", "Content-Length: 0"))
        sent = head("/hooks/forge", "Content-Length: 1000000", "X-Hub-Signature-256: sha256=short")
        async with connections(port, ["127.0.0.1"]) as [(reader, writer)]:
            writer.write(sent)
            assert (await reader.readline()).startswith(b"HTTP/1.1 429")


async def test_a_known_caller_gets_things_wrong_as_often_as_it_likes(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "refusals": 3}) as listener:
        for _ in range(10):
            assert (await listener.call("GET", "/api/v1/runs/none"))[0] == 404
            assert (await listener.sync(environment="nothing"))[0] == 404
        malformed = b'{"ref": 7}'
        for number in range(10):
            status, _, _ = await listener.call(
                "POST", "/hooks/forge", token=None, data=malformed, headers=signed(malformed, f"d-{number}")
            )
            assert status == 400


async def test_refused_requests_beyond_the_limit_write_one_line(listening: Start, capsys: Logged) -> None:
    async with listening(server={**LOOPBACK, "refusals": 3}) as listener:
        port = port_of(listener)
        for _ in range(50):
            await answers(port, delivery("d-1", secret="wrong"))
    lines = capsys.readouterr().out.splitlines()
    assert sum(" refused too often " in line for line in lines) == 1
    assert sum(" delivery refused " in line for line in lines) == 3
    assert sum(" request " in line for line in lines) == 3


async def test_clients_behind_a_trusted_proxy_are_counted_one_by_one(listening: Start) -> None:
    server = {**LOOPBACK, "refusals": 3, "trusted_proxies": ["127.0.0.1"]}
    async with listening(server=server) as listener:
        port = port_of(listener)
        mine, other = (with_headers(f"X-Forwarded-For: 192.0.2.{number}") for number in (7, 8))
        assert status_of(await refused_until_429(port, mine)) == 429
        assert status_of(await answers(port, other)) == 404


async def test_a_head_that_does_not_become_whole_ends_the_connection(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "head_timeout": 0.3}) as listener:
        port = port_of(listener)
        async with connections(port, ["127.0.0.1"] * 3) as [silent, begun, again]:
            begun[1].write(b"POST /hooks/forge HTTP/1.1\r\nHost: x\r\nX-A: ")
            again[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await again[0].readline()).startswith(b"HTTP/1.1 200")
            assert b"ok" in await again[0].readuntil(b"}")
            again[1].write(b"GET /healthz HT")
            async with asyncio.timeout(300):
                assert all([await cut(reader) for reader, _ in (silent, begun, again)])


@pytest.mark.parametrize(
    ("path", "status"), [(SYNC_STAGING, 401), ("/nowhere", 404), ("/hooks/none", 404)], ids=str
)
async def test_a_body_that_follows_a_refusal_is_no_head(listening: Start, path: str, status: int) -> None:
    async with listening(server=LOOPBACK) as listener:
        begun = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {HEAD_MOST * 2}\r\n\r\n".encode()
        async with connections(port_of(listener), ["127.0.0.1"]) as [(reader, writer)]:
            writer.write(begun)
            refused = await reader.readuntil(b"\r\n\r\n")
            assert status_of(refused) == status
            writer.write(b"x" * HEAD_MOST * 2 + head("/healthz", method="GET"))
            async with asyncio.timeout(300):
                assert b"HTTP/1.1 200" in await reader.read()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SYNC_STAGING, ["Content-Length: 2"], 401),
        ("/hooks/none", ["Content-Length: 2"], 404),
        ("/hooks/forge", [f"Content-Length: {1 << 30}"], 413),
        ("/session", ["Content-Length: 2", "Sec-Fetch-Site: cross-site"], 403),
    ],
    ids=str,
)
async def test_who_is_refused_is_not_asked_for_the_body_first(
    listening: Start, path: str, headers: list[str], status: int
) -> None:
    async with listening(server=LOOPBACK) as listener:
        sent = head(path, "Expect: 100-continue", *headers).replace(b"Connection: close\r\n", b"")
        async with connections(port_of(listener), ["127.0.0.1"]) as [(reader, writer)]:
            writer.write(sent)
            answer = await reader.readuntil(b"\r\n\r\n")
    assert status_of(answer) == status
    assert b"\r\nConnection: close\r\n" in answer, "whether the body follows, nobody knows"


async def test_a_body_is_asked_for_once_it_is_wanted(listening: Start) -> None:
    async with listening(server=LOOPBACK) as listener:
        headers, _, body = delivery("d-1").partition(b"\r\n\r\n")
        async with connections(port_of(listener), ["127.0.0.1"]) as [(reader, writer)]:
            writer.write(headers + b"\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert status_of(await reader.read()) == 202


async def test_what_else_is_expected_is_neither_met_nor_quoted(listening: Start) -> None:
    async with listening(server=LOOPBACK) as listener:
        answer = await answers(port_of(listener), head("/healthz", "Expect: marvels", method="GET"))
    assert status_of(answer) == 200


async def test_an_idle_connection_is_kept_for_its_next_request(listening: Start) -> None:
    server = {**LOOPBACK, "head_timeout": 0.2}
    async with (
        listening(server=server) as listener,
        connections(port_of(listener), ["127.0.0.1"] * 2) as [(reader, writer), (silent, _)],
    ):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
            # One that never asked is ended by then.
            assert await cut(silent)


async def test_a_client_that_asks_on_and_on_and_never_reads_is_cut_off(
    listening: Start, monkeypatch: pytest.MonkeyPatch, capsys: Logged
) -> None:
    monkeypatch.setattr(connection, "SLOWEST", 0.3)
    async with (
        listening(server=LOOPBACK) as listener,
        connections(port_of(listener), ["127.0.0.1"]) as [(_, writer)],
        asyncio.timeout(300),
    ):
        with pytest.raises(ConnectionError):
            await asking_on(writer)
    assert "a reader that does not read" in capsys.readouterr().out


async def asking_on(writer: asyncio.StreamWriter) -> None:
    """Send requests until the connection ends."""
    while True:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        await writer.drain()


async def test_bodies_wait_for_room_and_are_told_when_there_is_none(
    listening: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middlewares, "BodyMemory", lambda _, clock: BodyMemory(3 << 20, clock))
    async with listening(server={**LOOPBACK, "body_timeout": 1}) as listener:
        port = port_of(listener)
        large = b"x" * (2 << 20)
        sent = head("/hooks/forge", f"Content-Length: {len(large)}")
        async with connections(port, ["127.0.0.1"] * 2) as [first, second]:
            first[1].write(sent + large[:-1])
            second[1].write(sent + large[:-1])
            reading = (reader.readuntil(b"\r\n\r\n") for reader, _ in (first, second))
            ends = await asyncio.gather(*reading)
            said = sorted(ends, key=status_of)
            assert [status_of(answer) for answer in said] == [408, 503]
            assert b"\r\nRetry-After: 5\r\n" in said[1]
        assert await delivered(port, "d-1")


async def test_connections_beyond_all_places_end_those_of_the_most_numerous(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "connections": 16}) as listener:
        port = port_of(listener)
        async with connections(port, ["127.0.0.2", *["127.0.0.3"] * 40]) as [(reading, other), *mine]:
            async with asyncio.timeout(300):
                assert all([await cut(reader) for reader, _ in mine[:25]])
            other.write(head("/healthz", method="GET"))
            assert (await reading.readline()).startswith(b"HTTP/1.1 200")
            assert await delivered(port, "d-1", "127.0.0.4")
            assert await delivered(port, "d-2", "127.0.0.3")


async def test_a_listener_full_of_silent_connections_makes_room_for_who_asks(listening: Start) -> None:
    async with listening(server={**LOOPBACK, "connections": 16}) as listener:
        port = port_of(listener)
        async with connections(port, [loopback(number) for number in range(64)]):
            assert await delivered(port, "d-1")


async def test_tls_on_a_plain_port_is_told_as_such_without_a_trace(listening: Start, capsys: Logged) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2
    async with listening(server=LOOPBACK) as listener:
        answer = await answers(port_of(listener), hello)
        assert status_of(answer) == 400
        for own in (b"Server: sync-staging", b"Cache-Control: no-store", b"X-Content-Type-Options: nosniff"):
            assert own in answer.splitlines()
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "bad-request"
    said = capsys.readouterr()
    assert "the client speaks TLS, but this port is plain HTTP" in said.out
    assert "Traceback" not in said.out + said.err


GUESSED = {
    "basic": {"scheme": "basic", "secrets": ["deployer:9f8e7d6c5b4a39281706f5e4"], "site": "mysite"},
    "bearer": {"scheme": "bearer", "secrets": ["9f8e7d6c5b4a39281706f5e4d3c2b1a0"], "site": "mysite"},
    "path": {"scheme": "path", "secrets": ["9f8e7d6c5b4a39281706f5e4"], "site": "mysite"},
    "gitlab": {
        "scheme": "gitlab",
        "secrets": ["9f8e7d6c5b4a39281706f5e4"],
        "repositories": {"acme/mysite": "mysite"},
    },
}
JSON_PUSH = json.dumps(
    {"ref": "refs/heads/live", "after": "1" * 40, "project": {"path_with_namespace": "acme/mysite"}}
).encode()
GITLAB_PUSH = (
    "Content-Type: application/json",
    "X-Gitlab-Event: Push Hook",
    f"Content-Length: {len(JSON_PUSH)}",
)
DEPLOYER = base64.b64encode(b"deployer:9f8e7d6c5b4a39281706f5e4").decode()

TRIED: dict[str, tuple[bytes, bytes]] = {
    "basic": (
        head("/hooks/basic", f"Authorization: Basic {base64.b64encode(b'deployer:wrong').decode()}"),
        head("/hooks/basic", f"Authorization: Basic {DEPLOYER}"),
    ),
    "bearer": (
        head("/hooks/bearer", "Authorization: Bearer wrong"),
        head("/hooks/bearer", "Authorization: Bearer 9f8e7d6c5b4a39281706f5e4d3c2b1a0"),
    ),
    "path": (head("/hooks/path/wrong"), head("/hooks/path/9f8e7d6c5b4a39281706f5e4")),
    "gitlab": (
        head("/hooks/gitlab", "X-Gitlab-Token: wrong", *GITLAB_PUSH) + JSON_PUSH,
        head("/hooks/gitlab", "X-Gitlab-Token: 9f8e7d6c5b4a39281706f5e4", *GITLAB_PUSH) + JSON_PUSH,
    ),
    "tokens": (
        head("/api/v1/runs", "Authorization: Bearer wrong", method="GET"),
        head("/api/v1/runs", f"Authorization: Bearer {ADMIN}", method="GET"),
    ),
    "passwords": (
        head("/api/v1/runs", f"Authorization: Basic {base64.b64encode(b'me:wrong').decode()}", method="GET"),
        head(
            "/api/v1/runs",
            f"Authorization: Basic {base64.b64encode(b'me:' + ADMIN.encode()).decode()}",
            method="GET",
        ),
    ),
    "crafter": (
        head(SYNC_STAGING, "Authorization: Bearer wrong", "Content-Length: 2") + b"{}",
        head(SYNC_STAGING, f"Authorization: Bearer {ADMIN}", "Content-Length: 2") + b"{}",
    ),
}


@pytest.mark.parametrize("secret", TRIED)
async def test_who_guesses_waits_for_each_answer_and_a_good_secret_is_taken_meanwhile(
    listening: Start, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses are the test's: they end when the good secret has been answered."""
    slept: list[asyncio.Event] = []

    async def rest(_self: connection.Connection, _seconds: float) -> None:
        slept.append(asyncio.Event())
        await slept[-1].wait()

    monkeypatch.setattr(connection.Connection, "sleep", rest)
    wrong, good = TRIED[secret]
    async with listening(server={**LOOPBACK, "refusals": 3}, hooks=GUESSED) as listener:
        port = port_of(listener)
        for _ in range(3):
            assert status_of(await answers(port, wrong)) in {401, 404}
        guessing = [asyncio.create_task(answers(port, wrong)) for _ in range(5)]
        while len(slept) < 5:
            await asyncio.sleep(0.01)
        assert status_of(await answers(port, good)) in {200, 202, 400}
        assert not any(guess.done() for guess in guessing)
        assert status_of(await answers(port, wrong, "127.0.0.2")) in {401, 404}, (
            "another client's has its own"
        )
        for waiting in slept:
            waiting.set()
        assert {status_of(answer) for answer in await asyncio.gather(*guessing)} == {429}


@pytest.mark.parametrize(
    "sent",
    [
        head("/hooks/basic"),
        head("/hooks/bearer"),
        head("/hooks/path"),
        head("/hooks/gitlab"),
        delivery("d-1", secret="wrong"),
        head("/api/v1/runs", method="GET"),
        head("/", method="GET"),
    ],
)
async def test_what_shows_no_secret_is_no_guess(
    listening: Start, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(_self: connection.Connection, _seconds: float) -> None:
        raise AssertionError

    monkeypatch.setattr(connection.Connection, "sleep", rest)
    forge = {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": {"acme/mysite": "mysite"}}
    async with listening(server={**LOOPBACK, "refusals": 3}, hooks={**GUESSED, "forge": forge}) as listener:
        for _ in range(6):
            assert status_of(await answers(port_of(listener), sent)) in {200, 401, 404, 429}


async def test_a_guess_whose_client_has_gone_waits_no_longer(
    listening: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a client that guesses and hangs up, again and again, would leave its requests in our memory."""
    begun, ended = asyncio.Event(), asyncio.Event()
    real = connection.Connection.sleep

    async def rest(self: connection.Connection, _: float) -> None:
        begun.set()
        await real(self, 3600)
        ended.set()

    monkeypatch.setattr(connection.Connection, "sleep", rest)
    async with listening(server={**LOOPBACK, "refusals": 1}, hooks=GUESSED) as listener:
        port = port_of(listener)
        wrong = TRIED["basic"][0]
        await answers(port, wrong)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(wrong)
        await begun.wait()
        # With a reset: whoever only closes may have closed one half, and is still answered.
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()
        await ended.wait()


async def test_a_deployer_that_waits_to_be_asked_is_asked_however_often_it_calls(listening: Start) -> None:
    """A Deployer shows its password to a 401 alone, and many may come from one address."""
    async with listening(server={**LOOPBACK, "refusals": 3}, hooks=GUESSED) as listener:
        for _ in range(10):
            answer = await answers(port_of(listener), head("/hooks/basic"))
            assert status_of(answer) == 401
            assert b"WWW-Authenticate: Basic" in answer


def open_ended(sent: bytes) -> bytes:
    """The same request, after which the connection might go on."""
    return sent.replace(b"Connection: close\r\n", b"")


async def after_half_closing(port: int, *sent: bytes) -> bytes:
    """What is answered to a client that has sent all it will and reads on, as `nc -N` and `socat` do."""
    async with connections(port, ["127.0.0.1"]) as [(reader, writer)], asyncio.timeout(300):
        for part in sent:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        return await reader.read()


SYNC = b'{"site_id": "mysite", "environment": "staging"}'


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        ([open_ended(head("/healthz", method="GET"))], [200]),
        ([open_ended(delivery("d-1"))], [202]),
        ([delivery("d-1")], [202]),
        ([open_ended(delivery("d-1"))[:-7], delivery("d-1")[-7:]], [202]),
        ([open_ended(delivery("d-1", secret="wrong"))], [401]),
        (
            [open_ended(head("/healthz", method="GET")) * 3 + open_ended(delivery("d-1"))],
            [200, 200, 200, 202],
        ),
        (
            [
                open_ended(
                    head(SYNC_STAGING, f"Authorization: Bearer {ADMIN}", f"Content-Length: {len(SYNC)}")
                    + SYNC
                )
            ],
            [200],
        ),
        ([open_ended(head("/healthz", method="GET")) + b"GET /heal"], [200]),
        ([b"not HTTP\r\n\r\n"], [400]),
    ],
    ids=str,
)
async def test_a_client_that_half_closes_gets_its_answers(
    listening: Start, sent: list[bytes], statuses: list[int]
) -> None:
    async with listening(server=LOOPBACK) as listener:
        said = await after_half_closing(port_of(listener), *sent)
    assert [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", said)] == statuses


@pytest.mark.parametrize("sent", [b"", b"GET /heal", open_ended(delivery("d-1"))[:-7]], ids=str)
async def test_a_client_that_closes_before_its_request_is_whole_gets_none(
    listening: Start, sent: bytes
) -> None:
    async with listening(server=LOOPBACK) as listener:
        assert await after_half_closing(port_of(listener), sent) == b""
        _, found, _ = await listener.call("GET", "/api/v1/runs")
        assert found["runs"] == []


@pytest.mark.parametrize("broken", [b"xyz\r\n", b"1\r\nab", b"fffffffffffffffff\r\n"], ids=str)
async def test_a_body_that_breaks_off_in_what_is_not_http_is_answered_at_once(
    listening: Start, broken: bytes
) -> None:
    async with listening(server=LOOPBACK) as listener:
        port = port_of(listener)
        begun = delivery("d-1").partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Length")
        async with connections(port, ["127.0.0.1"]) as [(reader, writer)], asyncio.timeout(300):
            writer.write(open_ended(begun + b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"5\r\nhello\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(broken)
            assert status_of(await reader.read()) == 400
        assert await delivered(port, "d-2")


async def test_a_body_in_too_many_pieces_ends_the_connection(listening: Start, capsys: Logged) -> None:
    async with listening(server=LOOPBACK) as listener:
        port = port_of(listener)
        begun = delivery("d-1").partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Length")
        async with connections(port, ["127.0.0.1"]) as [(reader, writer)], asyncio.timeout(300):
            writer.write(begun + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(3 * connection.PIECES // 1000):
                    writer.write(b"1\r\nx\r\n" * 1000)
                    await writer.drain()
            assert await cut(reader)
        assert "a body in too many pieces" in capsys.readouterr().out


async def test_a_body_in_many_pieces_that_hold_something_is_taken(listening: Start) -> None:
    async with listening(server=LOOPBACK) as listener:
        body = push(message="x" * 2_000_000)
        begun = delivery("d-1", body).partition(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Length")
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        sent = begun + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
        assert status_of(await answers(port_of(listener), sent)) == 202
