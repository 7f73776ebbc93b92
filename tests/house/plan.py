"""What can be read off the sources: rooms, long functions, fields that stand twice, imports between rooms."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

LONG = 40
"""Lines of a function that is worth a look."""

ALIKE, SHARE = 4, 0.6
"""Two maps of fields say the same if they share so many names, and this share of the smaller one."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The names that a class declares, or that a dict in the code has as keys."""

    where: str
    room: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """The sources of the package, parsed."""

    trees: Mapping[Path, ast.Module]
    lines: Mapping[Path, int]

    @classmethod
    def of(cls, package: Path) -> "Plan":
        """Parse every module of a package; paths are relative to it."""
        files = [*package.rglob("*.py"), *package.rglob("*.sh")]
        texts = {path.relative_to(package): path.read_text() for path in sorted(files)}
        trees = {path: ast.parse(text) for path, text in texts.items() if path.suffix == ".py"}
        return cls(trees, {path: text.count("\n") for path, text in texts.items()})

    def rooms(self) -> dict[str, tuple[int, int]]:
        """Return the files and lines of each room; the modules at the top are one together."""
        found: dict[str, tuple[int, int]] = {}
        for path, lines in self.lines.items():
            files, before = found.get(room_of(path), (0, 0))
            found[room_of(path)] = files + 1, before + lines
        return found

    def functions(self) -> Iterator[tuple[int, str]]:
        """Yield the lines of each function, and where it stands."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}"

    def twice(self) -> list[tuple[str, str, list[str]]]:
        """Return the pairs in one room that declare mostly the same fields, with the names they share."""
        found = []
        for one, other in combinations(self._fields(), 2):
            shared = one.names & other.names
            enough = len(shared) >= ALIKE and len(shared) >= SHARE * min(len(one.names), len(other.names))
            if one.room == other.room and enough:
                found.append((one.where, other.where, sorted(shared)))
        return found

    def _fields(self) -> Iterator[Fields]:
        for path, tree in self.trees.items():
            if room_of(path) == TOP:
                continue  # A noun of the core and the port that takes it share names, and are two things.
            for node in ast.walk(tree):
                names = _declared(node)
                if len(names) >= ALIKE:
                    label = node.name if isinstance(node, ast.ClassDef) else f"a dict in line {node.lineno}"  # type: ignore[attr-defined]
                    yield Fields(f"{path}:{label}", room_of(path), names)

    def imports(self) -> Counter[tuple[str, str]]:
        """Count the imports from one room to another."""
        found: Counter[tuple[str, str]] = Counter()
        for path, tree in self.trees.items():
            for name in imported(tree):
                other = self._room_of_module(name)
                if other is not None and other != room_of(path):
                    found[room_of(path), other] += 1
        return found

    def _room_of_module(self, name: str) -> str | None:
        steps = name.split(".")[1:]
        if name.partition(".")[0] != "listener" or not steps:
            return None
        inside = any(path.parts[0] == steps[0] for path in self.lines if len(path.parts) > 1)
        return steps[0] if inside else TOP


TOP = "(top)"


def room_of(path: Path) -> str:
    """Return the room of a file: its folder in the package, or the top."""
    return path.parts[0] if len(path.parts) > 1 else TOP


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of each module that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "listener":
            yield from (f"listener.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _declared(node: ast.AST) -> frozenset[str]:
    if isinstance(node, ast.ClassDef):
        fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
        return frozenset(field.id for field in fields if isinstance(field, ast.Name))
    if isinstance(node, ast.Dict):
        return frozenset(
            key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
        )
    return frozenset()
