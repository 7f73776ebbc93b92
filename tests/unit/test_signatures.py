"""Verifiers accept what their senders sign, refuse everything else, and never raise."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from listener.signatures import (
    SCHEMES,
    Accepted,
    Form,
    Headers,
    Rejected,
    Request,
    Verdict,
    redaction_forms,
    sign,
    verify,
)
from tests.vectors import OURS, form_of, refused_by, request_of, scheme_of, secrets_of

NOW = 1_700_000_000.0

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WHSK = b"whsk_" + base64.b64encode(bytes(range(32)) + PRIVATE.public_key().public_bytes_raw())
WHPK = b"whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw())

STRIPE = Form("Stripe-Signature", signature_key="v1", timestamp_key="t", signed="{timestamp}.{body}")
SLACK = Form("X-Slack-Signature", prefix="v0=", timestamp_header="X-Time", signed="v0:{timestamp}:{body}")
SHA512 = Form("X-Sign", algorithm="sha512", encoding="base64")

WAYS: Mapping[str, tuple[str, Form | None, tuple[bytes, ...], tuple[bytes, ...]]] = {
    "github": ("github", None, (b"It's a Secret to Everybody", b"x"), ()),
    "gitlab token": ("gitlab", None, (b"gl-6f1c0f2f-secret-token", b"x"), ()),
    "gitlab signed": ("gitlab", None, (b"whsec_" + base64.b64encode(b"g" * 32), b"whsec_" + b"B" * 32), ()),
    "gitea": ("gitea", None, (b"a secret", b"x"), ()),
    "forgejo": ("forgejo", None, (b"a secret", b"x"), ()),
    "gogs": ("gogs", None, (b"a secret", b"x"), ()),
    "bitbucket": ("bitbucket", None, (b"a secret", b"x"), ()),
    "azure-devops": ("azure-devops", None, (b"hook:pa:ss w\xc3\xb6rd", b"hook:other"), ()),
    "standard-webhooks v1": (
        "standard-webhooks",
        None,
        (b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b"whsec_" + b"C" * 32),
        (),
    ),
    "standard-webhooks v1a": ("standard-webhooks", None, (WHPK, b"whpk_" + b"A" * 43 + b"="), (WHSK,)),
    "hmac": ("hmac", Form(), (b"a secret", b"x"), ()),
    "hmac as Stripe": ("hmac", STRIPE, (b"a secret", b"x"), ()),
    "hmac as Slack": ("hmac", SLACK, (b"a secret", b"x"), ()),
    "hmac by SHA-512": ("hmac", SHA512, (b"a secret", b"x"), ()),
    "basic": ("basic", None, (b"deployer:a long password", b"deployer:an older password"), ()),
    "bearer": ("bearer", None, (b"9f8e7d6c5b4a39281706f5e4d3c2b1a0", b"other"), ()),
    "path": ("path", None, (b"9f8e7d6c5b4a3928-_", b"0123456789abcdef"), ()),
}
"""Each way to sign: the scheme, its form, the secrets, and what the sender signs with where that differs."""

SIGNED = {
    name for name, (scheme, *_) in WAYS.items() if scheme not in {"azure-devops", "basic", "bearer"}
} - {
    "gitlab token",
    "path",
}
"""The ways that cover the body."""

SECURITY = {
    "x-hub-signature-256",
    "x-hub-signature",
    "x-gitlab-token",
    "x-gitea-signature",
    "x-forgejo-signature",
    "x-gogs-signature",
    "authorization",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-signature",
    "stripe-signature",
    "x-slack-signature",
    "x-time",
    "x-sign",
}
"""The headers that are verified."""

any_way = pytest.mark.parametrize("way", WAYS)
WAY_NAMES = st.sampled_from(sorted(WAYS))


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def made(way: str, body: bytes, now: float = NOW) -> Request:
    """What a sender sends."""
    scheme, form, secrets, private = WAYS[way]
    headers = sign(scheme, (private or secrets)[0], "delivery-1", "push", body, now, form)
    return Request(raw(headers), body, secrets[0] if scheme == "path" else b"")


def judged(way: str, request: Request, now: float = NOW, secrets: tuple[bytes, ...] | None = None) -> Verdict:
    scheme, form, own, _ = WAYS[way]
    return verify(scheme, own if secrets is None else secrets, request, now, form)


def test_every_scheme_is_tried_here() -> None:
    assert {scheme for scheme, *_ in WAYS.values()} == set(SCHEMES)


@pytest.mark.parametrize("vector", OURS, ids=lambda vector: vector["name"])
def test_the_sample_is_judged_as_its_specification_says(vector: dict[str, Any]) -> None:
    secrets = [secret.encode() for secret in secrets_of(vector)]
    verdict = verify(
        scheme_of(vector), secrets, request_of(vector), vector.get("now_unix", NOW), form_of(vector)
    )
    refused_here = refused_by(vector) in {"signature", "config"}
    assert isinstance(verdict, Rejected if refused_here else Accepted)


@pytest.mark.parametrize("sender", ["gitea", "forgejo", "gogs"])
def test_a_form_of_a_sender_that_signs_the_payload_alone_is_refused_with_what_to_choose(sender: str) -> None:
    body = b"payload=%7B%7D"
    for signed_over in (body, b"{}"):
        request = replace(made(sender, signed_over), body=body)
        headers = [(n, v) for n, v in request.headers if n != b"Content-Type"]
        form = (b"Content-Type", b"application/x-www-form-urlencoded")
        verdict = judged(sender, replace(request, headers=[*headers, form]))
        assert isinstance(verdict, Rejected)
        assert "choose application/json at the sender" in verdict.reason


HOSTILE_VALUES = st.binary(max_size=100) | st.sampled_from(
    [
        b"v1,AAAA",
        b"v1," + b"A" * 43 + b"=",
        b"v1a," + b"A" * 86 + b"==",
        b"1700000000",
        b"sha256=" + b"a" * 64,
        b"a" * 64,
        b"t=1700000000,v1=" + b"a" * 64,
        b"v0=" + b"a" * 64,
        b"Basic %%%",
        b"Basic aG9vaw==",
        b"Bearer x",
    ]
)
HOSTILE_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(sorted(name.encode() for name in SECURITY)) | st.binary(max_size=20), HOSTILE_VALUES
    ),
    max_size=8,
)


@given(
    WAY_NAMES,
    HOSTILE_HEADERS,
    st.binary(max_size=200),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=40), max_size=3) | st.none(),
    st.floats(0, 1e12),
)
def test_whatever_arrives_is_refused_without_an_exception(
    way: str, headers: Headers, body: bytes, path: bytes, secrets: list[bytes] | None, now: float
) -> None:
    # A sender that shows the very secret is no stranger.
    assume(secrets is None or {path, *(value for _, value in headers)}.isdisjoint(secrets))
    request = Request(headers, body, path)
    assert isinstance(judged(way, request, now, None if secrets is None else tuple(secrets)), Rejected)


@given(WAY_NAMES, HOSTILE_HEADERS, st.binary(max_size=50))
def test_headers_beside_good_ones_are_judged_without_an_exception(
    way: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    good = made(way, body)
    assert isinstance(judged(way, Request([*good.headers, *headers], body, good.secret)), Accepted | Rejected)


@given(WAY_NAMES, st.binary(max_size=500), st.integers(0, 2), st.integers(1, 4_000_000_000))
def test_what_is_signed_verifies_and_tells_the_secret(way: str, body: bytes, index: int, now: int) -> None:
    _, _, (secret, other), _ = WAYS[way]
    secrets = [other, other]
    secrets.insert(index, secret)
    assert judged(way, made(way, body, now), float(now), tuple(secrets)) == Accepted(index)


@any_way
def test_a_secret_that_is_unusable_is_passed_over_and_counted(way: str) -> None:
    secret = WAYS[way][2][0]
    assert judged(way, made(way, b"{}"), secrets=(b"", b" ", secret)) == Accepted(2)
    for unusable in ((), (b"",), (b" ",)):
        assert judged(way, made(way, b"{}"), secrets=unusable) == Rejected("the hook has no usable secret")


@given(st.sampled_from(sorted(SIGNED)), st.binary(min_size=1, max_size=200), st.data())
def test_a_changed_bit_of_the_body_is_refused(way: str, body: bytes, data: st.DataObject) -> None:
    request = made(way, body)
    changed = flipped(body, data.draw(st.integers(0, len(body) * 8 - 1)))
    assert isinstance(judged(way, Request(request.headers, changed)), Rejected)


@given(WAY_NAMES, st.binary(max_size=50), st.data())
def test_a_changed_bit_of_what_is_verified_is_refused(way: str, body: bytes, data: st.DataObject) -> None:
    """The name of a scheme of HTTP's is the one thing whose case does not count."""
    request = made(way, body)
    verified = [place for place, pair in enumerate(request.headers) if pair[0].decode().lower() in SECURITY]
    if not verified:
        changed = flipped(request.secret, data.draw(st.integers(0, len(request.secret) * 8 - 1)))
        assert isinstance(judged(way, Request(request.headers, body, changed)), Rejected)
        return
    place = data.draw(st.sampled_from(verified))
    name, value = request.headers[place]
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    headers = [*request.headers[:place], (name, flipped(value, bit)), *request.headers[place + 1 :]]
    same_name = name == b"Authorization" and flipped(value, bit).lower() == value.lower() and bit // 8 < 6
    assert isinstance(judged(way, Request(headers, body)), Accepted if same_name else Rejected)


@given(WAY_NAMES, st.binary(max_size=50), st.data())
def test_a_changed_bit_of_the_secret_is_refused(way: str, body: bytes, data: st.DataObject) -> None:
    secret = WAYS[way][2][0]
    changed = flipped(secret, data.draw(st.integers(0, len(secret) * 8 - 1)))
    assert isinstance(judged(way, made(way, body), secrets=(changed,)), Rejected)


def flipped(text: bytes, bit: int) -> bytes:
    changed = bytearray(text)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@any_way
def test_a_security_header_that_is_doubled_missing_or_empty_is_refused(way: str) -> None:
    request = made(way, b"{}")
    assert isinstance(judged(way, request), Accepted)
    for place, (name, value) in enumerate(request.headers):
        if name.decode().lower() in SECURITY:
            before, after = request.headers[:place], request.headers[place + 1 :]
            for wrong in ([(name, value), (name, value)], [(name, value), (name, b"x")], [], [(name, b"")]):
                assert isinstance(judged(way, Request([*before, *wrong, *after], b"{}")), Rejected)
            joined = [*before, (name, value + b", " + value), *after]
            assert isinstance(judged(way, Request(joined, b"{}")), Rejected)


@any_way
def test_the_name_of_a_header_counts_in_any_case(way: str) -> None:
    request = made(way, b"{}")
    headers = [(name.upper(), value) for name, value in request.headers]
    assert isinstance(judged(way, Request(headers, b"{}", request.secret)), Accepted)


@given(st.binary(max_size=200))
def test_github_is_the_plain_hmac_of_the_body(body: bytes) -> None:
    digest = hmac.new(WAYS["github"][2][0], body, hashlib.sha256).hexdigest()
    headers = [(b"x-hub-signature-256", f"sha256={digest}".encode())]
    assert judged("github", Request(headers, body)) == Accepted(0)


@given(st.text(max_size=100), st.integers(-300, 300))
def test_the_library_of_standard_webhooks_agrees(body: str, off: int) -> None:
    way = "standard-webhooks v1"
    secret = WAYS[way][2][0]
    headers = sign("standard-webhooks", secret, "msg_1", "publish", body.encode(), NOW + off)
    assert judged(way, Request(raw(headers), body.encode())) == Accepted(0)
    library = Webhook(secret.decode())
    theirs = library.sign("msg_1", datetime.fromtimestamp(NOW + off, UTC), body)
    assert theirs == headers["webhook-signature"]


@pytest.mark.parametrize(
    "way",
    ["standard-webhooks v1", "standard-webhooks v1a", "gitlab signed", "hmac as Stripe", "hmac as Slack"],
)
@pytest.mark.parametrize(
    ("off", "kind"), [(-301, Rejected), (-300, Accepted), (300, Accepted), (301, Rejected)]
)
def test_a_timestamp_may_be_five_minutes_off_both_ways(way: str, off: int, kind: type) -> None:
    assert isinstance(judged(way, made(way, b"{}", NOW + off)), kind)


def test_a_key_of_one_version_makes_no_signature_of_another() -> None:
    forged = sign("standard-webhooks", b"whsec_" + WHPK[5:], "msg_1", "publish", b"{}", NOW)
    assert isinstance(verify("standard-webhooks", [WHPK], Request(raw(forged), b"{}"), NOW), Rejected)
    relabelled = sign("standard-webhooks", WHSK, "msg_1", "publish", b"{}", NOW)
    relabelled["webhook-signature"] = relabelled["webhook-signature"].replace("v1a,", "v1,")
    assert isinstance(verify("standard-webhooks", [WHPK], Request(raw(relabelled), b"{}"), NOW), Rejected)


def test_the_two_versions_can_stand_side_by_side_while_a_sender_changes() -> None:
    secrets = [WAYS["standard-webhooks v1"][2][0], WHPK]
    for index, way in enumerate(("standard-webhooks v1", "standard-webhooks v1a")):
        assert judged(way, made(way, b"{}"), secrets=tuple(secrets)) == Accepted(index)


def test_gitlab_s_signature_must_verify_where_there_is_one_whatever_the_token() -> None:
    token, signing = WAYS["gitlab token"][2][0], WAYS["gitlab signed"][2][0]
    by_token, signed = made("gitlab token", b"{}"), made("gitlab signed", b"{}")
    both = Request([*signed.headers, (b"X-Gitlab-Token", token)], b"{}")
    assert verify("gitlab", [token, signing], both, NOW) == Accepted(1)
    assert verify("gitlab", [token, signing], by_token, NOW) == Accepted(0)
    broken = Request([*by_token.headers, (b"webhook-signature", b"v1,AAAA")], b"{}")
    for secrets in ([token], [token, signing], [signing]):
        assert isinstance(verify("gitlab", secrets, broken, NOW), Rejected)
    assert isinstance(verify("gitlab", [token], both, NOW), Rejected)
    assert isinstance(verify("gitlab", [signing], by_token, NOW), Rejected)


def test_a_signing_token_is_never_taken_as_a_plain_one() -> None:
    signing = WAYS["gitlab signed"][2][0]
    request = Request([(b"X-Gitlab-Token", signing)], b"{}")
    assert isinstance(verify("gitlab", [signing], request, NOW), Rejected)


def test_a_list_may_have_several_signatures_of_which_one_is_ours() -> None:
    (name, value), *rest = [pair for pair in made("hmac as Stripe", b"{}").headers if b"Stripe" in pair[0]]
    assert not rest
    older = value.replace(b",v1=", b",v1=" + b"0" * 64 + b",v0=1,v1=")
    assert judged("hmac as Stripe", Request([(name, older)], b"{}")) == Accepted(0)
    long = value + b",v0=1" * 40
    assert isinstance(judged("hmac as Stripe", Request([(name, long)], b"{}")), Rejected)


def test_the_scheme_of_http_is_known_in_any_case_and_nothing_else_is() -> None:
    ((_, _), (name, value)) = made("basic", b"").headers
    assert judged("basic", Request([(name, b"bASIC " + value[6:])], b"")) == Accepted(0)
    for wrong in (value.replace(b" ", b"  "), b"Bearer " + value[6:], value[6:], value + b" ", b"Basic"):
        assert isinstance(judged("basic", Request([(name, wrong)], b"")), Rejected)


def test_only_http_s_own_schemes_challenge() -> None:
    challenges = {name: scheme.challenge.partition(" ")[0] for name, scheme in SCHEMES.items()}
    assert {name: each for name, each in challenges.items() if each} == {
        "basic": "Basic",
        "azure-devops": "Basic",
        "bearer": "Bearer",
    }


@pytest.mark.parametrize("size", [24, 25, 26, 64])
@pytest.mark.parametrize("padding", ["", "="])
def test_a_secret_of_standard_webhooks_is_base64_with_its_prefix(size: int, padding: str) -> None:
    encoded = base64.b64encode(bytes(size)).decode()
    secret = "whsec_" + (encoded if padding else encoded.rstrip("="))
    assert SCHEMES["standard-webhooks"].fault(secret.encode()) == ""


@pytest.mark.parametrize("scheme", ["standard-webhooks", "gitlab"])
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
    ],
)
def test_a_secret_of_standard_webhooks_is_nothing_else(scheme: str, secret: str) -> None:
    assert (
        SCHEMES[scheme]
        .fault(secret.encode())
        .startswith("is not a secret of Standard Webhooks; write whsec_")
    )


@pytest.mark.parametrize(
    ("scheme", "secret", "fault"),
    [
        ("standard-webhooks", b"A" * 32, "is not a secret of Standard Webhooks"),
        ("standard-webhooks", b"whpk_" + b"A" * 42, "is not a secret of Standard Webhooks"),
        ("standard-webhooks", WHSK, "is a private key, which only the sender may have; write the public key"),
        ("basic", b"password", "is not a user and a password; write user:password on one line"),
        ("basic", b":password", "is not a user and a password"),
        ("basic", b"user: ", "is not a user and a password"),
        ("azure-devops", b"user:a\nb", "is not a user and a password"),
        ("bearer", b"two words", "is not a bearer token"),
        ("path", b"short", "can't be part of a path; write 16 or more random letters, digits, - and _"),
        ("path", b"0123456789abcdef/", "can't be part of a path"),
    ],
)
def test_what_is_no_secret_of_its_scheme_is_told(scheme: str, secret: bytes, fault: str) -> None:
    assert SCHEMES[scheme].fault(secret).startswith(fault)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("secret", ["", " ", "\n"])
def test_an_empty_secret_is_none_whatever_the_scheme(scheme: str, secret: str) -> None:
    assert SCHEMES[scheme].fault(secret.encode()).startswith("is empty")


def test_the_log_leaves_a_password_out_in_each_of_its_forms() -> None:
    assert set(redaction_forms("basic", "user:long enough")) == {
        "user:long enough",
        "long enough",
        "dXNlcjpsb25nIGVub3VnaA==",
    }
    assert "pw" not in set(redaction_forms("basic", "user:pw"))
    assert list(redaction_forms("github", "a:b")) == ["a:b"]
