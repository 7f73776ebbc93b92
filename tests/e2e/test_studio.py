"""Studio, where it is configured, has its say before its own repository is moved."""

from typing import Any

from listener.rehearsal.published import Published
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import Client
from tests.studio import FakeStudio, status_of_4

QUICK = {"quiet": 0.2, "patience": 300, "backoff": 0.05, "backoff_most": 0.1}


def section(studio: FakeStudio) -> dict[str, Any]:
    return {"url": studio.url, "token": studio.token, "management_token": studio.management_token}


async def started(listener: Client) -> str:
    _, _, headers = await listener.sync(headers={"Prefer": "respond-async"})
    return str(headers["X-Run-Id"])


async def said(listener: Client, run: str, words: str) -> dict[str, Any]:
    """The run, once an attempt of it has ended with that message."""
    while True:
        _, view, _ = await listener.call("GET", f"/api/v1/runs/{run}")
        if view["outcome"] and words in view["outcome"]["message"]:
            found: dict[str, Any] = view
            return found


async def test_nothing_moves_while_studio_says_that_it_publishes(
    listening: Start, published: Published
) -> None:
    before = published.commit("staging")
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("publishing")
        async with listening(studio=section(studio), sync=QUICK) as listener:
            run = await started(listener)
            waiting = await said(listener, run, "Studio is publishing")
            assert published.commit("staging") == before
            assert not waiting["outcome"]["moved"]
            studio.bodies["mysite"] = status_of_4("ready")
            done = await listener.ended(run)
            assert (done["state"], done["failures"]) == ("succeeded", 0)
            assert published.tree("staging") == published.tree("live")


async def test_a_run_that_waits_for_studio_can_be_cancelled(listening: Start, published: Published) -> None:
    before = published.commit("staging")
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("publishing")
        async with listening(studio=section(studio), sync=QUICK) as listener:
            run = await started(listener)
            await said(listener, run, "Studio is publishing")
            status, cancelled, _ = await listener.call("POST", f"/api/v1/runs/{run}/cancel")
            assert (status, cancelled["state"]) == (200, "cancelled")
            assert published.commit("staging") == before


async def test_a_publish_that_studio_never_ends_holds_up_for_patience_only(
    listening: Start, published: Published
) -> None:
    age(published, 400)
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("publishing")
        async with listening(studio=section(studio), sync=QUICK) as listener:
            status, _, headers = await listener.sync()
            assert status == 200
            run = await listener.ended(headers["X-Run-Id"])
            assert "nothing has touched the repository for" in run["outcome"]["warnings"][0]


async def test_a_replica_is_not_written_to(listening: Start, published: Published) -> None:
    before = published.commit("staging")
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("ready")
        studio.replica = True
        async with listening(studio=section(studio), sync=QUICK) as listener:
            run = await started(listener)
            view = await said(listener, run, "replica")
            assert view["outcome"]["error"] == "not-primary"
            assert published.commit("staging") == before
            studio.replica = False
            assert (await listener.ended(run))["state"] == "succeeded"


async def test_studio_is_asked_once_at_most_where_nothing_moves(listening: Start) -> None:
    """A run that looks and moves at once can't know before that there is nothing to move."""
    async with FakeStudio() as studio:
        studio.bodies["mysite"] = status_of_4("ready")
        async with listening(studio=section(studio), sync=QUICK) as listener:
            assert (await listener.sync())[0] == 200
            asked = len(studio.requests)
            assert (await listener.sync())[0] == 200
            assert 0 < asked <= len(studio.requests) <= asked + 1
            log = str(await listener.events((await listener.call("GET", "/api/v1/runs"))[1]["runs"][0]["id"]))
            assert studio.token not in log


async def test_pointers_into_a_blob_store_are_warned_of(listening: Start, published: Published) -> None:
    published.git("checkout", "--quiet", "live")
    (published.path / "film.mp4.blob").write_text("{}")
    published.git("add", "--all")
    published.git("commit", "--quiet", "-m", "Publish to live")
    published.git("checkout", "--quiet", "staging")
    age(published, 60)
    async with listening() as listener:
        _, _, headers = await listener.sync()
        run = await listener.ended(headers["X-Run-Id"])
        assert "1 of the paths point into a blob store" in run["outcome"]["warnings"][0]
        published.git("update-ref", "-d", "refs/heads/staging")
        _, plan, _ = await listener.call(
            "POST", "/api/v1/sites/mysite/environments/staging/sync", json={"dry_run": True}
        )
        assert plan["plan"] == "create"
        assert "blob store" in plan["warnings"][0]
