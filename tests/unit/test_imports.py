"""The floors of the house: imports point down or stay in their room, and adapters do not know each other."""

import ast
import sys
from pathlib import Path

import listener

ROOT = Path(listener.__file__).parent
FLOORS = (
    {
        "errors",
        "networks",
        "redaction",
        "sites",
        "signatures",
        "deliveries",
        "access",
        "outcomes",
        "runs",
        "queue",
        "records",
        "observations",
        "plans",
    },
    {
        "intake",
        "audit",
        "worker",
        "attempts",
        "supervision",
        "sync",
        "legs",
        "progress",
        "waits",
        "rollback",
        "directory",
        "upkeep",
        "schedule",
        "lanes",
        "journal",
        "follow",
    },
    {"store", "ssh", "web", "studio", "config", "logs", "metrics", "systemd"},
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


def test_the_rooms_of_the_store_use_its_rules_and_do_not_know_each_other() -> None:
    rooms = {"sqlite", "postgres"}
    for path in (ROOT / "store").rglob("*.py"):
        room = path.relative_to(ROOT / "store").parts[0]
        for name in imported(path):
            _, _, other = name.partition("listener.store.")
            if room in rooms:
                assert other.partition(".")[0] not in rooms - {room}, f"{path} imports {name}"
            elif room not in OPENING:
                assert other.partition(".")[0] not in rooms, f"{path} imports {name}"


def test_asyncpg_is_the_technology_of_the_store_on_postgresql_alone() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parent != ROOT / "store" / "postgres":
            assert "import asyncpg" not in path.read_text(), f"{path}"
