"""The decision table, exhaustively, against an oracle written from the rules and not from the code."""

import itertools
from dataclasses import dataclass, replace

import pytest

from listener.errors import MovedSinceError, StaleLockError
from listener.observations import Branch, Observation
from listener.plans import PlanKind, decide, equal, undo
from listener.sites import Leg, Policy, RepositoryAddress

QUIET, PATIENCE = 2.0, 900.0
NOW = 1_000_000.0
HOME = "/srv/mysite/published"

LIVE = Branch("l" * 40, "T" * 40)
TIPS = {
    "missing": None,
    "same commit": LIVE,
    "same tree": Branch("s" * 40, LIVE.tree),
    "ancestor": Branch("a" * 40, "A" * 40),
    "diverged": Branch("d" * 40, "D" * 40),
}
IDLE = {
    "just now": 0.5,
    "a while": 60.0,
    "beyond patience": PATIENCE + 1,
    "a bit ahead": -60.0,
    "far ahead": -3600.0,
}
MARKS = ("none", "branch", "live", "other", "index.lock", "HEAD.lock")
HEADS = {
    "branch": "ref: refs/heads/staging",
    "live": "ref: refs/heads/live",
    "detached": "d" * 40,
}


@dataclass(frozen=True)
class Case:
    live: bool
    tip: str
    policy: Policy
    bare: bool
    idle: str
    mark: str
    head: str
    placed: str

    def leg(self) -> Leg:
        address = RepositoryAddress("studio", HOME)
        return Leg("mysite", "staging", address, "staging", address, "live", self.policy)

    def observation(self) -> Observation:
        tip = TIPS[self.tip]
        if tip is not None:
            tip = replace(
                tip,
                target="refs/heads/other" if self.placed == "symbolic" else "",
                worktree={"elsewhere": "/srv/elsewhere", "here": HOME}.get(self.placed, ""),
            )
        locks = {"index.lock", "HEAD.lock"} & {self.mark}
        marked = {"branch": "staging_in_progress", "live": "live_in_progress", "other": "qa_in_progress"}
        return Observation(
            live=LIVE if self.live else None,
            branch=tip,
            head=HEADS[self.head],
            bare=self.bare,
            worktree=HOME,
            now=NOW,
            times=dict.fromkeys(("index", *locks), NOW - IDLE[self.idle]),
            in_progress={marked[self.mark]: "p" * 40} if self.mark in marked else {},
            ancestor=self.tip == "ancestor",
        )


CASES = [
    Case(*values)
    for values in itertools.product(
        (True, False),
        TIPS,
        Policy,
        (False, True),
        IDLE,
        MARKS,
        HEADS,
        ("nowhere", "here", "elsewhere", "symbolic"),
    )
]


def expected(case: Case) -> PlanKind:
    """What the rules say, read from the top."""
    exists = case.tip != "missing"
    if not case.live or (exists and case.placed in {"symbolic", "elsewhere"}):
        return PlanKind.REFUSE
    publishing = case.mark not in {"none", "other"}
    crashed = case.idle in {"beyond patience", "far ahead"}
    if publishing and not crashed:
        return PlanKind.BUSY
    if not publishing and case.idle in {"just now", "a bit ahead"}:
        return PlanKind.BUSY
    if not exists and case.head == "branch" and not case.bare:
        return PlanKind.REFUSE if crashed else PlanKind.BUSY
    moving = expected_move(case) if exists else PlanKind.CREATE
    if stuck(case) and moving is not PlanKind.UP_TO_DATE:
        return PlanKind.REFUSE
    return moving


def stuck(case: Case) -> bool:
    return case.mark == "HEAD.lock" and case.head == "branch"


def expected_move(case: Case) -> PlanKind:
    if case.tip == "same commit" or (case.tip == "same tree" and case.policy is not Policy.RESET):
        return PlanKind.UP_TO_DATE
    if case.tip == "ancestor":
        return PlanKind.FAST_FORWARD
    return {
        Policy.FORWARD: PlanKind.FORWARD_COMMIT,
        Policy.RESET: PlanKind.RESET,
        Policy.FAST_FORWARD: PlanKind.REFUSE,
    }[case.policy]


def test_every_observation_is_decided_by_the_rules() -> None:
    assert len(CASES) == 21_600
    for case in CASES:
        plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
        assert plan.kind is expected(case), case


def test_only_a_refusal_has_an_error_and_only_being_busy_a_time() -> None:
    for case in CASES:
        plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
        assert (plan.refusal is not None) == (plan.kind is PlanKind.REFUSE), case
        assert (plan.again_in > 0) == (plan.kind is PlanKind.BUSY), case
        assert plan.refusal is None or plan.refusal.permanent


def test_going_on_after_a_crash_is_warned_about_with_its_age() -> None:
    for case in CASES:
        plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
        goes_on = plan.kind not in {PlanKind.BUSY, PlanKind.REFUSE}
        marked = case.mark not in {"none", "other"}
        assert bool(plan.warnings) == (goes_on and marked), case
    case = Case(True, "diverged", Policy.FORWARD, False, "beyond patience", "branch", "live", "nowhere")
    plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
    assert plan.warnings == (
        "a publish seems to have crashed: staging_in_progress left behind, last touched 901 s ago",
    )
    assert plan.stale == {"staging_in_progress": "p" * 40}


@pytest.mark.parametrize(("idle", "again_in"), [(0.0, 2.0), (0.5, 1.5), (-1.0, 3.0)])
def test_a_repository_just_touched_is_looked_at_again_when_it_is_quiet(idle: float, again_in: float) -> None:
    case = Case(True, "diverged", Policy.FORWARD, False, "just now", "none", "live", "nowhere")
    observation = replace(case.observation(), times={"index": NOW - idle})
    plan = decide(case.leg(), observation, quiet=QUIET, patience=PATIENCE)
    assert plan.again_in == pytest.approx(again_in)


@pytest.mark.parametrize("bare", [False, True])
def test_a_lock_that_git_itself_would_need_is_told_by_name(bare: bool) -> None:
    case = Case(True, "diverged", Policy.FORWARD, bare, "beyond patience", "HEAD.lock", "branch", "nowhere")
    plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
    assert isinstance(plan.refusal, StaleLockError)
    elsewhere = replace(case, head="live")
    plan = decide(elsewhere.leg(), elsewhere.observation(), quiet=QUIET, patience=PATIENCE)
    assert plan.kind is PlanKind.FORWARD_COMMIT


def test_an_environment_on_another_branch_heeds_its_own_marks() -> None:
    case = Case(True, "diverged", Policy.FORWARD, False, "a while", "other", "live", "nowhere")
    qa = replace(case.leg(), environment="qa", branch="qa")
    assert decide(qa, case.observation(), quiet=QUIET, patience=PATIENCE).kind is PlanKind.BUSY


def test_equal_means_trees_but_for_policy_reset() -> None:
    environment = CASES[0].leg()
    other = replace(environment, policy=Policy.RESET)
    assert equal(environment, LIVE, TIPS["same tree"])
    assert not equal(other, LIVE, TIPS["same tree"])
    assert equal(other, LIVE, LIVE)
    assert not equal(environment, LIVE, TIPS["diverged"])
    assert not equal(environment, None, LIVE)
    assert not equal(environment, LIVE, None)


TARGET = Branch("7" * 40, "before")


def rolling_back(case: Case, tip: Branch | None) -> Observation:
    return replace(case.observation(), branch=tip, target=TARGET)


@pytest.mark.parametrize(("bare", "kind"), [(True, PlanKind.FORWARD_COMMIT), (False, PlanKind.BUSY)])
def test_a_bare_repository_that_does_not_have_live_is_not_waited_for(bare: bool, kind: PlanKind) -> None:
    case = Case(True, "diverged", Policy.FORWARD, bare, "just now", "none", "live", "nowhere")
    leg = replace(case.leg(), source=RepositoryAddress("studio", "/srv/git/other"))
    assert decide(leg, case.observation(), quiet=QUIET, patience=PATIENCE).kind is kind


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("idle", IDLE)
@pytest.mark.parametrize("bare", [False, True])
def test_a_rollback_goes_back_from_where_a_run_had_put_the_branch(
    policy: Policy, mark: str, idle: str, bare: bool
) -> None:
    case = Case(True, "diverged", policy, bare, idle, mark, "live", "nowhere")
    left = Branch("8" * 40, "after")
    sync = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
    plan = undo(case.leg(), rolling_back(case, left), left.commit, quiet=QUIET, patience=PATIENCE)
    if sync.kind is PlanKind.BUSY:
        assert plan == sync, "Studio is waited for as by a sync"
    elif policy is Policy.FORWARD:
        assert plan.kind is PlanKind.FORWARD_COMMIT
    else:
        assert plan.kind is PlanKind.RESET


@pytest.mark.parametrize("policy", Policy)
def test_a_branch_that_moved_since_is_not_rolled_back(policy: Policy) -> None:
    case = Case(True, "diverged", policy, True, "a while", "none", "live", "nowhere")
    for tip in (Branch("9" * 40, "other"), None):
        plan = undo(case.leg(), rolling_back(case, tip), "8" * 40, quiet=QUIET, patience=PATIENCE)
        assert isinstance(plan.refusal, MovedSinceError)


def test_a_branch_that_is_back_already_is_left_alone_in_the_sense_of_its_policy() -> None:
    same_tree = Branch("9" * 40, TARGET.tree)
    for policy, tip, there in (
        (Policy.FORWARD, same_tree, True),
        (Policy.FORWARD, TARGET, True),
        (Policy.RESET, same_tree, False),
        (Policy.RESET, TARGET, True),
    ):
        case = Case(True, "diverged", policy, True, "a while", "none", "live", "nowhere")
        plan = undo(case.leg(), rolling_back(case, tip), "8" * 40, quiet=QUIET, patience=PATIENCE)
        assert (plan.kind is PlanKind.UP_TO_DATE) is there


@pytest.mark.parametrize("placed", ["symbolic", "elsewhere"])
def test_a_branch_that_can_not_be_moved_is_not_rolled_back_either(placed: str) -> None:
    case = Case(True, "diverged", Policy.FORWARD, True, "a while", "none", "live", placed)
    observation = replace(case.observation(), target=TARGET)
    plan = undo(case.leg(), observation, "d" * 40, quiet=QUIET, patience=PATIENCE)
    assert plan.kind is PlanKind.REFUSE


def test_a_leg_elsewhere_heeds_its_own_marks_and_not_lives() -> None:
    for mark, kind in (("branch", PlanKind.BUSY), ("live", PlanKind.FORWARD_COMMIT)):
        case = Case(True, "diverged", Policy.FORWARD, True, "just now", mark, "live", "nowhere")
        elsewhere = replace(case.leg(), repository=RepositoryAddress("eu1", HOME))
        assert decide(elsewhere, case.observation(), quiet=QUIET, patience=PATIENCE).kind is kind
