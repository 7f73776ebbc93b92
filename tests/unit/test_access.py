"""Tokens: who they are, what they cover, how they are presented."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.access import Role, Token, bearer, digest, identify

TEXT = secrets.token_urlsafe(32).encode()
ADMIN = Token("root", digest(TEXT), Role.ADMIN)
MEMBER = Token("editors", digest(b"member"), Role.MEMBER, frozenset({"mysite"}), expires=1000.0)


def test_a_token_is_known_by_its_text() -> None:
    assert identify(TEXT, [MEMBER, ADMIN], 0.0) is ADMIN
    assert identify(b"member", [MEMBER, ADMIN], 0.0) is MEMBER


@given(st.binary())
def test_any_other_text_is_unknown(text: bytes) -> None:
    assert identify(text, [MEMBER, ADMIN], 0.0) in ({None} if text != b"member" else {MEMBER})


def test_the_hash_itself_does_not_let_in() -> None:
    assert identify(ADMIN.sha256.encode(), [ADMIN], 0.0) is None


def test_a_token_expires() -> None:
    assert identify(b"member", [MEMBER], 999.9) is MEMBER
    assert identify(b"member", [MEMBER], 1000.0) is None


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
    assert bearer(header) == token
