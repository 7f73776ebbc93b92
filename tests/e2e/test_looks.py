"""What is known is told at once, with its age; a publish that no webhook announced is found after a start."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.web import standings
from tests.cluster import Cluster
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import Client, configuration

SITE = "/api/v1/sites/mysite"
QUICK = {"quiet": 0.2, "patience": 300, "backoff": 0.05, "backoff_most": 0.1}
SELDOM = {**QUICK, "interval": 86400}
"""Each site is looked at once after the start, and then only the next day."""


async def of_site(listener: Client, query: str = "", site: str = "mysite") -> dict[str, Any]:
    _, view, _ = await listener.call("GET", f"/api/v1/sites/{site}{query}")
    environment: dict[str, Any] = view["environments"][0]
    return environment


def commit(published: Published, branch: str, text: str) -> str:
    """Move a branch to a new commit whose only file has this text."""
    blob = published.git("hash-object", "-w", "--stdin", stdin=text.encode())
    tree = published.git("mktree", stdin=f"100644 blob {blob}\tindex.xml\n".encode())
    made = published.git("commit-tree", tree, "-p", branch, "-m", f"Publish to {branch}")
    published.git("update-ref", f"refs/heads/{branch}", made)
    age(published, 60)
    return made


async def until_equal(published: Published) -> None:
    async with asyncio.timeout(300):
        while published.tree("staging") != published.tree("live"):
            await asyncio.sleep(0.02)


async def test_what_nobody_has_looked_at_is_told_to_be_unknown(listener: Client) -> None:
    environment = await of_site(listener)
    assert (environment["state"], environment["looked_at"]) == ("unknown", None)
    assert environment["drift"]["error"] == "not-looked-at"


async def test_a_fresh_look_is_remembered(listener: Client) -> None:
    fresh = await of_site(listener, "?fresh=true")
    assert (fresh["state"], fresh["drift"]["plan"]) == ("differs", "forward-commit")
    assert "late" not in fresh
    assert await of_site(listener) == fresh
    assert (await listener.call("GET", f"{SITE}?fresh=perhaps"))[0] == 400


async def test_what_a_run_has_left_is_known(listener: Client, published: Published) -> None:
    await listener.sync()
    environment = await of_site(listener)
    assert (environment["state"], environment["drift"]["equal"]) == ("equal", True)
    assert environment["drift"]["branch"] == published.commit("staging")


async def test_what_is_known_outlives_the_listener(listening: Start) -> None:
    async with listening() as listener:
        fresh = await of_site(listener, "?fresh=true")
    async with listening() as listener:
        assert await of_site(listener) == fresh


@pytest.mark.parametrize(
    ("accept", "media_type"), [("application/x-ndjson", "x-ndjson"), ("text/event-stream", "event-stream")]
)
async def test_fresh_looks_stream_as_they_arrive(listener: Client, accept: str, media_type: str) -> None:
    for path in (SITE, "/api/v1/sites"):
        status, text, headers = await listener.call("GET", f"{path}?fresh=true", headers={"Accept": accept})
        assert (status, media_type in headers["Content-Type"]) == (200, True)
        lines = [line.removeprefix("data: ") for line in text.splitlines() if "{" in line]
        site, end = map(json.loads, lines)
        assert (site["site"], site["environments"][0]["state"]) == ("mysite", "differs")
        assert end["next"] is None


async def test_after_a_start_a_publish_that_nobody_announced_is_synced(
    listening: Start, published: Published
) -> None:
    async with listening(sync=SELDOM) as listener:
        await until_equal(published)
        while (await of_site(listener))["state"] != "equal":
            await asyncio.sleep(0.02)
    before = published.commit("staging")
    commit(published, "live", "published while nobody listened")
    async with listening(sync=SELDOM) as listener:
        await until_equal(published)
        assert published.commit("staging") != before
        _, page, _ = await listener.call("GET", "/api/v1/runs?limit=1")
        _, run, _ = await listener.call("GET", f"/api/v1/runs/{page['runs'][0]['id']}")
        assert [trigger["origin"] for trigger in run["triggers"]] == ["schedule"]


async def test_the_first_look_after_a_start_respects_holds(listening: Start, published: Published) -> None:
    async with listening() as listener:
        await listener.call("POST", f"{SITE}/environments/staging/hold", json={"reason": "a test"})
    before = published.commit("staging")
    async with listening(sync=SELDOM) as listener:
        while (await of_site(listener))["looked_at"] is None:
            await asyncio.sleep(0.02)
        assert (await listener.call("GET", "/api/v1/runs"))[1]["runs"] == []
    assert published.commit("staging") == before


async def test_the_first_sync_after_a_restart_needs_no_look_of_its_own(
    listening: Start, published: Published
) -> None:
    async with listening() as listener:
        await listener.sync()
    commit(published, "live", "new")
    async with listening() as listener:
        status, _, headers = await listener.sync()
        _, run, _ = await listener.call("GET", f"/api/v1/runs/{headers['X-Run-Id']}")
    assert (status, run["outcome"]["moved"]) == (200, True)
    assert "observe" not in run["outcome"]["durations"]
    assert published.tree("staging") == published.tree("live")


async def test_an_expectation_from_before_the_restart_that_is_wrong_costs_only_a_look(
    listening: Start, published: Published
) -> None:
    async with listening() as listener:
        await listener.sync()
    other = commit(published, "staging", "by somebody else")
    async with listening() as listener:
        assert (await listener.sync())[0] == 200
    assert published.tree("staging") == published.tree("live")
    assert published.is_ancestor(other, "staging")


def beside(whole: dict[str, Any], folder: Path, port: int) -> dict[str, Any]:
    """The sections of a configuration with another host, `silent`, whose key is known."""
    known, public = folder / "known_hosts", Path(whole["ssh"]["known_hosts"]).read_text()
    known.write_text(f"{public}[127.0.0.1]:{port} {public.split(maxsplit=1)[1]}")
    place = whole["hosts"]["studio"]
    hosts = {"studio": place, "silent": {**place, "port": port}}
    return {"hosts": hosts, "ssh": {**whole["ssh"], "known_hosts": str(known)}}


@asynccontextmanager
async def silent_host(whole: dict[str, Any], folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The sections of a configuration with a host `silent`, which takes connections and says nothing."""
    gone = asyncio.Event()

    async def silence(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    try:
        yield beside(whole, folder, server.sockets[0].getsockname()[1])
    finally:
        gone.set()
        server.close()


async def test_a_silent_host_holds_no_answer_up(
    listening: Start, published: Published, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "FRESH_LIMIT", 2.0)
    whole = configuration(tmp_path, sshd, published.path)
    async with silent_host(whole, tmp_path) as place:
        quiet = {
            "repository": {"host": "silent", "path": "/srv/quiet"},
            "environments": {"staging": {"follow": True}},
        }
        pattern = {**quiet, "repository": {"host": "silent", "path": "/srv/{site}"}}
        sites = {**whole["sites"], "quiet": quiet, "p-*": pattern}
        sync = {**SELDOM, "connect_timeout": 300}
        async with listening(**place, sites=sites, sync=sync) as listener, asyncio.timeout(300):
            while (await of_site(listener))["state"] != "equal":
                await asyncio.sleep(0.02)
            _, page, _ = await listener.call("GET", "/api/v1/sites")
            assert [(each["site"], each["environments"][0]["state"]) for each in page["sites"]] == [
                ("mysite", "equal"),
                ("quiet", "unknown"),
            ]
            assert [each["pattern"] for each in page["unlisted"]] == ["p-*"]
            assert (await of_site(listener, site="p-one"))["drift"]["error"] == "not-looked-at"
            _, page, _ = await listener.call("GET", "/api/v1/sites?fresh=true")
            late = {each["site"]: each["environments"][0].get("late") for each in page["sites"]}
        assert late == {"mysite": None, "quiet": True}


async def test_each_environment_tells_its_own_error(
    listening: Start, published: Published, sshd: Sshd, tmp_path: Path
) -> None:
    sites = {}
    for name in ("broken", "missing", "whole"):
        copy = tmp_path / "copies" / name
        if name != "missing":
            shutil.copytree(published.path, copy, symlinks=True)
            age(Published(copy), 60)
        sites[name] = {
            "repository": {"host": "studio", "path": str(copy)},
            "environments": {"staging": {"follow": False}},
        }
    (tmp_path / "copies" / "broken" / ".git" / "HEAD").unlink()
    tokens = configuration(tmp_path, sshd, tmp_path)["tokens"][:1]
    async with listening(sites=sites, hooks={}, tokens=tokens, sync=SELDOM) as listener, asyncio.timeout(300):
        while True:
            _, page, _ = await listener.call("GET", "/api/v1/sites")
            found = {each["site"]: each["environments"][0] for each in page["sites"]}
            if all(each["looked_at"] for each in found.values()):
                break
            await asyncio.sleep(0.02)
    assert {site: each["state"] for site, each in found.items()} == {
        "broken": "unknown",
        "missing": "unknown",
        "whole": "differs",
    }
    assert {found[site]["drift"]["error"] for site in ("broken", "missing")} == {"not-a-repository"}


async def test_listeners_on_one_store_share_what_they_have_found(
    configured: Callable[..., Path], listening: Start, cluster: Cluster
) -> None:
    store = cluster.tcp_url(cluster.database())
    async with listening(store=store) as one, listening(store=store) as other, asyncio.timeout(300):
        fresh = await of_site(one, "?fresh=true")
        while (await of_site(other))["looked_at"] is None:
            await asyncio.sleep(0.02)
        assert await of_site(other) == fresh


async def test_a_site_of_a_pattern_is_known_while_its_host_is_silent_after_a_restart(
    listening: Start, published: Published, sshd: Sshd, tmp_path: Path
) -> None:
    folder = tmp_path / "sites"
    shutil.copytree(published.path, folder / "one" / "published", symlinks=True)
    whole = configuration(tmp_path, sshd, published.path)
    pattern = {
        "repository": {"host": "studio", "path": f"{folder}/{{site}}/published"},
        "environments": {"staging": {"follow": True}},
    }
    sites = {**whole["sites"], "*": pattern}
    async with listening(sites=sites) as listener:
        _, before, _ = await listener.call("GET", "/api/v1/sites?fresh=true")
        assert [each["site"] for each in before["sites"]] == ["mysite", "one"]
    async with silent_host(whole, tmp_path) as place:
        place["hosts"] = {"studio": place["hosts"]["silent"]}
        async with listening(sites=sites, **place, sync={**QUICK, "connect_timeout": 300}) as listener:
            _, page, _ = await listener.call("GET", "/api/v1/sites")
            assert page["sites"] == before["sites"]
            assert [each["pattern"] for each in page["unlisted"]] == ["*"]


async def test_sites_of_patterns_are_looked_at_after_a_start_beside_a_pattern_whose_host_is_silent(
    listening: Start, published: Published, sshd: Sshd, tmp_path: Path
) -> None:
    whole = configuration(tmp_path, sshd, published.path)
    one = Published(tmp_path / "sites" / "one" / "published")
    await asyncio.to_thread(shutil.copytree, published.path, one.path, symlinks=True)
    age(one, 60)
    environments = {"staging": {"follow": True}}
    sites = {
        **whole["sites"],
        "o*": {
            "repository": {"host": "studio", "path": f"{tmp_path}/sites/{{site}}/published"},
            "environments": environments,
        },
        "p-*": {"repository": {"host": "silent", "path": "/srv/{site}"}, "environments": environments},
    }
    async with (
        silent_host(whole, tmp_path) as place,
        listening(sites=sites, **place, sync={**SELDOM, "connect_timeout": 300}),
    ):
        await until_equal(one)
