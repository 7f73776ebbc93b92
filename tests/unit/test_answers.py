"""The models of the answers: built from the domain's objects, written as JSON, read back as described."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from listener.errors import HostUnreachableError
from listener.looks import LegLook
from listener.observations import Branch, Drift, Observation, Paths
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.plans import Plan, PlanKind
from listener.queue import Hold, QueuePosition
from listener.runs import Origin, Run, State, Trigger
from listener.sites import Environment, Leg, Policy, RepositoryAddress
from listener.web.answers.runs import QueueView, RunView
from listener.web.answers.sites import HoldView, LegsDrift, drift_of
from listener.web.answers.view import Message, Problem, View

RUN = Run("r1", "mysite", "staging", State.QUEUED, created_at=1.0, not_before=2.5)
TRIGGER = Trigger("t1", "mysite", "staging", Origin.API, "ci", 1.0)


def leg(path: str) -> Leg:
    at = RepositoryAddress("studio", path)
    environment = Environment.of(
        "mysite", "staging", at, "live", Policy.FORWARD, [(at, "staging")], follow=True
    )
    return environment.legs[0]


def said(view: View) -> dict[str, Any]:
    """What a client reads; the model has to accept its own answer."""
    type(view).model_validate_json(view.to_json(), strict=True, extra="forbid")
    answered: dict[str, Any] = json.loads(view.to_json())
    return answered


def found(path: str, *, live: str = "a", branch: str = "b") -> LegLook:
    observation = Observation(
        Branch(live * 40, live * 40),
        Branch(branch * 40, branch * 40),
        "ref: refs/heads/live",
        bare=True,
        worktree="/",
        now=1.0,
        drift=Drift(added=Paths(1, ("x",)), ahead=1),
    )
    return LegLook.of(leg(path), observation, Plan(PlanKind.FORWARD_COMMIT))


def test_a_run_is_told_with_its_triggers_and_times() -> None:
    view = said(RunView.of(RUN, [TRIGGER]))
    assert view["not_before"] == "1970-01-01T00:00:02.500+00:00"
    assert (view["started_at"], view["outcome"]) == (None, None)
    assert [each["actor"] for each in view["triggers"]] == ["ci"]
    assert "queue" not in view


def test_a_waiting_run_is_told_with_its_place_in_the_queue() -> None:
    place = QueueView.of(RUN, QueuePosition(ahead=9, pace=10.0), now=0.0, concurrency=4)
    assert said(RunView.of(RUN, [], place))["queue"] == {
        "ahead": 9,
        "expected_start": "1970-01-01T00:00:22.500+00:00",
    }


@pytest.mark.parametrize("legs", [0, 1])
def test_the_outcome_of_one_repository_is_told_without_a_list(legs: int) -> None:
    one = LegOutcome("studio:/srv/a", "staging", "create", LegState.MADE_EQUAL, error="of the leg")
    outcome = Outcome((one,) * legs, warnings=("w",), error="of the run", durations={"apply": 1})
    view = said(RunView.of(RUN.__class__(**{**as_dict(RUN), "outcome": outcome}), []))["outcome"]
    assert (view["error"], view["warnings"], view["durations"]) == ("of the run", ["w"], {"apply": 1.0})
    assert (view["moved"], view["plan"]) == ((True, "create") if legs else (False, ""))
    assert "legs" not in view
    assert not {"state", "sent_for", "wait"} & view.keys()


def as_dict(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


def test_the_outcome_of_several_repositories_is_a_list() -> None:
    two = tuple(LegOutcome(f"studio:/srv/{each}", "staging") for each in "ab")
    view = said(RunView.of(Run(**{**as_dict(RUN), "outcome": Outcome(two)}), []))["outcome"]
    assert [each["repository"] for each in view["legs"]] == ["studio:/srv/a", "studio:/srv/b"]


def test_drift_is_that_of_the_only_repository_or_of_each() -> None:
    one = said(drift_of([found("/a")]))
    assert (one["equal"], one["added"], one["ahead"], one["behind"]) == (False, ["x"], 1, None)
    assert not {"repository", "target"} & one.keys()
    failed = LegLook.failed(leg("/b"), HostUnreachableError())
    assert said(drift_of([failed]))["error"] == "host-unreachable"
    both = drift_of([found("/a", branch="a"), failed])
    assert isinstance(both, LegsDrift)
    assert [each["repository"] for each in said(both)["legs"]] == ["studio:/a", "studio:/b"]
    assert not both.equal
    assert said(drift_of([found("/a", branch="a"), found("/b", branch="a")]))["equal"]


def test_a_hold_that_ends_by_itself_says_when_and_others_say_nothing() -> None:
    hold = Hold("mysite", "staging", "a test", "ada", 1.0)
    assert "until_live_leaves" not in said(HoldView.of(hold))
    back = Hold("mysite", "staging", "a test", "ada", 1.0, live="c" * 40)
    assert said(HoldView.of(back))["until_live_leaves"] == "c" * 40


def test_a_problem_without_details_has_none() -> None:
    assert said(Problem(type="about:blank", title="Unauthorized", status=401)).keys() == {
        "type",
        "title",
        "status",
    }


@given(st.text(st.characters(codec=None)))
@example("caf\udce9")
def test_any_text_can_be_answered_even_bytes_that_are_no_text(text: str) -> None:
    assert json.loads(Message(message=text).to_json()) == {"message": text}
