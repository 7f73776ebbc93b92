"""Each row of the benchmark runs, in its short form: one that fails would be noticed when it is needed."""

import pytest

from tests.bench.__main__ import ROWS, measure
from tests.bench.figures import Figures
from tests.bench.stage import ROOT, Tree


@pytest.mark.parametrize("row", ROWS)
async def test_each_row_of_the_benchmark_measures_something_of_each_side(row: str) -> None:
    figures = Figures()
    await measure([row], (Tree("listener", ROOT),), figures, short=True)
    assert figures.failed == []
    assert {each.row for each in figures.found} == {row}
    assert any(each.side.startswith("listener") for each in figures.found)
    assert all(value >= 0 for each in figures.found for value in each.values)
    assert len(figures.table().splitlines()) >= len(figures.found)
    assert len(figures.document()) == len(figures.found)
