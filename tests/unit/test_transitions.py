"""The table of a run's states is kept: no statement of the store takes a run anywhere else."""

import re
from itertools import product
from pathlib import Path

import pytest

import listener.store
from listener.runs import ENDED, TRANSITIONS, State, demand_transition
from listener.store.lifecycle import moving

ROOM = Path(listener.store.__file__).parent
SETS_A_STATE = re.compile(
    r"UPDATE\s+runs\b(?:(?!WHERE|UPDATE)[\s\S])*?\bSET\b(?:(?!WHERE)[\s\S])*?\bstate\s*="
)
STATES = (None, *State)


def test_the_table_has_every_state() -> None:
    assert set(TRANSITIONS) == set(STATES)


@pytest.mark.parametrize(("before", "after"), list(product(STATES, State)))
def test_a_move_is_made_only_if_the_table_lists_it(before: State | None, after: State) -> None:
    if after in TRANSITIONS[before]:
        demand_transition(before, after)
        return
    with pytest.raises(ValueError, match=f"can't go from .* to {after}"):
        demand_transition(before, after)


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_the_store_has_a_statement_for_the_moves_that_the_table_lists_and_for_no_other(
    before: State, after: State
) -> None:
    if after in TRANSITIONS[before]:
        statement = moving(before, after, "outcome = :outcome", "id = :id")
        assert f"SET state = '{after}'" in statement
        assert f"WHERE state = '{before}' AND" in statement
        return
    with pytest.raises(ValueError, match="can't go"):
        moving(before, after, "outcome = :outcome", "id = :id")


def test_nothing_follows_a_state_in_which_a_run_has_ended() -> None:
    assert {State.SUCCEEDED, State.FAILED, State.SUPERSEDED, State.CANCELLED} == ENDED


def test_no_other_statement_of_the_store_sets_a_state() -> None:
    written = {
        str(path.relative_to(ROOM)): SETS_A_STATE.findall(path.read_text()) for path in ROOM.rglob("*.py")
    }
    assert {path: len(found) for path, found in written.items() if found} == {"lifecycle.py": 1}
