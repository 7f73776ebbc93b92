"""What real senders, and the proxies in front of them, send over HTTP: odd, legitimate, answered rightly."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from yarl import URL

from listener import signatures
from tests.e2e.conftest import Start
from tests.listening import GITHUB_SECRET, Client, push, signed

MIRROR = {"acme/mysite": "mysite"}
HOOKS: dict[str, dict[str, Any]] = {
    "forge": {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": MIRROR},
    "gitlab": {"scheme": "gitlab", "secrets": ["gl-6f1c0f2f-secret-token"], "repositories": MIRROR},
    "bitbucket": {
        "scheme": "bitbucket",
        "secrets": ["a secret of the tests"],
        "repositories": {**MIRROR, "ACME/mysite-dc": "mysite"},
    },
    "azure": {"scheme": "azure-devops", "secrets": ["azure:a long password"], "repositories": MIRROR},
    "basic": {"scheme": "basic", "secrets": ["deployer:a long password"], "sites": ["mysite"]},
    "path": {"scheme": "path", "secrets": ["0123456789abcdef-path"], "site": "mysite"},
}
SECRETS = {name: hook["secrets"][0] for name, hook in HOOKS.items()}

More = Sequence[tuple[str, str]]

LIVE, LONG = "refs/heads/live", "feature/" + "機能" * 40


async def sent(
    listener: Client, hook: str, payload: Any, event: str = "push", more: More = (), key: str = "d-1"
) -> tuple[int, Any]:
    """The answer to a payload that is signed as the hook's sender does it, with these headers beside."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    scheme = str(HOOKS[hook]["scheme"])
    headers = signatures.sign(scheme, str(SECRETS[hook]).encode(), key, event, body, 0.0)
    added = {name.lower() for name, _ in more}
    lines = [*((n, v) for n, v in headers.items() if n.lower() not in added), *more]
    async with listener.session.post(f"{listener.url}/hooks/{hook}", data=body, headers=lines) as response:
        return response.status, await response.json(content_type=None)


def tip(name: str) -> dict[str, Any]:
    return {"type": "branch", "name": name, "target": {"hash": "1" * 40}}


def cloud(*names: str, **more: Any) -> dict[str, Any]:
    changes = [{"new": tip(name), "old": None} for name in names]
    return {"push": {"changes": changes, **more}, "repository": {"full_name": "acme/mysite"}}


def data_center(*names: str) -> dict[str, Any]:
    changes = [{"refId": f"refs/heads/{name}", "toHash": "1" * 40, "type": "UPDATE"} for name in names]
    return {"repository": {"slug": "mysite-dc", "project": {"key": "ACME"}}, "changes": changes}


def gitlab(ref: str = LIVE, after: str = "1" * 40, **more: Any) -> dict[str, Any]:
    return {"ref": ref, "after": after, "project": {"path_with_namespace": "acme/mysite"}, **more}


def azure(*names: str, **more: Any) -> dict[str, Any]:
    resource = {
        "refUpdates": [{"name": f"refs/heads/{name}", "newObjectId": "1" * 40} for name in names],
        "repository": {"name": "mysite", "project": {"name": "acme"}},
    }
    return {"id": "a-1", "eventType": "git.push", "resource": resource, **more}


def many(number: int) -> list[str]:
    return [*(f"other-{each}" for each in range(number - 1)), "live"]


ACCEPTED: Mapping[str, tuple[str, Any, str, More]] = {
    "Data Center behind a proxy that adds a request id": (
        "bitbucket",
        data_center("live"),
        "repo:refs_changed",
        [("X-Request-Id", "0c9b1c2e-sender"), ("X-Request-Id", "AC1E-proxy")],
    ),
    "an empty id": ("forge", json.loads(push()), "push", [("X-GitHub-Delivery", "")]),
    "an id that is too long": ("forge", json.loads(push()), "push", [("X-GitHub-Delivery", "x" * 300)]),
    "a long branch name beside live": ("bitbucket", cloud(LONG, "live"), "repo:push", ()),
    "41 refs of a mirror, live last": ("bitbucket", data_center(*many(41)), "repo:refs_changed", ()),
    "25 changes, cut short": ("bitbucket", cloud(*many(25), truncated=True), "repo:push", ()),
    "51 ref updates": ("azure", azure(*many(51), resourceVersion="2.0"), "git.push", ()),
    "a repository in other capitals": ("forge", json.loads(push(repository="Acme/MySite")), "push", ()),
    "a new branch": ("gitlab", gitlab(before="0" * 40, checkout_sha=None, commits=[]), "Push Hook", ()),
    "a system hook": (
        "gitlab",
        gitlab(object_kind="push", event_name="push"),
        "push",
        [("X-Gitlab-Event", "System Hook")],
    ),
    "half an emoji in a message": ("forge", push()[:-1] + b', "commits": ["cut \\ud83d"]}', "push", ()),
    "a NUL escape in a message": ("forge", push()[:-1] + b', "commits": ["cut \\u0000"]}', "push", ()),
    "a byte order mark": ("basic", b'\xef\xbb\xbf{"site_id": "mysite"}', "", ()),
    "a charset": ("forge", push(), "push", [("Content-Type", "application/json; charset=UTF-8")]),
    "a charset in quotes": ("forge", push(), "push", [("Content-Type", 'application/json;charset="utf-8"')]),
    "capitals": ("forge", push(), "push", [("Content-Type", "Application/JSON")]),
    "no encoding, named as such": ("forge", push(), "push", [("Content-Encoding", "identity")]),
}


async def test_what_real_senders_send_starts_a_sync(listening: Start) -> None:
    async with listening(hooks=HOOKS) as listener:
        for number, (what, (hook, payload, event, more)) in enumerate(ACCEPTED.items()):
            status, answer = await sent(listener, hook, payload, event, more, f"d-{number}")
            assert status == 202, (what, answer)
        assert (await listener.ended(answer["runs"][0]))["state"] == "succeeded"


IGNORED: Mapping[str, tuple[str, Any, str, str]] = {
    "a long branch name alone": ("bitbucket", cloud(LONG), "repo:push", "branch feature/機能"),
    "a branch in capitals": (
        "forge",
        json.loads(push(ref="refs/heads/LIVE")),
        "push",
        "branch LIVE is not live of site mysite",
    ),
    "a ref of an alphabet of its own": (
        "forge",
        json.loads(push(ref="refs/heads/a\u202eb..c\n")),
        "push",
        r"branch a\x202eb..c\x0a is not live",
    ),
    "a deletion in Cloud": (
        "bitbucket",
        {
            "push": {"changes": [{"new": None, "old": tip("live")}]},
            "repository": {"full_name": "acme/mysite"},
        },
        "repo:push",
        "branch live of site mysite was deleted",
    ),
    "no changes": ("bitbucket", cloud(), "repo:push", "no branch of site mysite was pushed"),
    "a deletion in GitLab": (
        "gitlab",
        gitlab(after="0" * 40),
        "Push Hook",
        "branch live of site mysite was deleted",
    ),
    "a tag": (
        "gitlab",
        gitlab(ref="refs/tags/v1"),
        "Tag Push Hook",
        "the event Tag Push Hook is not a publish",
    ),
}


async def test_what_is_not_of_live_is_ignored_with_the_reason(listening: Start) -> None:
    async with listening(hooks=HOOKS) as listener:
        for number, (what, (hook, payload, event, reason)) in enumerate(IGNORED.items()):
            status, answer = await sent(listener, hook, payload, event, key=f"d-{number}")
            assert status == 200, (what, answer)
            assert reason in answer["ignored"], what
        assert (await listener.call("GET", "/api/v1/runs"))[1]["runs"] == []


async def test_what_a_sender_left_out_or_added_is_answered_with_what_to_change_there(
    listening: Start,
) -> None:
    async with listening(hooks=HOOKS) as listener:
        minimal = {"id": "a-1", "eventType": "git.push", "resource": {"pushId": 7}}
        status, answer = await sent(listener, "azure", minimal)
        assert (status, "choose All" in answer["detail"]) == (400, True)
        encoded = [("Content-Encoding", "utf-8")]
        status, answer = await sent(listener, "forge", push(), more=encoded)
        assert status == 415
        assert answer["detail"].startswith("The Content-Encoding utf-8 is not a compression")


@pytest.mark.parametrize("path", ["/hooks/forge/", "/hooks/forge//", "/hooks//forge", "//hooks/forge"])
async def test_a_slash_too_many_is_told_with_the_hook_s_name(listening: Start, path: str) -> None:
    async with listening(hooks=HOOKS) as listener:
        url = URL(listener.url + path, encoded=True)
        headers = signed(push(), "d-1")
        async with listener.session.post(url, data=push(), headers=headers) as response:
            assert response.status == 404
            assert "a superfluous slash" in (await response.json(content_type=None))["detail"]
        (refused,) = (await listener.call("GET", "/api/v1/deliveries?outcome=refused"))[1]["deliveries"]
        assert refused["hook"] == "forge"
        assert refused["reason"] == "the path of the hook forge has a superfluous slash"


async def test_a_slash_behind_a_secret_in_the_path_is_told_without_the_secret(listening: Start) -> None:
    secret = SECRETS["path"]
    async with listening(hooks=HOOKS) as listener:
        for path in (f"/hooks/path/{secret}/", f"/hooks//path/{secret}", f"//hooks/path//{secret}"):
            async with listener.session.post(URL(listener.url + path, encoded=True)) as response:
                assert response.status == 404
        _, answer, _ = await listener.call("GET", "/api/v1/deliveries")
        assert {each["hook"] for each in answer["deliveries"]} == {"path"}
        assert len(answer["deliveries"]) == 3
        assert str(secret) not in json.dumps(answer)
