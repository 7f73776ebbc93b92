"""Whatever two histories look like: staging becomes equal to live, and nothing that anybody had is lost.

A handful of histories for each way in the suite; as many as `SYNC_STAGING_HISTORIES` says otherwise.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from listener.errors import DivergedError
from listener.outcomes import LegOutcome
from listener.plans import PlanKind
from listener.sites import Policy
from tests.contract.test_repository import a_run
from tests.histories import History, histories
from tests.publisher import DeliveryNode
from tests.ways import WAYS, Example, State, Way, World, refs_of, world

__all__ = ["world"]

MANY = int(os.environ.get("SYNC_STAGING_HISTORIES", "0"))

# Shrinking a failure would take longer than a test of the suite may.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
SETTINGS = settings(
    max_examples=MANY or 12,
    derandomize=not MANY,
    database=None,
    deadline=None,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@SETTINGS
@given(history=histories(), policy=st.sampled_from(Policy))
def test_any_two_histories_are_made_equal_and_taken_back_without_loss(
    world: World, way: Way, history: History, policy: Policy
) -> None:
    example = world.example(way, history, policy)
    try:
        synced_and_back(example, policy)
    finally:
        shutil.rmtree(example.folder)


def synced_and_back(example: Example, policy: Policy) -> None:
    before, source = example.state(), refs_of(example.source)
    removed = paths_lost(example)
    old = before.staging
    follows = policy is Policy.FORWARD and old
    node = DeliveryNode(example.carrier, example.folder / "node", "staging") if follows else None
    run = a_run()
    try:
        done = example.sync(run)
    except DivergedError:
        assert policy is Policy.FAST_FORWARD
        assert example.check(before) == before
        return
    check_equal(example, policy, before, done, node)
    if done.moved and old:
        assert sorted(done.removed) == removed
    if example.source is not example.carrier:
        assert refs_of(example.source) == source
    assert example.sync(a_run()).plan == PlanKind.UP_TO_DATE
    if old and done.moved:
        synced = example.state()
        back = example.roll_back(run, done)
        example.check(synced)
        check_back(example, policy, done, back, node)


def paths_lost(example: Example) -> list[str]:
    """What staging has and live has not, as it is told to a person."""
    if not example.carrier.commit("staging"):
        return []
    lost = set(example.carrier.files("staging")) - set(example.source.files("live"))
    return sorted(
        path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for path in lost
    )


def check_equal(
    example: Example, policy: Policy, before: State, done: LegOutcome, node: DeliveryNode | None
) -> None:
    now = example.check(before)
    live = example.source.commit("live")
    old, new = before.staging, now.staging
    assert (done.old, done.new, done.live, done.moved) == (old, new, live, old != new)
    assert example.carrier.tree("staging") == example.source.tree("live")
    if policy is Policy.RESET:
        assert new == live
    elif old:
        assert example.carrier.is_ancestor(old, new)
    if node is not None:
        assert node.pull() == ("fast-forward" if done.moved else "up to date")
        assert node.tree() == example.source.tree("live")


def check_back(
    example: Example, policy: Policy, done: LegOutcome, back: LegOutcome, node: DeliveryNode | None
) -> None:
    now = example.state()
    assert (back.old, back.new, back.live, back.moved) == (done.new, now.staging, done.old, True)
    tree = example.carrier.git("rev-parse", f"{done.old}^{{tree}}")
    assert example.carrier.tree("staging") == tree
    if policy is not Policy.FORWARD:
        assert now.staging == done.old
        assert example.carrier.git("rev-parse", back.backup) == done.new
        return
    assert example.carrier.is_ancestor(done.new, now.staging)
    if node is not None:
        assert node.pull() == "fast-forward"
        assert node.tree() == tree
