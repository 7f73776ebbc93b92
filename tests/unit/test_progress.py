"""What a run has done is told rightly, however often it looked, lost its connection or started anew."""

import itertools
import json
from dataclasses import replace

import pytest

from listener.observations import COMMITTER_EMAIL, Branch, Drift, Observation, Paths
from listener.outcomes import LEG_TRANSITIONS, LegEvent, LegOutcome, LegState, Outcome
from listener.plans import Applied, Plan, PlanKind, PriorMove
from listener.progress import (
    Progress,
    after_apply,
    after_look,
    before_advance,
    before_send,
    prior_move,
    resumed,
)
from listener.runs import Run, State
from listener.sites import RepositoryAddress
from listener.store.rows import _outcome_of, outcome_text
from tests.legs import environment_of

LIVE, OLD = Branch("1" * 40, "T"), Branch("2" * 40, "S")
OURS = Branch("4" * 40, "T", committer_email=COMMITTER_EMAIL)
OTHERS = Branch("5" * 40, "T")
DRIFT = Drift(removed=Paths(2, ("a", "b")))
FORWARD, EQUAL = Plan(PlanKind.FORWARD_COMMIT), Plan(PlanKind.UP_TO_DATE)
BUSY = Plan(PlanKind.BUSY, "Studio is publishing", again_in=1.0)
RUN = Run("r", "mysite", "staging", State.RUNNING, 0.0, 0.0)
MOVED_TO_OURS = Applied(changed=False, live=LIVE, branch=OURS)
CHANGED = Applied(changed=True)


def seen(branch: Branch, drift: Drift = DRIFT, live: Branch = LIVE) -> Observation:
    return Observation(live, branch, "", bare=False, worktree="", now=0.0, drift=drift)


def begun() -> LegOutcome:
    """A leg that was looked at, and has to move."""
    return after_look(LegOutcome(), seen(OLD), FORWARD)


def in_flight() -> LegOutcome:
    """A leg whose plan was sent, and whose reply was lost."""
    return before_send(begun(), seen(OLD), FORWARD)


# The table.

WHERE = {LegEvent.SEEN_WHERE_IT_WAS, LegEvent.SEEN_WHERE_SENT, LegEvent.SEEN_SETTLED}
RESULTS = {LegEvent.NOT_CARRIED_OUT, LegEvent.CARRIED_OUT}


class Remembered:
    """What four answers say that are kept one by one: an oracle that shares nothing with the table."""

    def __init__(self) -> None:
        self.moved = self.done = self.under_way = self.doubted = False

    def may(self, event: LegEvent) -> bool:
        if event is LegEvent.LIVE_MOVED:
            return self.done
        if self.done:
            return False
        if event is LegEvent.SEND:
            return not self.under_way or self.moved
        if event in RESULTS:
            return self.under_way or self.moved
        if event is LegEvent.EQUAL:
            return self.moved or not (self.under_way or self.doubted)
        return True

    def take(self, event: LegEvent) -> None:
        if event is LegEvent.SEND:
            self.under_way = True
        elif event in RESULTS:
            self.under_way = False
            self.moved = self.moved or event is LegEvent.CARRIED_OUT
        elif event in WHERE:
            in_doubt, self.under_way, self.doubted = self.under_way or self.doubted, False, False
            if in_doubt and event is LegEvent.SEEN_WHERE_SENT:
                self.moved = True
            self.doubted = in_doubt and event is LegEvent.SEEN_WHERE_IT_WAS
        else:
            self.done = event is LegEvent.EQUAL

    @property
    def may_have_moved(self) -> bool:
        return self.moved or self.under_way or self.doubted


@pytest.mark.parametrize("first", LegEvent)
def test_every_course_of_events_leads_where_four_separate_answers_lead(first: LegEvent) -> None:
    for rest in itertools.product(LegEvent, repeat=4):
        leg, oracle = LegOutcome(), Remembered()
        for event in (first, *rest):
            if not oracle.may(event):
                with pytest.raises(ValueError, match="can't be"):
                    leg.after(event)
                break
            leg = leg.after(event)
            oracle.take(event)
            told = (leg.done, leg.has_moved, leg.moved)
            assert told == (oracle.done, oracle.moved, oracle.may_have_moved), (first, *rest)


def test_every_state_has_its_row_and_nothing_follows_what_is_not_there() -> None:
    assert set(LEG_TRANSITIONS) == set(LegState)
    for state, event in itertools.product(LegState, LegEvent):
        leg = LegOutcome(state=state)
        if event in LEG_TRANSITIONS[state]:
            assert leg.after(event) == replace(leg, state=LEG_TRANSITIONS[state][event])
        else:
            with pytest.raises(ValueError, match=f"A leg that is {state} can't be {event}"):
                leg.after(event)


def test_a_branch_that_has_moved_has_moved_for_good() -> None:
    for state in (LegState.MOVED, LegState.MADE_EQUAL):
        for following in LEG_TRANSITIONS[state].values():
            assert LegOutcome(state=following).has_moved


def test_what_is_in_doubt_is_never_taken_for_done() -> None:
    for state in (LegState.SENT, LegState.DOUBTED, LegState.RESENT):
        assert LegOutcome(state=state).moved
        assert LegEvent.EQUAL not in LEG_TRANSITIONS[state]
        assert set(LEG_TRANSITIONS[state]) >= WHERE


# What is told.


def test_a_move_is_told_with_where_it_started_from() -> None:
    leg = after_look(after_apply(in_flight(), MOVED_TO_OURS), seen(OURS, Drift()), EQUAL)
    assert (leg.plan, leg.old, leg.new) == ("forward-commit", OLD.commit, OURS.commit)
    assert (leg.state, leg.removed) == (LegState.MOVED, ("a", "b"))


def test_what_an_earlier_attempt_moved_is_not_forgotten() -> None:
    again = after_look(resumed(after_apply(in_flight(), MOVED_TO_OURS)), seen(OURS, Drift()), EQUAL)
    assert (again.old, again.new, again.removed) == (OLD.commit, OURS.commit, ("a", "b"))


def test_what_an_old_run_did_without_a_word_of_where_is_the_only_leg_s() -> None:
    (leg,) = environment_of(RepositoryAddress("studio", "/srv/mysite")).legs
    old = LegOutcome(plan="reset", state=LegState.MOVED, old=OLD.commit, new=OURS.commit)
    progress = Progress.of(replace(RUN, outcome=Outcome((old,))))
    assert (progress[leg].old, progress[leg].moved) == (OLD.commit, True)
    (told,) = progress.outcome().legs
    assert (told.repository, told.branch) == ("studio:/srv/mysite", "staging")


@pytest.mark.parametrize("attempt", [lambda leg: leg, resumed], ids=["the same attempt", "the next"])
@pytest.mark.parametrize(("tip", "moved"), [(OURS, True), (LIVE, True), (OLD, False), (OTHERS, False)])
def test_a_lost_reply_is_cleared_up_by_the_next_look(tip: Branch, moved: bool, attempt: object) -> None:
    lost = in_flight()
    assert lost.moved, "who does not know may have moved it"
    assert not lost.has_moved
    assert callable(attempt)
    leg = after_look(attempt(lost), seen(tip, Drift()), EQUAL)
    assert (leg.has_moved, leg.moved) == (moved, moved)
    assert leg.plan == ("forward-commit" if moved else "up-to-date")


def test_an_attempt_that_moved_nothing_leaves_nothing_to_the_next() -> None:
    left = LegOutcome("studio:/srv/mysite", "staging", plan="busy", old="x")
    assert resumed(left) == LegOutcome("studio:/srv/mysite", "staging")
    assert Progress.of(replace(RUN, outcome=Outcome((left,)))) == Progress.of(RUN) == Progress()


def test_what_somebody_else_moved_is_not_told_as_ours() -> None:
    leg = after_look(after_apply(in_flight(), CHANGED), seen(OTHERS, Drift()), EQUAL)
    assert (leg.plan, leg.old, leg.removed, leg.moved) == ("up-to-date", OTHERS.commit, (), False)


def test_an_old_forward_commit_of_ours_is_not_taken_for_a_new_one() -> None:
    leg = before_send(after_look(LegOutcome(), seen(OURS), FORWARD), seen(OURS), FORWARD)
    assert not after_look(leg, seen(OURS), FORWARD).has_moved


def test_a_plan_whose_reply_was_lost_may_still_be_carried_out_long_after_a_look_that_showed_nothing() -> None:
    leg = after_look(in_flight(), seen(OLD), FORWARD)
    leg = after_apply(before_send(leg, seen(OLD), FORWARD), CHANGED)
    assert not leg.has_moved
    again = after_look(resumed(leg), seen(OURS, Drift()), EQUAL)
    assert (again.plan, again.old, again.has_moved) == ("forward-commit", OLD.commit, True)


def test_a_plan_that_may_still_be_carried_out_is_told_and_not_what_is_waited_for_meanwhile() -> None:
    leg = after_look(in_flight(), seen(OLD, Drift()), BUSY)
    assert (leg.plan, leg.removed_count) == ("forward-commit", 2)
    late = after_look(resumed(leg), seen(OURS, Drift()), EQUAL)
    assert (late.plan, late.removed, late.has_moved) == ("forward-commit", ("a", "b"), True)


def test_a_late_plan_is_known_by_what_live_was_when_it_was_sent() -> None:
    newer = Branch("6" * 40, "N")
    leg = before_send(after_look(in_flight(), seen(OLD, live=newer), FORWARD), seen(OLD, live=newer), FORWARD)
    assert after_look(leg, seen(LIVE, live=newer), FORWARD).has_moved, (
        "the first of two was fast-forwarded to"
    )


@pytest.mark.parametrize(("tip", "plan"), [(OTHERS, FORWARD), (OLD, EQUAL)])
def test_nothing_is_doubted_any_more_once_the_branch_has_moved_or_has_no_need_to(
    tip: Branch, plan: Plan
) -> None:
    assert not after_look(in_flight(), seen(tip), plan).moved


# What is stored.


@pytest.mark.parametrize("state", LegState)
def test_what_is_stored_of_a_leg_is_what_is_read(state: LegState) -> None:
    leg = replace(in_flight(), state=state, removed=("a", "b"))
    outcome = Outcome((leg,), ("a warning",), durations={"observe": 0.5})
    assert _outcome_of(outcome_text(outcome)) == outcome


@pytest.mark.parametrize(
    ("done", "moved", "new", "state"),
    [
        (False, False, OLD, LegState.WAITING),
        (False, True, OURS, LegState.MOVED),
        (False, True, OLD, LegState.SENT),
        (True, False, OLD, LegState.FOUND_EQUAL),
        (True, True, OURS, LegState.MADE_EQUAL),
    ],
)
def test_what_version_0_1_stored_is_read(done: bool, moved: bool, new: Branch, state: LegState) -> None:
    leg = {
        "repository": "studio:/srv/mysite",
        "branch": "staging",
        "plan": "fast-forward",
        "done": done,
        "moved": moved,
        "live": LIVE.commit,
        "old": OLD.commit,
        "new": new.commit,
        "backup": "",
        "removed_count": 1,
        "removed": ["a"],
        "error": "",
        "message": "",
        "remedy": "",
    }
    facts = {"warnings": [], "error": "", "message": "", "remedy": "", "durations": {}}
    outcome = _outcome_of(json.dumps({"legs": [leg], **facts}))
    assert outcome is not None
    (read,) = outcome.legs
    assert (read.state, read.done, read.moved, read.removed) == (state, done, moved, ("a",))
    if state is LegState.SENT:
        assert after_look(resumed(read), seen(LIVE, Drift()), EQUAL).has_moved


def test_a_move_without_a_look_whose_reply_was_lost_is_known_by_its_look() -> None:
    leg = before_advance(LegOutcome(), seen(OLD))
    assert (leg.moved, leg.has_moved, leg.old, leg.listed) == (True, False, OLD.commit, False)
    newer = Branch("9" * 40, "newer")
    for observation, plan in (
        (replace(seen(LIVE), recognised=True), "fast-forward"),
        (replace(seen(OURS), recognised=True), "forward-commit"),
        (seen(LIVE), "fast-forward"),
        (replace(seen(LIVE, live=newer), ancestor=True), "fast-forward"),
    ):
        drift = Drift(removed=Paths(1, ("x",)))
        found = after_look(leg, replace(observation, listed=False, moved=drift), EQUAL)
        assert (found.has_moved, found.plan, found.listed, found.removed) == (True, plan, True, ("x",))
    assert not after_look(leg, seen(OTHERS), EQUAL).moved
    for tip in (LIVE, OURS):
        assert not after_look(leg, replace(seen(tip), foreign=True), EQUAL).moved
    assert after_look(leg, seen(OLD), FORWARD).state is LegState.DOUBTED


def test_what_a_run_has_changed_is_listed_from_its_first_commit_to_its_last() -> None:
    observation = replace(seen(OLD), listed=False)
    leg = before_send(after_look(LegOutcome(), observation, FORWARD), observation, FORWARD)
    assert prior_move(leg, "r") == PriorMove("r", OLD.commit)
    first = Drift(removed=Paths(1, ("first",)))
    leg = after_apply(leg, replace(MOVED_TO_OURS, drift=first))
    assert (leg.listed, leg.removed, prior_move(leg, "r")) == (True, ("first",), None)
    leg = before_send(leg, replace(seen(OURS), listed=False), FORWARD)
    assert prior_move(leg, "r") == PriorMove("r", OLD.commit), "its reply may be lost"
    both = Drift(removed=Paths(2, ("first", "second")))
    assert after_apply(leg, replace(MOVED_TO_OURS, drift=both)).removed == ("first", "second")


def test_a_branch_that_somebody_has_moved_back_has_nothing_that_its_run_changed() -> None:
    leg = replace(after_apply(in_flight(), MOVED_TO_OURS), listed=False)
    back = replace(seen(OLD, Drift()), listed=False, moved=Drift())
    assert after_look(leg, back, EQUAL).listed
    doubted = after_look(before_advance(LegOutcome(), seen(OLD)), back, FORWARD)
    assert (doubted.state, doubted.listed) == (LegState.DOUBTED, False), "its plan may still be carried out"
