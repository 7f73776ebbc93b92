"""Taking back what a run did, and the hold that goes with it."""

from typing import Any

import pytest

from listener.rehearsal.published import Published
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import MEMBER, Client
from tests.publisher import DeliveryNode

ONE = "/api/v1/sites/mysite/environments/staging"


def policy(name: str, published: Published) -> dict[str, Any]:
    """The configuration's sites, with that policy."""
    return {
        "mysite": {
            "repository": {"host": "studio", "path": str(published.path)},
            "environments": {"staging": {"follow": True, "policy": name}},
        }
    }


async def synced(listener: Client) -> dict[str, Any]:
    _, _, headers = await listener.sync()
    return await listener.ended(headers["X-Run-Id"])


async def rolled_back(listener: Client, run: str) -> dict[str, Any]:
    status, started, headers = await listener.call("POST", f"/api/v1/runs/{run}/rollback")
    assert (status, headers["Location"]) == (202, f"/api/v1/runs/{started['id']}")
    assert started["undoes"] == run
    return await listener.ended(started["id"])


async def hold(listener: Client) -> Any:
    _, site, _ = await listener.call("GET", "/api/v1/sites/mysite")
    return site["environments"][0]["hold"]


def publish(published: Published) -> None:
    """Let live move on by a commit."""
    tree = published.tree("staging")
    newer = published.git("commit-tree", tree, "-p", published.commit("live"), "-m", "Publish to live")
    published.git("update-ref", "refs/heads/live", newer)
    age(published, 60)


async def test_a_rollback_gives_staging_its_old_content_by_a_commit_that_others_pull(
    listener: Client, published: Published, tmp_path: Any
) -> None:
    old, tree = published.commit("staging"), published.tree("staging")
    run = await synced(listener)
    node = DeliveryNode(published, tmp_path / "node", "staging")
    status, plan, _ = await listener.call(
        "POST", f"/api/v1/runs/{run['id']}/rollback", json={"dry_run": True}, token=MEMBER
    )
    assert (status, plan["plan"], plan["target"]) == (200, "forward-commit", old)
    assert plan["added"] == ["site/website/staged-for-review/index.xml"]
    back = await rolled_back(listener, run["id"])
    assert (back["state"], back["outcome"]["plan"]) == ("succeeded", "forward-commit")
    assert published.tree("staging") == tree
    assert published.git("rev-list", "--parents", "-1", "staging").split()[1:] == [run["outcome"]["new"]]
    assert published.is_clean()
    assert node.pull() == "fast-forward"
    assert node.tree() == tree


async def test_a_rollback_by_reset_moves_back_and_keeps_what_it_took_away(
    listening: Start, published: Published
) -> None:
    old = published.commit("staging")
    async with listening(sites=policy("reset", published)) as listener:
        run = await synced(listener)
        back = await rolled_back(listener, run["id"])
        assert published.commit("staging") == old
        assert published.git("rev-parse", back["outcome"]["backup"]) == run["outcome"]["new"]


async def test_a_rollback_is_not_undone_before_live_moves(listener: Client, published: Published) -> None:
    run = await synced(listener)
    await rolled_back(listener, run["id"])
    tree = published.tree("staging")
    assert (await hold(listener))["until_live_leaves"] == published.commit("live")
    _, answer, _ = await listener.deliver("same-live")
    kept = await listener.ended(answer["runs"][0])
    assert (kept["state"], kept["outcome"]["error"]) == ("cancelled", "on-hold")
    assert published.tree("staging") == tree
    publish(published)
    _, answer, _ = await listener.deliver("new-live")
    moved = await listener.ended(answer["runs"][0])
    assert moved["state"] == "succeeded"
    assert published.tree("staging") == published.tree("live")
    assert await hold(listener) is None


async def test_somebody_who_syncs_by_hand_ends_the_hold(listener: Client, published: Published) -> None:
    run = await synced(listener)
    await rolled_back(listener, run["id"])
    assert (await listener.sync())[0] == 200
    assert published.tree("staging") == published.tree("live")
    assert await hold(listener) is None


async def test_what_has_moved_since_is_not_rolled_back(listener: Client, published: Published) -> None:
    run = await synced(listener)
    publish(published)
    published.git("checkout", "--quiet", "master")
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    age(published, 60)
    status, problem, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback")
    assert (status, problem["code"]) == (409, "conflict")
    assert "has moved since" in problem["detail"]
    assert await hold(listener) is None


async def test_a_run_that_made_the_branch_or_moved_nothing_has_no_rollback(
    listener: Client, published: Published
) -> None:
    published.git("checkout", "--quiet", "master")
    published.git("branch", "-D", "staging")
    age(published, 60)
    for plan in ("create", "up-to-date"):
        run = await synced(listener)
        assert run["outcome"]["plan"] == plan
        status, problem, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback")
        assert (status, problem["detail"][:19]) == (409, "The run did not mov")


async def test_a_member_may_see_what_a_rollback_would_do_and_not_do_it(listener: Client) -> None:
    run = await synced(listener)
    status, _, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback", token=MEMBER)
    assert status == 403


async def test_a_frozen_environment_is_not_rolled_back(listener: Client) -> None:
    run = await synced(listener)
    await listener.call("POST", f"{ONE}/hold", json={"reason": "acceptance test"})
    status, problem, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback")
    assert (status, "acceptance test" in problem["detail"]) == (409, True)
    assert (await hold(listener))["reason"] == "acceptance test"


async def test_a_rollback_that_fails_leaves_no_hold(listener: Client, published: Published) -> None:
    run = await synced(listener)
    published.git("branch", "staging_in_progress", "staging")
    _, started, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback")
    assert await hold(listener) is not None
    status, problem, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/rollback")
    assert (status, "under way" in problem["detail"]) == (409, True)
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    failed = await listener.ended(started["id"])
    assert (failed["state"], failed["outcome"]["error"]) == ("failed", "moved-since")
    assert await hold(listener) is None
    before = published.commit("staging")
    status, problem, _ = await listener.call("POST", f"/api/v1/runs/{started['id']}/retry")
    assert (status, run["id"] in problem["remedy"]) == (409, True)
    assert published.commit("staging") == before, "trying a rollback again must not sync instead"


@pytest.mark.parametrize("name", ["forward", "reset"])
async def test_a_rollback_can_itself_be_taken_back(listening: Start, published: Published, name: str) -> None:
    async with listening(sites=policy(name, published)) as listener:
        run = await synced(listener)
        back = await rolled_back(listener, run["id"])
        again = await rolled_back(listener, back["id"])
        assert again["state"] == "succeeded"
        assert published.tree("staging") == published.tree("live")
