"""Since when repositories have been busy is known across runs, and forgotten when no run confirms it."""

from listener.sites import RepositoryAddress
from listener.waits import FORGOTTEN, Waits
from tests.legs import environment_of

(LEG,) = environment_of(RepositoryAddress("studio", "/srv/mysite")).legs
(OTHER,) = environment_of(RepositoryAddress("studio", "/srv/other")).legs


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_is_known_until_the_repository_is_found_at_rest() -> None:
    waits = Waits(Clock())
    waits.found(LEG, 5.0, overdue=False)
    assert (waits.since(LEG), waits.since(OTHER), waits.overdue()) == (5.0, 0.0, frozenset())
    waits.found(LEG, 5.0, overdue=True)
    assert waits.overdue() == {("mysite", "staging")}
    waits.found(LEG, 0.0, overdue=False)
    assert (waits.since(LEG), waits.overdue()) == (0.0, frozenset())


def test_a_wait_that_no_run_confirms_is_forgotten() -> None:
    clock = Clock()
    waits = Waits(clock)
    waits.found(LEG, 5.0, overdue=True)
    clock.now += FORGOTTEN
    assert waits.since(LEG) == 5.0
    waits.found(LEG, 5.0, overdue=True)
    clock.now += FORGOTTEN + 1
    assert (waits.since(LEG), waits.overdue()) == (0.0, frozenset())


def test_a_leg_at_rest_that_nobody_waited_for_is_not_kept() -> None:
    waits = Waits(Clock())
    waits.found(LEG, 0.0, overdue=False)
    assert waits._waiting == {}
