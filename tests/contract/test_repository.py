"""The `Repository` port over a real sshd and real git: what is decided is what happens, and nothing else."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from listener.errors import (
    BusyError,
    CheckedOutElsewhereError,
    DivergedError,
    LiveMissingError,
    NotARepositoryError,
    RemoteStepError,
    StaleLockError,
    SymbolicBranchError,
    UnbornBranchError,
    WrongOwnerError,
)
from listener.observations import Observation
from listener.outcomes import LegOutcome
from listener.plans import Plan, PlanKind, Signing
from listener.progress import Progress
from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.runs import Run, State
from listener.sites import Environment, Host, Policy, RepositoryAddress
from listener.ssh import HostPool
from listener.sync import Synchronizer
from tests.conftest import age
from tests.legs import changed, environment_of, only, pool_of, unkept
from tests.publisher import STEPS, DeliveryNode, StudioPublisher

QUIET = 2.0
PATIENCE = 900.0
NUMBERS = itertools.count()


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, level: str = "info", **facts: Any) -> None:
        self.events.append((event, {"level": level, **facts}))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [facts for event, facts in self.events if event == name]


def host_of(sshd: Sshd) -> Host:
    return Host("studio", "127.0.0.1", sshd.port, sshd.user, str(sshd.known_hosts), str(sshd.identity))


@pytest.fixture
async def pool(sshd: Sshd, tmp_path: Path) -> AsyncIterator[HostPool]:
    pool = pool_of([host_of(sshd)], tmp_path / "cache")
    yield pool
    await pool.close()


@pytest.fixture
def environment(published: Published) -> Environment:
    return environment_of(RepositoryAddress("studio", str(published.path)))


def a_run() -> Run:
    return Run(f"run-{next(NUMBERS)}", "mysite", "staging", State.RUNNING, time.time(), 0.0)


async def look(pool: HostPool, environment: Environment) -> tuple[Observation, Plan]:
    (found,) = await Synchronizer(pool, quiet=0, patience=PATIENCE).look(environment, Notes())
    assert found.observation is not None
    assert found.plan is not None
    return found.observation, found.plan


async def sync(pool: HostPool, environment: Environment, *, quiet: float = QUIET) -> LegOutcome:
    return only(await synced(pool, environment, quiet=quiet))


async def synced(
    pool: HostPool, environment: Environment, *, quiet: float = QUIET, progress: Progress | None = None
) -> Progress:
    progress = Progress() if progress is None else progress
    synchronizer = Synchronizer(pool, quiet=quiet, patience=PATIENCE)
    await synchronizer.sync(environment, a_run(), Notes(), progress, unkept)
    return progress


def make_ancestor(published: Published) -> None:
    """Let staging be where live was one commit ago."""
    tree = published.tree("staging")
    newer = published.git("commit-tree", tree, "-p", published.commit("live"), "-m", "Publish to live")
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    published.git("update-ref", "refs/heads/live", newer)
    published.git("reset", "--quiet", "--hard")
    age(published, 60)


async def test_a_diverged_branch_gets_a_commit_with_lives_tree_and_both_parents(
    pool: HostPool, environment: Environment, published: Published, tmp_path: Path
) -> None:
    old, live = published.commit("staging"), published.commit("live")
    node = DeliveryNode(published, tmp_path / "node", "staging")
    progress = await sync(pool, environment)
    assert progress.plan == PlanKind.FORWARD_COMMIT
    assert (progress.old, progress.new, progress.live) == (old, published.commit("staging"), live)
    assert published.tree("staging") == published.tree("live")
    assert published.git("rev-list", "--parents", "-1", "staging").split()[1:] == [old, live]
    assert published.commit("live") == live
    assert published.is_clean()
    assert node.pull() == "fast-forward"
    assert node.tree() == published.tree("live")


async def test_what_a_sync_removes_is_told_before_and_after(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    observation, plan = await look(pool, environment)
    removed = ("site/website/staged-for-review/index.xml",)
    assert plan.kind is PlanKind.FORWARD_COMMIT
    assert (observation.drift.removed.count, observation.drift.removed.listed) == (1, removed)
    progress = await sync(pool, environment)
    assert (progress.removed_count, progress.removed) == (1, removed)


async def test_paths_that_git_quotes_are_told_as_they_are(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    names = ('ä "quoted"\n.xml', "tab\t.xml", "back\\slash.xml", "plain.xml")
    for name in names:
        (published.path / name).write_text("x")
    published.git("add", "--all")
    published.git("commit", "--quiet", "-m", "odd names")
    (published.path / os.fsdecode(b"\xff.xml")).write_text("x")
    published.git("add", "--all")
    published.git("commit", "--quiet", "-m", "no UTF-8")
    age(published, 60)
    observation, _ = await look(pool, environment)
    assert {*names, "\\xff.xml"} <= set(observation.drift.removed.listed)


async def test_only_the_first_thousand_of_many_removed_paths_are_listed_and_all_are_counted(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    for number in range(1500):
        (published.path / f"staged-{number:04}.xml").write_text("x")
    published.git("add", "--all")
    published.git("commit", "--quiet", "-m", "many")
    age(published, 60)
    observation, _ = await look(pool, environment)
    assert observation.drift.removed.count == 1501
    assert len(observation.drift.removed.listed) == 1000


async def test_an_ancestor_of_live_is_fast_forwarded(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    make_ancestor(published)
    progress = await sync(pool, environment)
    assert progress.plan == PlanKind.FAST_FORWARD
    assert published.commit("staging") == published.commit("live")
    assert published.is_clean()


async def test_equal_trees_are_left_alone(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    await sync(pool, environment)
    before = published.commit("staging")
    progress = await sync(pool, environment)
    assert progress.plan == PlanKind.UP_TO_DATE
    assert published.commit("staging") == before


async def test_a_missing_branch_is_created_at_live(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("checkout", "--quiet", "live")
    published.git("branch", "--quiet", "-D", "staging")
    age(published, 60)
    progress = await sync(pool, environment)
    assert (progress.plan, progress.old) == (PlanKind.CREATE, "")
    assert published.commit("staging") == published.commit("live")


async def test_policy_reset_moves_to_lives_commit_and_keeps_the_old_one_under_a_backup(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    old = published.commit("staging")
    progress = await sync(pool, changed(environment, policy=Policy.RESET))
    assert progress.plan == PlanKind.RESET
    assert published.commit("staging") == published.commit("live")
    assert published.git("rev-parse", progress.backup) == old
    assert published.is_clean()


async def test_policy_reset_makes_commits_equal_where_trees_are(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    await sync(pool, environment)
    progress = await sync(pool, changed(environment, policy=Policy.RESET))
    assert progress.plan == PlanKind.RESET
    assert published.commit("staging") == published.commit("live")


async def test_policy_fast_forward_refuses_a_diverged_branch(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    before = published.commit("staging")
    with pytest.raises(DivergedError):
        await sync(pool, changed(environment, policy=Policy.FAST_FORWARD))
    assert published.commit("staging") == before


async def test_a_missing_live_is_refused(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("branch", "--quiet", "-D", "live")
    with pytest.raises(LiveMissingError):
        await sync(pool, environment)


async def test_a_symbolic_branch_is_refused_and_its_target_stays(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    before = published.commit("staging")
    published.git("symbolic-ref", "refs/heads/qa", "refs/heads/staging")
    with pytest.raises(SymbolicBranchError):
        await sync(pool, changed(environment, branch="qa"))
    assert published.commit("staging") == before


async def test_a_branch_that_another_work_tree_has_checked_out_is_refused(
    pool: HostPool, environment: Environment, published: Published, tmp_path: Path
) -> None:
    published.git("branch", "--quiet", "qa", "staging")
    published.git("worktree", "add", "--quiet", str(tmp_path / "elsewhere"), "qa")
    age(published, 60)
    with pytest.raises(CheckedOutElsewhereError):
        await sync(pool, changed(environment, branch="qa"))


async def test_studio_is_waited_for_in_a_bare_repository_too(
    pool: HostPool, environment: Environment, published: Published, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), "bare.git")
    bare = Published(tmp_path / "bare.git")
    in_bare = changed(environment, repository=RepositoryAddress("studio", str(bare.path)))
    age(bare, 60)
    bare.git("fetch", "--quiet", "origin")
    with pytest.raises(BusyError):
        await sync(pool, in_bare)
    age(bare, 60)
    progress = await sync(pool, in_bare)
    assert progress.plan == PlanKind.FORWARD_COMMIT
    assert bare.tree("staging") == bare.tree("live")
    assert bare.git("symbolic-ref", "HEAD") == "refs/heads/staging"


async def test_a_path_to_the_git_directory_itself_works_as_well(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    address = RepositoryAddress("studio", str(published.path / ".git"))
    await sync(pool, changed(environment, repository=address))
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()


async def test_a_repository_just_touched_is_left_to_studio_until_it_is_quiet(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("fetch", "--quiet", "origin")
    with pytest.raises(BusyError) as refused:
        await sync(pool, environment, quiet=30)
    assert refused.value.again_in == pytest.approx(30, abs=10)
    assert published.head() == "ref: refs/heads/staging"


async def test_our_own_sync_does_not_count_as_touching(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    await sync(pool, environment)
    live = published.commit("live")
    newer = published.git("commit-tree", f"{live}^{{tree}}", "-p", live, "-m", "x")
    published.git("update-ref", "refs/heads/live", newer)
    assert (await sync(pool, changed(environment, policy=Policy.RESET), quiet=30)).plan == PlanKind.RESET


@pytest.mark.parametrize("mark", ["staging_in_progress", "live_in_progress", "index.lock", "HEAD.lock"])
async def test_a_mark_of_a_publish_holds_the_sync_up_for_patience_only(
    pool: HostPool, environment: Environment, published: Published, mark: str
) -> None:
    published.git("checkout", "--quiet", "live")
    if mark.endswith("_in_progress"):
        published.git("branch", mark, "staging")
    else:
        (published.path / ".git" / mark).touch()
    age(published, 60)
    with pytest.raises(BusyError, match=mark):
        await sync(pool, environment)
    age(published, PATIENCE)
    progress = await synced(pool, environment)
    assert only(progress).plan == PlanKind.FORWARD_COMMIT
    assert mark in progress.warnings[0]
    assert published.tree("staging") == published.tree("live")


async def test_a_stale_head_lock_is_never_taken_away_where_it_is_needed(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    lock = published.path / ".git" / "HEAD.lock"
    lock.write_text("somebody else's")
    age(published, PATIENCE + 60)
    with pytest.raises(StaleLockError):
        await sync(pool, environment)
    assert lock.read_text() == "somebody else's"


async def test_the_head_lock_of_a_killed_predecessor_is_taken_away(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    inside = published.path / ".git"
    own = inside / f"sync-staging-own.{process.pid}.1"
    own.write_text(f"branch staging\nbody {own.name}.HEAD\n")
    (inside / f"{own.name}.HEAD").write_text(published.commit("staging") + "\n")
    os.link(inside / f"{own.name}.HEAD", inside / "HEAD.lock")
    age(published, 60)
    await sync(pool, environment)
    assert published.is_clean()
    assert not [*inside.glob("*HEAD.*"), *inside.glob("sync-staging-own*")]


async def test_a_repository_of_another_owner_is_refused(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository away")
    os.chown(published.path / ".git" / "objects", 12345, 12345)
    with pytest.raises(WrongOwnerError):
        await sync(pool, environment)


@pytest.mark.parametrize("path", ["/nonexistent", "/etc", "/", "/tmp/a b;$(touch /tmp/never)'\"\n"])
async def test_a_path_without_a_repository_is_refused(
    pool: HostPool, environment: Environment, path: str
) -> None:
    with pytest.raises(NotARepositoryError):
        await sync(pool, changed(environment, repository=RepositoryAddress("studio", path)))
    assert not os.path.exists("/tmp/never")  # noqa: ASYNC240, PTH110 (one look)


async def test_what_changed_between_looking_and_applying_moves_nothing(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    repository = pool.of(environment.legs[0], Notes())
    observation, plan = await look(pool, environment)
    published.git("checkout", "--quiet", "live")
    before = published.commit("staging")
    applied = await repository.apply(plan, observation, Signing("r", 0))
    assert applied.changed
    assert published.commit("staging") == before


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def retouch(path: Path) -> None:
    """Write a file anew as it was, a little later."""
    path.write_bytes(path.read_bytes())


MEMBERS: dict[str, Callable[[Published, Path], object]] = {
    "live": lambda published, _: published.git("update-ref", "refs/heads/live", "staging"),
    "live is gone": lambda published, _: published.git("update-ref", "-d", "refs/heads/live"),
    "the branch": lambda published, _: published.git("update-ref", "refs/heads/staging", "live"),
    "the branch is symbolic": lambda _, inside: write(
        inside / "refs" / "heads" / "staging", "ref: refs/heads/live\n"
    ),
    "another work tree": lambda published, inside: published.git(
        "worktree", "add", "--quiet", "--force", str(inside.parent.parent / "elsewhere"), "staging"
    ),
    "the branch's mark": lambda published, _: published.git(
        "update-ref", "refs/heads/staging_in_progress", "live"
    ),
    "live's mark": lambda published, _: published.git("update-ref", "refs/heads/live_in_progress", "live"),
    "what HEAD names": lambda _, inside: write(inside / "HEAD", "ref: refs/heads/live\n"),
    "HEAD's reflog": lambda _, inside: retouch(inside / "logs" / "HEAD"),
    "the index": lambda _, inside: retouch(inside / "index"),
    "FETCH_HEAD is written": lambda _, inside: retouch(inside / "FETCH_HEAD"),
    "FETCH_HEAD is gone": lambda _, inside: (inside / "FETCH_HEAD").unlink(),
    "index.lock": lambda _, inside: write(inside / "index.lock"),
    "HEAD.lock": lambda _, inside: write(inside / "HEAD.lock"),
}


@pytest.mark.parametrize("member", MEMBERS)
async def test_nothing_moves_where_one_of_the_things_that_were_seen_has_changed(
    pool: HostPool, environment: Environment, published: Published, member: str
) -> None:
    inside = published.path / ".git"
    write(inside / "FETCH_HEAD", f"{published.commit('live')}\t\tbranch 'live' of /sandbox\n")
    published.git("checkout", "--quiet", "--detach")
    age(published, 60)
    repository = pool.of(environment.legs[0], Notes())
    observation, plan = await look(pool, environment)
    MEMBERS[member](published, inside)
    before = published.git("for-each-ref")
    applied = await repository.apply(plan, observation, Signing("r", 0))
    assert (applied.changed, applied.busy, applied.branch) == (True, "", None)
    assert published.git("for-each-ref") == before


@pytest.mark.parametrize("mark", ["staging_in_progress", "live_in_progress", "index.lock"])
async def test_nothing_moves_where_a_mark_has_been_written_again(
    pool: HostPool, environment: Environment, published: Published, mark: str
) -> None:
    inside = published.path / ".git"
    path = inside / mark if "." in mark else inside / "refs" / "heads" / mark
    write(path, published.commit("live") + "\n")
    age(published, PATIENCE + 60)
    repository = pool.of(environment.legs[0], Notes())
    observation, plan = await look(pool, environment)
    assert plan.kind is PlanKind.FORWARD_COMMIT
    assert observation.times[mark] == pytest.approx(path.stat().st_mtime, abs=0.01)
    retouch(path)
    assert (await repository.apply(plan, observation, Signing("r", 0))).changed


async def test_other_publishes_marks_and_broken_branches_are_nothing_to_a_sync(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    write(published.path / ".git" / "refs" / "heads" / "qa_in_progress", "1" * 40 + "\n")
    age(published, 60)
    await sync(pool, environment)
    assert published.tree("staging") == published.tree("live")


async def test_detaching_head_touches_nothing_that_a_retry_would_take_for_studio_s_work(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    """With HEAD's reflog, and without one, where HEAD's own time counts."""
    for reflog in (True, False):
        if not reflog:
            (published.path / ".git" / "logs" / "HEAD").unlink()
            published.git("config", "core.logAllRefUpdates", "false")
        published.git("symbolic-ref", "HEAD", "refs/heads/staging")
        age(published, 60)
        before, _ = await look(pool, environment)
        await sync(pool, environment)
        assert not published.head().startswith("ref: ")
        after, _ = await look(pool, environment)
        assert after.times == before.times
        old = published.git("rev-parse", "staging~1")
        published.git("update-ref", "refs/heads/staging", old)
        published.git("reset", "--quiet", "--hard", old)


async def test_a_forward_commit_is_the_same_object_however_often_it_is_made(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    old = published.commit("staging")
    run = a_run()
    synchronizer = Synchronizer(pool, quiet=0, patience=PATIENCE)
    await synchronizer.sync(environment, run, Notes(), Progress(), unkept)
    first = published.commit("staging")
    published.git("update-ref", "refs/heads/staging", old)
    await synchronizer.sync(environment, run, Notes(), Progress(), unkept)
    assert published.commit("staging") == first


UNMARKED = {"fetch", "leave crashed", "checkout sandbox", "pull", "branch"}
"""The steps before which no `_in_progress` branch tells of the publish."""

CHANGES = {"site/website/news/index.xml": "approved\n", "static-assets/css/part-0002.css": None}


def published_well(published: Published, target: str, staged: set[str]) -> bool:
    """Whether a publish of `CHANGES` has its content, and live nothing that was only staged."""
    files = published.files(target)
    return (
        "site/website/news/index.xml" in files
        and "static-assets/css/part-0002.css" not in files
        and not staged & set(published.files("live"))
        and published.is_clean()
    )


@pytest.mark.parametrize("paused", STEPS)
@pytest.mark.parametrize("target", ["staging", "live"])
async def test_a_sync_let_loose_in_a_pause_of_a_publish_waits(
    pool: HostPool,
    environment: Environment,
    published: Published,
    publisher: StudioPublisher,
    target: str,
    paused: str,
) -> None:
    staged = set(published.files("staging")) - set(published.files("live"))
    for number, step in enumerate(publisher.steps(target, CHANGES)):
        if step == (target, paused) and number > 0:
            with pytest.raises(BusyError):
                await sync(pool, environment, quiet=30)
    assert published_well(published, target, staged)


@pytest.mark.parametrize("paused", STEPS)
@pytest.mark.parametrize("target", ["staging", "live"])
async def test_a_sync_let_loose_in_a_pause_that_outlasts_quiet_breaks_no_publish(
    pool: HostPool,
    environment: Environment,
    published: Published,
    publisher: StudioPublisher,
    target: str,
    paused: str,
) -> None:
    staged = set(published.files("staging")) - set(published.files("live"))
    for step in publisher.steps(target, CHANGES):
        if step == (target, paused):
            age(published, 60)
            if paused in UNMARKED:
                await sync(pool, environment)
            else:
                with pytest.raises(BusyError, match=f"{target}_in_progress"):
                    await sync(pool, environment)
    assert published_well(published, target, staged)
    age(published, 60)
    await sync(pool, environment)
    assert published.tree("staging") == published.tree("live")
    publisher.publish("live", {"site/website/later/index.xml": "later\n"})
    assert "site/website/later/index.xml" in published.files("live")


@pytest.mark.parametrize("crashed", STEPS[5:])
async def test_a_publish_that_crashed_delays_a_site_by_patience_and_is_repeated_well(
    pool: HostPool, environment: Environment, published: Published, publisher: StudioPublisher, crashed: str
) -> None:
    staged = set(published.files("staging")) - set(published.files("live"))
    for step in publisher.steps("staging", CHANGES):
        if step == ("staging", crashed):
            break
    (published.path / ".git" / "index.lock").touch()
    with pytest.raises(BusyError):
        await sync(pool, environment)
    age(published, PATIENCE + 1)
    progress = await synced(pool, environment)
    assert "staging_in_progress" in progress.warnings[0]
    assert published.tree("staging") == published.tree("live")
    (published.path / ".git" / "index.lock").unlink()
    publisher.publish("live", CHANGES)
    assert published_well(published, "live", staged)


async def test_drift_is_told_in_commits_and_paths(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    observation, _ = await look(pool, environment)
    drift = observation.drift
    apart = published.git("rev-list", "--left-right", "--count", "staging...live").split()
    assert [drift.ahead, drift.behind] == [int(number) for number in apart]
    assert drift.added.listed == ("site/components/feature-0001.xml",)
    assert drift.changed.listed == ("site/website/articles/0000/index.xml",)
    assert drift.removed.listed == ("site/website/staged-for-review/index.xml",)


async def test_a_survey_tells_many_environments_in_few_round_trips_and_each_ones_own_error(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    await sync(pool, environment)
    asked = [
        each
        for number in range(30)
        for each in (
            environment,
            changed(environment, repository=RepositoryAddress("studio", f"/nonexistent/{number}")),
            changed(environment, branch=f"qa-{number}"),
        )
    ]
    calls = []
    connection = pool._connections["studio"]
    call = connection.call

    async def counted(*arguments: Any, **more: Any) -> str:
        calls.append(arguments[2])
        return await call(*arguments, **more)

    connection.call = counted  # type: ignore[method-assign]
    synchronizer = Synchronizer(pool, quiet=QUIET, patience=PATIENCE)
    looks = await synchronizer.survey(asked, Notes())
    assert calls == ["survey"] * 2
    for equal, refused, new in zip(looks[::3], looks[1::3], looks[2::3], strict=True):
        assert [each.plan.kind for each in equal if each.plan] == [PlanKind.UP_TO_DATE]
        assert isinstance(refused[0].error, NotARepositoryError)
        assert [each.plan.kind for each in new if each.plan] == [PlanKind.CREATE]


async def test_an_unborn_branch_is_left_to_the_publish_that_makes_it_and_refused_if_none_does(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("symbolic-ref", "HEAD", "refs/heads/qa")
    qa = changed(environment, branch="qa")
    age(published, 60)
    with pytest.raises(BusyError, match="unborn"):
        await sync(pool, qa)
    age(published, PATIENCE)
    with pytest.raises(UnbornBranchError):
        await sync(pool, qa)


async def test_an_unborn_branch_of_a_bare_repository_is_created(
    pool: HostPool, environment: Environment, published: Published, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--mirror", str(published.path), "bare.git")
    bare = Published(tmp_path / "bare.git")
    bare.git("update-ref", "-d", "refs/heads/staging")
    assert bare.git("symbolic-ref", "HEAD") == "refs/heads/staging"
    age(bare, 60)
    progress = await sync(pool, changed(environment, repository=RepositoryAddress("studio", str(bare.path))))
    assert progress.plan == PlanKind.CREATE
    assert bare.commit("staging") == bare.commit("live")


def set_back(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


async def test_a_crashed_publish_s_mark_is_passed_over_while_live_goes_on_being_published(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("branch", "staging_in_progress", "staging")
    mark = published.path / ".git" / "refs" / "heads" / "staging_in_progress"
    published.git("checkout", "--quiet", "live")
    published.git("commit", "--quiet", "--allow-empty", "-m", "Publish to live")
    age(published, 60)
    set_back(mark, PATIENCE - 5)
    with pytest.raises(BusyError, match="staging_in_progress"):
        await sync(pool, environment)
    set_back(mark, 86_400)
    (published.path / ".git" / "FETCH_HEAD").touch()
    with pytest.raises(BusyError, match="was touched"):
        await sync(pool, environment, quiet=30)
    set_back(published.path / ".git" / "FETCH_HEAD", 60)
    await sync(pool, environment, quiet=30)
    assert published.tree("staging") == published.tree("live")


@pytest.mark.parametrize(("ahead", "moves"), [(60, False), (PATIENCE + 60, True)])
async def test_a_time_in_the_future_counts_as_now_unless_it_is_absurd(
    pool: HostPool, environment: Environment, published: Published, ahead: float, *, moves: bool
) -> None:
    then = time.time() + ahead
    for file in (published.path / ".git").rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))
    if moves:
        await sync(pool, environment)
        assert published.tree("staging") == published.tree("live")
    else:
        with pytest.raises(BusyError, match="in the future"):
            await sync(pool, environment)


async def test_a_run_may_reset_more_than_once_and_keeps_each_old_commit(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    run, reset = a_run(), changed(environment, policy=Policy.RESET)
    synchronizer = Synchronizer(pool, quiet=0, patience=PATIENCE)
    for number in range(2):
        published.git("checkout", "--quiet", "-B", "staging", "live")
        published.git("commit", "--quiet", "--allow-empty", "-m", f"staged {number}")
        old = published.commit("staging")
        progress = Progress()
        await synchronizer.sync(reset, run, Notes(), progress, unkept)
        assert published.git("rev-parse", only(progress).backup) == old
    assert len(published.git("for-each-ref", "refs/sync-staging/backup").splitlines()) == 2


@pytest.mark.parametrize(("live", "branch"), [("pub/live", "staging"), ("live", "env/staging")])
async def test_branches_with_a_slash_have_their_marks_heeded_too(
    pool: HostPool, environment: Environment, published: Published, live: str, branch: str
) -> None:
    published.git("checkout", "--quiet", "master")
    for old, new in (("live", live), ("staging", branch)):
        if old != new:
            published.git("branch", "--quiet", "-m", old, new)
    marked = live if "/" in live else branch
    published.git("branch", f"{marked}_in_progress", branch)
    age(published, 60)
    slashed = changed(environment, live=live, branch=branch)
    with pytest.raises(BusyError, match=f"{marked}_in_progress"):
        await sync(pool, slashed)
    age(published, PATIENCE)
    await sync(pool, slashed)
    assert published.tree(branch) == published.tree(live)


async def test_a_tree_that_cannot_be_read_is_an_error_and_not_an_empty_difference(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    tree = published.tree("staging")
    (published.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink(missing_ok=True)
    for pack in (published.path / ".git" / "objects" / "pack").glob("*"):
        pack.unlink()
    (found,) = await Synchronizer(pool, quiet=0, patience=PATIENCE).look(environment, Notes())
    assert isinstance(found.error, RemoteStepError)
    progress = await synced(pool, environment)
    assert progress.warnings == ["the paths that this run changed could not be listed"]
    assert published.tree("staging") == published.tree("live")


class Counted:
    """Counts the requests to a pool's only host."""

    def __init__(self, pool: HostPool) -> None:
        self.verbs: list[str] = []
        connection = pool._connections["studio"]
        call = connection.call

        async def counted(*arguments: Any, **more: Any) -> str:
            self.verbs.append(arguments[2])
            return await call(*arguments, **more)

        connection.call = counted  # type: ignore[method-assign]

    def since(self) -> list[str]:
        verbs, self.verbs = self.verbs, []
        return verbs


def publish(published: Published, name: str) -> str:
    """Let live move on by a commit with a new file, as a publish of Studio 5 does in the end."""
    blob = published.git("hash-object", "-w", "--stdin", stdin=name.encode())
    listing = published.git("ls-tree", "live") + f"\n100644 blob {blob}\t{name}.xml\n"
    tree = published.git("mktree", stdin=listing.encode())
    live = published.git("commit-tree", tree, "-p", "live", "-m", "Publish to live")
    published.git("update-ref", "refs/heads/live", live)
    return live


@dataclass
class Again:
    """One synchronizer that goes on, as the listener's does."""

    pool: HostPool
    environment: Environment
    quiet: float = QUIET
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.synchronizer = Synchronizer(self.pool, quiet=self.quiet, patience=PATIENCE)
        self.counted = Counted(self.pool)

    async def sync(self) -> tuple[LegOutcome, list[str]]:
        """Return what a run has done, and which requests it has sent."""
        progress, run = Progress(), a_run()
        await self.synchronizer.sync(self.environment, run, self.notes, progress, unkept)
        return only(progress), self.counted.since()


async def test_what_is_as_the_last_run_left_it_is_moved_in_one_round_trip(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    again = Again(pool, environment)
    assert (await again.sync())[1] == ["observe", "apply"]
    for number in range(2):
        live, old = publish(published, f"news-{number}"), published.commit("staging")
        done, requests = await again.sync()
        assert requests == ["apply"]
        assert published.tree("staging") == published.tree("live")
        assert published.git("rev-list", "--parents", "-1", "staging").split()[1:] == [old, live]
        told = (done.plan, done.old, done.new, done.live, done.state, done.listed)
        new = published.commit("staging")
        assert told == (PlanKind.FORWARD_COMMIT, old, new, live, "made-equal", True)
    assert [event for event, _ in again.notes.events[-4:]] == ["observe", "plan", "apply", "confirm"]
    assert again.notes.named("apply")[-1]["added_count"] == 1
    assert published.is_clean()


async def test_an_ancestor_of_live_is_fast_forwarded_in_one_round_trip(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    published.git("update-ref", "refs/heads/staging", "live")
    published.git("reset", "--quiet", "--hard")
    age(published, 60)
    again = Again(pool, environment)
    assert (await again.sync())[1] == ["observe"]
    for number in range(3):
        live = publish(published, f"news-{number}")
        if number == 2:
            live = publish(published, "and another")
        done, requests = await again.sync()
        assert requests == ["apply"]
        assert (done.plan, published.commit("staging")) == (PlanKind.FAST_FORWARD, live)
    assert published.is_clean()


async def test_what_a_look_found_busy_is_moved_in_one_round_trip_once_it_is_quiet(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    again = Again(pool, environment)
    published.git("fetch", "--quiet", "origin")
    with pytest.raises(BusyError):
        await again.sync()
    assert again.counted.since() == ["observe"]
    with pytest.raises(BusyError):
        await again.sync()
    assert again.counted.since() == ["apply"]
    age(published, 60)
    assert (await again.sync())[1] == ["apply"]
    assert published.tree("staging") == published.tree("live")
    assert (await again.sync())[1] == ["apply"]


@pytest.mark.parametrize("member", [name for name in MEMBERS if not name.startswith("live")])
async def test_what_is_not_as_the_last_run_left_it_is_looked_at_and_decided_upon(
    pool: HostPool, environment: Environment, published: Published, member: str
) -> None:
    inside = published.path / ".git"
    write(inside / "FETCH_HEAD", f"{published.commit('live')}\t\tbranch 'live' of /sandbox\n")
    published.git("checkout", "--quiet", "--detach")
    age(published, 60)
    again = Again(pool, environment)
    await again.sync()
    publish(published, "news")
    MEMBERS[member](published, inside)
    before = published.git("for-each-ref")
    again.counted.since()
    try:
        _, requests = await again.sync()
    except (BusyError, SymbolicBranchError, CheckedOutElsewhereError):
        assert again.counted.since() == ["apply"]
        assert published.git("for-each-ref") == before
    else:
        assert member in {"what HEAD names", "the branch", "FETCH_HEAD is gone"}
        assert requests == (["apply", "apply"] if member == "what HEAD names" else ["apply"])
        assert published.tree("staging") == published.tree("live")


async def test_live_that_is_gone_is_not_followed_in_one_round_trip_either(
    pool: HostPool, environment: Environment, published: Published
) -> None:
    again = Again(pool, environment)
    await again.sync()
    published.git("update-ref", "-d", "refs/heads/live")
    before = published.commit("staging")
    with pytest.raises(LiveMissingError):
        await again.sync()
    assert published.commit("staging") == before
