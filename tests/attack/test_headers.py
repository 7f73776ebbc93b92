"""Headers that are there twice, in other cases, or say something else than they seem to."""

import gzip

from tests.attack.siege import BEARER, JSON, Header, Siege, request
from tests.listening import ADMIN, MEMBER, SYNC_STAGING, push, signed

BODY = push()
GOOD = tuple(signed(BODY, "d-1").items())


def without(*names: str) -> tuple[Header, ...]:
    return tuple((name, value) for name, value in GOOD if name not in names)


SIGNATURE = dict(GOOD)["X-Hub-Signature-256"]
WRONG = "sha256=" + "0" * 64

UNSIGNED: dict[str, tuple[Header, ...]] = {
    "the same signature twice": (*GOOD, ("X-Hub-Signature-256", SIGNATURE)),
    "a good one, then a bad one": (*GOOD, ("X-Hub-Signature-256", WRONG)),
    "a bad one, then a good one": (("X-Hub-Signature-256", WRONG), *GOOD),
    "twice in two cases": (*GOOD, ("x-hUB-signature-256", SIGNATURE)),
    "two in one header": (*without("X-Hub-Signature-256"), ("X-Hub-Signature-256", f"{WRONG}, {SIGNATURE}")),
    "with an empty one": (*GOOD, ("X-Hub-Signature-256", "")),
    "only that of SHA-1": (*without("X-Hub-Signature-256"), ("X-Hub-Signature", "sha1=" + "0" * 40)),
    "a header folded over two lines": (
        *without("X-Hub-Signature-256"),
        ("X-Hub-Signature-256", f"sha256=\r\n {SIGNATURE[7:]}"),
    ),
    "an underscore for a dash": (*without("X-Hub-Signature-256"), ("X_Hub_Signature_256", SIGNATURE)),
}


async def test_a_signature_that_is_there_twice_is_none(siege: Siege) -> None:
    for what, headers in UNSIGNED.items():
        answer = await siege.deliver(BODY, headers)
        assert answer.status in {400, 401}, what
    assert await siege.runs() == []
    assert (await siege.deliver(BODY, GOOD)).status == 202


UNREAD: dict[str, tuple[Header, ...]] = {
    "two events": (*GOOD, ("X-GitHub-Event", "ping")),
    "two content types": (*GOOD, ("content-type", "application/x-www-form-urlencoded")),
    "a delivery id with an escape": (*without("X-GitHub-Delivery"), ("X-GitHub-Delivery", b"d\x1b[2J")),
}


async def test_a_signed_delivery_whose_other_headers_are_ambiguous_is_not_read(siege: Siege) -> None:
    for what, headers in UNREAD.items():
        assert (await siege.deliver(BODY, headers)).status == 400, what
    assert await siege.runs() == []


WITHOUT_ID: dict[str, tuple[Header, ...]] = {
    "two delivery ids": (*GOOD, ("X-GitHub-Delivery", "d-2")),
    "two that agree": (*GOOD, ("x-github-delivery", "d-1")),
    "no delivery id": without("X-GitHub-Delivery"),
    "an empty delivery id": (*without("X-GitHub-Delivery"), ("X-GitHub-Delivery", "")),
    "a delivery id of 8,000 characters": (*without("X-GitHub-Delivery"), ("X-GitHub-Delivery", "d" * 8000)),
}


async def test_a_signed_delivery_whose_id_is_none_counts_and_is_no_repeated_one(siege: Siege) -> None:
    for what, headers in WITHOUT_ID.items():
        answers = [await siege.deliver(BODY, headers) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202], what
    await siege.quiet()


CONTENT_TYPES = {
    "": 400,
    "application/json; charset=utf-7": 400,
    "application/json; charset=utf-16": 400,
    "application/json; charset*=utf-7''x": 400,
    "application/json; charset*0*=a; charset*=b": 400,
    "application/json; charset*999999999999999999999=a": 400,
    "application/json; charset=" + "x" * 5000: 400,
    "application/json\x0b": 400,
    "application/x-www-form-urlencoded": 400,
    "application/x-www-form-urlencoded; charset=utf-16": 400,
    "multipart/form-data; boundary=x": 415,
    "text/plain": 415,
    "text/json": 415,
    "application/json, text/plain": 415,
    "application/xml": 415,
    "*/*": 415,
}


async def test_a_signed_body_of_another_type_than_json_is_not_read(siege: Siege) -> None:
    for number, (content_type, expected) in enumerate(CONTENT_TYPES.items()):
        headers = [each for each in signed(BODY, f"d-{number}").items() if each[0] != "Content-Type"]
        answer = await siege.deliver(BODY, [*headers, ("Content-Type", content_type)])
        assert answer.status == expected, content_type
    headers = [each for each in signed(BODY, "d-none").items() if each[0] != "Content-Type"]
    assert (await siege.deliver(BODY, headers)).status == 400
    assert await siege.runs() == []


CALL = b'{"site_id": "mysite", "environment": "staging"}'

STRANGERS: dict[str, tuple[Header, ...]] = {
    "two tokens": (BEARER, BEARER),
    "a good and a bad one": (BEARER, ("Authorization", "Bearer x")),
    "a bad and a good one": (("Authorization", "Bearer x"), BEARER),
    "an admin and a member": (BEARER, ("authorization", f"Bearer {MEMBER}")),
    "two in one": (("Authorization", f"Bearer {MEMBER}, Bearer {ADMIN}"),),
    "another scheme": (("Authorization", f"Token {ADMIN}"),),
    "no scheme": (("Authorization", ADMIN),),
    "no token": (("Authorization", "Bearer "),),
    "no ASCII": (("Authorization", "Bearer é".encode()),),
    "no UTF-8": (("Authorization", b"Bearer \xff\xfe"),),
    "the hash of a token": (("Authorization", "Bearer " + "5e" * 32),),
    "a header for proxies": (("Proxy-Authorization", f"Bearer {ADMIN}"),),
    "a header of a proxy's": (("X-Forwarded-User", "root"), ("X-Remote-User", "root")),
    "a cookie": (("Cookie", f"token={ADMIN}"),),
}


async def test_a_credential_that_is_there_twice_or_elsewhere_lets_nobody_in(siege: Siege) -> None:
    for what, headers in STRANGERS.items():
        for path in (SYNC_STAGING, "/api/v1/sites/mysite/environments/staging/sync"):
            answer = await siege.send(request("POST", path, [*headers, JSON], CALL))
            assert answer.status in {400, 401}, what
            assert b"WWW-Authenticate: Bearer" in answer.head or answer.status == 400, what
    assert (await siege.ask("GET", f"/api/v1/runs?token={ADMIN}", bearer=None)).status == 401
    assert await siege.runs() == []


async def test_a_compressed_body_is_refused_before_it_is_unpacked(siege: Siege) -> None:
    body = gzip.compress(b"\0" * (64 << 20))
    for encoding in ("gzip", "deflate", "br", "identity, gzip", "GZIP", "x", "utf-8"):
        answer = await siege.deliver(body, [*signed(body, "d-1").items(), ("Content-Encoding", encoding)])
        assert answer.status == 415, encoding
        assert (b"is not a compression" in answer.body) == (encoding in {"x", "utf-8"}), encoding
    two = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    assert (await siege.deliver(body, [*signed(body, "d-1").items(), *two])).status == 415


async def test_a_body_whose_encoding_says_that_it_comes_as_it_is_counts(siege: Siege) -> None:
    for number, encoding in enumerate(("identity", "Identity", "", " ", "identity, identity")):
        headers = [*signed(BODY, f"d-{number}").items(), ("Content-Encoding", encoding)]
        assert (await siege.deliver(BODY, headers)).status == 202, encoding
    await siege.quiet()
