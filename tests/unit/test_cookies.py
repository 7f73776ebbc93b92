"""The page's cookie, and how a request of the page is told from others."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from listener.web.cookies import clear_session, cookie, of_own_page, session_id, set_session


def request(*, scheme: str = "http", **headers: str) -> web.Request:
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    made = make_mocked_request("POST", "/session", headers={"Host": "sync.example.com", **shown})
    cloned = made.clone(scheme=scheme)
    assert isinstance(cloned, web.Request)
    return cloned


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sync-staging=abc", "abc"),
        ("a=b; sync-staging=abc;c=d", "abc"),
        ("sync-staging=a=b", "a=b"),
        ("sync-staging=abc; sync-staging=def", None),
        ("sync-staging=abc; sync-staging=abc", None),
        ("sync-staging=", None),
        ("sync-staging", None),
        ("xsync-staging=abc", None),
        ("SYNC-STAGING=abc", None),
        ("", None),
    ],
)
def test_a_cookie_is_there_once_or_not_at_all(text: str, value: str | None) -> None:
    assert cookie(request(Cookie=text), "sync-staging") == value


def test_by_tls_the_cookie_belongs_to_this_very_host() -> None:
    both = "sync-staging=plain; __Host-sync-staging=secure"
    assert session_id(request(Cookie=both)) == "plain"
    assert session_id(request(Cookie=both, scheme="https")) == "secure"
    assert session_id(request(Cookie="sync-staging=plain", scheme="https")) is None


@pytest.mark.parametrize(("scheme", "name"), [("http", "sync-staging"), ("https", "__Host-sync-staging")])
def test_the_cookie_is_out_of_scripts_reach_and_of_other_sites(scheme: str, name: str) -> None:
    asked, given, taken = request(scheme=scheme), web.Response(), web.Response()
    set_session(asked, given, "abc", 3600.9)
    clear_session(asked, taken)
    for response, age in ((given, "3600"), (taken, "0")):
        told = response.cookies[name]
        assert (told["httponly"], told["samesite"], told["path"], told["domain"]) == (True, "Strict", "/", "")
        assert bool(told["secure"]) == (scheme == "https")
        assert str(told["max-age"]) == age


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, None),
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "https://sync.example.com"}, False),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "null"}, True),
        ({"Origin": "https://sync.example.com"}, True),
        ({"Origin": "http://sync.example.com"}, False),
        ({"Origin": "https://sync.example.com:8443"}, False),
        ({"Origin": "https://sync.example.com.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
    ],
)
def test_a_page_of_ours_is_told_from_others(headers: dict[str, str], own: bool | None) -> None:
    assert of_own_page(request(scheme="https", **headers)) is own
