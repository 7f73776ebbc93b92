"""The page, in a real browser."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser, find_browser
from tests.conftest import unavailable
from tests.listening import MEMBER, client, daemon

HOLD = "/api/v1/sites/mysite/environments/staging/hold"


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Browser]:
    """A browser with a fresh profile."""
    programs = find_browser()
    if programs is None:
        unavailable("a browser (chromium, chromium-driver)")
    with browser(programs, tmp_path / "profile") as opened:
        yield opened


async def test_a_person_signs_in_sees_their_site_and_signs_out(
    configured: Callable[..., Path], visitor: Browser
) -> None:
    async with daemon(configured()) as running, client(running.url) as listener:
        await listener.call("POST", HOLD, json={"reason": "<script>alert(1)</script> until Friday"})
        await asyncio.to_thread(_visit, visitor, running.url)
        made = await asyncio.to_thread(_leave, visitor)
        cookie = {"Cookie": f"sync-staging={made}"}
        assert (await listener.call("GET", "/api/v1/sites", token=None, headers=cookie))[0] == 401
    assert MEMBER not in running.log.read_text()
    assert made not in running.log.read_text()


def _visit(visitor: Browser, url: str) -> None:
    visitor.driver.get(f"{url}/")
    assert visitor.find("h1").text == "Staging environments"
    visitor.find("#token").send_keys("wrong")
    visitor.click("Sign in")
    assert visitor.find("[role=alert]").text == "This token is unknown, or has expired."
    visitor.find("#token").send_keys(MEMBER)
    visitor.click("Sign in")
    assert "Signed in as editors (member)" in visitor.text
    assert visitor.find("h2").text == "mysite"
    assert "This environment was not looked at yet." in visitor.text
    visitor.driver.get(visitor.find("nav a").get_attribute("href") or "")
    assert "differs from live" in visitor.text
    assert "<script>alert(1)</script> until Friday" in visitor.text
    assert [told for told in visitor.told() if "Content Security Policy" in told] == []


def _leave(visitor: Browser) -> str:
    """Leave the page; the session's id, which counts no more."""
    (cookie,) = visitor.driver.get_cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (
        "sync-staging",
        True,
        "Strict",
        "/",
    )
    assert visitor.driver.execute_script("return document.cookie") == ""
    visitor.click("Sign out")
    assert visitor.find("#token").get_attribute("value") == ""
    assert visitor.driver.get_cookies() == []
    return str(cookie["value"])
