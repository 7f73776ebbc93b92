"""What was measured, as a table and as JSON."""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What one side showed in one case of a row."""

    row: str
    case: str
    side: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """What 99 of 100 are at most; the largest of fewer than 100."""
        return sorted(self.values)[min(len(self.values) - 1, int(len(self.values) * 0.99))]


@dataclass
class Figures:
    """All figures, in the order in which they came."""

    found: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    failed: list[str] = field(default_factory=list)
    """The rows that ended with an error."""

    def add(self, row: str, case: str, side: str, unit: str, values: Iterable[float]) -> None:
        self.found.append(Figure(row, case, side, unit, tuple(values)))

    def first(self, figure: Figure) -> Figure:
        """The side that the others are compared with: the first of the same case and unit."""
        place = (figure.row, figure.case, figure.unit)
        return next(each for each in self.found if (each.row, each.case, each.unit) == place)

    def ratio(self, figure: Figure) -> float | None:
        base = self.first(figure).median
        return figure.median / base if base else None

    def table(self) -> str:
        head = f"{'':10}{'':60}{'':32}{'n':>7}{'median':>11}{'p99':>11}  {'unit':8}{'ratio':>7}"
        lines = [head, *map(self._line, self.found)]
        lines += [f"not measured: {each}" for each in self.missing]
        lines += [f"failed: {each}" for each in self.failed]
        return "\n".join(lines) + "\n"

    def _line(self, figure: Figure) -> str:
        ratio = self.ratio(figure)
        return (
            f"{figure.row:10}{figure.case:60}{figure.side:32}{len(figure.values):7}{figure.median:11.2f}"
            f"{figure.p99:11.2f}  {figure.unit:8}{'' if ratio is None else f'{ratio:6.2f}x'}"
        )

    def document(self) -> list[dict[str, Any]]:
        return [
            {
                "row": each.row,
                "case": each.case,
                "side": each.side,
                "unit": each.unit,
                "n": len(each.values),
                "median": each.median,
                "p99": each.p99,
                "ratio": self.ratio(each),
            }
            for each in self.found
        ]

    def write(self, path: Path) -> None:
        path.write_text(
            json.dumps({"figures": self.document(), "missing": self.missing, "failed": self.failed}, indent=1)
            + "\n"
        )


def milliseconds(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(each * 1000 for each in seconds)


def told(text: str) -> None:
    """Say what goes on, beside the table."""
    sys.stderr.write(f"{text}\n")
