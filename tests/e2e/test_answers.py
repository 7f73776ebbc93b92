"""The API answers what clients know: each field and value stands in `tests/samples/answers.json`.

Values that differ each time (ids, times, commits, addresses) and texts for people are replaced by words.
If you change an answer on purpose, `SYNC_STAGING_RECORD=1` writes the file again: read the difference.
"""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.conftest import Start
from tests.listening import ADMIN, MEMBER, Client, configuration, on_a_closed_port, push, signed

SAMPLES = Path(__file__).parents[1] / "samples" / "answers.json"
ONE = "/api/v1/sites/mysite/environments/staging"
TWO = "/api/v1/sites/mysite/environments/qa"
TOLD = ("Content-Type", "Location", "X-Run-Id", "Allow", "WWW-Authenticate", "Link", "Retry-After")
TEXTS = {"detail", "message", "reason", "remedy", "ignored"}

_WORDS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"), "<time>"),
    (re.compile(r"\d+(\.\d+)? s\b"), "<seconds>"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "<commit>"),
    (re.compile(r":\d{4,5}\b"), ":<port>"),
)


def in_words(value: Any, folder: Path) -> Any:
    """The value without what differs each time."""
    if isinstance(value, dict):
        words = {key: "<text>" for key in TEXTS & value.keys() if value[key]}
        if "role" in value and "count" in value:
            words["count"] = "<count>"  # how often the test has asked
        if value.get("durations"):
            words["durations"] = "<seconds by step>"  # a move may need a look before it, or not
        return {key: in_words(each, folder) for key, each in {**value, **words}.items()}
    if isinstance(value, list):
        return [in_words(each, folder) for each in value]
    if isinstance(value, float):
        return "<float>"
    if isinstance(value, str):
        value = value.replace(str(folder), "<folder>")
        for pattern, word in _WORDS:
            value = pattern.sub(word, value)
    return value


class Recorder:
    """Makes calls and writes the answers down."""

    def __init__(self, client: Client, folder: Path, into: dict[str, Any]) -> None:
        self.client = client
        self._folder = folder
        self._into = into

    async def call(self, what: str, method: str, path: str, **more: Any) -> Any:
        """The body of the answer."""
        status, body, headers = await self.client.call(method, path, **more)
        told = {name: headers[name] for name in TOLD if name in headers}
        asked = in_words(f"{method} {path}", self._folder)
        answer = {"status": status, "headers": told, "body": body}
        self._into[f"{what}: {asked}"] = in_words(answer, self._folder)
        return body


async def of_sites_and_runs(recorder: Recorder) -> None:
    call = recorder.call
    await call("before all", "GET", "/api/v1/sites/mysite?fresh=true")
    await call("a dry run", "POST", f"{ONE}/sync", json={"dry_run": True})
    await call("a dry run of two legs", "POST", f"{TWO}/sync", json={"dry_run": True})
    started = await call("a run", "POST", f"{ONE}/sync", headers={"Prefer": "wait=30"})
    await call("a run of two legs", "POST", f"{TWO}/sync", headers={"Prefer": "wait=30"})
    run = f"/api/v1/runs/{started['id']}"
    await call("a run that has ended", "GET", run)
    await call("after all", "GET", "/api/v1/sites/mysite?fresh=true")
    await call("cancelled too late", "POST", f"{run}/cancel")
    await call("tried again in vain", "POST", f"{run}/retry")
    await call("a rollback, looked at", "POST", f"{run}/rollback", json={"dry_run": True})
    await call("a rollback by a member", "POST", f"{run}/rollback", token=MEMBER)
    back = await recorder.client.call("POST", f"{run}/rollback")
    await recorder.client.ended(back[1]["id"])
    await call("rolled back", "GET", f"/api/v1/runs/{back[1]['id']}")
    await call("held by a rollback", "GET", "/api/v1/sites?fresh=true")
    released = await call("released", "POST", f"{ONE}/release")
    await recorder.client.ended(released["runs"][0])
    await call("held", "POST", f"{ONE}/hold", json={"reason": "a test of É and 漢字"})
    await call("held without a reason", "POST", f"{ONE}/hold", json={})
    failed = await call("synced on hold", "POST", f"{ONE}/sync")
    await call("a run that has failed", "GET", f"/api/v1/runs/{failed['id']}")
    await call("the history", "GET", "/api/v1/runs")
    await call("a page of the history", "GET", "/api/v1/runs?limit=2")
    await call("a page too long", "GET", "/api/v1/runs?limit=1000")
    await call("an unknown state", "GET", "/api/v1/runs?state=lost")
    await call("a site that is not there", "GET", "/api/v1/sites/nosuch")
    await call("a wrong method", "DELETE", "/api/v1/runs")
    await call("a stranger", "GET", "/api/v1/runs", token=None)


async def of_deliveries(recorder: Recorder) -> None:
    call = recorder.call
    for what, body, more in (
        ("accepted", push(), {}),
        ("ignored", push(ref="refs/tags/v1"), {}),
        ("refused", push(), {"secret": "wrong"}),
    ):
        headers = signed(body, what, **more)
        answer = await call(what, "POST", "/hooks/forge", token=None, data=body, headers=headers)
        if what == "accepted":
            await recorder.client.ended(answer["runs"][0])
            await call("again", "POST", "/hooks/forge", token=None, data=body, headers=headers)
            one = f"/api/v1/deliveries/{answer['delivery']}"
            again = await call("redelivered", "POST", f"{one}/redeliver")
            await recorder.client.ended(again["runs"][0])
            await call("a delivery", "GET", one)
    await call("deliveries", "GET", "/api/v1/deliveries")
    await call("a page of deliveries", "GET", "/api/v1/deliveries?limit=1")
    await call("refused ones", "GET", "/api/v1/deliveries?outcome=refused")
    await call("an unknown outcome", "GET", "/api/v1/deliveries?outcome=lost")
    await call("deliveries for a member", "GET", "/api/v1/deliveries", token=MEMBER)
    await call("hooks", "GET", "/api/v1/hooks")
    await call("tokens", "GET", "/api/v1/tokens")


async def of_sessions_and_probes(recorder: Recorder) -> None:
    call = recorder.call
    await call("signed in", "POST", "/session", token=None, json={"token": ADMIN})
    await call("a wrong token", "POST", "/session", token=None, json={"token": "wrong"})
    await call("no token", "POST", "/session", token=None, json={})
    await call("alive", "GET", "/healthz", token=None)
    await call("ready", "GET", "/readyz", token=None)
    asked = {"site_id": "mysite", "environment": "qa"}
    path = "/api/1/services/api/1/publish/sync-staging.json"
    await call("Studio's call", "POST", path, json=asked)
    await call("Studio's call, later", "POST", path, json=asked, headers={"Prefer": "respond-async"})
    await call("Studio's call, empty", "POST", path, json={})


async def test_the_answers_are_those_that_are_recorded(
    listening: Start, published: Published, sshd: Sshd, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), "mirror.git")
    repository = {"host": "studio", "path": str(published.path)}
    qa = {
        "repositories": [
            {"host": "studio", "path": f"{tmp_path}/{each}"} for each in ("mirror.git", "no.git")
        ]
    }
    mine = {"repository": repository, "environments": {"staging": {"follow": True}, "qa": qa}}
    away = {
        "repository": {**repository, "path": "/srv/{site}"},
        "environments": {"staging": {"follow": True}},
    }
    found: dict[str, Any] = {}
    sync = {"quiet": 0.2, "patience": 3, "backoff": 0.1, "backoff_most": 0.5, "attempts": 1}
    async with listening(sites={"mysite": mine}, sync=sync) as listener:
        recorder = Recorder(listener, tmp_path, found)
        await of_sites_and_runs(recorder)
        await listener.call("POST", f"{ONE}/release")
        for state in ("queued", "running"):  # what the release has started
            while (await listener.call("GET", f"/api/v1/runs?state={state}"))[1]["runs"]:
                await asyncio.sleep(0.02)
        await of_deliveries(recorder)
        await of_sessions_and_probes(recorder)
    whole = on_a_closed_port(tmp_path, configuration(tmp_path, sshd, tmp_path))
    store = f"sqlite:///{tmp_path}/other.db"
    async with listening(sites={"*": away}, hosts=whole["hosts"], ssh=whole["ssh"], store=store) as listener:
        recorder = Recorder(listener, tmp_path, found)
        await recorder.call("a host that is away", "GET", "/api/v1/sites?fresh=true")
    if "SYNC_STAGING_RECORD" in os.environ:
        SAMPLES.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    assert found == json.loads(SAMPLES.read_text())
