"""Comparisons that take as long whatever is compared: each secret goes through one of them, and no other."""

import hmac
import secrets
import time
from typing import Any

import pytest

from listener import access, signatures
from listener.access import Role, Token
from listener.deliveries import READERS
from listener.signatures import Accepted, Form, Rejected, Request
from tests.attack.test_secrets import made

FORM = Form(header="X-Own", timestamp_header="X-Own-Time", signed="{timestamp}.{body}")
BODY = b'{"site_id": "mysite"}'


class Guarded(bytes):
    """A secret that can't be compared, searched or hashed: only computed with."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a secret was compared in time that tells of it")

    def __hash__(self) -> int:
        raise AssertionError("a secret was looked up in time that tells of it")


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What has been compared in constant time."""
    pairs: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        pairs.append((bytes(one), bytes(other)))
        return bool(real(one, other))

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return pairs


def requested(scheme: str, secret: str) -> Request:
    headers = signatures.sign(scheme, secret.encode(), "d-1", "push", BODY, time.time(), form_of(scheme))
    pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return Request(pairs, BODY, secret.encode() if scheme == "path" else b"")


def form_of(scheme: str) -> Form | None:
    return FORM if scheme == "hmac" else None


@pytest.mark.parametrize("scheme", READERS)
def test_every_scheme_compares_each_of_its_secrets_in_constant_time(
    scheme: str, compared: list[tuple[bytes, bytes]]
) -> None:
    known = [made(scheme) for _ in range(3)]
    guarded = [Guarded(secret.encode()) for secret in known]
    for place, secret in enumerate(known):
        compared.clear()
        request = requested(scheme, secret)
        verdict = signatures.verify(scheme, guarded, request, time.time(), form_of(scheme))
        assert verdict == Accepted(place)
        assert len(compared) == len(known), "every secret is compared, whichever matches"
        assert len({one for one, _ in compared}) == 1
    compared.clear()
    stranger = requested(scheme, made(scheme))
    assert isinstance(signatures.verify(scheme, guarded, stranger, time.time(), form_of(scheme)), Rejected)
    assert len(compared) == len(known)


def test_a_token_is_compared_with_every_known_one_by_its_hash_alone(
    compared: list[tuple[bytes, bytes]],
) -> None:
    texts = [secrets.token_urlsafe(32).encode() for _ in range(5)]
    tokens = [Token(str(place), access.digest(text), Role.ADMIN) for place, text in enumerate(texts)]
    for place, text in enumerate(texts):
        compared.clear()
        found = access.find_token(text, tokens)
        assert found is not None
        assert found.name == str(place)
        assert len(compared) == len(tokens)
        assert not any(text in pair for pair in compared)
    compared.clear()
    assert access.find_token(b"unknown", tokens) is None
    assert len(compared) == len(tokens)
