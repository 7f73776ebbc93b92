"""Where one may sign in: by TLS, or on the listener's own machine."""

import time
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from listener.access import Caller
from listener.audit import Audit
from listener.edge.body_memory import BodyMemory, Reservation
from listener.edge.connection import connection_of
from listener.errors import BadRequestError, ForbiddenError
from listener.redaction import Cleaner
from listener.request_context import RequestContext, begin
from listener.store.sqlite import SqliteStore
from listener.web.answers.sites import SitesPage
from listener.web.bodies import BodyReader
from listener.web.credentials import Gate
from listener.web.page import PageRoutes
from listener.web.pages import Page
from listener.web.protocol import FORM


@pytest.fixture
def page(tmp_path: Path) -> PageRoutes:
    def clock() -> float:
        return 1000.0

    async def seen_by(_: Caller, __: Page, ___: bool) -> SitesPage:
        return SitesPage(sites=(), next=None)

    store = SqliteStore(tmp_path / "x.db")
    audit = Audit(store, clock, structlog.get_logger(), Cleaner(()))
    gate = Gate([], store, None, lasts=60, clock=clock, audit=audit)
    return PageRoutes(gate, seen_by, clock, BodyReader(5))


def request(method: str, path: str, scheme: str, remote: str, content_type: str) -> web.Request:
    made = make_mocked_request(method, path, headers={"Host": "x", "Content-Type": content_type})
    cloned = made.clone(scheme=scheme, remote=remote)
    assert isinstance(cloned, web.Request)
    connection = connection_of(cloned)
    begin(RequestContext(connection, Reservation(BodyMemory(1 << 20, time.monotonic), connection)))
    return cloned


@pytest.mark.parametrize(
    ("scheme", "remote", "allowed"),
    [
        ("https", "192.0.2.1", True),
        ("http", "127.0.0.1", True),
        ("http", "127.9.9.9", True),
        ("http", "::1", True),
        ("http", "192.0.2.1", False),
        ("http", "::1234", False),
        ("http", "", False),
        ("http", "localhost", False),
    ],
)
async def test_a_token_is_not_taken_in_clear_from_another_machine(
    page: PageRoutes, scheme: str, remote: str, allowed: bool
) -> None:
    asked = request("POST", "/session", scheme, remote, "application/json")
    with pytest.raises(BadRequestError if allowed else ForbiddenError):
        await page.begin(asked)
    if not allowed:
        answer = await page.begin(request("POST", "/session", scheme, remote, FORM))
        assert (answer.status, "Sign in by HTTPS" in str(answer.text)) == (403, True)
    shown = await page.show(request("GET", "/", scheme, remote, "text/plain"))
    assert ("Sign in by HTTPS" in str(shown.text)) == (not allowed)
