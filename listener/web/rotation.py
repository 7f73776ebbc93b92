"""The hooks' secrets and the tokens, and which of them are in use: what a rotation is finished by."""

from collections.abc import Iterator, Mapping, Sequence

from aiohttp import web

from listener.access import Token
from listener.audit import Audit
from listener.deliveries import Hook
from listener.records import SECRET, TOKEN, Records, Use
from listener.web import views
from listener.web.credentials import Gate


class Rotation:
    """Handles `/api/v1/hooks` and `/api/v1/tokens`."""

    def __init__(
        self,
        gate: Gate,
        hooks: Mapping[str, Hook],
        tokens: Sequence[Token],
        audit: Audit,
        records: Records,
    ) -> None:
        self._gate = gate
        self._hooks = hooks
        self._tokens = tokens
        self._audit = audit
        self._records = records

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes."""
        yield web.get("/api/v1/hooks", self.hooks)
        yield web.get("/api/v1/tokens", self.tokens)

    async def hooks(self, request: web.Request) -> web.Response:
        """Answer every hook with the names of its secrets, how often each was used, and when last."""
        await self._gate.admin(request)
        used = await self._used()
        found = [
            {
                "name": hook.name,
                "scheme": hook.scheme,
                "secrets": [
                    views.use(name, used.get((SECRET, hook.name, name))) for name in hook.secrets_by_name
                ],
            }
            for hook in self._hooks.values()
        ]
        return web.json_response({"hooks": found})

    async def tokens(self, request: web.Request) -> web.Response:
        """Answer every token with what it may do, how often it was used, and when last."""
        await self._gate.admin(request)
        used = await self._used()
        found = [
            {
                **views.use(token.name, used.get((TOKEN, "", token.name))),
                "role": token.role.value,
                "sites": sorted(token.sites),
                "expires": views.moment(token.expires),
            }
            for token in self._tokens
        ]
        return web.json_response({"tokens": found})

    async def _used(self) -> dict[tuple[str, str, str], Use]:
        await self._audit.flush()
        return {(use.kind, use.owner, use.name): use for use in await self._records.uses()}
