"""JSON that two readers read differently, that nests, swells or never ends."""

import asyncio
import json
import random
from collections.abc import Iterator

from tests.attack.siege import JSON, Siege
from tests.listening import SYNC_STAGING, push, signed

GOOD = push()

LEVELS = 100_000


def nested(value: bytes) -> bytes:
    """A push with another value in a field that nobody looks at."""
    return GOOD[:-1] + b', "more": ' + value + b"}"


AMBIGUOUS = {
    "a key twice": GOOD[:-1] + b', "ref": "refs/heads/live"}',
    "a key twice in another spelling": GOOD[:-1] + b', "\\u0072ef": "refs/heads/live"}',
    "a key twice below": nested(b'{"a": {"b": [{"c": 1, "c": 2}]}}'),
    "lists in lists": nested(b"[" * LEVELS + b"]" * LEVELS),
    "objects in objects": nested(b'{"a":' * LEVELS + b"1" + b"}" * LEVELS),
    "lists that never end": b"[" * LEVELS,
    "objects that never end": b'{"a":' * LEVELS,
    "brackets in disguise": nested(b'"\\""' + b"[" * LEVELS),
    "NaN": nested(b"NaN"),
    "Infinity": nested(b"Infinity"),
    "-Infinity": nested(b"-Infinity"),
    "1e999": nested(b"1e999"),
    "an integer of a million digits": nested(b"9" * 1_000_000),
    "an integer of 5,000 digits": nested(b"-" + b"9" * 5_000),
    "a fraction of a million digits": nested(b"0." + b"3" * 1_000_000),
    "an exponent of a million digits": nested(b"1e" + b"1" * 1_000_000),
    "half a surrogate pair in the ref": push(ref="refs/heads/\ud800"),
    "half a surrogate pair in the repository": push(repository="acme/\udfff"),
    "half a surrogate pair in the commit": push(after="\ud800"),
    "half a surrogate pair, raw": nested(b'"\xed\xa0\x80"'),
    "invalid UTF-8": nested(b'"\xff\xfe"'),
    "overlong UTF-8": nested(b'"\xc0\xaf"'),
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "a NUL in a string": nested(b'"\0"'),
    "a NUL behind the end": GOOD + b"\0",
    "NULs alone": b"\0" * 1000,
    "a control character in a string": nested(b'"\x1f"'),
    "another document behind the end": GOOD + GOOD,
    "a comment": b"/* */" + GOOD,
    "a comma too many": GOOD[:-1] + b",}",
    "single quotes": GOOD.replace(b'"', b"'"),
    "nothing": b"",
    "a list": b"[" + GOOD + b"]",
    "a string": json.dumps(GOOD.decode()).encode(),
}


def ambiguous() -> Iterator[tuple[str, bytes]]:
    """Those, and large ones, made one by one."""
    yield from AMBIGUOUS.items()
    yield "two million lists", nested(b"[" + b"[]," * 2_000_000 + b"[]]")
    yield "two million strings", nested(b"[" + b'"",' * 2_000_000 + b'""]')
    yield "two million numbers", nested(b"[" + b"1.5," * 2_000_000 + b"1]")
    yield "quotation marks alone", b'"' * (24 << 20)
    yield "brackets alone", b"[" * (24 << 20)
    yield "backslashes alone", b'"' + b"\\" * (24 << 20)


async def test_a_signed_body_that_is_no_strict_json_is_refused_in_little_memory(siege: Siege) -> None:
    for number, (what, body) in enumerate(ambiguous()):
        answer = await siege.deliver(body, signed(body, f"d-{number}").items())
        assert answer.status == 400, what
        assert len(answer.body) < 1000, what
    assert await siege.runs() == []


def colliding(count: int) -> Iterator[str]:
    """Keys that all have one hash where strings are hashed as they were in old Pythons and in Java."""
    for number in range(count):
        yield "".join("Aa" if number >> bit & 1 else "BB" for bit in range(20))


def swollen() -> Iterator[tuple[str, bytes]]:
    """Bodies that are good and large, made one by one."""
    yield "300,000 keys", nested(b"{" + b",".join(b'"%x":1' % number for number in range(300_000)) + b"}")
    yield "100,000 keys of one hash", nested(json.dumps(dict.fromkeys(colliding(100_000))).encode())
    yield "a string of 20 MB", nested(b'"' + b"x" * (20 << 20) + b'"')
    yield "a key of 20 MB", nested(b'{"' + b"x" * (20 << 20) + b'": 1}')
    yield "20 MB of white space", nested(b" " * (20 << 20) + b"1")
    yield "20 MB of escapes", nested(b'"' + b"\\u0041" * (20 << 20 >> 3) + b'"')


async def test_a_large_body_is_read_and_nobody_else_waits_for_it(siege: Siege) -> None:
    for number, (what, body) in enumerate(swollen()):
        delivering = asyncio.create_task(siege.deliver(body, signed(body, f"d-{number}").items()))
        answered = 0
        while not delivering.done():
            answered += (await siege.ask("GET", "/healthz", bearer=None)).status == 200
        assert (await delivering).status == 202, what
        assert answered > 1, what
    await siege.quiet()


async def test_a_form_of_nothing_but_escapes_is_refused(siege: Siege) -> None:
    body = b"payload=" + b"%41" * (8 << 20)
    headers = {**signed(body, "d-1"), "Content-Type": "application/x-www-form-urlencoded"}
    assert (await siege.deliver(body, headers.items())).status == 400
    many = b"&".join([b"payload=1"] * 100_000)
    headers = {**signed(many, "d-2"), "Content-Type": "application/x-www-form-urlencoded"}
    assert (await siege.deliver(many, headers.items())).status == 400


CALL = b'{"site_id": "mysite", "environment": "staging"'

UNCLEAR = {
    "a site twice": CALL + b', "site_id": "mysite"}',
    "a site twice, the first unknown": b'{"site_id": "other", ' + CALL[1:] + b"}",
    "an environment twice in another spelling": CALL + b', "environmen\\u0074": "staging"}',
    "NaN": CALL + b', "more": NaN}',
    "a number out of range": CALL + b', "more": 1e999}',
    "a long integer": CALL + b', "more": ' + b"9" * 60_000 + b"}",
    "deep": CALL + b', "more": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "half a surrogate pair": CALL + b', "more": "\\ud800"}',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + CALL + b"}",
    "UTF-16": (CALL + b"}").decode().encode("utf-16"),
    "a NUL": CALL + b"}\0",
}


async def test_a_call_that_two_readers_may_read_differently_is_refused(siege: Siege) -> None:
    for what, body in UNCLEAR.items():
        answer = await siege.ask("POST", SYNC_STAGING, JSON, body=body)
        assert (answer.status, answer.body) == (400, b'{"message": "Bad Request"}'), what
        for path in ("sync", "hold"):
            answer = await siege.ask("POST", f"/api/v1/sites/mysite/environments/staging/{path}", body=body)
            assert answer.status == 400, what
    large = CALL + b', "more": "' + b"x" * (1 << 20) + b'"}'
    assert (await siege.ask("POST", SYNC_STAGING, JSON, body=large)).status in {0, 400}
    assert await siege.runs() == []


async def test_a_body_in_which_single_bytes_are_wrong_starts_nothing_and_breaks_nothing(siege: Siege) -> None:
    """Random bytes, but the same ones each time."""
    chance = random.Random(20)
    for number in range(300):
        body = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        answer = await siege.deliver(bytes(body), signed(bytes(body), f"d-{number}").items())
        assert answer.status in {200, 202, 400}
    for run in await siege.quiet():
        assert (run["site"], run["environment"]) == ("mysite", "staging")
