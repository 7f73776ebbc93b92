"""Texts that people read are plain: some turns of phrase that have to be read twice do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = sorted(
    path
    for pattern in (
        "listener/**/*.py",
        "listener/**/*.sh",
        "*.md",
        "*/README.md",
        "config/**/*.md",
        "config/*.yaml",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
RIDDLES = {
    "is no X (is not an X, unknown X)": r"(?<!here )\b(is|are|was|were) no (?!long|more|less|lat|old)\w+",
    "a level of the log by number (log.info)": r"\blog\.log\(\d",
}


@pytest.mark.parametrize("riddle", RIDDLES)
def test_no_text_has_a_turn_of_phrase_that_must_be_read_twice(riddle: str) -> None:
    pattern = re.compile(RIDDLES[riddle])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []
