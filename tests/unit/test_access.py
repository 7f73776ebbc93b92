"""Tokens, sessions and callers: who they are, what they cover, how they are presented."""

import base64
import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.access import (
    Role,
    Session,
    StudioCredential,
    Token,
    basic_password,
    bearer_token,
    digest,
    find_token,
    studio_session,
    studio_token,
)

TEXT = secrets.token_urlsafe(32).encode()
ADMIN = Token("root", digest(TEXT), Role.ADMIN)
MEMBER = Token("editors", digest(b"member"), Role.MEMBER, frozenset({"mysite"}), expires=1000.0)


def test_a_token_is_known_by_its_text() -> None:
    assert find_token(TEXT, [MEMBER, ADMIN]) is ADMIN
    assert find_token(b"member", [MEMBER, ADMIN]) is MEMBER


@given(st.binary())
def test_any_other_text_is_unknown(text: bytes) -> None:
    assert find_token(text, [MEMBER, ADMIN]) in ({None} if text != b"member" else {MEMBER})


def test_the_hash_itself_does_not_let_in() -> None:
    assert find_token(ADMIN.sha256.encode(), [ADMIN]) is None


def test_a_token_expires() -> None:
    assert MEMBER.valid(999.9)
    assert not MEMBER.valid(1000.0)
    assert ADMIN.valid(1e12)


def test_a_member_covers_its_sites_and_an_admin_all() -> None:
    assert MEMBER.caller.covers("mysite")
    assert not MEMBER.caller.covers("other")
    assert ADMIN.caller.covers("other")
    assert (MEMBER.caller.visible, ADMIN.caller.visible) == (frozenset({"mysite"}), None)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Basic abc", None),
        (b"", None),
        (b"Bearer\tabc", None),
    ],
)
def test_a_bearer_header_carries_a_token(header: bytes, token: bytes | None) -> None:
    assert bearer_token(header) == token


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (basic(b"ci:abc"), b"abc"),
        (basic(b":abc"), b"abc"),
        (basic(b"anybody:a:b"), b"a:b"),
        (basic("jörg:schlüssel".encode()), "schlüssel".encode()),
        (b"basic   " + base64.b64encode(b"ci:abc"), b"abc"),
        (basic(b"ci:"), None),
        (basic(b"abc"), None),
        (basic(b""), None),
        (basic(b"ci:\xff"), None),
        (basic(b"ci:a\nb"), None),
        (basic(b"c\x00i:ab"), None),
        (b"Basic " + base64.b64encode(b"ci:ab").rstrip(b"="), None),
        (b"Basic " + base64.b64encode(b"ci:abc") + b"=", None),
        (b"Basic Y2k6 YWJj", None),
        (b"Basic Y2k6YWJj, Basic Y2k6YWJj", None),
        (b"Basic Y2k6\nYWJj", None),
        (b"BasicY2k6YWJj", None),
        (b"Basic", None),
        (b"Bearer Y2k6YWJj", None),
        (b"", None),
    ],
)
def test_the_password_of_basic_is_a_token_whatever_the_user(header: bytes, token: bytes | None) -> None:
    assert basic_password(header) == token


@given(st.binary())
def test_no_header_breaks_the_reading_of_a_password(text: bytes) -> None:
    basic_password(text)
    assert basic_password(basic(text)) is None or b":" in text


SESSION = Session(digest(b"id"), MEMBER.name, MEMBER.sha256, expires=500.0)


def test_a_session_stands_for_its_token_until_it_expires() -> None:
    assert SESSION.token_among([ADMIN, MEMBER], 499.9) is MEMBER
    assert SESSION.token_among([ADMIN, MEMBER], 500.0) is None


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [ADMIN],
        [replace(MEMBER, name="others")],
        [replace(MEMBER, sha256=digest(b"renewed"))],
        [replace(MEMBER, expires=100.0)],
    ],
    ids=["removed", "another", "renamed", "renewed", "expired"],
)
def test_a_token_that_is_gone_changed_or_expired_ends_its_sessions(tokens: list[Token]) -> None:
    assert SESSION.token_among(tokens, 100.0) is None


@pytest.mark.parametrize(
    ("text", "like_studios"),
    [
        (b"eyJh.a2V5.aXY.dGV4dA.dGFn", True),
        (b"eyJh..aXY.dGV4dA.dGFn", True),
        (b"sst_pQ3kX-b2_x9fTq0Zr8sLw1Vn5Yc7Ua4Md6Ge0Ih2JkE", False),
        (b"eyJh.cGF5.c2ln", False),
        (b"eyJh.a2V5.aXY.dGV4dA.dGFn.x", False),
        (b"eyJh.a2V5.aXY.dGV4dA.", False),
        (b"eyJh.a2V5.aXY.dGV4dA.dG Fn", False),
        (b"eyJh.a2V5.aXY.dGV4dA.dGFn\r\nX: y", False),
        (b"", False),
    ],
)
def test_only_what_looks_like_a_token_of_studios_is_shown_to_studio(text: bytes, like_studios: bool) -> None:
    assert studio_token(text) == (StudioCredential(bearer=text.decode()) if like_studios else None)


def test_a_session_of_studios_wants_its_xsrf_token_in_a_header_too() -> None:
    assert studio_session("4F3A", "b0-c1", "b0-c1") == StudioCredential(session="4F3A", xsrf="b0-c1")
    for wrong in ("", "b0-c", "B0-C1", "schlüssel", "\udcff"):
        assert studio_session("4F3A", "b0-c1", wrong) is None


@pytest.mark.parametrize("bad", ["", "a b", "a;b", 'a"b', "a\r\nb", "a,b", "ä", "a" * 257])
def test_what_could_be_more_than_a_cookie_is_none(bad: str) -> None:
    assert studio_session(bad, "b0", "b0") is None
    assert studio_session("4F3A", bad, bad) is None
