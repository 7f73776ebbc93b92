"""Sites by pattern: known when Studio has made them, and never outside of their folder."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from listener import signatures
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import Client, configuration, on_a_closed_port


@pytest.fixture
def folder(tmp_path: Path, published: Published) -> Path:
    """A folder of sites, as Studio's is: `one` is there."""
    folder = tmp_path / "sites"
    create(folder, published, "one")
    return folder


def create(folder: Path, published: Published, site: str) -> Published:
    """Let Studio have a site more."""
    shutil.copytree(published.path, folder / site / "published", symlinks=True)
    made = Published(folder / site / "published")
    age(made, 60)
    return made


@pytest.fixture
def patterned(folder: Path, published: Published) -> dict[str, Any]:
    return {
        "mysite": {
            "repository": {"host": "studio", "path": str(published.path)},
            "environments": {"staging": {"follow": True}},
        },
        "*": {
            "repository": {"host": "studio", "path": f"{folder}/{{site}}/published"},
            "environments": {"staging": {"follow": True}},
        },
    }


@pytest.fixture
async def listener(listening: Start, patterned: dict[str, Any]) -> AsyncIterator[Client]:
    async with listening(sites=patterned) as client:
        yield client


async def test_a_site_that_was_just_made_is_synced_and_listed(
    listener: Client, folder: Path, published: Published
) -> None:
    assert (await listener.sync(site="two"))[:2] == (404, {"message": "Site not found"})
    two = create(folder, published, "two")
    _, overview, _ = await listener.call("GET", "/api/v1/sites?fresh=true")
    assert [site["site"] for site in overview["sites"]] == ["mysite", "one", "two"]
    assert all(site["environments"][0]["drift"]["plan"] == "forward-commit" for site in overview["sites"])
    status, view, _ = 404, None, None
    while status == 404:
        status, view, _ = await listener.sync(site="two")
    assert (status, view) == (200, {"message": "OK"})
    assert two.tree("staging") == two.tree("live")
    status, view, _ = await listener.call("GET", "/api/v1/sites/two")
    assert (status, view["environments"][0]["drift"]["equal"]) == (200, True)
    assert (await listener.call("GET", "/api/v1/sites/three"))[0] == 404


@pytest.mark.parametrize(
    "site",
    ["..", "../sites/one", "One", "one/", "-one", "one\n", "o*e", "*", "{site}", "a.b", "x" * 51, "$(id)"],
)
async def test_what_studio_would_not_name_a_site_is_none(listener: Client, site: str) -> None:
    assert (await listener.sync(site=site))[:2] == (404, {"message": "Site not found"})


async def test_a_path_does_not_lead_out_of_its_folder(
    listener: Client, folder: Path, published: Published
) -> None:
    before = published.commit("staging")
    (folder / "linked").symlink_to(published.path.parent)
    (folder / "gitdir").mkdir()
    (folder / "gitdir" / "published").mkdir()
    (folder / "gitdir" / "published" / ".git").symlink_to(published.path / ".git")
    for site in ("linked", "gitdir"):
        status, _, headers = await listener.sync(site=site)
        assert status == 500
        run = await listener.ended(headers["X-Run-Id"])
        assert run["outcome"]["error"] == "outside-root"
        assert "symbolic link" in run["outcome"]["remedy"]
    assert published.commit("staging") == before
    (folder / "inside").symlink_to(folder / "one")
    assert (await listener.sync(site="inside"))[0] == 200


async def test_a_folder_s_name_makes_no_site_up(listener: Client, folder: Path, published: Published) -> None:
    create(folder, published, "x\nsite ghost")
    async with asyncio.timeout(300):
        # An answer waits only briefly for a host that the listener connects to at this moment.
        while "unlisted" in (overview := (await listener.call("GET", "/api/v1/sites"))[1]):
            await asyncio.sleep(0.02)
    assert [site["site"] for site in overview["sites"]] == ["mysite", "one"]


async def test_a_folder_of_sites_may_itself_be_a_symbolic_link(
    listening: Start, patterned: dict[str, Any], folder: Path
) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    patterned["*"]["repository"]["path"] = f"{link}/{{site}}/published"
    async with listening(sites=patterned) as listener:
        assert (await listener.sync(site="one"))[:2] == (200, {"message": "OK"})


async def test_a_hook_may_select_every_site_of_a_pattern(listening: Start, patterned: dict[str, Any]) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    hooks = {"publisher": {"scheme": "standard-webhooks", "secrets": [secret], "sites": ["*"]}}
    async with listening(sites=patterned, hooks=hooks) as listener:
        for site, told in (("one", "runs"), ("no such site", "ignored")):
            body = b'{"site_id": "%s"}' % site.encode()
            headers = signatures.sign(
                "standard-webhooks", secret.encode(), told, "publish", body, time.time()
            )
            _, answer, _ = await listener.call(
                "POST", "/hooks/publisher", token=None, data=body, headers=dict(headers)
            )
            assert answer[told]


async def test_a_host_that_does_not_answer_leaves_its_sites_unlisted_and_known(
    listening: Start, patterned: dict[str, Any], sshd: Sshd, tmp_path: Path
) -> None:
    whole = on_a_closed_port(tmp_path, configuration(tmp_path, sshd, tmp_path, sites=patterned))
    async with listening(sites=patterned, hosts=whole["hosts"], ssh=whole["ssh"]) as listener:
        _, overview, _ = await listener.call("GET", "/api/v1/sites")
        assert [site["site"] for site in overview["sites"]] == ["mysite"]
        assert [(each["pattern"], each["error"]) for each in overview["unlisted"]] == [
            ("*", "host-unreachable")
        ]
        status, _, headers = await listener.sync(site="one", headers={"Prefer": "respond-async"})
        assert (status, bool(headers["X-Run-Id"])) == (202, True)
