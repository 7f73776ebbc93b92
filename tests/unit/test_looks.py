"""How an environment stands is derived from a look in one place."""

import pytest

from listener.looks import EnvironmentLook, LegLook, LookState
from listener.observations import Branch, Observation
from listener.plans import PlanKind, decide
from listener.sites import Leg, Policy, RepositoryAddress

REPOSITORY = RepositoryAddress("studio", "/site.git")
LIVE, SAME_TREE, OTHER = Branch("1" * 40, "a" * 40), Branch("2" * 40, "a" * 40), Branch("3" * 40, "b" * 40)


def leg(policy: Policy = Policy.FORWARD) -> Leg:
    return Leg("mysite", "staging", REPOSITORY, "staging", REPOSITORY, "live", policy)


def looked(
    live: Branch | None, branch: Branch | None, policy: Policy = Policy.FORWARD, *, touched: float = 0.0
) -> LegLook:
    head, times = "ref: refs/heads/live", {"index": touched}
    seen = Observation(live, branch, head, bare=False, worktree="/", now=1000.0, times=times)
    plan = decide(leg(policy), seen, quiet=2.0, patience=900.0)
    return LegLook.of(leg(policy), seen, plan)


def state_of(*legs: LegLook) -> LookState:
    return EnvironmentLook("mysite", "staging", 0.0, legs).summary.state


@pytest.mark.parametrize(
    ("found", "plan", "state"),
    [
        (looked(LIVE, SAME_TREE), PlanKind.UP_TO_DATE, LookState.EQUAL),
        (looked(LIVE, OTHER), PlanKind.FORWARD_COMMIT, LookState.DIFFERS),
        (looked(LIVE, None), PlanKind.CREATE, LookState.DIFFERS),
        (looked(LIVE, SAME_TREE, Policy.RESET), PlanKind.RESET, LookState.DIFFERS),
        (looked(LIVE, OTHER, Policy.FAST_FORWARD), PlanKind.REFUSE, LookState.DIFFERS),
        (looked(LIVE, OTHER, touched=999.5), PlanKind.BUSY, LookState.DIFFERS),
        (looked(LIVE, SAME_TREE, touched=999.5), PlanKind.BUSY, LookState.EQUAL),
        (looked(None, OTHER), PlanKind.REFUSE, LookState.UNKNOWN),
    ],
)
def test_the_trees_decide_and_not_what_a_run_would_do(
    found: LegLook, plan: PlanKind, state: LookState
) -> None:
    assert (found.plan, state_of(found)) == (plan, state)


def test_of_several_repositories_one_that_differs_is_enough_and_one_that_is_silent_hides_the_rest() -> None:
    equal, differs, failed = (
        looked(LIVE, SAME_TREE),
        looked(LIVE, OTHER),
        LegLook("eu:/x", "staging", error="e"),
    )
    assert state_of(equal, equal) is LookState.EQUAL
    assert state_of(equal, failed) is LookState.UNKNOWN
    assert state_of(equal, failed, differs) is LookState.DIFFERS


def test_whether_it_differs_is_not_known_where_nobody_can_tell() -> None:
    found = {
        state: EnvironmentLook("mysite", "staging", 0.0, (each,)).summary.differs
        for state, each in (
            (LookState.EQUAL, looked(LIVE, SAME_TREE)),
            (LookState.DIFFERS, looked(LIVE, OTHER)),
            (LookState.UNKNOWN, looked(None, OTHER)),
        )
    }
    assert found == {LookState.EQUAL: False, LookState.DIFFERS: True, LookState.UNKNOWN: None}


def test_the_summary_names_the_error_that_hides_how_an_environment_stands() -> None:
    failed = LegLook("eu:/x", "staging", error="host-unreachable", message="No answer.")
    summary = EnvironmentLook("mysite", "staging", 7.0, (looked(LIVE, SAME_TREE), failed)).summary
    assert (summary.error, summary.message, summary.plan) == (
        "host-unreachable",
        "No answer.",
        PlanKind.UP_TO_DATE,
    )
    missing = EnvironmentLook("mysite", "staging", 7.0, (looked(None, OTHER),)).summary
    assert missing.error == "live-missing"
