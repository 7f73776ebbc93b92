"""How runs may go, when they are tried again, and how ids sort."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.errors import (
    BusyError,
    DivergedError,
    HostUnreachableError,
    ListenerError,
)
from listener.runs import ENDED, RetryPolicy, Run, State, new_id, retry

POLICY = RetryPolicy(attempts=3, first=1.0, most=8.0)


def run(state: State = State.RUNNING, *, failures: int = 0, streak: int = 0, looks: int = 0) -> Run:
    return Run("r", "mysite", "staging", state, 0.0, 0.0, failures=failures, streak=streak, looks=looks)


def test_nothing_follows_an_end() -> None:
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SUPERSEDED} == ENDED


def test_a_transient_error_is_tried_again_until_the_attempts_are_used_up() -> None:
    error = HostUnreachableError()
    decisions = [retry(run(failures=n, streak=n), error, POLICY, 0.0) for n in range(3)]
    assert [decision.delay if decision else None for decision in decisions] == [1.0, 2.0, None]
    assert all(decision.failed for decision in decisions if decision)


def test_a_successor_waits_as_long_as_its_predecessors_made_it() -> None:
    decision = retry(run(failures=0, streak=2), HostUnreachableError(), POLICY, 0.0)
    assert decision is not None
    assert decision.delay == 4.0


@pytest.mark.parametrize("error", [DivergedError(), ListenerError("a defect")])
def test_a_permanent_error_is_not_tried_again(error: ListenerError) -> None:
    assert retry(run(), error, POLICY, 0.0) is None


@given(st.integers(0, 10_000), st.floats(0, 2000))
def test_being_busy_uses_up_no_attempt_and_looks_again_soon(looks: int, again_in: float) -> None:
    decision = retry(run(failures=2, looks=looks), BusyError("publishing", again_in=again_in), POLICY, 0.0)
    assert decision is not None
    assert not decision.failed
    assert 0.25 <= decision.delay <= 5.0


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_backoff_grows_within_its_bounds(failures: int, jitter: float) -> None:
    delay = POLICY.delay(failures, jitter)
    assert 0.5 <= delay <= 8.0
    assert delay <= POLICY.delay(failures + 1, 0.0)


@given(st.floats(0, 1e10), st.floats(0.002, 1e6))
def test_ids_sort_by_time(now: float, later: float) -> None:
    assert new_id(now) < new_id(now + later)


def test_an_id_is_a_uuid_of_version_7() -> None:
    value = uuid.UUID(new_id(1_700_000_000.123))
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == 1_700_000_000_123
    assert new_id(0.0) != new_id(0.0)
