"""The house in figures counts what it says."""

from pathlib import Path

from tests.house.plan import Plan, room_of

MODULES = {
    "top.py": "from listener.web.answers import View\n\n\ndef short() -> None:\n    return None\n",
    "web/answers.py": "class View:\n    site: str\n    live: str\n    state: str\n    at: float\n",
    "web/views.py": "def view(run):\n    return {'site': 1, 'live': 2, 'state': 3, 'at': 4, 'run': 5}\n",
    "store/rows.py": "class Row:\n    site: str\n    live: str\n    state: str\n    at: float\n",
}


def plan(tmp_path: Path) -> Plan:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return Plan.of(tmp_path)


def test_a_room_is_a_folder_and_the_modules_at_the_top_are_one(tmp_path: Path) -> None:
    assert plan(tmp_path).rooms() == {"(top)": (1, 5), "web": (2, 7), "store": (1, 5)}


def test_fields_that_stand_twice_in_one_room_are_found_and_those_of_two_rooms_are_not(tmp_path: Path) -> None:
    [(one, other, names)] = plan(tmp_path).twice()
    assert one == "web/answers.py:View"
    assert other.startswith("web/views.py:a dict")
    assert names == ["at", "live", "site", "state"]


def test_imports_are_counted_from_room_to_room(tmp_path: Path) -> None:
    assert plan(tmp_path).imports() == {("(top)", "web"): 1}


def test_each_function_has_its_lines(tmp_path: Path) -> None:
    assert (2, "top.py:short") in list(plan(tmp_path).functions())


def test_the_room_of_a_module_at_the_top_is_the_top() -> None:
    assert room_of(Path("errors.py")) == "(top)"
    assert room_of(Path("web/edge/door.py")) == "web"
