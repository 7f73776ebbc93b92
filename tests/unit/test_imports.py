"""The floors of the house: imports point down or stay in their room, and adapters do not know each other."""

import ast
import sys
from pathlib import Path

import pytest

import listener

ROOT = Path(listener.__file__).parent
FLOORS = (
    {
        "errors",
        "networks",
        "redaction",
        "vocabulary",
        "sites",
        "signatures",
        "deliveries",
        "access",
        "outcomes",
        "runs",
        "queue",
        "events",
        "looks",
        "records",
        "observations",
        "plans",
        "health",
    },
    {
        "intake",
        "audit",
        "worker",
        "advance",
        "attempts",
        "supervision",
        "sync",
        "legs",
        "progress",
        "waits",
        "expectations",
        "rollback",
        "directory",
        "upkeep",
        "schedule",
        "surveys",
        "lanes",
        "journal",
        "follow",
        "feed",
        "host_events",
        "request_context",
    },
    {"store", "ssh", "edge", "web", "studio", "config", "logs", "metrics", "systemd"},
    {"system"},
    {"cli", "demo", "rehearsal", "__main__"},
)
CORE, WORK, ADAPTERS, _, _ = range(len(FLOORS))
OPENING = {"__init__.py"}
"""What opens a store by its URL knows both kinds."""
CORE_THIRD_PARTY = {"cryptography"}


def room_of(module: str) -> str:
    """The room of a module's dotted name, empty for the package itself."""
    return ([*module.split("."), ""])[1]


def floor_of(room: str) -> int:
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


def imported(path: Path) -> list[str]:
    """The dotted names that a module imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def imports() -> list[tuple[str, str]]:
    """Every import of every module: its room, and the dotted name that it imports."""
    found = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [(room, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                names = [f"listener.{alias.name}" for alias in node.names]
                found += [
                    (room, name) for name in (names if node.module == "listener" else [node.module or ""])
                ]
    return [(room, name) for room, name in found if room != "__init__"]


def test_every_room_stands_on_one_floor() -> None:
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        assert [room in rooms for rooms in FLOORS].count(True) == 1 or room == "__init__", f"{path}"


def test_every_import_points_down_or_stays_in_its_room() -> None:
    for room, name in imports():
        other = room_of(name) if name.startswith("listener.") else room
        if other in ("__version__", room):
            continue
        mine, theirs = floor_of(room), floor_of(other)
        assert theirs < mine or (theirs == mine and mine != ADAPTERS), f"{room} imports {name}"


def test_the_core_stands_on_the_standard_library_alone() -> None:
    for room, name in imports():
        top = name.partition(".")[0]
        if floor_of(room) == CORE and top != "listener":
            assert top in sys.stdlib_module_names | CORE_THIRD_PARTY, f"{room} imports {name}"


def test_the_work_uses_no_adapters_technology() -> None:
    for room, name in imports():
        top = name.partition(".")[0]
        if floor_of(room) == WORK and top != "listener":
            assert top in sys.stdlib_module_names, f"{room} imports {name}"


def parts_of(adapter: Path) -> set[str]:
    """The packages inside an adapter."""
    return {path.parent.name for path in adapter.glob("*/__init__.py")}


def arrows(adapter: Path) -> set[tuple[str, str]]:
    """Which parts of an adapter import which others; an empty name stands for its top."""
    parts, found = parts_of(adapter), set()
    for path in adapter.rglob("*.py"):
        within = path.relative_to(adapter).parts
        mine = within[0] if within[0] in parts else ""
        for name in imported(path) if within[0] not in OPENING else ():
            top, _, below = name.partition(f"listener.{adapter.name}")
            if not top and below[:1] in {"", "."} and name != top:
                other = below[1:].partition(".")[0]
                found.add((mine, other if other in parts else ""))
    return {(mine, other) for mine, other in found if mine != other}


@pytest.mark.parametrize("room", sorted(FLOORS[ADAPTERS]))
def test_the_parts_of_an_adapter_do_not_know_each_other(room: str) -> None:
    """A part may use the top or be used by it, not both; two parts meet only where the adapter is opened."""
    found = arrows(ROOT / room)
    for mine, other in found:
        assert "" in (mine, other), f"{room}: {mine} imports {other}"
        assert (other, mine) not in found, f"{room} and {mine or other} import each other"


def test_a_circle_between_an_adapter_and_its_part_is_seen(tmp_path: Path) -> None:
    adapter = tmp_path / "web"
    for part in ("edge", "other"):
        (adapter / part).mkdir(parents=True)
        (adapter / part / "__init__.py").touch()
    (adapter / "app.py").write_text("from listener.web.edge import Edge\n")
    (adapter / "edge" / "door.py").write_text("from listener.web import replies\nimport listener.web.other\n")
    assert arrows(adapter) == {("", "edge"), ("edge", ""), ("edge", "other")}


def test_the_store_is_opened_in_one_place_and_its_rules_know_no_database() -> None:
    assert arrows(ROOT / "store") == {("postgres", ""), ("sqlite", "")}


def test_asyncpg_is_the_technology_of_the_store_on_postgresql_alone() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parent != ROOT / "store" / "postgres":
            assert "import asyncpg" not in path.read_text(), f"{path}"
