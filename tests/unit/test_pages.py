"""The link from one page of a list to the next."""

from aiohttp.test_utils import make_mocked_request

from listener.web import pages
from listener.web.routes import Parameter

SITE = Parameter("site", "query", "only runs of this site", {"type": "string"})


def test_the_link_repeats_the_filters_and_nothing_else_of_the_query() -> None:
    """A caller may have put a credential into the URL: it goes into no answer."""
    asked = make_mocked_request("GET", "/api/v1/runs?token=a-secret&site=a&site=b&limit=2&after=x&before=y")
    link = pages.link(asked, "z", SITE)["Link"]
    assert link == '</api/v1/runs?site=a&site=b&limit=2&after=z>; rel="next"'


def test_the_last_page_has_no_link() -> None:
    assert pages.link(make_mocked_request("GET", "/api/v1/runs"), None, SITE) == {}
