"""Deliveries to a hook, over HTTP: what is accepted, ignored, repeated and refused."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from listener import signatures
from listener.rehearsal.published import Published
from tests.e2e.conftest import Start
from tests.listening import GITHUB_SECRET, Client, push, signed
from tests.unit.test_signatures import SAMPLES, body_of, headers_of

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
        (push(ref="refs/heads/master"), "push", "refs/heads/master is not the live branch of mysite"),
        (push(ref="refs/tags/v1"), "push", "refs/tags/v1 is not the live branch of mysite"),
        (push(repository="acme/other"), "push", "the hook does not cover the repository acme/other"),
        (b'{"zen": "Keep it logically awesome."}', "ping", "the event ping tells of no publish"),
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
    assert (status, answer["ignored"]) == (200, "on hold: acceptance test")
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
            assert answer["ignored"].startswith("the hook does not cover the site")
        body = b'{"site_id": "mysite"}'
        headers = signatures.sign(
            "standard-webhooks", secret.encode(), "msg_good", "publish", body, time.time()
        )
        status, _, _ = await listener.call("POST", "/hooks/deployer", token=None, data=body, headers=headers)
        assert status == 202


async def test_the_samples_are_judged_over_http_as_they_are_by_functions(listening: Start) -> None:
    """HTTP itself refuses some header values: those samples stay with the functions."""
    hooks = {
        "sample": {
            "scheme": "github",
            "secrets": [GITHUB_SECRET],
            "repositories": {"octocat/Hello-World": "mysite"},
        }
    }
    judged = 0
    async with listening(hooks=hooks) as listener:
        for vector in SAMPLES:
            if vector["scheme"] != "github" or vector.get("secret") != GITHUB_SECRET:
                continue
            headers = [(name.decode(), value.decode("utf-8")) for name, value in headers_of(vector)]
            if any("\r" in value or "\n" in value for _, value in headers):
                continue
            url = f"{listener.url}/hooks/sample"
            async with listener.session.post(url, data=body_of(vector), headers=headers) as response:
                status = response.status
            if vector["name"] == "github/official-hello-world":
                assert status in {400, 415}, "it is signed well, and is no JSON"
            elif vector["expect"] == "accept":
                assert status in {200, 202}, vector["name"]
            else:
                assert status == 401 if vector["stage"] == "signature" else status in {400, 415}, vector[
                    "name"
                ]
            judged += 1
    assert judged > 25
