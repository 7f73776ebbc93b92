"""The decision table, exhaustively, against an oracle written from the rules and not from the code."""

import functools
import itertools
from dataclasses import dataclass, replace

import pytest

from listener.errors import MovedSinceError, StaleLockError
from listener.observations import Branch, Observation
from listener.plans import MOVING, Plan, PlanKind, busy_since, decide, equal, overdue, undo
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


@functools.cache
def leg_of(policy: Policy) -> Leg:
    address = RepositoryAddress("studio", HOME)
    return Leg("mysite", "staging", address, "staging", address, "live", policy)


@dataclass(frozen=True)
class Case:
    live: bool
    tip: str
    policy: Policy
    bare: bool
    idle: str
    """How long ago the index was written."""
    mark: str
    unchanged: str
    """How long ago the mark was written."""
    head: str
    placed: str

    def leg(self) -> Leg:
        return leg_of(self.policy)

    def observation(self) -> Observation:
        tip = TIPS[self.tip]
        if tip is not None:
            tip = replace(
                tip,
                target="refs/heads/other" if self.placed == "symbolic" else "",
                worktree={"elsewhere": "/srv/elsewhere", "here": HOME}.get(self.placed, ""),
            )
        marked = {"branch": "staging_in_progress", "live": "live_in_progress", "other": "qa_in_progress"}
        written = {} if self.mark in {"none", "other"} else {marked.get(self.mark, self.mark): self.unchanged}
        return Observation(
            live=LIVE if self.live else None,
            branch=tip,
            head=HEADS[self.head],
            bare=self.bare,
            worktree=HOME,
            now=NOW,
            times={name: NOW - IDLE[each] for name, each in {"index": self.idle, **written}.items()},
            in_progress={marked[self.mark]: "p" * 40} if self.mark in marked else {},
            ancestor=self.tip == "ancestor",
        )


DIMENSIONS = (
    (True, False),
    tuple(TIPS),
    tuple(Policy),
    (False, True),
    tuple(IDLE),
    MARKS,
    tuple(IDLE),
    tuple(HEADS),
    ("nowhere", "here", "elsewhere", "symbolic"),
)


def expected(case: Case) -> PlanKind:
    """What the rules say, read from the top."""
    exists = case.tip != "missing"
    if not case.live or (exists and case.placed in {"symbolic", "elsewhere"}):
        return PlanKind.REFUSE
    written = [case.idle] if case.mark in {"none", "other"} else [case.idle, case.unchanged]
    if len(written) > 1 and case.unchanged in {"just now", "a bit ahead", "a while"}:
        return PlanKind.BUSY
    if "just now" in written or "a bit ahead" in written:
        return PlanKind.BUSY
    if not exists and case.head == "branch" and not case.bare:
        return PlanKind.BUSY if "a while" in written else PlanKind.REFUSE
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
    everything = list(itertools.product(*DIMENSIONS))
    assert len(everything) == 108_000
    for values in everything:
        case = Case(*values)
        plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
        assert plan.kind is expected(case), case
        check_whole(case, plan)


def check_whole(case: Case, plan: Plan) -> None:
    """Only a refusal has an error, only being busy a time; going on after a crash has a warning."""
    assert (plan.refusal is not None) == (plan.kind is PlanKind.REFUSE), case
    assert (plan.again_in > 0) == (plan.kind is PlanKind.BUSY), case
    assert plan.refusal is None or plan.refusal.permanent
    goes_on = plan.kind not in {PlanKind.BUSY, PlanKind.REFUSE}
    marked = case.mark not in {"none", "other"}
    assert bool(plan.warnings) == (goes_on and marked), case


def test_going_on_after_a_crash_is_warned_about_with_its_age() -> None:
    case = Case(
        True,
        "diverged",
        Policy.FORWARD,
        False,
        "beyond patience",
        "branch",
        "beyond patience",
        "live",
        "nowhere",
    )
    plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
    assert plan.warnings == (
        "a publish seems to have crashed: staging_in_progress left behind, last touched 901 s ago",
    )
    assert plan.stale == {"staging_in_progress": "p" * 40}


@pytest.mark.parametrize(("idle", "again_in"), [(0.0, 2.0), (0.5, 1.5), (-1.0, 3.0)])
def test_a_repository_just_touched_is_looked_at_again_when_it_is_quiet(idle: float, again_in: float) -> None:
    case = Case(True, "diverged", Policy.FORWARD, False, "just now", "none", "just now", "live", "nowhere")
    observation = replace(case.observation(), times={"index": NOW - idle})
    plan = decide(case.leg(), observation, quiet=QUIET, patience=PATIENCE)
    assert plan.again_in == pytest.approx(again_in)


@pytest.mark.parametrize("bare", [False, True])
def test_a_lock_that_git_itself_would_need_is_told_by_name(bare: bool) -> None:
    case = Case(
        True,
        "diverged",
        Policy.FORWARD,
        bare,
        "beyond patience",
        "HEAD.lock",
        "beyond patience",
        "branch",
        "nowhere",
    )
    plan = decide(case.leg(), case.observation(), quiet=QUIET, patience=PATIENCE)
    assert isinstance(plan.refusal, StaleLockError)
    elsewhere = replace(case, head="live")
    plan = decide(elsewhere.leg(), elsewhere.observation(), quiet=QUIET, patience=PATIENCE)
    assert plan.kind is PlanKind.FORWARD_COMMIT


DAY = 86_400.0


def left_behind(idle: float, unchanged: float = DAY) -> tuple[Leg, Observation]:
    """A crashed publish's mark under a repository that somebody goes on writing to."""
    case = Case(True, "diverged", Policy.FORWARD, False, "a while", "branch", "a while", "live", "nowhere")
    times = {"index": NOW - idle, "staging_in_progress": NOW - unchanged}
    return case.leg(), replace(case.observation(), times=times)


def test_a_crashed_publish_s_mark_holds_up_no_site_that_is_published_more_often_than_patience() -> None:
    leg, observation = left_behind(idle=60.0)
    plan = decide(leg, observation, quiet=QUIET, patience=PATIENCE)
    assert plan.kind is PlanKind.FORWARD_COMMIT
    assert plan.warnings == (
        "a publish seems to have crashed: staging_in_progress left behind, last touched 86400 s ago",
    )
    assert plan.stale == {"staging_in_progress": "p" * 40}


def test_a_crashed_publish_s_mark_lets_nothing_move_before_the_repository_is_quiet() -> None:
    leg, observation = left_behind(idle=0.5)
    plan = decide(leg, observation, quiet=QUIET, patience=PATIENCE)
    assert (plan.kind, plan.unmarked) == (PlanKind.BUSY, True)
    assert plan.again_in == pytest.approx(QUIET - 0.5)


def test_a_mark_that_has_just_been_made_counts_however_old_all_else_is() -> None:
    leg, observation = left_behind(idle=DAY, unchanged=PATIENCE - 1)
    plan = decide(leg, observation, quiet=QUIET, patience=PATIENCE)
    assert (plan.kind, plan.unmarked) == (PlanKind.BUSY, False)
    assert plan.again_in == pytest.approx(0.5)


def test_a_crashed_mark_beside_a_young_one_is_a_publish() -> None:
    leg, observation = left_behind(idle=60.0)
    marks = {**observation.in_progress, "live_in_progress": "q" * 40}
    observation = replace(
        observation, in_progress=marks, times={**observation.times, "live_in_progress": NOW}
    )
    plan = decide(leg, observation, quiet=QUIET, patience=PATIENCE)
    assert (plan.kind, plan.unmarked) == (PlanKind.BUSY, False)


def test_a_mark_without_a_time_of_its_own_is_as_old_as_the_last_touch() -> None:
    leg, observation = left_behind(idle=60.0)
    packed = replace(observation, times={"index": NOW - 60.0})
    assert decide(leg, packed, quiet=QUIET, patience=PATIENCE).kind is PlanKind.BUSY


def test_one_time_far_in_the_future_hides_no_other() -> None:
    leg, observation = left_behind(idle=0.5)
    skewed = replace(observation, in_progress={}, times={"HEAD": NOW + DAY, "index": NOW - 0.5})
    assert decide(leg, skewed, quiet=QUIET, patience=PATIENCE).kind is PlanKind.BUSY
    assert (
        decide(leg, replace(skewed, times={"HEAD": NOW + DAY}), quiet=QUIET, patience=PATIENCE).kind in MOVING
    )


KINDS = {
    "unmarked": Plan(PlanKind.BUSY, unmarked=True),
    "marked": Plan(PlanKind.BUSY),
    "at rest": Plan(PlanKind.FORWARD_COMMIT),
    "refused": Plan(PlanKind.REFUSE),
}


def expected_since(looks: tuple[str, ...]) -> int | None:
    """Which look was the first of those that still count, read from the last one back."""
    counted = None
    for number in reversed(range(len(looks))):
        if looks[number] in {"at rest", "refused"}:
            break
        if looks[number] == "unmarked":
            counted = number
    return counted


@pytest.mark.parametrize("length", range(1, 7))
def test_a_wait_begins_with_the_first_look_without_a_mark_and_ends_with_one_at_rest(length: int) -> None:
    for looks in itertools.product(KINDS, repeat=length):
        since = 0.0
        for number, look in enumerate(looks):
            since = busy_since(KINDS[look], NOW + number, since)
        begun = expected_since(looks)
        assert since == (0.0 if begun is None else NOW + begun), looks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ago", [None, 0.0, PATIENCE, PATIENCE + 1])
def test_only_a_wait_without_a_mark_that_is_longer_than_patience_is_told(
    kind: str, ago: float | None
) -> None:
    _, observation = left_behind(idle=0.5)
    plan = overdue(KINDS[kind], observation, 0.0 if ago is None else NOW - ago, PATIENCE)
    told = kind == "unmarked" and ago == PATIENCE + 1
    assert (plan.overdue, bool(plan.warnings)) == (told, told)
    assert not told or "what keeps writing index there" in plan.warnings[0]
    assert replace(plan, overdue=False, warnings=()) == KINDS[kind]


def test_a_clock_that_was_set_back_begins_a_wait_anew() -> None:
    assert busy_since(KINDS["unmarked"], NOW, NOW + 60) == NOW


def test_an_environment_on_another_branch_heeds_its_own_marks() -> None:
    case = Case(True, "diverged", Policy.FORWARD, False, "a while", "other", "a while", "live", "nowhere")
    qa = replace(case.leg(), environment="qa", branch="qa")
    assert decide(qa, case.observation(), quiet=QUIET, patience=PATIENCE).kind is PlanKind.BUSY


def test_equal_means_trees_but_for_policy_reset() -> None:
    environment = leg_of(Policy.FORWARD)
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
    case = Case(True, "diverged", Policy.FORWARD, bare, "just now", "none", "just now", "live", "nowhere")
    leg = replace(case.leg(), source=RepositoryAddress("studio", "/srv/git/other"))
    assert decide(leg, case.observation(), quiet=QUIET, patience=PATIENCE).kind is kind


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("idle", IDLE)
@pytest.mark.parametrize("bare", [False, True])
def test_a_rollback_goes_back_from_where_a_run_had_put_the_branch(
    policy: Policy, mark: str, idle: str, bare: bool
) -> None:
    case = Case(True, "diverged", policy, bare, idle, mark, idle, "live", "nowhere")
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
    case = Case(True, "diverged", policy, True, "a while", "none", "a while", "live", "nowhere")
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
        case = Case(True, "diverged", policy, True, "a while", "none", "a while", "live", "nowhere")
        plan = undo(case.leg(), rolling_back(case, tip), "8" * 40, quiet=QUIET, patience=PATIENCE)
        assert (plan.kind is PlanKind.UP_TO_DATE) is there


@pytest.mark.parametrize("placed", ["symbolic", "elsewhere"])
def test_a_branch_that_can_not_be_moved_is_not_rolled_back_either(placed: str) -> None:
    case = Case(True, "diverged", Policy.FORWARD, True, "a while", "none", "a while", "live", placed)
    observation = replace(case.observation(), target=TARGET)
    plan = undo(case.leg(), observation, "d" * 40, quiet=QUIET, patience=PATIENCE)
    assert plan.kind is PlanKind.REFUSE


def test_a_leg_elsewhere_heeds_its_own_marks_and_not_lives() -> None:
    for mark, kind in (("branch", PlanKind.BUSY), ("live", PlanKind.FORWARD_COMMIT)):
        case = Case(True, "diverged", Policy.FORWARD, True, "just now", mark, "just now", "live", "nowhere")
        elsewhere = replace(case.leg(), repository=RepositoryAddress("eu1", HOME))
        assert decide(elsewhere, case.observation(), quiet=QUIET, patience=PATIENCE).kind is kind
