"""What the page says: what is to be said, and nothing that a browser would take for more than text."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from listener.access import Caller, Role
from listener.web.answers.sites import SitesPage
from listener.web.html import HEADERS, overview, sign_in
from listener.web.pages import Page

CALLER = Caller("editors", Role.MEMBER, frozenset({"mysite"}))
FIRST = Page("", 50)
EQUAL = {
    **dict.fromkeys(("reason", "remedy", "live", "branch"), ""),
    **dict.fromkeys(("warnings", "added", "changed", "removed"), ()),
    **dict.fromkeys(("ahead", "behind", "added_count", "changed_count", "removed_count"), 0),
    "plan": "up-to-date",
    "equal": True,
}
APART = {**EQUAL, "equal": False, "added_count": 1, "changed_count": 2, "removed_count": 3}


def environment(**more: Any) -> dict[str, Any]:
    configured = {"name": "staging", "legs": (), "policy": "forward", "follow": True}
    return {
        **configured,
        "state": "unknown",
        "looked_at": None,
        "hold": None,
        "last_success": None,
        "drift": EQUAL,
        **more,
    }


def unknown(message: str) -> dict[str, Any]:
    return {"error": "x", "message": message, "remedy": ""}


def page(*environments: dict[str, Any], site: str = "mysite", **more: Any) -> str:
    sites = [{"site": site, "live": "live", "environments": environments}]
    return overview(CALLER, SitesPage.model_validate({"sites": sites, "next": None, **more}), FIRST)


class Reader(HTMLParser):
    """Takes the elements and the text of a document down."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_environment_is_told_by_its_state() -> None:
    assert "equal to live" in page(environment())
    assert "a sync would add 1, change 2 and remove 3 paths" in page(environment(drift=APART))
    assert "The host does not answer." in page(environment(drift=unknown("The host does not answer.")))
    success = {"run": "r", "at": "2026-01-31T00:00:00.000+00:00"}
    assert ('<time datetime="2026-01-31T00:00:00.000+00:00">2026-01-31 00:00:00 UTC</time>') in page(
        environment(last_success=success)
    )


def test_each_repository_of_an_environment_is_told() -> None:
    legs = [{"repository": "eu1:/srv/a.git", **EQUAL}, {"repository": "eu2:/srv/a.git", **APART}]
    told = page(environment(drift={"equal": False, "legs": legs}))
    assert "eu1:/srv/a.git: equal to live" in told
    assert "eu2:/srv/a.git: differs from live" in told


def test_a_hold_is_told_with_its_reason() -> None:
    hold = {"reason": "acceptance test", "actor": "root", "since": "2026-01-31T09:00:00.000+00:00"}
    assert "on hold since 2026-01-31 09:00:00 UTC by root: acceptance test" in page(environment(hold=hold))


def test_nothing_to_see_and_what_can_not_be_listed_is_said() -> None:
    assert "no site that you may see" in overview(CALLER, SitesPage(sites=(), next=None), FIRST)
    assert "* can&#x27;t" in page(unlisted=[{"pattern": "* can't", **unknown("no")}])


def test_the_page_links_to_the_next_part_of_the_list_and_back_to_the_first() -> None:
    assert "Next page" not in page(environment())
    assert '<a href="/?after=&amp;limit=50&amp;fresh=true">Look again</a>' in page(environment())
    assert '<a rel="next" href="/?after=a%26b&amp;limit=50">Next page</a>' in page(next="a&b")
    last = overview(CALLER, SitesPage(sites=(), next=None), Page("mysite", 50))
    assert '<a href="/">First page</a>' in last
    assert "no further sites" in last
    assert "Next page" not in last


def test_characters_that_turn_hide_or_control_text_are_shown_on_the_page() -> None:
    hidden = "a\u202eb\u2066c\u200bd\x1be\x7ff\u061cg\nh"
    hold = {"reason": hidden, "actor": hidden, "since": "2026-01-31T09:00:00.000+00:00"}
    drift = unknown(hidden)
    more = {"unlisted": [{"pattern": hidden, **unknown(hidden)}]}
    told = page(environment(name=hidden, hold=hold, drift=drift), site=hidden, **more)
    assert told.count(r"a\u202eb\u2066c\u200bd\x1be\x7ff\u061cg\nh") == 7
    assert told.replace("\n", "").isprintable()
    assert "Grüße, 漢字" in page(environment(hold={**hold, "reason": "Grüße, 漢字"}))


HOSTILE = st.text(st.sampled_from("<>&\"'/=abc $`{}\\\n\x00\u2028é")) | st.sampled_from(
    ["<script>alert(1)</script>", "</style>", '" onmouseover="x', "$name", "${sites}"]
)


@given(st.lists(HOSTILE, min_size=5, max_size=5))
def test_whatever_is_told_is_text(hostile: list[str]) -> None:
    site, name, reason, actor, message = hostile
    hold = {"reason": reason, "actor": actor, "since": "2026"}
    drift = unknown(message)
    told = Reader(page(environment(name=name, hold=hold, drift=drift), site=site))
    plain = Reader(
        page(environment(name="n", hold={**hold, "reason": "r", "actor": "a"}, drift=unknown("m")))
    )
    assert told.elements == plain.elements
    assert Reader(sign_in("!" + message)).elements == Reader(sign_in("!")).elements


def test_the_page_has_a_language_one_heading_and_a_label_for_its_field() -> None:
    for text in (sign_in(), sign_in("No."), page(environment())):
        assert '<html lang="en">' in text
        assert Reader(text).elements.count("h1") == 1
    assert '<label for="token">' in sign_in()
    assert 'id="token"' in sign_in()


def test_the_policy_lets_a_browser_load_nothing_but_the_documents_own_style() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    style = re.search("<style>(.*)</style>", sign_in(), re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert not {"script", "img", "link", "iframe"} & set(Reader(page(environment())).elements)
