"""The secrets of hooks and the tokens, and when each was used last: what is not used any more can go."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from listener.access import Token
from listener.audit import Audit
from listener.deliveries import Hook
from listener.records import Records
from listener.web.answers.deliveries import HooksView, HookView, TokensView, TokenView, Uses
from listener.web.credentials import Gate
from listener.web.replies import answer
from listener.web.routes import ADMIN, TO_CALLERS, Route, answered, problems

_TAG = "Deliveries"
_ADMINS = problems(HTTPStatus.FORBIDDEN)


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

    @Route(
        "GET",
        "/api/v1/hooks",
        "list_hooks",
        _TAG,
        (answered(HooksView, "The hooks."), *_ADMINS, *TO_CALLERS),
        needs=ADMIN,
    )
    async def hooks(self, request: web.Request) -> web.Response:
        """List the hooks, with how often each of their secrets was used, and when last."""
        await self._gate.admin(request)
        uses = await self._uses()
        return answer(HooksView(hooks=tuple(HookView.of(hook, uses) for hook in self._hooks.values())))

    @Route(
        "GET",
        "/api/v1/tokens",
        "list_tokens",
        _TAG,
        (answered(TokensView, "The tokens."), *_ADMINS, *TO_CALLERS),
        needs=ADMIN,
    )
    async def tokens(self, request: web.Request) -> web.Response:
        """List the tokens, with what each may do, how often it was used, and when last."""
        await self._gate.admin(request)
        uses = await self._uses()
        return answer(TokensView(tokens=tuple(TokenView.of(token, uses) for token in self._tokens)))

    async def _uses(self) -> Uses:
        await self._audit.flush()
        return {(use.kind, use.owner, use.name): use for use in await self._records.uses()}
