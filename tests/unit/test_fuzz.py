"""The fuzz targets, on their seeds and on what random changes make of them: so that they stay alive.

`make fuzz` has them led by coverage, for as long as one likes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import http
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parents[1] / "fuzz" / "found"
SEEDS = {name: list(target.seeds()) for name, target in TARGETS.items()}


@pytest.fixture(scope="module", autouse=True)
def surface() -> Iterator[None]:
    """Closes what the target `http` has made."""
    yield
    http.close()


@pytest.mark.parametrize("name", TARGETS)
def test_the_promises_hold_for_the_seeds_and_for_what_was_found_before(name: str) -> None:
    found = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    for data in [b"", *SEEDS[name], *found]:
        TARGETS[name].try_out(data)


def changed(data: st.DataObject, seed: bytes) -> bytes:
    """A seed of which parts are left out, doubled or replaced."""
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(seed)))
        end = data.draw(st.integers(start, min(len(seed), start + 50)))
        seed = (
            seed[:start]
            + data.draw(st.sampled_from([b"", seed[start:end] * 2]) | st.binary(max_size=20))
            + seed[end:]
        )
    return seed


@pytest.mark.parametrize("name", TARGETS)
def test_the_promises_hold_for_random_changes_of_the_seeds(name: str) -> None:
    @settings(deadline=None, max_examples=30 if name == "http" else 100)
    @given(data=st.data())
    def try_out(data: st.DataObject) -> None:
        TARGETS[name].try_out(changed(data, data.draw(st.sampled_from(SEEDS[name]))))

    try_out()
