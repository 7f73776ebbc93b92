"""What is on record of those who came, over HTTP and in the log; nothing of it shows a credential."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from listener.access import digest
from listener.config.settings import load
from listener.errors import StoreUnavailableError
from listener.rehearsal.published import Published
from listener.system import System
from tests import figures
from tests.e2e.conftest import Start
from tests.kept_log import KeptLog
from tests.listening import ADMIN, GITHUB_SECRET, MEMBER, SYNC_STAGING, Client, client, push, signed

SITES = "/api/v1/sites/mysite/environments/staging"
EXPIRED = "a token whose time is over"


def tokens() -> list[dict[str, Any]]:
    return [
        {"name": "root", "sha256": digest(ADMIN.encode()), "role": "admin"},
        {"name": "editors", "sha256": digest(MEMBER.encode()), "role": "member", "sites": ["mysite"]},
        {
            "name": "past",
            "sha256": digest(EXPIRED.encode()),
            "role": "admin",
            "expires": "2020-01-01T00:00:00Z",
        },
    ]


async def came(listener: Client, **query: str) -> list[dict[str, Any]]:
    status, page, _ = await listener.call("GET", "/api/v1/deliveries", params=query)
    assert status == 200
    found: list[dict[str, Any]] = page["deliveries"]
    return found


async def looked_up(listener: Client, headers: Any) -> dict[str, Any]:
    """What is on record under the id that a refusal's answer carries."""
    status, found, _ = await listener.call("GET", f"/api/v1/deliveries/{headers['X-Delivery-Id']}")
    assert status == 200
    view: dict[str, Any] = found
    return view


async def test_a_delivery_is_told_with_what_it_says_where_it_came_from_and_what_became_of_it(
    listener: Client,
) -> None:
    _, answer, sent = await listener.deliver("d-1")
    assert "X-Delivery-Id" not in sent
    (found,) = await came(listener)
    assert found == {
        "id": answer["delivery"],
        "outcome": "accepted",
        "received_at": found["received_at"],
        "hook": "forge",
        "request": "",
        "client": "127.0.0.1",
        "credential": "hook forge, secret 1",
        "sender_id": "d-1",
        "event": "push",
        "repository": "acme/mysite",
        "site": None,
        "refs": ["refs/heads/live"],
        "size": len(push()),
        "digest": digest(push()),
        "same_body_as": None,
        "headers": found["headers"],
        "reason": "",
        "status": None,
        "count": 1,
        "last_received_at": None,
        "runs": answer["runs"],
        "redelivered": [],
    }
    assert found["headers"]["x-github-event"] == "push"
    assert "x-hub-signature-256" not in found["headers"]
    run = await listener.ended(answer["runs"][0])
    assert [(each["credential"], each["client"]) for each in run["triggers"]] == [
        ("hook forge, secret 1", "127.0.0.1")
    ]


async def test_a_repeated_body_is_marked_and_an_ignored_delivery_tells_the_rule(listener: Client) -> None:
    body = push(ref="refs/heads/main")
    first, second = [(await listener.deliver(key, body))[1]["delivery"] for key in ("d-1", "d-2")]
    newest, oldest = await came(listener, outcome="ignored", hook="forge")
    assert [(each["id"], each["same_body_as"]) for each in (oldest, newest)] == [
        (first, None),
        (second, first),
    ]
    assert newest["reason"] == "branch main is not live of site mysite"
    page, after = await came(listener, limit="1"), await came(listener, limit="1", before=second)
    assert [page[0]["id"], after[0]["id"]] == [second, first]


@pytest.mark.parametrize("query", [{"outcome": "lost"}, {"limit": "0"}, {"limit": "x"}])
async def test_a_filter_that_means_nothing_is_told(listener: Client, query: dict[str, str]) -> None:
    status, _, _ = await listener.call("GET", "/api/v1/deliveries", params=query)
    assert status == 400


async def test_a_refused_delivery_is_told_to_an_admin_and_not_to_its_sender(listener: Client) -> None:
    headers = signed(push(), "d-1", secret="not the secret")
    status, answer, sent = await listener.call(
        "POST", "/hooks/forge", token=None, data=push(), headers=headers
    )
    assert (status, answer) == (401, {"type": "about:blank", "title": "Unauthorized", "status": 401})
    found = await looked_up(listener, sent)
    assert (found["outcome"], found["status"], found["hook"]) == ("refused", 401, "forge")
    assert found["reason"] == "the signature is not made with a secret of this hook"
    assert (found["request"], found["client"]) == ("POST /hooks/forge", "127.0.0.1")
    assert (found["credential"], found["digest"], found["size"]) == ("", "", len(push()))
    assert found["headers"]["x-github-delivery"] == "d-1"
    assert headers["X-Hub-Signature-256"].removeprefix("sha256=") not in json.dumps(found)


async def test_every_way_of_refusing_a_delivery_is_told_with_its_reason(listener: Client) -> None:
    async def sent(path: str, body: bytes, **headers: str) -> tuple[int, str, str]:
        status, _, answered = await listener.call("POST", path, token=None, data=body, headers=headers)
        found = await looked_up(listener, answered)
        assert found["status"] == status
        return status, found["reason"], found["credential"]

    assert await sent("/hooks/nosuch", b"{}") == (404, "no hook has this name", "")
    assert (await sent("/hooks/forge/secret", b"{}"))[:2] == (
        404,
        "the scheme github has no secret in the path",
    )
    malformed = b'{"ref": 1}'
    assert await sent("/hooks/forge", malformed, **signed(malformed, "d-1")) == (
        400,
        "The field repository is not an object.",
        "hook forge, secret 1",
    )
    packed = signed(push(), "d-1") | {"Content-Encoding": "gzip"}
    assert await sent("/hooks/forge", push(), **packed) == (415, "Compressed bodies are not accepted.", "")
    assert (await sent("/hooks/forge", push()))[:2] == (401, "X-Hub-Signature-256 is missing")
    status, _, answered = await listener.call("GET", "/hooks/forge", token=None)
    assert (status, (await looked_up(listener, answered))["request"]) == (405, "GET /hooks/forge")


async def test_a_secret_in_a_path_is_on_no_record(listening: Start) -> None:
    secret, wrong = "0123456789abcdef-path", "0123456789abcdef-wrong"
    hook = {"scheme": "path", "secrets": [secret], "site": "mysite"}
    async with listening(hooks={"deployer": hook}) as listener:
        for path in (f"/hooks/deployer/{wrong}", f"/hooks/{secret}", f"/hooks/deployer/{secret}/more"):
            status, _, sent = await listener.call("POST", path, token=None)
            assert status == 404
            await looked_up(listener, sent)
        await listener.call("POST", f"/hooks/deployer/{secret}", token=None)
        kept = json.dumps(await came(listener))
    assert secret not in kept
    assert wrong not in kept
    assert "the signature is not made with a secret of this hook" in kept


@pytest.mark.parametrize(
    ("header", "reason", "credential"),
    [
        (None, "there is no credential", ""),
        ("Bearer nobody-knows-this", "the token is unknown", ""),
        ("Digest x", "the credential is not a token, by Bearer or by Basic", ""),
        (f"Bearer {EXPIRED}", "the token past has expired, at 2020-01-01T00:00:00.000+00:00", "token past"),
    ],
)
async def test_a_refused_call_is_told_with_the_credential_s_name_if_it_has_one(
    listening: Start, header: str | None, reason: str, credential: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with listening(tokens=tokens()) as listener:
        for path in (SYNC_STAGING, f"{SITES}/sync"):
            status, answer, sent = await listener.call("POST", path, token=None, headers=headers)
            assert status == 401
            assert reason not in json.dumps(answer)
            found = await looked_up(listener, sent)
            assert (found["reason"], found["credential"]) == (reason, credential)
            assert (found["request"], found["hook"], found["outcome"]) == (f"POST {path}", "", "refused")
        kept = json.dumps(await came(listener))
        assert not any(text in kept for text in ("nobody-knows-this", EXPIRED))


async def test_a_call_that_a_role_does_not_cover_is_told(listening: Start) -> None:
    async with listening(tokens=tokens()) as listener:
        _, answer, _ = await listener.deliver("d-1")
        await listener.ended(answer["runs"][0])
        refused = [
            ("GET", "/api/v1/sites/other", 404, "the token editors does not cover the site other"),
            ("POST", f"/api/v1/runs/{answer['runs'][0]}/rollback", 403, "Only an admin may roll back"),
            ("GET", "/api/v1/deliveries", 403, "Only an admin"),
            ("GET", "/api/v1/tokens", 403, "Only an admin"),
        ]
        for method, path, status, reason in refused:
            answered, _, sent = await listener.call(method, path, token=MEMBER)
            assert answered == status
            found = await looked_up(listener, sent)
            assert found["reason"].startswith(reason)
            assert (found["credential"], found["request"]) == ("token editors", f"{method} {path}")
        status, _, sent = await listener.sync(site="other", token=MEMBER)
        assert status == 401
        assert (await looked_up(listener, sent))[
            "reason"
        ] == "the token editors does not cover the site other"
        # What is only wrong is refused to nobody.
        status, _, sent = await listener.call("GET", "/api/v1/sites/other")
        assert (status, "X-Delivery-Id" in sent) == (404, False)


async def test_what_was_refused_is_still_there_after_a_restart(configured: Callable[..., Path]) -> None:
    settings = load(configured())
    async with System(settings) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            _, _, sent = await listener.call("POST", "/hooks/nosuch", token=None)
    async with System(settings) as system:
        assert (await system.store.arrival(sent["X-Delivery-Id"])).reason == "no hook has this name"


async def test_a_delivery_that_could_not_be_stored_is_on_record_once_the_store_is_back(
    configured: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError("The store does not answer: the disk is full")

    async with System(load(configured())) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            with monkeypatch.context() as patched:
                patched.setattr(system.store, "accept", away)
                status, _, sent = await listener.deliver("d-1")
            assert (status, sent["Retry-After"]) == (503, "5")
            found = await looked_up(listener, sent)
    assert (found["status"], found["credential"]) == (503, "hook forge, secret 1")
    assert (found["digest"], found["headers"]["x-github-delivery"]) == (digest(push()), "d-1")


async def test_an_ignored_delivery_is_redelivered_once_the_configuration_covers_it(
    configured: Callable[..., Path], published: Published
) -> None:
    hook = {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": {"acme/other": "mysite"}}

    async def redelivered(delivery: str, hooks: dict[str, Any]) -> tuple[int, Any]:
        async with System(load(configured(hooks=hooks))) as system:
            await system.listen()
            async with client(f"http://127.0.0.1:{system.port}") as listener:
                status, answer, _ = await listener.call("POST", f"/api/v1/deliveries/{delivery}/redeliver")
                if status == 202:
                    run = await listener.ended(answer["runs"][0])
                    (found,) = await came(listener)
                    (again,) = found["redelivered"]
                    assert (found["outcome"], found["reason"]) == ("accepted", "")
                    assert [t["origin"] for t in run["triggers"]] == ["redelivery"]
                    assert (again["actor"], again["credential"], again["run"]) == (
                        "root",
                        "token root",
                        run["id"],
                    )
        return status, answer

    async with System(load(configured(hooks={"forge": hook}))) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            _, answer, _ = await listener.deliver("d-1")
    assert answer["ignored"] == "repository acme/mysite is not among the repositories of hook forge"
    status, problem = await redelivered(answer["delivery"], {"forge": hook})
    assert (status, problem["detail"]) == (409, f"The delivery selects nothing: {answer['ignored']}.")
    status, problem = await redelivered(answer["delivery"], {"other": hook})
    assert (status, problem["detail"]) == (409, "The hook forge is not configured any more.")
    covering = hook | {"repositories": {"acme/mysite": "mysite"}}
    status, again = await redelivered(answer["delivery"], {"forge": covering})
    assert (status, again["delivery"]) == (202, answer["delivery"])
    assert published.tree("staging") == published.tree("live")


async def test_what_was_refused_or_never_came_is_not_redelivered(listener: Client) -> None:
    _, _, sent = await listener.call("POST", "/hooks/forge", token=None, data=push())
    await looked_up(listener, sent)
    path = f"/api/v1/deliveries/{sent['X-Delivery-Id']}/redeliver"
    status, problem, _ = await listener.call("POST", path)
    assert status == 409
    assert "X-Hub-Signature-256 is missing" in problem["detail"]
    status, problem, _ = await listener.call("POST", "/api/v1/deliveries/nosuch/redeliver")
    assert (status, problem["code"]) == (404, "delivery-not-found")


async def test_uses_of_secrets_and_tokens_are_counted_by_their_names(
    listening: Start, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("a new secret")
    (tmp_path / "new").chmod(0o600)
    hook = {
        "scheme": "github",
        "secrets": [GITHUB_SECRET, f"file:{tmp_path}/new"],
        "repositories": {"acme/mysite": "mysite"},
    }
    async with listening(hooks={"forge": hook}, tokens=tokens()) as listener:
        for key in ("d-1", "d-2"):
            assert (await listener.deliver(key, secret="a new secret"))[0] == 202
        await listener.call("GET", "/api/v1/sites/mysite", token=MEMBER)
        _, hooks, _ = await listener.call("GET", "/api/v1/hooks")
        ((old, new),) = [each["secrets"] for each in hooks["hooks"]]
        assert (hooks["hooks"][0]["name"], hooks["hooks"][0]["scheme"]) == ("forge", "github")
        assert old == {"name": "secret 1", "count": 0, "last_used": None}
        assert (new["name"], new["count"]) == (f"file:{tmp_path}/new", 2)
        assert new["last_used"] is not None
        _, answer, _ = await listener.call("GET", "/api/v1/tokens")
        told = {each["name"]: each for each in answer["tokens"]}
        assert {name: each["count"] for name, each in told.items()} == {"root": 2, "editors": 1, "past": 0}
        assert (told["editors"]["role"], told["editors"]["sites"]) == ("member", ["mysite"])
        assert told["past"]["expires"] == "2020-01-01T00:00:00.000+00:00"
        text = json.dumps([hooks, answer])
    assert not any(
        secret in text for secret in (GITHUB_SECRET, "a new secret", ADMIN, digest(ADMIN.encode()))
    )


async def test_whatever_is_asked_for_leaves_a_line_of_who_asked_from_where(
    configured: Callable[..., Path], published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = KeptLog()
    monkeypatch.setattr("structlog.get_logger", lambda: log)
    async with System(load(configured())) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            await listener.call("POST", f"{SITES}/sync", json={"dry_run": True})
            _, answer, _ = await listener.deliver("d-1")
            run = answer["runs"][0]
            await listener.ended(run)
            await listener.sync(token=MEMBER)
            await listener.call("POST", f"/api/v1/runs/{run}/rollback", json={"dry_run": True})
            await listener.call("POST", f"/api/v1/runs/{run}/rollback")
            await listener.call("POST", f"{SITES}/release")
            await listener.call("POST", f"{SITES}/hold", json={"reason": "a test"})
            _, _, sent = await listener.sync()
            await listener.call("POST", f"{SITES}/release")
            await listener.call("POST", f"/api/v1/runs/{sent['X-Run-Id']}/retry")
            await listener.call("POST", f"/api/v1/deliveries/{answer['delivery']}/redeliver")
            published.git("branch", "live_in_progress", "live")
            _, waiting, _ = await listener.call("POST", f"{SITES}/sync")
            await listener.call("POST", f"/api/v1/runs/{waiting['id']}/cancel")
            await listener.call("POST", "/hooks/forge", token=None)
            await listener.sync(token=None)
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in log.lines:
        by_event.setdefault(line["event"], []).append(line)
    asked = ["call", "dry run", "rollback", "hold", "release", "retry", "redeliver", "cancel"]
    for event in asked:
        for line in by_event[event]:
            assert (line["client"], line["credential"]) in {
                ("127.0.0.1", "token root"),
                ("127.0.0.1", "token editors"),
            }, line
            assert line["actor"] in {"root", "editors"}
    assert [len(by_event[event]) for event in asked] == [3, 2, 1, 1, 2, 1, 1, 1]
    for event in ("dry run", "rollback", "hold", "release", "retry", "cancel", "call"):
        assert {(line["site"], line["environment"]) for line in by_event[event]} == {("mysite", "staging")}
    (delivery,) = by_event["delivery"]
    assert (delivery["client"], delivery["secret"]) == ("127.0.0.1", "secret 1")
    assert [line["reason"] for line in by_event["delivery refused"]] == ["X-Hub-Signature-256 is missing"]
    assert [line["reason"] for line in by_event["call refused"]] == ["there is no credential"]


async def test_a_flood_of_refused_requests_leaves_the_store_bounded_and_its_size_is_told(
    listening: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.audit.PENDING", 200)
    monkeypatch.setattr("listener.audit.KEPT", 500)
    monkeypatch.setattr("listener.audit.EVERY", 0.05)
    flood, workers = 4000, 20
    async with listening() as listener:

        async def knock() -> None:
            for _ in range(flood // workers):
                status, _, _ = await listener.call("POST", "/hooks/forge", token=None, data=b"{}")
                assert status == 401

        await asyncio.gather(*(knock() for _ in range(workers)))
        kept: list[dict[str, Any]] = []
        while page := await came(listener, limit="200", **({"before": kept[-1]["id"]} if kept else {})):
            kept += page
        status, _, _ = await listener.deliver("d-1")
        assert status == 202
    assert 200 <= len(kept) <= 500
    assert {each["outcome"] for each in kept} == {"refused"}
    figures.tell(
        "flood of refused requests",
        tried=flood,
        on_record=len(kept),
        counted=sum(each["count"] for each in kept),
    )
