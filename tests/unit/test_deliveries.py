"""A verified delivery is read strictly, and selects what is configured or nothing."""

import json
from dataclasses import fields, replace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.deliveries import (
    DEPTH_MOST,
    FORGES,
    READERS,
    Change,
    Delivery,
    Facts,
    Hook,
    Ignored,
    Payload,
    Wanted,
    kept_facts,
    kept_headers,
    read,
    select,
)
from listener.errors import MalformedDeliveryError, RequestError, UnsupportedMediaError
from listener.signatures import SCHEMES, sign
from listener.sites import Environment, Policy, RepositoryAddress, Site, SitePattern, Sites
from tests.vectors import OURS, body_of, headers_of, refused_by, scheme_of

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


def hook(scheme: str, **more: Any) -> Hook:
    """A hook of a scheme that selects the site mysite, or what is said."""
    selecting = {} if {"sites", "repositories"} & more.keys() else {"site": "mysite"}
    return Hook("own", scheme, (b"s",), **{**selecting, **more})


def own(body: Any = b"", **headers: str) -> Delivery:
    """A delivery with a body of the sender's own."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
    return Delivery("own", tuple((n.encode(), v.encode()) for n, v in named.items() if v), raw, 0.0)


READ_BEYOND_HTTP = {"basic", "bearer", "hmac", "standard-webhooks"}


@pytest.mark.parametrize(
    "vector",
    [
        v
        for v in OURS
        if scheme_of(v) not in READ_BEYOND_HTTP
        and not v["name"].endswith("/official-hello-world")
        and refused_by(v) not in {"signature", "config"}
        and "Content" in str(v)
    ],
    ids=lambda vector: vector["name"],
)
def test_the_sample_is_read_as_its_specification_says(vector: dict[str, Any]) -> None:
    delivery = Delivery("forge", tuple(headers_of(vector)), body_of(vector), 0.0)
    forge = Hook("forge", scheme_of(vector), (b"s",))
    if vector["expect"] == "reject":
        assert refused(forge, delivery) or (
            refused_by(vector) == "policy"
            and isinstance(select(read(forge, delivery), forge, SITES), Ignored)
        )
        return
    facts, expected = read(forge, delivery), vector["expect_event"]
    assert facts.publish == (expected["kind"] == "push")
    if facts.publish:
        changes = expected.get("changes", [expected])
        assert facts.repository == expected["repo"]
        assert facts.key == expected["delivery_id"]
        assert facts.changes is not None
        assert [(c.ref, c.deleted) for c in facts.changes] == [(c["ref"], c["deleted"]) for c in changes]


def refused(forge: Hook, delivery: Delivery) -> bool:
    """Whether a delivery is not read at all."""
    try:
        read(forge, delivery)
    except (MalformedDeliveryError, UnsupportedMediaError):
        return True
    return False


def test_a_push_to_live_selects_what_follows_it() -> None:
    assert select(read(GITHUB, github(push())), GITHUB, SITES) == (STAGING,)


def test_a_form_around_the_json_is_read_as_github_sends_it() -> None:
    body = urlencode({"payload": json.dumps(push(repository="a/b"))}).encode()
    facts = read(GITHUB, github(body, Content_Type="application/x-www-form-urlencoded"))
    assert (facts.changes, facts.repository) == ((Change("refs/heads/live", "1" * 40),), "a/b")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (push(ref="refs/heads/master"), "branch master is not live of site mysite"),
        (push(ref="refs/tags/live"), "tag live is not live of site mysite"),
        (push(ref="refs/heads/live/x"), "branch live/x is not live of site mysite"),
        (push(deleted=True), "branch live of site mysite was deleted"),
        (push(repository="acme/other"), "repository acme/other is not among the repositories of hook forge"),
        (push(repository="../mysite"), "repository ../mysite is not among"),
        (push(repository="acme/gone"), "site gone is not configured"),
        (push(ref="refs/heads/$(id)"), "branch $(id) is not live"),
        (push(ref="refs/heads/--upload-pack=x"), "is not live of site"),
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
            Ignored("branch staging is not live of site mysite"),
        ),
        ({"site_id": "mysite", "event": "start"}, Ignored("the event start is not a publish")),
        ({"site_id": "quiet"}, Ignored("site quiet is not among the sites of hook deployer")),
        ({"site_id": "../mysite"}, Ignored("site ../mysite is not among the sites of hook deployer")),
        ({"site_id": "a\x1b[31m\n"}, Ignored("site a\\x1b[31m\\x0a is not among the sites of hook deployer")),
        ({}, Ignored("the payload names no site, and hook deployer needs one")),
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
    assert select(read(fixed, standard({})), fixed, SITES) == Ignored(
        "no environment of site quiet follows live"
    )


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
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "byte order mark behind the end": b"{}\xef\xbb\xbf",
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "lone surrogate, raw": b'{"a": "\xed\xa0\x80"}',
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


@pytest.mark.parametrize("ref", [7, None, ["refs/heads/live"], {"name": "refs/heads/live"}])
def test_a_ref_that_is_no_text_is_malformed(ref: Any) -> None:
    with pytest.raises(MalformedDeliveryError):
        read(GITHUB, github(push(ref=ref)))


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "live",
        "refs/heads/LIVE",
        "refs/heads/--upload-pack=touch /tmp/x",
        "refs/heads/a..b",
        "refs/heads/a.lock",
        "refs/heads/.a",
        "refs/heads/a/",
        "refs/heads/a\n",
        "refs/heads/a@{1}",
        "refs/heads/" + "a" * 255,
        "refs/heads/" + "機能" * 40,
        "refs/heads/" + "a" * 100_000,
        "refs/heads/live" + " " * 300,
        "refs/heads/live\0",
        "refs/heads/\N{PARTY POPPER}",
        "refs/heads/a\\b",
    ],
)
def test_a_ref_of_any_length_and_alphabet_that_is_not_live_is_another_branch(ref: str) -> None:
    ignored = select(read(GITHUB, github(push(ref=ref))), GITHUB, SITES)
    assert isinstance(ignored, Ignored)
    assert "live of site mysite" in ignored.reason
    assert ignored.reason.isprintable()
    assert len(ignored.reason) < 1000


@pytest.mark.parametrize("odd", ["feature/" + "機能" * 40, "a" * 5000, "a..b", "x\n", "-x", ""])
def test_no_other_branch_s_name_keeps_a_push_of_live_from_counting(odd: str) -> None:
    facts = read(BITBUCKET, cloud({"new": tip(odd), "old": None}, {"new": tip("live"), "old": None}))
    assert select(facts, BITBUCKET, SITES) == (STAGING,)
    facts = read(AZURE, azure((f"refs/heads/{odd}", "1" * 40), ("refs/heads/live", "1" * 40)))
    assert select(facts, AZURE, SITES) == (STAGING,)
    body = {
        "repository": {"slug": "slug", "project": {"key": "KEY"}},
        "changes": [{"refId": f"refs/heads/{each}", "toHash": "1" * 40} for each in (odd, "live")],
    }
    facts = read(BITBUCKET, own(body, X_Event_Key="repo:refs_changed", X_Request_Id="r-1"))
    assert select(facts, BITBUCKET, SITES) == (STAGING,)


HALVES = ["cut \ud83d", "\udfff", "\udc00\ud800"]


@pytest.mark.parametrize("half", HALVES)
def test_half_an_emoji_in_a_field_that_nobody_reads_is_no_reason_to_refuse(half: str) -> None:
    body = json.dumps({**push(), "commits": [{"message": half, half: [half]}], half: 1}).encode()
    assert half.encode("unicode_escape", "surrogatepass") in body
    facts = read(GITHUB, github(body))
    assert select(facts, GITHUB, SITES) == (STAGING,)
    json.dumps(kept_facts(facts), ensure_ascii=False).encode()


@pytest.mark.parametrize("half", HALVES)
def test_half_an_emoji_in_what_is_read_is_refused(half: str) -> None:
    for body in (push(ref=f"refs/heads/{half}"), push(repository=f"acme/{half}"), push(after=half)):
        with pytest.raises(MalformedDeliveryError):
            read(GITHUB, github(json.dumps(body).encode()))
    for field in ("site_id", "ref", "environment", "event"):
        with pytest.raises(MalformedDeliveryError):
            read(STANDARD, standard({"site_id": "mysite", field: half}))
    with pytest.raises(MalformedDeliveryError):
        read(hook("hmac", payload=Payload(id="id")), own({"id": half}))


def test_a_byte_order_mark_in_front_of_the_json_means_nothing() -> None:
    marked = b"\xef\xbb\xbf" + json.dumps(push()).encode()
    assert read(GITHUB, github(marked)) == read(GITHUB, github(push()))
    form = urlencode({"payload": marked}).encode()
    assert read(GITHUB, github(form, Content_Type="application/x-www-form-urlencoded")).publish
    assert read(hook("basic", sites=frozenset({"mysite"})), own(b'\xef\xbb\xbf{"site_id": "mysite"}')).site


def with_ids(scheme: str, header: str, *ids: str) -> Facts:
    """What is read of a push by this scheme, with these lines of its id's header."""
    delivery = sent(scheme, READERS[scheme].sample(WANTED, SAMPLED[scheme]))
    others = [(n, v) for n, v in delivery.headers if n.lower() != header.lower().encode()]
    lines = [(header.encode(), each.encode()) for each in ids]
    return read(SAMPLED[scheme], replace(delivery, headers=(*others, *lines)))


@pytest.mark.parametrize("ids", [(), ("",), ("a", "b"), ("a", "a"), ("", "a"), ("x" * 257,), ("x" * 9000,)])
@pytest.mark.parametrize(
    ("scheme", "header"),
    [
        ("github", "X-GitHub-Delivery"),
        ("gitea", "X-Gitea-Delivery"),
        ("forgejo", "X-Forgejo-Delivery"),
        ("gogs", "X-Gogs-Delivery"),
        ("bitbucket", "X-Request-Id"),
        ("bitbucket", "X-Request-UUID"),
        ("gitlab", "Idempotency-Key"),
        ("gitlab", "webhook-id"),
    ],
)
def test_an_unsigned_id_that_is_doubled_empty_or_too_long_is_no_id(
    scheme: str, header: str, ids: tuple[str, ...]
) -> None:
    facts = with_ids(scheme, header, *ids)
    assert select(facts, SAMPLED[scheme], SITES) == (STAGING,)
    assert facts.key is None or not ids


def test_an_id_in_a_header_of_the_hook_s_own_is_none_where_it_is_doubled() -> None:
    mine = hook("hmac", payload=Payload(id_header="X-Id"))
    delivery = own({})
    for ids in ((b"a", b"b"), (b"",), (b"x" * 257,)):
        doubled = replace(delivery, headers=(*delivery.headers, *((b"X-Id", each) for each in ids)))
        assert read(mine, doubled).key is None
    with pytest.raises(MalformedDeliveryError):
        read(mine, own({}, X_Id="a\x1b"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X_GitHub_Event": ""},
        {"X_GitHub_Delivery": "a\r\nSet-Cookie: x"},
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
    assert len(kept["site"]) < 1100
    json.dumps(kept)


ZEROS = "0" * 40


def cloud(*changes: dict[str, Any]) -> Delivery:
    body = {"push": {"changes": list(changes)}, "repository": {"full_name": "acme/mysite"}}
    return own(body, X_Event_Key="repo:push", X_Request_UUID="u-1")


def tip(name: str, kind: str = "branch") -> dict[str, Any]:
    return {"type": kind, "name": name, "target": {"hash": "1" * 40}}


BITBUCKET = Hook("forge", "bitbucket", (b"s",), repositories={"acme/mysite": "mysite", "KEY/slug": "mysite"})


@pytest.mark.parametrize(
    ("changes", "selected"),
    [
        ([{"new": tip("live"), "old": None}], (STAGING,)),
        ([{"new": tip("master"), "old": None}, {"new": tip("live"), "old": tip("live")}], (STAGING,)),
        ([{"new": None, "old": None}, {"new": tip("live"), "old": tip("live")}], (STAGING,)),
        ([{"new": None, "old": tip("live")}], Ignored("branch live of site mysite was deleted")),
        (
            [{"new": tip("live", "tag"), "old": None}],
            Ignored("tag live is not live of site mysite"),
        ),
        (
            [{"new": tip("a")}, {"new": tip("b")}, {"new": tip("c")}],
            Ignored("branch a and 2 more are not live of site mysite"),
        ),
        ([{"new": tip("live", "bookmark")}], Ignored("no branch of site mysite was pushed")),
        ([], Ignored("no branch of site mysite was pushed")),
    ],
)
def test_a_push_of_several_branches_selects_if_live_is_among_them(
    changes: list[dict[str, Any]], selected: Any
) -> None:
    assert select(read(BITBUCKET, cloud(*changes)), BITBUCKET, SITES) == selected


def test_data_center_names_a_repository_by_key_and_slug() -> None:
    body = {
        "repository": {"slug": "slug", "project": {"key": "KEY"}},
        "changes": [{"refId": "refs/heads/live", "toHash": "1" * 40}],
    }
    delivery = own(body, X_Event_Key="repo:refs_changed", X_Request_Id="r-1")
    facts = read(BITBUCKET, delivery)
    assert (facts.key, facts.repository) == ("r-1", "KEY/slug")
    assert select(facts, BITBUCKET, SITES) == (STAGING,)


AZURE = Hook("forge", "azure-devops", (b"u:s",), repositories={"My Project/my site": "mysite"})


def azure(*updates: tuple[str, str], event: str = "git.push") -> Delivery:
    resource = {
        "repository": {"name": "my site", "project": {"name": "My Project"}},
        "refUpdates": [{"name": ref, "newObjectId": after} for ref, after in updates],
    }
    return own({"id": "a-1", "eventType": event, "resource": resource})


@pytest.mark.parametrize(
    ("updates", "selected"),
    [
        ([("refs/heads/live", "1" * 40)], (STAGING,)),
        ([("refs/heads/x", "1" * 40), ("refs/heads/live", "1" * 40)], (STAGING,)),
        ([("refs/heads/live", ZEROS)], Ignored("branch live of site mysite was deleted")),
        ([("refs/heads/live", "0" * 64)], Ignored("branch live of site mysite was deleted")),
    ],
)
def test_azure_devops_tells_each_ref_that_was_pushed(updates: list[tuple[str, str]], selected: Any) -> None:
    facts = read(AZURE, azure(*updates))
    assert facts.key == "a-1"
    assert select(facts, AZURE, SITES) == selected


def test_another_event_of_azure_devops_is_ignored() -> None:
    assert select(read(AZURE, azure(event="git.pullrequest.created")), AZURE, SITES) == Ignored(
        "the event git.pullrequest.created is not a publish"
    )


@pytest.mark.parametrize(
    "resource", [None, {}, {"refUpdates": []}, {"repository": {}}, {"pushId": 7, "url": "https://x"}, [], "x"]
)
def test_a_message_of_azure_devops_that_leaves_out_what_was_pushed_is_answered_with_what_to_choose(
    resource: Any,
) -> None:
    with pytest.raises(MalformedDeliveryError, match="choose All as resource details"):
        read(AZURE, own({"id": "a-1", "eventType": "git.push", "resource": resource}))
    with pytest.raises(MalformedDeliveryError, match="choose All"):
        read(AZURE, own({"id": "a-1", "eventType": "git.push"}))


def gitlab(**headers: str) -> Delivery:
    body = {
        "ref": "refs/heads/live",
        "after": "1" * 40,
        "project": {"path_with_namespace": "acme/web/mysite"},
    }
    return own(body, **{"X_Gitlab_Event": "Push Hook", **headers})


GITLAB = Hook("forge", "gitlab", (b"s",), repositories={"acme/web/mysite": "mysite"})


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"webhook_id": "w", "Idempotency_Key": "i"}, "w"),
        ({"Idempotency_Key": "i", "X_Gitlab_Event_UUID": "e", "X_Gitlab_Webhook_UUID": "h"}, "i"),
        ({"X_Gitlab_Event_UUID": "e", "X_Gitlab_Webhook_UUID": "h"}, None),
    ],
)
def test_gitlab_s_id_is_what_stays_the_same_over_retries(headers: dict[str, str], key: str | None) -> None:
    facts = read(GITLAB, gitlab(**headers))
    assert facts.key == key
    assert select(facts, GITLAB, SITES) == (STAGING,)


SYSTEM = {"object_kind": "push", "event_name": "push"}


@pytest.mark.parametrize("named", [SYSTEM, {"event_name": "push"}, {"object_kind": "push"}])
def test_a_push_that_a_system_hook_of_gitlab_tells_of_counts(named: dict[str, str]) -> None:
    body = {**json.loads(gitlab().body), **named}
    facts = read(GITLAB, own(body, X_Gitlab_Event="System Hook"))
    assert select(facts, GITLAB, SITES) == (STAGING,)


@pytest.mark.parametrize(
    "named",
    [
        {"event_name": "tag_push", "object_kind": "tag_push"},
        {"event_name": "repository_update"},
        {"event_name": "project_create", "object_kind": "push"},
        {"object_kind": "merge_request"},
        {"event_name": 7},
        {},
    ],
)
def test_what_else_a_system_hook_tells_of_is_ignored_by_its_name(named: dict[str, Any]) -> None:
    ignored = select(read(GITLAB, own(named, X_Gitlab_Event="System Hook")), GITLAB, SITES)
    assert isinstance(ignored, Ignored)
    name = next(iter(named.values()), None)
    assert ignored.reason == f"the event System Hook {name} is not a publish"


OWN_SCHEMES = ["hmac", "basic", "bearer", "path"]


@pytest.mark.parametrize("scheme", OWN_SCHEMES)
def test_a_sender_that_can_only_call_a_url_selects_the_hook_s_site(scheme: str) -> None:
    calling = Delivery("own", (), b"", 0.0)
    facts = read(hook(scheme), calling)
    assert facts.key is None
    assert select(facts, hook(scheme), SITES) == (STAGING,)
    several = hook(scheme, sites=frozenset({"mysite"}))
    assert isinstance(select(read(several, calling), several, SITES), Ignored)


@pytest.mark.parametrize("scheme", OWN_SCHEMES)
def test_a_body_that_is_no_json_is_read_only_where_it_must_select(scheme: str) -> None:
    form = own(b"token=x&text=y", Content_Type="application/x-www-form-urlencoded")
    assert select(read(hook(scheme), form), hook(scheme), SITES) == (STAGING,)
    with pytest.raises(UnsupportedMediaError):
        read(hook(scheme, sites=frozenset({"mysite"})), form)
    with pytest.raises(MalformedDeliveryError):
        read(hook(scheme), own(b"{"))


@pytest.mark.parametrize("scheme", OWN_SCHEMES)
def test_what_stands_where_in_a_body_is_the_hook_s_to_say(scheme: str) -> None:
    payload = Payload(
        repository="repo.name", ref="push.ref", branch="push.branch", event="kind", id_header="X-Id"
    )
    mine = hook(
        scheme,
        repositories={"acme/mysite": "mysite"},
        payload=payload,
        events=frozenset({"pushed", "merged"}),
    )
    body = {"repo": {"name": "acme/mysite"}, "push": {"branch": "live"}, "kind": "merged", "ref": "refs/x"}
    facts = read(mine, own(body, X_Id="id-1"))
    assert (facts.key, facts.changes) == ("id-1", (Change("refs/heads/live"),))
    assert select(facts, mine, SITES) == (STAGING,)
    assert isinstance(select(read(mine, own({**body, "kind": "publish"})), mine, SITES), Ignored)
    assert isinstance(select(read(mine, own({"kind": "merged"})), mine, SITES), Ignored)
    with pytest.raises(MalformedDeliveryError, match=r"The field repo\.name is not text"):
        read(mine, own({**body, "repo": {"name": 7}}))


def test_an_id_may_stand_in_the_body() -> None:
    mine = hook("hmac", payload=Payload(id="happened.id"))
    assert read(mine, own({"happened": {"id": "evt_1"}})).key == "evt_1"
    assert read(mine, own({"event": "publish"})).key is None
    assert read(hook("hmac"), own({"": "evt_1"})).key is None
    for wrong in ("", "a\n", "x" * 257, 7):
        with pytest.raises(MalformedDeliveryError):
            read(mine, own({"happened": {"id": wrong}}))


def site_of(name: str, pattern: str = "") -> Site:
    return Site(pattern or name, STAGING.legs[0].repository, "live", {"staging": STAGING, "qa": QA})


@pytest.mark.parametrize(
    ("repository", "site"),
    [
        ("acme/exact", "mysite"),
        ("acme/site-a", "a"),
        ("acme/mysite", "mysite"),
        ("acme/web/mysite", None),
        ("acme/", None),
        ("acme/site-", "site-"),
        ("other/mysite", None),
        ("acme/mysite/", None),
        ("/acme/mysite", None),
        ("acme/../mysite", None),
        ("group/x/y", "x-y"),
        ("group/x", None),
        ("acme/{site}", "{site}"),
    ],
)
def test_a_pattern_of_repositories_stands_for_one_part_of_a_name(repository: str, site: str | None) -> None:
    mirrors = {
        "acme/{site}": "{site}",
        "acme/site-{site}": "{site}",
        "acme/exact": "mysite",
        "group/{site}/y": "{site}-y",
    }
    assert hook("gitea", repositories=mirrors).mirrored(repository) == site
    assert hook("gitea", repositories=mirrors).mirrored(repository.upper()) == site


@pytest.mark.parametrize("scheme", sorted(FORGES))
@pytest.mark.parametrize("name", ["Acme/MySite", "ACME/MYSITE", "acme/mysite", "Acme/mysite"])
def test_a_forge_s_repository_is_named_in_any_case_and_a_branch_in_its_own(scheme: str, name: str) -> None:
    for mirrors in ({"acme/mysite": "mysite"}, {"ACME/MySite": "mysite"}, {"aCme/{site}": "{site}"}):
        mine = Hook("forge", scheme, (b"s",), repositories=mirrors)
        assert mine.mirrored(name) == "mysite"
        assert mine.mirrored(f"{name}2") in {None, "mysite2"}
    mine = Hook("forge", scheme, (b"s",), repositories={"acme/mysite": "mysite"})
    for branch, selected in (("live", True), ("Live", False), ("LIVE", False)):
        facts = Facts(None, "push", publish=True, repository=name, changes=(Change(f"refs/heads/{branch}"),))
        assert isinstance(select(facts, mine, SITES), Ignored) is not selected


def test_a_sender_of_its_own_may_tell_names_apart_by_case() -> None:
    mine = hook("hmac", repositories={"acme/mysite": "mysite", "Acme/MySite": "other"})
    assert (mine.mirrored("acme/mysite"), mine.mirrored("Acme/MySite")) == ("mysite", "other")
    assert mine.mirrored("ACME/mysite") is None


def test_the_forges_are_the_senders_whose_payloads_are_their_own() -> None:
    assert {scheme for scheme, reader in READERS.items() if not reader.configurable} == FORGES


@pytest.mark.parametrize(
    ("repository", "selected"),
    [
        ("acme/mysite", (STAGING,)),
        ("acme/unknown", Ignored("site unknown is not configured")),
        ("acme/--x", Ignored("site --x is not configured")),
        ("acme/{site}", Ignored("site {site} is not configured")),
        ("acme/..", Ignored("site .. is not configured")),
    ],
)
def test_what_a_pattern_of_repositories_stands_for_is_looked_up_and_nothing_else(
    repository: str, selected: Any
) -> None:
    mine = Hook("forge", "github", (b"s",), repositories={"acme/{site}": "{site}"})
    assert select(read(mine, github(push(repository=repository))), mine, SITES) == selected


def test_both_patterns_together_find_a_site_that_has_no_entry() -> None:
    sites = Sites.of([], [SitePattern("*", site_of("", "*"))])
    mine = Hook("forge", "github", (b"s",), repositories={"acme/{site}": "{site}"})
    (found,) = tuple(select(read(mine, github(push(repository="acme/new-one"))), mine, sites))  # type: ignore[arg-type]
    assert found.site == "new-one"
    (same,) = tuple(select(read(mine, github(push(repository="acme/New-One"))), mine, sites))  # type: ignore[arg-type]
    assert same.site == "new-one"
    for bad in ("ümlaut", "a.b", "x" * 51, "a b"):
        assert isinstance(select(read(mine, github(push(repository=f"acme/{bad}"))), mine, sites), Ignored)


FOLLOWING = "of site mysite that follows live"


def test_a_hook_may_watch_another_branch_and_cover_some_environments_only() -> None:
    mirrored = {"acme/mysite": "mysite"}
    main = Hook("forge", "github", (b"s",), repositories=mirrored, branch="main")
    assert select(read(main, github(push("refs/heads/main"))), main, SITES) == (STAGING,)
    assert select(read(main, github(push())), main, SITES) == Ignored(
        "branch live is not main, the branch of hook forge"
    )
    for names, selected in (
        ({"staging"}, (STAGING,)),
        (
            {"qa"},
            Ignored("no environment of site mysite that follows live is among those of hook forge (qa)"),
        ),
    ):
        some = Hook("forge", "github", (b"s",), repositories=mirrored, environments=frozenset(names))
        assert select(read(some, github(push())), some, SITES) == selected


SAMPLED = {
    scheme: Hook(
        "sampled",
        scheme,
        (b"s",),
        **({"site": "mysite"} if reader.configurable else {"repositories": {"acme/mysite": "mysite"}}),
    )
    for scheme, reader in READERS.items()
}


WANTED = Wanted("key-1", "acme/mysite", "mysite", None, "live", "1" * 40, "2" * 40)


@pytest.mark.parametrize("scheme", READERS)
def test_what_is_sent_for_a_test_is_read_as_a_push(scheme: str) -> None:
    mine, reader = SAMPLED[scheme], READERS[scheme]
    for ref, selected in ((None, (STAGING,)), ("refs/heads/x", None)):
        wanted = Wanted("key-1", "acme/mysite", "mysite", ref, "live", "1" * 40, "2" * 40)
        sample = reader.sample(wanted, mine)
        assert select(read(mine, sent(scheme, sample)), mine, SITES) == selected or selected is None
        facts = read(mine, sent(scheme, sample))
        assert facts.key == (None if scheme in OWN_SCHEMES else "key-1")
        assert selected or isinstance(select(facts, mine, SITES), Ignored)
    if reader.ping is not None:
        assert not read(mine, sent(scheme, reader.ping)).publish


def sent(scheme: str, sample: Any) -> Delivery:
    secret = b"whsec_" + b"A" * 32 if scheme == "standard-webhooks" else b"user:password0123"
    body = json.dumps(sample.payload).encode()
    headers = {**sample.headers, **sign(scheme, secret, "key-1", sample.event, body, 0.0)}
    return Delivery("sampled", tuple((n.encode(), v.encode()) for n, v in headers.items()), body, 0.0)


def test_every_scheme_is_verified_and_read() -> None:
    assert READERS.keys() == SCHEMES.keys()


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200) | st.just(b"{}"), st.data())
def test_any_headers_and_bytes_are_read_or_refused_in_our_own_words(
    scheme: str, body: bytes, data: st.DataObject
) -> None:
    names = st.sampled_from(
        [b"Content-Type", b"X-Gitlab-Event", b"X-Event-Key", b"webhook-id", b"X-Gitea-Event", b"X-Request-Id"]
    )
    values = st.binary(max_size=30) | st.sampled_from(
        [b"application/json", b"Push Hook", b"repo:push", b"repo:refs_changed", b"push", b"\xff"]
    )
    headers = data.draw(st.lists(st.tuples(names, values), max_size=5))
    try:
        facts = read(SAMPLED[scheme], Delivery("sampled", tuple(headers), body, 0.0))
    except RequestError:
        return
    assert isinstance(facts, Facts)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just("refs/heads/live"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["ref", "after", "repository", "project", "push", "changes", "new", "old", "type", "name",
                 "target", "hash", "refId", "toHash", "full_name", "resource", "refUpdates", "id"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.sampled_from(sorted(READERS)), JSONS)
def test_any_json_is_read_or_refused_in_our_own_words(scheme: str, value: Any) -> None:
    events = {
        "X_GitHub_Event": "push", "X_GitHub_Delivery": "d", "X_Gitlab_Event": "Push Hook",
        "X_Event_Key": "repo:push", "webhook_id": "w",
        "X_Gitea_Event": "push", "X_Gitea_Delivery": "d", "X_Forgejo_Event": "push",
        "X_Forgejo_Delivery": "d", "X_Gogs_Event": "push", "X_Gogs_Delivery": "d",
    }  # fmt: skip
    if isinstance(value, dict):
        value = {"eventType": "git.push", "id": "i", **value}
    try:
        facts = read(SAMPLED[scheme], own(value, **events))
    except RequestError:
        return
    json.dumps(kept_facts(facts))


def test_facts_of_many_changes_are_kept_short() -> None:
    changes = [{"new": tip(f"b{number}"), "old": None} for number in range(1000)]
    kept = kept_facts(read(BITBUCKET, cloud(*changes)))
    assert len(kept["changes"]) == 16
    assert kept["changes"][0] == {"ref": "refs/heads/b0", "after": "1" * 40, "deleted": False}
