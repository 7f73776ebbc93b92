"""What CrafterCMS Studio answers about publishing, its role in a cluster, and who somebody is."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from aiohttp import web

OK = {"code": 0, "message": "OK", "remedialAction": "", "documentationUrl": ""}

Misbehaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status_of_4(word: str | None) -> dict[str, Any]:
    """The body that Studio 4.x gives for a status word."""
    return {
        "response": OK,
        "publishingStatus": {
            "enabled": True, "status": word, "lockOwner": None, "lockTTL": None, "published": True,
        },
    }  # fmt: skip


def status_of_5(task: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body that Studio 5.x gives for the task that publishes a package, or for none."""
    return {
        "response": OK,
        "publishingStatus": {"enabled": True, "published": True, "currentTask": task},
    }


TASK = {
    "taskId": {"siteId": "mysite", "packageId": 7}, "type": "publish", "state": "IN_PROGRESS", "stages": [],
}  # fmt: skip


class FakeStudio:
    """Serves both routes on loopback, under `/studio`; takes down who asked what."""

    def __init__(self, *, version: int = 4) -> None:
        self.version = version
        """4 and before, or 5: where the publishing status stands."""
        self.token = "studio.access-token_Kq7Wz1"
        self.management_token = "management+token/Xp9Vt3"
        self.bodies: dict[str, Any] = {}
        """What is answered for each site; others are not known."""
        self.replica = False
        self.roles: dict[str, dict[str, list[str]]] = {}
        """For each user, their roles on each site that they are a member of."""
        self.access_tokens: dict[str, str] = {}
        """Whose each access token is."""
        self.sessions: dict[tuple[str, str], str] = {}
        """Whose each pair of session and XSRF token is."""
        self.page_most = 1000
        """Sites in one answer, whatever is asked for."""
        self.authorizations: list[str] = []
        """The `Authorization` header of each request that has one."""
        self.under_way = self.most_under_way = 0
        self.requests: list[str] = []
        """Path and query of each request."""
        self.misbehave: Misbehaviour | None = None
        """What is done instead of answering."""
        self.answering = asyncio.Event()
        """Cleared, every answer waits until it is set."""
        self.answering.set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/studio"

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.answering.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.raw_path)
        self.authorizations += request.headers.getall("Authorization", [])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.answering.wait()
            return await (self.misbehave or self._answered)(request)
        finally:
            self.under_way -= 1

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/studio/api/2/users/me"):
            return self._user(request)
        if request.path == "/studio/api/2/monitoring/status":
            return self._role(request)
        if request.path == "/studio/api/2/monitoring/version":
            return self._version(request)
        site = self._site(request)
        if site is None:
            return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
        return self._status(request, site)

    def _role(self, request: web.Request) -> web.Response:
        if request.query.get("token") != self.management_token:
            return web.json_response({"message": "Management authorization failed"}, status=401)
        role = "REPLICA" if self.replica else "PRIMARY"
        return web.json_response(
            {"response": OK, "status": {"role": role}}, status=202 if self.replica else 200
        )

    def _version(self, request: web.Request) -> web.Response:
        if request.query.get("token") != self.management_token:
            return web.json_response({"message": "Management authorization failed"}, status=401)
        version = {"packageName": "Crafter Studio", "packageVersion": f"{self.version}.1.0"}
        return web.json_response({"response": OK, "version": version})

    def user(self, name: str, **roles: list[str]) -> str:
        """Let there be a user with roles on sites; return an access token of theirs."""
        token = f"eyJhbGciOiJQQkVTMiJ9.key{len(self.roles)}.iv.{name}.tag"
        self.roles[name], self.access_tokens[token] = roles, name
        return token

    def _user(self, request: web.Request) -> web.Response:
        name = self._whose(request)
        if name is None:
            return web.json_response({"response": {"code": 6000, "message": "Unauthenticated"}}, status=401)
        match request.path.split("/")[5:]:
            case ["me"]:
                user = {
                    "id": 7,
                    "username": name,
                    "firstName": "A",
                    "enabled": True,
                    "externallyManaged": False,
                }
                return web.json_response({"response": OK, "authenticatedUser": user})
            case ["me", "sites"]:
                return web.json_response({"response": OK, **self._page(request, list(self.roles[name]))})
            case ["me", "sites", site, "roles"]:
                return web.json_response({"response": OK, "roles": self.roles[name].get(site, [])})
        return web.json_response({"response": {"code": 7000, "message": "Not found"}}, status=404)

    def _page(self, request: web.Request, sites: list[str]) -> dict[str, Any]:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 10))
        limit = min(limit, self.page_most)
        listed = [{"siteId": site, "name": site, "desc": ""} for site in sites[offset : offset + limit]]
        return {"total": len(sites), "offset": offset, "limit": limit, "sites": listed}

    def _whose(self, request: web.Request) -> str | None:
        authorization = request.headers.get("Authorization", "")
        if authorization:
            return self.access_tokens.get(authorization.removeprefix("Bearer "))
        xsrf = request.cookies.get("XSRF-TOKEN", "")
        if request.headers.get("X-XSRF-TOKEN") != xsrf:
            return None
        return self.sessions.get((request.cookies.get("JSESSIONID", ""), xsrf))

    def _site(self, request: web.Request) -> str | None:
        """The site that a request asks about, or None where this version has no such route."""
        match request.path.split("/")[2:]:
            case ["api", "2", "publish", "status"] if self.version < 5:
                return request.query.get("siteId")
            case ["api", "2", "publish", site, "status"] if self.version >= 5:
                return site
        return None

    def _status(self, request: web.Request, site: str) -> web.Response:
        if request.headers.getall("Authorization", []) != [f"Bearer {self.token}"]:
            return web.json_response({"response": {"code": 6001, "message": "Unauthorized"}}, status=401)
        if site not in self.bodies:
            return web.json_response({"response": {"code": 3000, "message": "Not found"}}, status=404)
        return web.json_response(self.bodies[site])
