"""Verifiers accept what their senders sign, refuse everything else, and never raise."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from listener.signatures import SCHEMES, Accepted, Headers, Rejected, sign, verify

SAMPLES = json.loads((Path(__file__).parents[1] / "samples" / "signatures.json").read_text())
OURS = [vector for vector in SAMPLES if vector["scheme"] in SCHEMES]

NOW = 1_700_000_000.0
SECRETS = {
    "github": b"It's a Secret to Everybody",
    "standard-webhooks": b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
SCHEME_NAMES = st.sampled_from(sorted(SCHEMES))


def headers_of(vector: dict[str, Any]) -> Headers:
    pairs = vector["headers_raw"] if "headers_raw" in vector else vector["headers"].items()
    return [(name.encode(), value.encode("utf-8")) for name, value in pairs]


def body_of(vector: dict[str, Any]) -> bytes:
    if "body_b64" in vector:
        return base64.b64decode(vector["body_b64"])
    body: str = vector["body_utf8"]
    return body.encode()


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.parametrize("vector", OURS, ids=lambda vector: vector["name"])
def test_the_sample_is_judged_as_its_specification_says(vector: dict[str, Any]) -> None:
    secrets = [secret.encode() for secret in vector.get("secrets", [vector.get("secret")])]
    verdict = verify(
        vector["scheme"], secrets, headers_of(vector), body_of(vector), vector.get("now_unix", NOW)
    )
    refused_here = vector["expect"] == "reject" and vector["stage"] in {"signature", "config"}
    assert isinstance(verdict, Rejected if refused_here else Accepted)


@given(
    SCHEME_NAMES,
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"X-Hub-Signature-256",
                    b"x-hub-signature",
                    b"webhook-id",
                    b"Webhook-Timestamp",
                    b"webhook-signature",
                ]
            )
            | st.binary(max_size=20),
            st.binary(max_size=100)
            | st.sampled_from([b"v1,AAAA", b"v1," + b"A" * 43 + b"=", b"1700000000", b"sha256=" + b"a" * 64]),
        ),
        max_size=8,
    ),
    st.binary(max_size=200),
    st.lists(st.binary(max_size=40), max_size=3),
    st.floats(0, 1e12),
)
def test_whatever_arrives_is_refused_without_an_exception(
    scheme: str, headers: Headers, body: bytes, secrets: list[bytes], now: float
) -> None:
    assert isinstance(verify(scheme, secrets, headers, body, now), Rejected)


@given(SCHEME_NAMES, st.binary(max_size=500), st.integers(0, 2), st.integers(1, 4_000_000_000))
def test_what_is_signed_verifies_and_tells_the_secret(scheme: str, body: bytes, index: int, now: int) -> None:
    secrets = [b"another secret", b"a third one", b"a fourth one"]
    if scheme == "standard-webhooks":
        secrets = [b"whsec_" + base64.b64encode(secret.ljust(24)) for secret in secrets]
    headers = raw(sign(scheme, secrets[index], "delivery-1", "push", body, now))
    assert verify(scheme, secrets, headers, body, float(now)) == Accepted(index)


@given(SCHEME_NAMES, st.binary(min_size=1, max_size=200), st.data())
def test_a_changed_bit_of_the_body_is_refused(scheme: str, body: bytes, data: st.DataObject) -> None:
    headers = raw(sign(scheme, SECRETS[scheme], "delivery-1", "push", body, NOW))
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    assert isinstance(verify(scheme, [SECRETS[scheme]], headers, bytes(changed), NOW), Rejected)


@given(st.binary(max_size=200))
def test_github_is_the_plain_hmac_of_the_body(body: bytes) -> None:
    digest = hmac.new(SECRETS["github"], body, hashlib.sha256).hexdigest()
    headers = [(b"x-hub-signature-256", f"sha256={digest}".encode())]
    assert verify("github", [SECRETS["github"]], headers, body, NOW) == Accepted(0)


@given(st.text(max_size=100), st.integers(-300, 300))
def test_the_library_of_standard_webhooks_agrees(body: str, off: int) -> None:
    secret = SECRETS["standard-webhooks"]
    headers = sign("standard-webhooks", secret, "msg_1", "publish", body.encode(), NOW + off)
    assert verify("standard-webhooks", [secret], raw(headers), body.encode(), NOW) == Accepted(0)
    library = Webhook(secret.decode())
    theirs = library.sign("msg_1", datetime.fromtimestamp(NOW + off, UTC), body)
    assert theirs == headers["webhook-signature"]


@pytest.mark.parametrize(
    ("off", "kind"), [(-301, Rejected), (-300, Accepted), (300, Accepted), (301, Rejected)]
)
def test_a_timestamp_may_be_five_minutes_off_both_ways(off: int, kind: type) -> None:
    secret = SECRETS["standard-webhooks"]
    headers = raw(sign("standard-webhooks", secret, "msg_1", "publish", b"{}", NOW + off))
    assert isinstance(verify("standard-webhooks", [secret], headers, b"{}", NOW), kind)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_security_header_that_is_doubled_is_refused_even_if_both_agree(scheme: str) -> None:
    secret = SECRETS[scheme]
    headers = raw(sign(scheme, secret, "delivery-1", "push", b"{}", NOW))
    assert isinstance(verify(scheme, [secret], headers, b"{}", NOW), Accepted)
    security = {b"X-Hub-Signature-256", b"webhook-id", b"webhook-timestamp", b"webhook-signature"}
    for pair in [pair for pair in headers if pair[0] in security]:
        assert isinstance(verify(scheme, [secret], [*headers, pair], b"{}", NOW), Rejected)


def test_a_hook_without_a_usable_secret_accepts_nothing() -> None:
    headers = raw(sign("github", b"", "delivery-1", "push", b"{}", NOW))
    for secrets in ([], [b""], [b" "]):
        assert isinstance(verify("github", secrets, headers, b"{}", NOW), Rejected)


@pytest.mark.parametrize("size", [24, 25, 26, 64])
@pytest.mark.parametrize("padding", ["", "="])
def test_a_secret_of_standard_webhooks_is_base64_with_its_prefix(size: int, padding: str) -> None:
    encoded = base64.b64encode(bytes(size)).decode()
    secret = "whsec_" + (encoded if padding else encoded.rstrip("="))
    assert SCHEMES["standard-webhooks"].fault(secret.encode()) == ""


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_" + "A" * 31,
        "whsec_" + "A" * 88,
        "whsec_" + "A" * 33,
        "whsec_" + "A" * 31 + "-",
        "whsec_" + "A" * 31 + "é",
        "A" * 32,
        "whpk_" + "A" * 43 + "=",
    ],
)
def test_a_secret_of_standard_webhooks_is_nothing_else(secret: str) -> None:
    assert (
        SCHEMES["standard-webhooks"]
        .fault(secret.encode())
        .startswith("is no secret of Standard Webhooks; write whsec_")
    )


@pytest.mark.parametrize("secret", ["", " ", "\n"])
def test_an_empty_secret_is_none_whatever_the_scheme(secret: str) -> None:
    assert SCHEMES["github"].fault(secret.encode()).startswith("is empty")
    assert SCHEMES["standard-webhooks"].fault(secret.encode()).startswith("is empty")
