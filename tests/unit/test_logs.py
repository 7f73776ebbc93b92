"""The process's log: safe lines, in order, and never in the way."""

import io
import json
import logging
import threading
from typing import Any, TextIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.logs import BackgroundStream, BestEffortStream, JsonLog
from listener.redaction import Cleaner

SECRETS = ("It's a Secret", 'a "quoted" one', "back\\slash", "umlaut-ü")

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(SECRETS)
    | st.builds(str.__add__, st.text(), st.sampled_from(SECRETS)),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values))
def test_a_line_of_json_says_what_cleaning_value_by_value_says(facts: dict[str, Any]) -> None:
    clean = Cleaner(SECRETS)
    assert json.loads(clean.json(facts)) == clean(facts)
    assert not any(secret in str(list(texts(json.loads(clean.json(facts))))) for secret in SECRETS)
    assert clean.json(facts).isprintable()


def texts(value: Any) -> Any:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


def test_a_line_has_its_facts_its_event_its_level_and_its_time() -> None:
    said = io.StringIO()
    log = JsonLog(logging.INFO, Cleaner(SECRETS), said)
    log.debug("left out")
    log.info("delivery", hook="forge", runs=("a", "b"), secret="It's a Secret")
    log.error("defect", exc_info=raised())
    first, second = map(json.loads, said.getvalue().splitlines())
    assert first.pop("at").endswith("Z")
    assert first == {
        "hook": "forge",
        "runs": ["a", "b"],
        "secret": "[redacted]",
        "event": "delivery",
        "level": "info",
    }
    assert second["exception"][0].startswith("Traceback")
    assert second["exception"][-1] == 'ValueError: invalid literal for int() with base 10: "[redacted]"'


def raised() -> ValueError:
    try:
        int(SECRETS[0])
    except ValueError as error:
        return error
    raise AssertionError


def test_what_is_written_in_the_background_keeps_its_order_and_is_whole_at_the_end() -> None:
    said = io.StringIO()
    stream = BackgroundStream(said, str)
    for number in range(5000):
        stream.write(f"{number}\n")
    stream.close()
    assert said.getvalue().split() == [str(number) for number in range(5000)]


def test_a_thread_renders_what_can_not_change_and_nothing_else() -> None:
    said, rendered = io.StringIO(), list[tuple[str, str]]()

    class Watched(Cleaner):
        def json(self, values: Any) -> str:
            rendered.append((values["event"], threading.current_thread().name))
            return super().json(values)

    stream = BackgroundStream(said, str)
    log = JsonLog(logging.INFO, Watched(), cast("TextIO", stream))
    runs = ["one"]
    log.info("delivery", runs=("one",), status=202, ignored=None)
    log.info("listed", runs=runs)
    runs.append("two")
    stream.close()
    assert sorted(rendered) == [("delivery", "log"), ("listed", "MainThread")]
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [(line["event"], line["runs"]) for line in lines] == [("delivery", ["one"]), ("listed", ["one"])]


def test_a_line_that_comes_after_the_end_is_written_at_once() -> None:
    said = io.StringIO()
    stream = BackgroundStream(said, str)
    stream.write("first\n")
    stream.close()
    stream.write("last\n")
    assert said.getvalue() == "first\nlast\n"


class Stuck(io.StringIO):
    """A target that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait()
        return super().write(text)


def test_a_target_that_takes_nothing_holds_nobody_up_and_what_is_dropped_is_counted() -> None:
    stuck = Stuck()
    stream = BackgroundStream(stuck, lambda count: f"{count} dropped\n", most=3)
    stream.write("first\n")
    assert stuck.reached.wait(60)
    for number in range(5):
        stream.write(f"{number}\n")
    stuck.released.set()
    stream.close()
    assert stuck.getvalue().splitlines() == ["first", "0", "1", "2", "2 dropped"]


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(text)


@pytest.mark.parametrize("text", ["a line\n", ""])
def test_a_full_disk_stops_nothing(text: str) -> None:
    stream = BackgroundStream(cast("TextIO", BestEffortStream(Full())), str)
    assert stream.write(text) == len(text)
    stream.close()
