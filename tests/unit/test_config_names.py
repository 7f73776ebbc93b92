"""What single settings may be, compared with those who know."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.config.names import branch_fault, moment, seconds

GIT = shutil.which("git")
CHARACTERS = st.sampled_from("aZ9/.-_@{}~^:?*[\\ \t\x7f\u00e9") | st.characters(
    codec="utf-8", exclude_characters="\0"
)
NAMES = st.text(CHARACTERS, max_size=8) | st.sampled_from(
    ["HEAD", "@", "a.lock", "a.lock/b", ".a", "a/.b", "a."]
)


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@settings(max_examples=200, deadline=None)
@given(name=NAMES)
def test_a_branch_is_a_name_that_git_takes(name: str) -> None:
    asked = subprocess.run(
        [GIT or "", "check-ref-format", "--branch", name], capture_output=True, check=False
    )
    # Git lets HEAD and @ pass here, but takes them for what is checked out wherever it reads a branch.
    assert (branch_fault(name) == "") == (asked.returncode == 0 and name not in {"HEAD", "@"})


@given(st.floats(0, 86400) | st.integers(0, 86400))
def test_a_number_is_a_duration_in_seconds(number: float) -> None:
    assert seconds(number) == number


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2), ("250ms", 0.25), ("2s", 2), ("15m", 900), ("1h", 3600), ("1.5h", 5400)]
)
def test_text_with_a_unit_is_a_duration(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["2030-01-31T00:00:00Z", "2030-01-31t01:00:00.000+01:00", "2030-01-30 19:00:00-05:00"]
)
def test_a_time_stamp_is_read_in_its_zone(text: str) -> None:
    assert moment(text) == 1896048000
