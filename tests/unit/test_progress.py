"""What a run has done is told rightly, however often it looked, lost its connection or started anew."""

from dataclasses import replace

from listener.observations import COMMITTER_EMAIL, Branch, Drift, Observation, Paths
from listener.plans import Applied, Plan, PlanKind
from listener.progress import LegProgress, Progress
from listener.runs import LegOutcome, Outcome, Run, State
from listener.sites import RepositoryAddress
from tests.legs import environment_of

LIVE, OLD = Branch("1" * 40, "T"), Branch("2" * 40, "S")
OURS = Branch("4" * 40, "T", committer_email=COMMITTER_EMAIL)
DRIFT = Drift(removed=Paths(2, ("a", "b")))
FORWARD, EQUAL = Plan(PlanKind.FORWARD_COMMIT), Plan(PlanKind.UP_TO_DATE)
RUN = Run("r", "mysite", "staging", State.RUNNING, 0.0, 0.0)


def seen(branch: Branch, drift: Drift = DRIFT) -> Observation:
    return Observation(LIVE, branch, "", bare=False, worktree="", now=0.0, drift=drift)


def test_a_move_is_told_with_where_it_started_from() -> None:
    progress = LegProgress()
    progress.looked(seen(OLD), FORWARD)
    progress.applied(Applied(changed=False, live=LIVE, branch=OURS))
    progress.looked(seen(OURS, Drift()), EQUAL)
    outcome = progress.outcome()
    assert (outcome.plan, outcome.old, outcome.new) == ("forward-commit", OLD.commit, OURS.commit)
    assert (outcome.moved, outcome.removed) == (True, ("a", "b"))


def test_what_an_earlier_attempt_moved_is_not_forgotten() -> None:
    first = LegProgress()
    first.looked(seen(OLD), FORWARD)
    first.applied(Applied(changed=False, live=LIVE, branch=OURS))
    again = LegProgress.of(first.outcome())
    again.looked(seen(OURS, Drift()), EQUAL)
    outcome = again.outcome()
    assert (outcome.old, outcome.new, outcome.removed) == (OLD.commit, OURS.commit, ("a", "b"))


def test_what_an_old_run_did_without_a_word_of_where_is_the_only_leg_s() -> None:
    (leg,) = environment_of(RepositoryAddress("studio", "/srv/mysite")).legs
    outcome = Outcome((LegOutcome(plan="reset", moved=True, old=OLD.commit, new=OURS.commit),))
    progress = Progress.of(replace(RUN, outcome=outcome))
    assert (progress.leg(leg).old, progress.leg(leg).moved) == (OLD.commit, True)
    (told,) = progress.outcome().legs
    assert (told.repository, told.branch) == ("studio:/srv/mysite", "staging")


def test_what_an_earlier_attempt_did_not_know_is_cleared_up_by_the_next() -> None:
    for tip, moved in ((OURS, True), (LIVE, True), (OLD, False)):
        first = LegProgress()
        first.looked(seen(OLD), FORWARD)
        first.uncertain = True
        again = LegProgress.of(first.outcome())
        again.looked(seen(tip, Drift()), EQUAL)
        assert again.moved is moved
        assert again.outcome().plan == ("forward-commit" if moved else "up-to-date")


def test_an_attempt_that_moved_nothing_leaves_nothing_to_the_next() -> None:
    left = LegOutcome("studio:/srv/mysite", "staging", plan="busy", old="x")
    assert LegProgress.of(left) == LegProgress("studio:/srv/mysite", "staging")
    assert Progress.of(replace(RUN, outcome=Outcome((left,)))) == Progress.of(RUN) == Progress()


def test_what_somebody_else_moved_is_not_told_as_ours() -> None:
    progress = LegProgress()
    progress.looked(seen(OLD), FORWARD)
    progress.applied(Applied(changed=True))
    progress.looked(seen(Branch("5" * 40, "T"), Drift()), EQUAL)
    outcome = progress.outcome()
    assert (outcome.plan, outcome.old, outcome.removed, outcome.moved) == ("up-to-date", "5" * 40, (), False)


def test_a_lost_reply_is_cleared_up_by_the_next_look() -> None:
    for tip, moved in ((OURS, True), (LIVE, True), (OLD, False)):
        progress = LegProgress()
        progress.looked(seen(OLD), FORWARD)
        progress.uncertain = True
        assert progress.outcome().moved, "who does not know may have moved it"
        progress.looked(seen(tip, Drift()), EQUAL)
        assert progress.moved is moved


def test_an_old_forward_commit_of_ours_is_not_taken_for_a_new_one() -> None:
    progress = LegProgress()
    progress.looked(seen(OURS), FORWARD)
    progress.uncertain = True
    progress.looked(seen(OURS), FORWARD)
    assert not progress.moved


def test_a_plan_whose_reply_was_lost_may_still_be_carried_out_long_after_a_look_that_showed_nothing() -> None:
    first = LegProgress()
    first.looked(seen(OLD), FORWARD)
    first.uncertain = True
    first.looked(seen(OLD), FORWARD)
    first.applied(Applied(changed=True))
    assert not first.moved
    again = LegProgress.of(first.outcome())
    again.looked(seen(OURS, Drift()), EQUAL)
    outcome = again.outcome()
    assert (outcome.plan, outcome.old, outcome.moved) == ("forward-commit", OLD.commit, True)


def test_nothing_is_doubted_any_more_once_the_branch_has_moved_or_has_no_need_to() -> None:
    for tip, plan in ((Branch("5" * 40, "T"), FORWARD), (OLD, EQUAL)):
        progress = LegProgress()
        progress.looked(seen(OLD), FORWARD)
        progress.uncertain = True
        progress.looked(seen(tip), plan)
        assert not progress.outcome().moved
