"""Deliveries that are sent again: by id, by time, after a restart, to another listener."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from listener import signatures
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.signatures import Form
from tests.attack.conftest import Besiege
from tests.attack.siege import Siege
from tests.cluster import Cluster
from tests.e2e.conftest import Start, listening
from tests.listening import Client, client, configuration, daemon, push, signed, written

__all__ = ["listening"]

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"site_id": "mysite"}'
TOLERANCE = 300
OWN = {"header": "X-Own", "timestamp_header": "X-Own-Time", "signed": "{timestamp}.{body}"}
LISTED = {"header": "X-Own", "signature_key": "v1", "timestamp_key": "t", "signed": "{timestamp}.{body}"}
AT_MOST_10_S = {**OWN, "tolerance": 10}

TIMED: dict[str, dict[str, Any]] = {
    "webhooks": {"scheme": "standard-webhooks", "secrets": [WHSEC], "site": "mysite"},
    "gitlab": {"scheme": "gitlab", "secrets": [WHSEC], "repositories": {"acme/mysite": "mysite"}},
    "own": {"scheme": "hmac", "secrets": ["a secret of ours"], "site": "mysite", "hmac": OWN},
    "listed": {"scheme": "hmac", "secrets": ["a secret of ours"], "site": "mysite", "hmac": LISTED},
    "short": {"scheme": "hmac", "secrets": ["a secret of ours"], "site": "mysite", "hmac": AT_MOST_10_S},
}
"""A hook of each scheme that signs the time."""


STAMPED = {
    "webhooks": "webhook-timestamp",
    "gitlab": "webhook-timestamp",
    "own": "X-Own-Time",
    "listed": "X-Own",
    "short": "X-Own-Time",
}
"""The header that has the time."""


def timed(hook: str, delivery: str, at: float) -> tuple[bytes, dict[str, str]]:
    """A delivery that was signed at a time."""
    entry = TIMED[hook]
    form = Form(**entry["hmac"]) if "hmac" in entry else None
    event = "Push Hook" if hook == "gitlab" else "publish"
    body = json.dumps(GITLAB).encode() if hook == "gitlab" else BODY
    secret = entry["secrets"][0].encode()
    return body, signatures.sign(entry["scheme"], secret, delivery, event, body, at, form)


GITLAB = {
    "object_kind": "push",
    "ref": "refs/heads/live",
    "after": "1" * 40,
    "project": {"path_with_namespace": "acme/mysite"},
}


async def test_a_time_is_taken_exactly_as_far_off_as_is_tolerated(
    listening: Start, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, whose clock can be stopped; nothing follows live, so nothing runs by that clock."""
    repository = {"host": "studio", "path": str(published.path)}
    sites = {"mysite": {"repository": repository, "environments": {"staging": {"follow": False}}}}
    real, now, signed_at = time.time, [0.0], int(time.time())
    monkeypatch.setattr(time, "time", lambda: now[0] or real())
    async with listening(hooks=TIMED, sites=sites) as listener:
        for hook, entry in TIMED.items():
            tolerance = entry.get("hmac", {}).get("tolerance", TOLERANCE)
            for number, (off, status) in enumerate(boundaries(tolerance)):
                now[0] = signed_at + off
                body, headers = timed(hook, f"msg_{number}", signed_at)
                answer = await posted(listener, hook, body, headers)
                assert answer[0] == status, (hook, off)
        now[0] = 0


def boundaries(tolerance: int) -> Iterator[tuple[float, int]]:
    """How far off the clock is, and the status that answers."""
    for sign in (1, -1):
        yield sign * tolerance, 200
        yield sign * (tolerance + 0.001), 401
        yield sign * 86_400, 401


async def test_a_signed_time_can_t_be_changed_left_out_or_spelt_otherwise(besiege: Besiege) -> None:
    async with besiege(hooks=TIMED) as siege:
        for hook in TIMED:
            body, headers = timed(hook, "msg_1", time.time() - 86_400)
            stamped = STAMPED[hook]
            old = headers[stamped]
            new = str(int(time.time()))
            for value in (
                new,
                f"+{new}",
                f" {new}",
                f"0{new}",
                f"{new}.0",
                f"{new}e0",
                f"{new}, {new}",
                "NaN",
                "",
            ):
                changed = {
                    **headers,
                    stamped: value if old.isdigit() else f"t={value},{old.partition(',')[2]}",
                }
                assert (await siege.deliver(body, changed.items(), hook)).status == 401, (hook, value)
            without = {name: value for name, value in headers.items() if name != stamped}
            assert (await siege.deliver(body, without.items(), hook)).status == 401
            assert (await siege.deliver(body, headers.items(), hook)).status == 401, "it is a day old"
        assert await siege.runs() == []


async def test_a_delivery_that_is_sent_again_and_again_is_one_run(siege: Siege) -> None:
    body = push()
    first = await siege.deliver(body, signed(body, "d-1").items())
    assert first.status == 202
    await siege.quiet()
    for _ in range(100):
        again = await siege.deliver(body, signed(body, "d-1").items())
        assert (again.status, again.body) == (200, first.body)
    other = push(after="2" * 40)
    again = await siege.deliver(other, signed(other, "d-1").items())
    assert (again.status, again.body) == (200, first.body), "an id is the sender's word for the same delivery"
    assert len(await siege.quiet()) == 1
    for number in range(20):
        same = await siege.deliver(body, signed(body, f"d-1{number}").items())
        assert same.status == 202, "another id is another delivery: equal bodies are legitimate"
    ended = await siege.quiet()
    assert {run["outcome"]["plan"] for run in ended[:-1]} == {"up-to-date"}, "which costs a look at most"


async def test_a_delivery_is_still_known_after_a_crash(
    tmp_path: Path, sshd: Sshd, published: Published
) -> None:
    file = written(tmp_path, configuration(tmp_path, sshd, published.path, hooks=TIMED | FORGE))
    stored: dict[str, tuple[bytes, dict[str, str], Any]] = {}
    async with daemon(file) as running, client(running.url) as listener:
        for hook in ("forge", "webhooks", "gitlab"):
            body, headers = (
                (push(), signed(push(), "d-1")) if hook == "forge" else timed(hook, "msg_1", time.time())
            )
            status, answer, _ = await posted(listener, hook, body, headers)
            assert status == 202
            await listener.ended(answer["runs"][0])
            stored[hook] = body, headers, answer
        await running.kill()
        await running.start()
        for hook, (body, headers, answer) in stored.items():
            assert (await posted(listener, hook, body, headers))[:2] == (200, answer)
        assert len((await listener.call("GET", "/api/v1/runs"))[1]["runs"]) == len(stored)


FORGE = {
    "forge": {
        "scheme": "github",
        "secrets": ["It's a Secret to Everybody"],
        "repositories": {"acme/mysite": "mysite"},
    }
}


async def posted(listener: Client, hook: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, Any]:
    return await listener.call("POST", f"/hooks/{hook}", token=None, data=body, headers=headers)


async def test_a_delivery_is_known_to_another_listener_on_the_same_database(
    listening: Start, configured: Callable[..., Path], cluster: Cluster
) -> None:
    store = cluster.tcp_url(cluster.database())
    async with listening(store=store) as one, listening(store=store) as other:
        status, first, _ = await one.deliver("d-1")
        assert status == 202
        assert (await other.deliver("d-1"))[:2] == (200, first)
        await one.ended(first["runs"][0])
        assert (await other.deliver("d-1"))[:2] == (200, first)
        assert (await one.deliver("d-1", push(after="3" * 40)))[:2] == (200, first)
        assert len((await other.call("GET", "/api/v1/runs"))[1]["runs"]) == 1
