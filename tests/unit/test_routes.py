"""What is declared beside the handlers: it is complete, and the manual's table says the same."""

from pathlib import Path

from aiohttp import web

from listener.web.app import HANDLERS, routes
from listener.web.openapi import OpenApi
from listener.web.routes import Route, declared

README = (Path(__file__).parents[2] / "README.md").read_text()
OTHER_SPELLINGS = ("_under_studio", "_without_extension")


def rows() -> list[str]:
    """The rows of the manual's table, as the routes have them; paste these if they differ."""
    return [
        f"| `{each.method} {each.path}` | {each.needs} | {each.summary} |"
        for each in routes()
        if not each.name.endswith(OTHER_SPELLINGS)
    ]


def test_the_table_of_routes_in_the_manual_is_that_of_the_routes() -> None:
    table = README.split("| route | needs | what it does |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert table.splitlines() == rows()


def test_every_route_says_in_one_sentence_what_it_does() -> None:
    for each in routes():
        assert each.summary.endswith("."), each.name
        assert "\n" not in each.summary


def test_the_description_is_made_when_it_is_first_asked_for() -> None:
    asked: list[int] = []

    def counted() -> list[Route]:
        asked.append(1)
        return routes()

    described = OpenApi(counted)
    assert asked == []
    assert described._body == described._body
    assert asked == [1]


def test_every_name_is_that_of_one_route() -> None:
    names = [each.name for each in routes()]
    assert len(set(names)) == len(names)


def test_every_class_of_handlers_declares_routes_in_the_order_in_which_they_are_written() -> None:
    assert all(any(declared(each)) for each in HANDLERS)

    class Example:
        @Route("GET", "/a", "first", "Examples", ())
        @Route("POST", "/a", "second", "Examples", (), "Another summary.")
        async def one(self) -> web.Response:
            """Do one thing."""
            return web.Response()

        @Route("GET", "/b", "third", "Examples", ())
        async def two(self) -> web.Response:
            """Do another thing.

            Nobody reads this.
            """
            return web.Response()

    told = [(each.name, each.summary) for each in declared(Example)]
    assert told == [
        ("first", "Do one thing."),
        ("second", "Another summary."),
        ("third", "Do another thing."),
    ]
