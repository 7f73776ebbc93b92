"""A network that is cut or a process that is killed, in the middle of any step: the run makes it good."""

from dataclasses import replace

import pytest

from listener.errors import HostStalledError, RefLockedError
from listener.outcomes import LegOutcome
from listener.plans import PlanKind
from listener.progress import Progress
from listener.runs import Run
from listener.sites import Policy
from listener.ssh import service
from tests.contract.test_repository import a_run
from tests.legs import only
from tests.scenes import (
    Interruption,
    Place,
    Scene,
    asked_to_end,
    cut,
    git_only,
    gone,
    killed,
    killed_alone,
    place,
    stalled,
    with_shell,
)

__all__ = ["git_only", "place", "with_shell"]

Step = tuple[str, int]
"""A git command, a phase of the transaction or a hook, and how many of them pass before."""

GREETED = [("version", 0)]
OBSERVED = [("for-each-ref", 0), ("merge-base", 0)]
FETCHED = [("upload-pack", 0), ("pack-objects", 0)]
PUSHED = [("receive-pack", 0), ("unpack-objects", 0), ("pre-receive", 0)]
APPLIED = [("for-each-ref", 1), ("commit-tree", 0), ("update-ref", 0)]
LANDED = [("incoming committed", 0), ("for-each-ref", 1), ("update-ref", 0)]
MOVED = [("committed", 0)]
LISTED = [("diff-tree", 0)]
CONFIRMED = [("for-each-ref", 2)]
AT_ONCE = [*OBSERVED, ("commit-tree", 0), ("update-ref", 0)]

LOCKED = [("prepared", 0)]
"""In the middle of the transaction: here git holds locks."""

STEPS = {
    "own": [*GREETED, *OBSERVED, *APPLIED, *LOCKED, *MOVED, *LISTED],
    "own at once": [*AT_ONCE, *LOCKED, *MOVED, *LISTED],
    "another": [*OBSERVED[:1], *FETCHED, *PUSHED, *LANDED, *LOCKED, *MOVED, *CONFIRMED, ("for-each-ref", 3)],
    "forge": [*FETCHED, ("upload-pack", 1), *PUSHED, *LOCKED, *MOVED, ("upload-pack", 2)],
    "live": [*OBSERVED[:1], *FETCHED, ("for-each-ref", 1)],
}


def cases(steps: dict[str, list[Step]], *interruptions: Interruption) -> pytest.MarkDecorator:
    """Each interruption in each step of each kind of leg; a kill that leaves locks has its own test."""
    return pytest.mark.parametrize(
        ("kind", "step", "interrupt"),
        [
            pytest.param(kind, step, interrupt, id=f"{kind}, {step[0]} {step[1]}, {interrupt.__name__}")
            for kind, each in steps.items()
            for step in each
            for interrupt in interruptions
            if not (interrupt is killed and step in LOCKED)
        ],
    )


async def made_good(scene: Scene, run: Run, ended: tuple[Progress, Exception | None]) -> LegOutcome:
    """Go on with a run that was interrupted, as the queue does; return what it has done in the end."""
    progress, error = ended
    while error is not None and (error is ended[1] or isinstance(error, HostStalledError)):
        progress, error = await scene.attempt(continued(run, progress))
    assert error is None
    scene.check_whole()
    assert scene.locks() == []
    assert scene.pool._cache.of("mysite")._generation == 0, "the cache is not to blame, and was kept"
    return only(progress)


def continued(run: Run, progress: Progress) -> Run:
    return replace(run, outcome=progress.outcome())


def check_forward(scene: Scene, leg: LegOutcome, old: str) -> None:
    """Check that staging is one commit further, and that the run tells so."""
    new, live = scene.carrier.commit("staging"), scene.source.commit("live")
    assert scene.carrier.tree("staging") == scene.source.tree("live")
    assert scene.carrier.git("rev-list", "--parents", "-1", "staging").split()[1:] == [old, live]
    told = (leg.plan, leg.old, leg.new, leg.live, leg.moved)
    assert told == (PlanKind.FORWARD_COMMIT, old, new, live, True)
    assert leg.removed == ("site/website/staged-for-review/index.xml",)


@cases(STEPS, stalled)
async def test_a_step_that_stalls_is_given_up_and_made_good_once_the_host_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str, step: Step, interrupt: Interruption
) -> None:
    monkeypatch.setattr(service, "ENDING", 0.5)
    # How far a stalled service has come nobody can tell: the whole transfer has its limit.
    limits = {"step_timeout": 3.0, "connect_timeout": 3.0, "transfer_timeout": 3.0}
    scene, run = place(kind, **limits), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    # A shell that does not greet is tried again within the attempt.
    assert step in GREETED or ended[1] is not None
    assert ended[1] is None or not ended[1].permanent
    check_forward(scene, await made_good(scene, run, ended), old)


@cases(STEPS, cut, killed, asked_to_end)
async def test_an_interrupted_sync_is_made_good_by_the_same_run(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, run = place(kind), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    assert ended[1] is None or not ended[1].permanent
    check_forward(scene, await made_good(scene, run, ended), old)


IN_DOUBT: dict[str, list[Step]] = {
    "own": [*LOCKED, *MOVED],
    "own at once": [*LOCKED, *MOVED, *LISTED],
    "another": [("incoming prepared", 0), *LOCKED, *MOVED],
    "forge": [("pre-receive", 0), *LOCKED, *MOVED],
}


@cases(IN_DOUBT, gone)
async def test_what_a_host_completes_that_is_out_of_reach_is_told_as_the_runs_own(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, run = place(kind), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    assert ended[1] is not None
    assert not ended[1].permanent
    check_forward(scene, await made_good(scene, run, ended), old)


async def test_what_a_late_push_leaves_behind_is_taken_away_by_the_next_sync(place: Place) -> None:
    scene, run = place("another"), a_run()
    ended = await scene.interrupted(run, ("pre-receive", 0), cut)
    leg = await made_good(scene, run, ended)
    left = scene.carrier.git("for-each-ref", "--format=%(objectname)", "refs/sync-staging/incoming")
    assert left == leg.new, "the push went on when the branch had moved already"
    live = scene.source.commit("live")
    newer = scene.source.git("commit-tree", f"{leg.old}^{{tree}}", "-p", live, "-m", "Publish to live")
    scene.source.git("update-ref", "refs/heads/live", newer)
    _, error = await scene.attempt(a_run())
    assert error is None
    assert scene.carrier.tree("staging") == scene.source.tree("live")
    assert scene.carrier.git("for-each-ref", "refs/sync-staging/incoming") == ""


@cases({kind: [*LOCKED, *MOVED] for kind in ("own", "another", "forge")}, cut)
async def test_an_interrupted_reset_keeps_the_old_commit_and_tells_it(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, run = place(kind, Policy.RESET), a_run()
    old, live = scene.carrier.commit("staging"), scene.source.commit("live")
    leg = await made_good(scene, run, await scene.interrupted(run, step, interrupt))
    assert (leg.plan, leg.old, leg.new, leg.moved) == (PlanKind.RESET, old, live, True)
    assert scene.carrier.commit("staging") == live
    kept = scene.carrier.git("for-each-ref", "--format=%(objectname)", "refs/sync-staging/backup")
    assert kept == old


BACK: dict[str, list[Step]] = {
    "own": [("update-ref", 0), *LOCKED, *MOVED, *CONFIRMED],
    "another": [*LOCKED, *MOVED],
    "forge": [("receive-pack", 0), ("pre-receive", 0), *LOCKED, *MOVED],
}


@cases(BACK, cut, killed)
async def test_an_interrupted_rollback_is_made_good_by_the_same_run(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, first = place(kind), a_run()
    old, tree = scene.carrier.commit("staging"), scene.carrier.tree("staging")
    done, error = await scene.attempt(first)
    assert error is None
    scene.undone, run = continued(first, done), a_run()
    ended = await scene.interrupted(run, step, interrupt)
    assert ended[1] is None or not ended[1].permanent
    leg = await made_good(scene, run, ended)
    assert scene.carrier.tree("staging") == tree
    parents = scene.carrier.git("rev-list", "--parents", "-1", "staging").split()
    assert parents == [leg.new, only(done).new]
    assert (leg.old, leg.live, leg.moved) == (only(done).new, old, True)


@cases(
    {
        "own": [("for-each-ref", 0), ("commit-tree", 0), ("update-ref", 0)],
        "own at once": AT_ONCE,
        "another": [("pack-objects", 0), ("unpack-objects", 0)],
        "forge": [*FETCHED, *PUSHED[:2]],
    },
    killed_alone,
)
async def test_a_git_process_that_is_killed_alone_fails_its_step_for_now_at_most(
    place: Place, kind: str, step: Step, interrupt: Interruption
) -> None:
    scene, run = place(kind), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, step, interrupt)
    assert ended[1] is None or not ended[1].permanent
    check_forward(scene, await made_good(scene, run, ended), old)


@pytest.mark.parametrize("killing", [killed, killed_alone])
async def test_the_locks_of_our_git_that_somebody_kills_in_its_transaction_are_taken_away_by_the_next_look(
    place: Place, killing: Interruption
) -> None:
    scene, run = place("own"), a_run()
    old = scene.carrier.commit("staging")
    ended = await scene.interrupted(run, ("prepared", 0), killing)
    assert ended[1] is None or not ended[1].permanent
    check_forward(scene, await made_good(scene, run, ended), old)


@pytest.mark.parametrize(
    ("kind", "phase"),
    [("another", "incoming prepared"), ("another", "prepared"), ("forge", "prepared")],
)
async def test_the_locks_of_a_git_that_was_killed_in_its_transaction_are_told_by_name_until_they_are_gone(
    place: Place, kind: str, phase: str
) -> None:
    scene, run = place(kind), a_run()
    old = scene.carrier.commit("staging")
    progress, error = await scene.interrupted(run, (phase, 0), killed)
    if not isinstance(error, RefLockedError):
        progress, error = await scene.attempt(continued(run, progress))
    assert isinstance(error, RefLockedError)
    assert ".lock': File exists" in error.message
    assert "delete the .lock file" in error.remedy
    assert scene.carrier.commit("staging") == old
    for lock in scene.locks():
        lock.unlink()
    check_forward(scene, await made_good(scene, run, (progress, error)), old)


POINTS = 8


@pytest.mark.parametrize("kind", STEPS)
async def test_a_network_that_is_cut_at_any_byte_of_a_sync_is_made_good_by_the_same_run(
    place: Place, kind: str
) -> None:
    whole = place(kind, name="whole")
    _, error = await whole.attempt(a_run())
    assert error is None
    total = whole.proxy.passed
    for point in range(POINTS):
        scene, run = place(kind, name=f"point{point}"), a_run()
        old = scene.carrier.commit("staging")
        scene.proxy.cut_after(total * point // POINTS + 1)
        ended = await scene.attempt(run)
        assert not scene.proxy.waiting
        assert ended[1] is None or not ended[1].permanent, ended[1]
        check_forward(scene, await made_good(scene, run, ended), old)
