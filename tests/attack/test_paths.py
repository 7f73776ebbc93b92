"""Paths that lead elsewhere: in URLs, in ids, and on the host."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.published import Published
from tests.attack.conftest import Besiege
from tests.attack.siege import JSON, Siege
from tests.cluster import Cluster
from tests.conftest import age
from tests.listening import ADMIN, SYNC_STAGING

ODD = (
    "..",
    "%2e%2e",
    "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%252e%252e%252f",
    "..%5c..%5c",
    "..%c0%af..%c0%af",
    "%00",
    "mysite%00",
    "mysite%00.json",
    "mysite%2f..%2fmysite",
    "mysite%2f",
    "%6dysite%20",
    ".",
    "%",
    "%zz",
    "%u002e",
    "%ed%a0%80",
    "%ff%fe",
    "~root",
    "mysite;x=1",
    "*",
    "{site}",
    "%7Bsite%7D",
    "%24%7BIFS%7D",
    "x" * 7000,
)

PLACES = (
    "/{}",
    "/hooks/{}",
    "/hooks/forge/{}",
    "/hooks/{}/../forge",
    "/static/{}",
    "/api/v1/{}",
    "/api/v1/sites/{}",
    "/api/v1/sites/{}/environments/staging/sync",
    "/api/v1/sites/mysite/environments/{}/sync",
    "/api/v1/sites/mysite/environments/{}/hold",
    "/api/v1/runs/{}",
    "/api/v1/runs/{}/log",
    "/api/v1/runs/{}/cancel",
    "/api/v1/runs/{}/rollback",
    "/api/v1/runs?site={}",
    "/api/v1/runs?before={}",
    "/api/v1/runs?environment={}",
    "/studio/api/1/services/api/1/publish/{}",
)


async def test_no_path_leads_anywhere_but_to_its_route(siege: Siege) -> None:
    await check_paths(siege)


async def test_no_path_leads_anywhere_on_postgresql_either(besiege: Besiege, cluster: Cluster) -> None:
    async with besiege(store=cluster.tcp_url(cluster.database())) as siege:
        await check_paths(siege)


async def check_paths(siege: Siege) -> None:
    for place in PLACES:
        for odd in ODD:
            for method in ("GET", "POST"):
                answer = await siege.ask(method, place.format(odd))
                allowed = {400, 404, 405, 200 if "?" in place else 401}
                assert answer.status in allowed, (method, place, odd, answer.body)
                if answer.status == 200:
                    assert json.loads(answer.body)["runs"] == []
                assert b"root:" not in answer.body
            raw = place.replace("{}", "X").encode().replace(b"X", b"\xff\xfe\xed\xa0\x80")
            assert (await siege.ask("GET", raw)).status in {200, 400, 404, 405}
    assert await siege.runs() == []


@pytest.fixture
def folder(tmp_path: Path, published: Published) -> Path:
    """A folder of sites with one that is well, and many that lead elsewhere."""
    folder = tmp_path / "sites"
    one = folder / "one" / "published"
    shutil.copytree(published.path, one, symlinks=True)
    age(Published(one), 60)
    for site in OUTSIDE:
        shutil.copytree(published.path, folder / site / "published", symlinks=True)
        age(Published(folder / site / "published"), 60)
    own = published.path / ".git"
    (folder / "linked").symlink_to(published.path.parent)
    shutil.rmtree(folder / "whole" / "published")
    (folder / "whole" / "published").symlink_to(published.path)
    for site, part in (("gitdir", ""), ("refs", "refs"), ("heads", "refs/heads"), ("objects", "objects")):
        inside = folder / site / "published" / ".git" / part
        shutil.rmtree(inside)
        inside.symlink_to(own / part)
    (folder / "common" / "published" / ".git" / "commondir").write_text(f"{own}\n")
    (folder / "up").symlink_to("..")
    return folder


OUTSIDE = ("whole", "gitdir", "refs", "heads", "objects", "common")
"""Sites whose repository, or a part of it, lies outside of the folder."""


ADMINS = [{"name": "root", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest(), "role": "admin"}]


def patterned(folder: Path) -> dict[str, Any]:
    return {
        "*": {
            "repository": {"host": "studio", "path": f"{folder}/{{site}}/published"},
            "environments": {"staging": {"follow": True}},
        }
    }


async def test_a_site_whose_parts_lie_elsewhere_moves_nothing_there(
    besiege: Besiege, folder: Path, published: Published
) -> None:
    before = published.git("for-each-ref")
    async with besiege(sites=patterned(folder), hooks={}, tokens=ADMINS) as siege:
        for site in ("linked", *OUTSIDE):
            call = json.dumps({"site_id": site, "environment": "staging"}).encode()
            answer = await siege.ask("POST", SYNC_STAGING, JSON, body=call)
            assert answer.status == 500, site
            run = answer.head.partition(b"X-Run-Id: ")[2].split()[0].decode()
            ended = await siege.listener.ended(run)
            assert ended["outcome"]["error"] in {"outside-root", "not-a-repository"}, site
        _, overview, _ = await siege.listener.call("GET", "/api/v1/sites?fresh=true")
        equal = {site["site"]: site["environments"][0]["drift"].get("error") for site in overview["sites"]}
        assert equal.pop("one") is None
        assert set(equal.values()) <= {"outside-root", "not-a-repository"}
        assert (await siege.listener.sync(site="one"))[0] == 200
    assert published.git("for-each-ref") == before


async def test_two_names_of_one_repository_within_the_folder_do_it_no_harm(
    besiege: Besiege, folder: Path
) -> None:
    """Who owns the folder may give a site a second name: both are synced, and neither hurts the other."""
    (folder / "alias").symlink_to(folder / "one")
    one = Published(folder / "one" / "published")
    async with besiege(sites=patterned(folder), hooks={}, tokens=ADMINS) as siege:
        for site in ("one", "alias"):
            assert (await siege.listener.sync(site=site))[0] == 200
    assert one.tree("staging") == one.tree("live")
    assert one.is_clean()
