"""Deliveries to a hook, over HTTP: what is accepted, ignored, repeated and refused."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from listener import signatures
from listener.config.settings import Settings, load
from listener.deliveries import READERS, Wanted
from listener.errors import ConfigurationError
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.system import System
from tests.e2e.conftest import Start
from tests.kept_log import KeptLog
from tests.listening import Client, client, configuration, daemon, push, signed, written
from tests.vectors import OURS, body_of, headers_of, hmac_of, refused_by, scheme_of, secrets_of

BUSY = {"quiet": 0.2, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}
HOLD = "/api/v1/sites/mysite/environments/staging/hold"
RELEASE = "/api/v1/sites/mysite/environments/staging/release"


async def runs(listener: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await listener.call("GET", "/api/v1/runs?limit=200"))[1]["runs"]
    return found


async def test_a_delivery_makes_staging_equal_to_live(listener: Client, published: Published) -> None:
    status, answer, _ = await listener.deliver("d-1")
    assert status == 202
    run = await listener.ended(answer["runs"][0])
    assert run["state"] == "succeeded"
    assert [(t["origin"], t["actor"]) for t in run["triggers"]] == [("hook", "forge")]
    assert published.tree("staging") == published.tree("live")


async def test_the_same_delivery_again_is_answered_as_the_first_and_makes_no_run(listener: Client) -> None:
    _, first, _ = await listener.deliver("d-1")
    await listener.ended(first["runs"][0])
    status, again, _ = await listener.deliver("d-1")
    assert (status, again) == (200, first)
    assert len(await runs(listener)) == 1


async def test_the_same_delivery_in_parallel_is_one_run(listener: Client) -> None:
    answers = await asyncio.gather(*(listener.deliver("d-1") for _ in range(50)))
    assert sorted({status for status, _, _ in answers}) == [200, 202]
    assert [status for status, _, _ in answers].count(202) == 1
    assert len({json.dumps(answer) for _, answer, _ in answers}) == 1
    assert len(await runs(listener)) == 1


async def test_the_same_delivery_after_a_failed_run_makes_a_new_one(
    listener: Client, published: Published
) -> None:
    live = published.commit("live")
    published.git("update-ref", "-d", "refs/heads/live")
    _, first, _ = await listener.deliver("d-1")
    assert (await listener.ended(first["runs"][0]))["outcome"]["error"] == "live-missing"
    published.git("update-ref", "refs/heads/live", live)
    status, again, _ = await listener.deliver("d-1")
    assert status == 200
    assert again["delivery"] == first["delivery"]
    assert again["runs"] != first["runs"]
    assert (await listener.ended(again["runs"][0]))["state"] == "succeeded"


async def test_a_burst_during_a_sync_becomes_one_more_sync(listening: Start, published: Published) -> None:
    async with listening(sync=BUSY) as listener:
        slow = published.path / ".git" / "refs" / "heads" / "slow_in_progress"
        os.mkfifo(slow)
        _, first, _ = await listener.deliver("d-0")
        while (await listener.call("GET", f"/api/v1/runs/{first['runs'][0]}"))[1]["state"] != "running":
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(listener.deliver(f"d-{n}") for n in range(1, 201)))
        assert {status for status, _, _ in answers} == {202}
        assert len({answer["runs"][0] for _, answer, _ in answers}) == 1
        await asyncio.to_thread(unblock, slow)
        last = await listener.ended(answers[0][1]["runs"][0])
        assert last["state"] == "succeeded"
        assert len(last["triggers"]) >= 200
        assert len(await runs(listener)) == 2
        assert published.tree("staging") == published.tree("live")


def unblock(fifo: Path) -> None:
    """Let the git that waits for this ref go on."""
    with fifo.open("w") as end:
        end.write("no ref\n")
    fifo.unlink()


@pytest.mark.parametrize(
    ("body", "event", "reason"),
    [
        (push(ref="refs/heads/master"), "push", "branch master is not live of site mysite"),
        (push(ref="refs/tags/v1"), "push", "tag v1 is not live of site mysite"),
        (
            push(repository="acme/other"),
            "push",
            "repository acme/other is not among the repositories of hook forge",
        ),
        (b'{"zen": "Keep it logically awesome."}', "ping", "the event ping is not a publish"),
    ],
)
async def test_a_delivery_that_selects_nothing_is_ignored(
    listener: Client, body: bytes, event: str, reason: str
) -> None:
    status, answer, _ = await listener.deliver("d-1", body, event=event)
    assert (status, answer["ignored"]) == (200, reason)
    assert await runs(listener) == []


async def test_a_delivery_for_an_environment_on_hold_is_ignored_and_caught_up_with_at_release(
    listener: Client, published: Published
) -> None:
    before = published.commit("staging")
    await listener.call("POST", HOLD, json={"reason": "acceptance test"})
    status, answer, _ = await listener.deliver("d-1")
    assert (status, answer["ignored"]) == (200, "mysite/staging is on hold: acceptance test")
    assert published.commit("staging") == before
    _, released, _ = await listener.call("POST", RELEASE)
    assert released["released"]["reason"] == "acceptance test"
    assert (await listener.ended(released["runs"][0]))["state"] == "succeeded"
    assert published.tree("staging") == published.tree("live")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, push()),
        (signed(push(), "d-1", secret="wrong"), push()),
        (signed(push(), "d-1"), push(ref="refs/heads/other")),
        ({**signed(push(), "d-1"), "X-Hub-Signature-256": ""}, push()),
        ({**signed(push(), "d-1"), "X-Hub-Signature-256": "sha256=" + "é" * 64}, push()),
    ],
    ids=["none", "wrong secret", "other body", "empty", "not ASCII"],
)
async def test_a_bad_signature_is_refused_without_detail(
    listener: Client, headers: dict[str, str], body: bytes
) -> None:
    status, answer, sent = await listener.call(
        "POST", "/hooks/forge", token=None, data=body, headers={"Content-Type": "application/json", **headers}
    )
    assert status == 401
    assert answer == {"type": "about:blank", "title": "Unauthorized", "status": 401}
    assert "WWW-Authenticate" not in sent
    assert await runs(listener) == []


async def test_a_doubled_signature_is_refused(listener: Client) -> None:
    headers = [
        *signed(push(), "d-1").items(),
        ("X-Hub-Signature-256", signed(push(), "d-1")["X-Hub-Signature-256"]),
    ]
    async with listener.session.post(f"{listener.url}/hooks/forge", data=push(), headers=headers) as response:
        assert response.status == 401


async def test_an_unknown_hook_is_not_found(listener: Client) -> None:
    for hook in ("nosuch", "..%2fforge", "forge/", "forge%00"):
        url = f"{listener.url}/hooks/{hook}"
        async with listener.session.post(URL(url, encoded=True), data=push()) as response:
            assert response.status == 404


async def test_a_body_over_the_limit_is_refused_before_it_is_read(listener: Client) -> None:
    headers = {"Content-Length": str((25 << 20) + 1)}
    reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST /hooks/forge HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_chunked_body_over_the_limit_is_refused(listener: Client) -> None:
    async def endless() -> Any:
        for _ in range(27):
            yield b"x" * (1 << 20)

    try:
        status, _, _ = await listener.call("POST", "/hooks/forge", token=None, data=endless())
    except aiohttp.ClientError:
        return
    assert status == 413


async def test_a_body_that_is_too_slow_is_given_up(listening: Start) -> None:
    async with listening(server={"host": "127.0.0.1", "port": 0, "body_timeout": 0.3}) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
        writer.write(b"POST /hooks/forge HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_compressed_body_is_not_unpacked(listener: Client) -> None:
    headers = {**signed(push(), "d-1"), "Content-Encoding": "gzip"}
    status, _, _ = await listener.call("POST", "/hooks/forge", token=None, data=push(), headers=headers)
    assert status == 415


HOSTILE = {
    "option": push(ref="refs/heads/--upload-pack=touch /tmp/x"),
    "command": push(ref="refs/heads/$(touch${IFS}MARKER)"),
    "back quote": push(ref="refs/heads/`touch${IFS}MARKER`"),
    "clone URL": push(
        repository="acme/mysite", clone_url="ext::sh -c 'touch MARKER'", ssh_url="--upload-pack=touch MARKER"
    ),
    "path": push(repository="../../acme/mysite"),
    "option as repository": push(repository="--upload-pack=touch MARKER"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_payload_reaches_neither_git_nor_a_shell(
    listener: Client, tmp_path: Path, name: str
) -> None:
    marker = tmp_path / "marker"
    body = HOSTILE[name].replace(b"MARKER", str(marker).encode())
    status, answer, _ = await listener.deliver("d-1", body)
    if name == "clone URL":
        assert status == 202
        await listener.ended(answer["runs"][0])
        text = json.dumps(await listener.events(answer["runs"][0]))
        assert "ext::" not in text
        assert "upload-pack" not in text
    else:
        assert status in {200, 400}
        assert await runs(listener) == []
    assert not marker.exists()


async def test_a_hostile_site_id_is_looked_up_and_nothing_else(listening: Start) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    hooks = {"deployer": {"scheme": "standard-webhooks", "secrets": [secret], "sites": ["mysite"]}}
    async with listening(hooks=hooks) as listener:
        for number, site in enumerate(
            ("../mysite", "mysite/../..", "$(touch x)", "-x", "mysite\n", "", "x" * 5000)
        ):
            body = json.dumps({"site_id": site}).encode()
            headers = signatures.sign(
                "standard-webhooks", secret.encode(), f"msg_{number}", "publish", body, time.time()
            )
            status, answer, _ = await listener.call(
                "POST", "/hooks/deployer", token=None, data=body, headers=headers
            )
            assert status == 200
            assert "hook" in answer["ignored"]
        body = b'{"site_id": "mysite"}'
        headers = signatures.sign(
            "standard-webhooks", secret.encode(), "msg_good", "publish", body, time.time()
        )
        status, _, _ = await listener.call("POST", "/hooks/deployer", token=None, data=body, headers=headers)
        assert status == 202


BEYOND_HTTP = {"github/delivery-id-crlf"}
"""A line break ends a header: what follows is another one, and nothing that HTTP could carry in it."""

CARRIED = [vector for vector in OURS if refused_by(vector) != "config" and vector["name"] not in BEYOND_HTTP]


def hook_for(vector: dict[str, Any]) -> dict[str, Any]:
    """A hook that verifies a vector; pushes to a forge's other branches select nothing, whatever they say."""
    scheme, hmac = scheme_of(vector), hmac_of(vector)
    selecting = (
        {"site": "mysite"}
        if READERS[scheme].configurable
        else {"repositories": {"MYPROJECT/{site}": "{site}", **dict.fromkeys(REPOSITORIES, "mysite")}}
    )
    own = {"hmac": hmac} if hmac else {}
    return {"scheme": scheme, "secrets": secrets_of(vector), **selecting, **own}


REPOSITORIES = ("octocat/Hello-World", "mike/diaspora", "gitea/webhooks", "team/site", "MYPROJECT/test-repo")

SIGNED_WELL_AND_NO_JSON = {
    "github/official-hello-world",
    "github/gidgethub-bytes",
    "bitbucket-cloud/official-hello-world",
    "bitbucket-dc/official-hello-world",
}


async def test_the_samples_are_judged_over_http_as_they_are_by_functions(
    listening: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[float] = []
    real = time.time
    monkeypatch.setattr(time, "time", lambda: stopped[0] if stopped else real())
    hooks = {f"sample-{place}": hook_for(vector) for place, vector in enumerate(CARRIED)}
    async with listening(hooks=hooks) as listener:
        for name, vector in zip(hooks, CARRIED, strict=True):
            stopped[:] = [vector["now_unix"]] if "now_unix" in vector else []
            status, answer, sent = await sampled(listener, name, vector)
            stage = refused_by(vector)
            if vector["name"] in SIGNED_WELL_AND_NO_JSON:
                assert status in {400, 415}, vector["name"]
            elif not stage:
                assert status in {200, 202}, (vector["name"], answer)
                expected = vector.get("expect_event", {})
                if expected.get("kind") == "push" and expected.get("ref"):
                    assert expected["ref"].rpartition("/")[2] in answer["ignored"]
            elif stage == "signature":
                assert (status, answer["title"]) == (401, "Unauthorized"), vector["name"]
                challenge = {"basic": "Basic", "bearer": "Bearer"}.get(vector["scheme"], "")
                assert sent.get("WWW-Authenticate", "").startswith(challenge)
            else:
                ignored = stage == "policy" and status == 200 and "ignored" in answer
                assert ignored or status in {400, 415}, vector["name"]
            assert not stage or "runs" not in answer, vector["name"]
        stopped.clear()
    assert len(CARRIED) > 100
    assert {scheme_of(vector) for vector in CARRIED} == READERS.keys() - {"path", "azure-devops"}


async def sampled(listener: Client, hook: str, vector: dict[str, Any]) -> tuple[int, Any, Any]:
    """The answer to a vector."""
    headers = [(name.decode(), value.decode("utf-8")) for name, value in headers_of(vector)]
    query = vector.get("path", "").partition("?")[2]
    async with listener.session.post(
        f"{listener.url}/hooks/{hook}?{query}".rstrip("?"),
        data=body_of(vector) or None,
        headers=headers,
        skip_auto_headers=["Content-Type"],
    ) as response:
        return response.status, await response.json(content_type=None), response.headers


async def test_a_sample_with_a_secret_that_is_none_starts_nothing(configured: Callable[..., Path]) -> None:
    vectors = [vector for vector in OURS if refused_by(vector) == "config"]
    assert len(vectors) >= 4
    for vector in vectors:
        with pytest.raises(ConfigurationError, match=r"hooks\.sample\.secrets\.0: is "):
            load(configured(hooks={"sample": hook_for(vector)}))


OWN_SECRETS = {
    "gitlab": "gl-6f1c0f2f-secret-token",
    "gitea": "a secret of ours",
    "forgejo": "a secret of ours",
    "gogs": "a secret of ours",
    "github": "a secret of ours",
    "bitbucket": "a secret of ours",
    "azure-devops": "azure:a long password",
    "standard-webhooks": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "hmac": "a secret of ours",
    "basic": "deployer:a long password",
    "bearer": "9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    "path": "0123456789abcdef-path",
}


def own_hook(scheme: str, **more: Any) -> dict[str, Any]:
    """A hook of a scheme for the one site."""
    selecting = (
        {"site": "mysite"} if READERS[scheme].configurable else {"repositories": {"acme/{site}": "{site}"}}
    )
    form = {"hmac": {"header": "X-Own-Signature", "timestamp_header": "X-Own-Time"}}
    return {
        "scheme": scheme,
        "secrets": [OWN_SECRETS[scheme]],
        **selecting,
        **(form if scheme == "hmac" else {}),
        **more,
    }


def own_delivery(settings: Settings, scheme: str, secret: str) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of a push to live, as the sender makes them."""
    hook = settings.hooks[scheme]
    wanted = Wanted("d-1", "acme/mysite", "mysite", None, "live", "1" * 40, "2" * 40)
    sample = READERS[scheme].sample(wanted, hook)
    body = json.dumps(sample.payload).encode()
    headers = signatures.sign(scheme, secret.encode(), "d-1", sample.event, body, time.time(), hook.form)
    return f"/hooks/{scheme}" + (f"/{secret}" if scheme == "path" else ""), body, headers


async def test_a_push_by_each_scheme_makes_staging_equal_to_live(
    configured: Callable[..., Path], published: Published
) -> None:
    settings = load(configured(hooks={scheme: own_hook(scheme) for scheme in READERS}))
    async with System(settings) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            for scheme in READERS:
                path, body, headers = own_delivery(settings, scheme, OWN_SECRETS[scheme])
                status, answer, _ = await listener.call("POST", path, token=None, data=body, headers=headers)
                assert status == 202, (scheme, answer)
                assert (await listener.ended(answer["runs"][0]))["state"] == "succeeded"
                wrong = OWN_SECRETS[scheme][:-2] + "AA"
                path, body, headers = own_delivery(settings, scheme, wrong)
                status, _, _ = await listener.call("POST", path, token=None, data=body, headers=headers)
                assert status == (404 if scheme == "path" else 401)
    assert published.tree("staging") == published.tree("live")


async def test_a_deployer_that_can_only_call_a_url_is_challenged_and_then_let_in(listening: Start) -> None:
    """A Deployer's httpMethodCallProcessor sends no body, no header, and credentials only when asked."""
    async with listening(hooks={"basic": own_hook("basic")}) as listener:
        status, _, sent = await listener.call("POST", "/hooks/basic", token=None)
        assert (status, sent["WWW-Authenticate"].split()[0]) == (401, "Basic")
        good = {"Authorization": "Basic ZGVwbG95ZXI6YSBsb25nIHBhc3N3b3Jk"}
        runs_made = []
        for _ in range(2):
            async with listener.session.post(
                f"{listener.url}/hooks/basic", headers=good, skip_auto_headers=["Content-Type"]
            ) as response:
                assert response.status == 202
                runs_made.append((await response.json())["runs"][0])
                await listener.ended(runs_made[-1])
        assert runs_made[0] != runs_made[1], "the second is no repeated one: it has no id"


async def test_a_path_s_secret_is_hidden_and_known_to_no_other_hook(listening: Start) -> None:
    hooks = {"path": own_hook("path"), "basic": own_hook("basic")}
    async with listening(hooks=hooks) as listener:
        secret = OWN_SECRETS["path"]
        _, unknown, _ = await listener.call("POST", f"/hooks/nosuch/{secret}", token=None)
        for path in ("path", "path/", f"path/{secret}x", f"path/{secret}/", f"basic/{secret}", "path/%ff"):
            url = URL(f"{listener.url}/hooks/{path}", encoded=True)
            async with listener.session.post(url) as response:
                assert response.status == 404
                answer = await response.json(content_type=None)
                assert answer["title"] == unknown["title"]
        status, _, _ = await listener.call("POST", f"/hooks/path/{secret}", token=None)
        assert status == 202


RAW_REQUESTS = (
    "POST /hooks/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "GET /hooks/path/{0} HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /hooks/path/{0}/more HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /hooks/wrong/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /hooks/path/{0}x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /hooks/path%2F{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST //hooks//path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /HOOKS/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /proxied/hooks/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST http://x/hooks/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST /hooks/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n",
    "POST /hooks/path/{0} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "POST /hooks/path/{0} HTTP/1.1\r\nHost: x\r\nBad header\r\n\r\n",
    "POST /hooks/path/{0} HTTP/9\r\nHost: x\r\n\r\n",
    "POST /hooks/path/{0}\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "/hooks/path/{0}\r\n\r\n",
)


@pytest.mark.parametrize("shown", ["0123456789abcdef-path", "an-older-secret-of-it"])
async def test_no_log_line_shows_a_path_s_secret_nor_what_was_one(
    tmp_path: Path, sshd: Sshd, published: Published, shown: str
) -> None:
    hooks = {"path": own_hook("path")}
    file = written(tmp_path, configuration(tmp_path, sshd, published.path, hooks=hooks))
    async with daemon(file) as running:
        for request in RAW_REQUESTS:
            port = int(running.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.format(shown).encode())
            assert await reader.read(1 << 16)
            writer.close()
        await running.terminate()  # writes all lines that wait
        events = running.events()
        text = running.log.read_text()
    assert shown not in text
    paths = [event["path"] for event in events if event["event"] == "request"]
    assert paths.count("/hooks/path/[redacted]") >= 3
    assert len(paths) >= 10


async def test_the_log_tells_which_secret_a_delivery_was_made_with_and_never_the_secret(
    configured: Callable[..., Path],
) -> None:
    secrets = ["an old secret", "a new secret"]
    settings = load(configured(hooks={"gitea": own_hook("gitea", secrets=secrets)}))
    lines: list[dict[str, Any]] = []
    async with System(settings) as system:
        system.intake._log = system.audit._log = KeptLog(lines)
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as listener:
            for secret in [*reversed(secrets), "neither"]:
                path, body, headers = own_delivery(settings, "gitea", secret)
                await listener.call("POST", path, token=None, data=body, headers=headers)
    assert [line.get("secret") for line in lines if line["event"] == "delivery"] == ["secret 2", "secret 1"]
    (refused,) = [line for line in lines if line["event"] == "delivery refused"]
    assert refused["reason"] == "the signature is not made with a secret of this hook"
    assert not any(secret in str(lines) for secret in secrets)
