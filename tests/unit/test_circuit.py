"""A host that does not answer is left alone for a while, and then tried again."""

import pytest

from listener.errors import HostStalledError, HostUnreachableError
from listener.ssh.circuit import MAX_PAUSE, THRESHOLD, Circuit

ERROR = HostUnreachableError("no route")


def test_it_opens_after_some_failures_in_a_row_and_refuses_at_once() -> None:
    circuit = Circuit()
    for _ in range(THRESHOLD):
        circuit.check(100.0)
        circuit.failed(ERROR, 100.0)
    with pytest.raises(HostUnreachableError, match=r"no route \(next attempt in 2 s\)"):
        circuit.check(100.0)
    circuit.check(102.0)


def test_what_was_not_tried_has_not_failed() -> None:
    circuit = Circuit()
    for _ in range(THRESHOLD):
        circuit.failed(ERROR, 0.0)
    with pytest.raises(HostUnreachableError) as refused:
        circuit.check(0.5)
    assert refused.value.again_in == 1.5
    assert ERROR.again_in is None


def test_it_stays_open_longer_with_each_failure_up_to_its_most() -> None:
    circuit = Circuit()
    for number in range(20):
        circuit.failed(ERROR, 0.0)
        open_for = 0.0 if number + 1 < THRESHOLD else min(MAX_PAUSE, 2.0 ** (number + 2 - THRESHOLD))
        circuit.check(open_for)
        if open_for:
            with pytest.raises(HostUnreachableError):
                circuit.check(open_for - 0.1)


def test_a_success_closes_it() -> None:
    circuit = Circuit()
    for _ in range(THRESHOLD):
        circuit.failed(ERROR, 0.0)
    circuit.succeeded()
    circuit.failed(ERROR, 0.0)
    circuit.check(0.0)


def test_a_host_that_is_stalled_is_left_alone_at_once() -> None:
    circuit = Circuit()
    circuit.stalled(HostStalledError("git hangs", remedy="see why"), 0.0)
    with pytest.raises(HostStalledError, match="git hangs") as refused:
        circuit.check(1.0)
    assert (refused.value.again_in, refused.value.remedy) == (1.0, "see why")
    circuit.check(2.0)
