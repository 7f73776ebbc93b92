"""A verified delivery is read strictly, and selects what is configured or nothing."""

import json
import subprocess
from dataclasses import fields
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.deliveries import (
    DEPTH_MOST,
    Delivery,
    Facts,
    Hook,
    Ignored,
    kept_facts,
    kept_headers,
    read,
    select,
)
from listener.errors import MalformedDeliveryError, RequestError, UnsupportedMediaError
from listener.sites import Environment, Policy, RepositoryAddress, Site, Sites
from tests.unit.test_signatures import SAMPLES, body_of, headers_of

GITHUB = Hook("forge", "github", (b"s",), repositories={"acme/mysite": "mysite", "acme/gone": "gone"})
STANDARD = Hook("deployer", "standard-webhooks", (b"s",), sites=frozenset({"mysite", "gone"}))


def environment(name: str, *, follow: bool) -> Environment:
    address = RepositoryAddress("studio", "/srv/mysite")
    return Environment.of("mysite", name, address, "live", Policy.FORWARD, [(address, name)], follow=follow)


STAGING, QA = environment("staging", follow=True), environment("qa", follow=False)
SITES = Sites.of(
    [
        Site("mysite", STAGING.legs[0].repository, "live", {"staging": STAGING, "qa": QA}),
        Site("quiet", STAGING.legs[0].repository, "live", {"qa": QA}),
    ]
)


def github(body: bytes | dict[str, Any], **headers: str) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": "d-1",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Delivery("forge", tuple((n.encode(), v.encode()) for n, v in named.items() if v), raw, 0.0)


def standard(body: dict[str, Any]) -> Delivery:
    headers = ((b"content-type", b"application/json"), (b"webhook-id", b"msg_1"))
    return Delivery("deployer", headers, json.dumps(body).encode(), 0.0)


def push(ref: Any = "refs/heads/live", repository: str = "acme/mysite", **more: Any) -> dict[str, Any]:
    return {"ref": ref, "repository": {"full_name": repository}, "after": "1" * 40, **more}


@pytest.mark.parametrize(
    "vector",
    [v for v in SAMPLES if v["scheme"] == "github" and v.get("stage") != "signature" and "Content" in str(v)],
    ids=lambda vector: vector["name"],
)
def test_the_sample_is_read_as_its_specification_says(vector: dict[str, Any]) -> None:
    delivery = Delivery("forge", tuple(headers_of(vector)), body_of(vector), 0.0)
    if vector["expect"] == "reject":
        with pytest.raises((MalformedDeliveryError, UnsupportedMediaError)):
            read(GITHUB, delivery)
        return
    facts, expected = read(GITHUB, delivery), vector["expect_event"]
    assert facts.publish == (expected["kind"] == "push")
    if facts.publish:
        assert (facts.ref, facts.repository) == (expected["ref"], expected["repo"])
        assert (facts.key, facts.deleted) == (expected["delivery_id"], expected["deleted"])


def test_a_push_to_live_selects_what_follows_it() -> None:
    assert select(read(GITHUB, github(push())), GITHUB, SITES) == (STAGING,)


def test_a_form_around_the_json_is_read_as_github_sends_it() -> None:
    body = urlencode({"payload": json.dumps(push(repository="a/b"))}).encode()
    facts = read(GITHUB, github(body, Content_Type="application/x-www-form-urlencoded"))
    assert (facts.ref, facts.repository) == ("refs/heads/live", "a/b")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (push(ref="refs/heads/master"), "refs/heads/master is not the live branch of mysite"),
        (push(ref="refs/tags/live"), "refs/tags/live is not the live branch of mysite"),
        (push(ref="refs/heads/live/x"), "is not the live branch"),
        (push(deleted=True), "the live branch of mysite was deleted"),
        (push(repository="acme/other"), "does not cover the repository acme/other"),
        (push(repository="ACME/mysite"), "does not cover the repository"),
        (push(repository="../mysite"), "does not cover the repository ../mysite"),
        (push(repository="acme/gone"), "the site gone is not configured"),
        (push(ref="refs/heads/$(id)"), "is not the live branch"),
        (push(ref="refs/heads/--upload-pack=x"), "is not the live branch"),
    ],
)
def test_what_selects_nothing_is_ignored_with_the_reason(body: dict[str, Any], reason: str) -> None:
    ignored = select(read(GITHUB, github(body)), GITHUB, SITES)
    assert isinstance(ignored, Ignored)
    assert reason in ignored.reason


@pytest.mark.parametrize("event", ["ping", "create", "pull_request", "x" * 256])
def test_other_events_are_ignored(event: str) -> None:
    ignored = select(read(GITHUB, github({"ref": 7}, X_GitHub_Event=event)), GITHUB, SITES)
    assert isinstance(ignored, Ignored)
    assert len(ignored.reason) < 200


@pytest.mark.parametrize(
    ("body", "selected"),
    [
        ({"site_id": "mysite"}, (STAGING,)),
        ({"site_id": "mysite", "environment": "live", "event": "publish", "more": [1]}, (STAGING,)),
        ({"site_id": "mysite", "ref": "refs/heads/live"}, (STAGING,)),
        (
            {"site_id": "mysite", "environment": "staging"},
            Ignored("refs/heads/staging is not the live branch of mysite"),
        ),
        ({"site_id": "mysite", "event": "start"}, Ignored("the event start tells of no publish")),
        ({"site_id": "quiet"}, Ignored("the hook does not cover the site quiet")),
        ({"site_id": "../mysite"}, Ignored("the hook does not cover the site ../mysite")),
        ({"site_id": "a\x1b[31m\n"}, Ignored("the hook does not cover the site a\\x1b[31m\\x0a")),
        ({}, Ignored("the hook does not cover the site ")),
    ],
)
def test_a_body_of_our_own_definition_names_its_site(body: dict[str, Any], selected: Any) -> None:
    assert select(read(STANDARD, standard(body)), STANDARD, SITES) == selected


def test_a_hook_of_one_site_needs_no_name_and_heeds_none() -> None:
    fixed = Hook("deployer", "standard-webhooks", (b"s",), site="mysite")
    for body in ({}, {"site_id": "other"}):
        assert select(read(fixed, standard(body)), fixed, SITES) == (STAGING,)


def test_a_site_where_nothing_follows_is_told() -> None:
    fixed = Hook("deployer", "standard-webhooks", (b"s",), site="quiet")
    assert select(read(fixed, standard({})), fixed, SITES) == Ignored("no environment of quiet follows live")


DEEP = b'{"a":' + b"[" * 100_000
HOSTILE = {
    "duplicate key": b'{"ref": "refs/heads/live", "ref": "refs/heads/x"}',
    "nested duplicate": b'{"repository": {"full_name": "a", "full_name": "b"}}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "list": b"[]",
    "text": b'"live"',
    "nothing": b"",
    "trailing": b"{} {}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "lone surrogate": b'{"ref": "\\ud800"}',
    "lone surrogate in a list": b'{"a": [["\\uDFFF"]]}',
    "lone surrogate in a key": b'{"\\udc00": 1}',
    "depth": DEEP,
    "escapes without an end": b'{"a": "' + b'\\"' * 500_000 + b"\\",
    "escapes before a bad one": b'{"a": "' + b'\\"' * 500_000 + b'\\\n"}',
    "number without a value": b'{"a": 1e999}',
    "depth closed": b'{"a":' + b"[" * 65 + b"]" * 65 + b"}",
    "depth behind a quote": b'{"a": "\\"' + DEEP,
    "number": b'{"a": ' + b"9" * 5000 + b"}",
    "control": b'{"a": "\n"}',
    "comment": b"{} // end",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_strict_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedDeliveryError, match=r"is not (strict JSON|a JSON object)"):
        read(GITHUB, github(body))


def test_a_whole_surrogate_pair_is_text() -> None:
    body = json.dumps(push(message="\N{PARTY POPPER}")).encode()
    assert b"\\ud83c\\udf89" in body
    assert read(GITHUB, github(body)).publish


@pytest.mark.parametrize(
    "payload", ["payload={0}&payload={0}", "payload=&payload={0}", "payload={0}&payload=", "other={0}", "{0}"]
)
def test_a_form_without_exactly_one_payload_is_malformed(payload: str) -> None:
    body = payload.format(quote(json.dumps(push()))).encode()
    with pytest.raises(MalformedDeliveryError):
        read(GITHUB, github(body, Content_Type="application/x-www-form-urlencoded"))


def test_brackets_in_text_do_not_count_as_depth() -> None:
    assert read(GITHUB, github({**push(), "message": "[{" * 10_000 + '\\"'})).publish
    deep: Any = []
    for _ in range(DEPTH_MOST - 2):
        deep = [deep]
    assert read(GITHUB, github({**push(), "deep": deep})).publish


@pytest.mark.parametrize(
    "ref",
    [
        7,
        None,
        "",
        "live",
        "refs/heads/--upload-pack=touch /tmp/x",
        "refs/heads/a..b",
        "refs/heads/a.lock",
        "refs/heads/.a",
        "refs/heads/a/",
        "refs/heads/a\n",
        "refs/heads/a@{1}",
        "refs/heads/" + "a" * 255,
        "refs/heads/a\\b",
    ],
)
def test_what_can_be_no_ref_is_malformed(ref: Any) -> None:
    with pytest.raises(MalformedDeliveryError):
        read(GITHUB, github(push(ref=ref)))


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from([*"ab/.@{~^:?*[\\ -é$(\n\x7f", ".lock", "..", "@{", "//", "/.", "--x="]), max_size=8
    )
)
def test_a_ref_is_one_exactly_when_git_says_so(parts: list[str]) -> None:
    ref = "refs/" + "".join(parts)
    allowed = subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0
    try:
        assert read(GITHUB, github(push(ref=ref))).ref == ref
    except MalformedDeliveryError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize(
    "headers",
    [
        {"X_GitHub_Event": ""},
        {"X_GitHub_Delivery": ""},
        {"X_GitHub_Delivery": "a\r\nSet-Cookie: x"},
        {"X_GitHub_Delivery": "x" * 300},
        {"Content_Type": "application/json; charset=utf-16"},
        {"Content_Type": ""},
    ],
)
def test_headers_that_a_forge_never_sends_are_malformed(headers: dict[str, str]) -> None:
    with pytest.raises(MalformedDeliveryError):
        read(GITHUB, github(push(), **headers))


def test_another_content_type_is_not_read() -> None:
    with pytest.raises(UnsupportedMediaError):
        read(GITHUB, github(push(), Content_Type="text/plain"))


@given(st.binary(max_size=300), st.sampled_from(["application/json", "application/x-www-form-urlencoded"]))
def test_any_bytes_are_read_or_refused_in_our_own_words(body: bytes, media_type: str) -> None:
    try:
        facts = read(GITHUB, github(body, Content_Type=media_type))
    except RequestError:
        return
    assert isinstance(facts, Facts)


def test_signatures_and_credentials_are_not_kept() -> None:
    delivery = github(
        push(), X_Hub_Signature_256="sha256=secret", Authorization="Bearer secret", Cookie="secret"
    )
    assert kept_headers(delivery) == {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": "d-1",
    }


def test_facts_are_kept_short_and_printable() -> None:
    facts = read(STANDARD, standard({"site_id": "x\0" * 5000}))
    kept = kept_facts(facts)
    assert set(kept) == {field.name for field in fields(Facts)}
    assert kept["site"].isprintable()
    assert len(kept["site"]) < 500
    json.dumps(kept)
