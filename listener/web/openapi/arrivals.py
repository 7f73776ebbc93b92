"""What an admin may see of those who came: deliveries, and which secrets and tokens are in use."""

from http import HTTPStatus
from typing import Any

from pydantic import Field

from listener.access import Role
from listener.records import Fate
from listener.web.openapi.operations import ANY_TIME, LIMIT, Operation, Parameter, answered, problems
from listener.web.openapi.schemas import Accepted, Count, Delivered, Moment, TriggerView, View


class Redelivered(TriggerView):
    """Who asked for a redelivery, and the run that serves it."""

    run: str


class ArrivalView(View):
    """A delivery or a refused request, and what became of it."""

    id: str
    outcome: Fate
    received_at: Moment
    hook: str
    request: str = Field(description="the method and path of a refused one")
    client: str
    credential: str = Field(description="the kind and name of the credential, never its value")
    sender_id: str | None
    event: str | None
    repository: str | None
    site: str | None
    refs: list[str] | None
    size: Count
    digest: str = Field(description="hex SHA-256 of the body")
    same_body_as: str | None
    headers: dict[str, Any]
    reason: str = Field(description="why it was ignored or refused")
    status: int | None = Field(description="the status that a refused one was answered with")
    count: Count = Field(
        description="how many requests it stands for: of a flood, or with the same body while its runs waited"
    )
    last_received_at: Moment | None = Field(description="when the last of those with the same body came")
    runs: list[str]
    redelivered: list[Redelivered]


class Arrivals(View):
    """A page of what arrived, newest first."""

    deliveries: list[ArrivalView]
    before: str | None = Field(description="where the next page starts; null on the last one")


class UseView(View):
    """How often a credential was used, and when last."""

    name: str
    count: Count
    last_used: Moment | None


class HookView(View):
    """A hook, and the use of its secrets."""

    name: str
    scheme: str
    secrets: list[UseView]


class HooksView(View):
    """All hooks."""

    hooks: list[HookView]


class TokenView(UseView):
    """A token, what it may do, and its use."""

    role: Role
    sites: list[str]
    expires: Moment | None


class TokensView(View):
    """All tokens."""

    tokens: list[TokenView]


_ASKED = problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, *ANY_TIME)
_NAMED = (*problems(HTTPStatus.NOT_FOUND), *_ASKED)
_PAGE = tuple(
    Parameter(name, "query", what, schema)
    for name, what, schema in (
        ("hook", "only what came to this hook", {"type": "string"}),
        ("outcome", "only what became this", {"type": "string", "enum": [fate.value for fate in Fate]}),
        ("before", "only what came before the one of this id: the next page", {"type": "string"}),
        LIMIT,
    )
)

OPERATIONS = (
    Operation(
        "GET",
        "/api/v1/deliveries",
        "list_deliveries",
        "Deliveries",
        "A page of what arrived, refused requests too, newest first.",
        (answered(Arrivals, "The page."), *problems(HTTPStatus.BAD_REQUEST), *_ASKED),
        parameters=_PAGE,
    ),
    Operation(
        "GET",
        "/api/v1/deliveries/{delivery}",
        "show_delivery",
        "Deliveries",
        "One delivery or refused request, and why it was ignored or refused.",
        (answered(ArrivalView, "What arrived."), *_NAMED),
    ),
    Operation(
        "POST",
        "/api/v1/deliveries/{delivery}/redeliver",
        "redeliver",
        "Deliveries",
        "Select again, by today's configuration, what a delivery asked for.",
        (
            answered(Accepted, "These runs serve it.", HTTPStatus.ACCEPTED),
            answered(Delivered, "It selects nothing, and why."),
            *problems(HTTPStatus.CONFLICT),
            *_NAMED,
        ),
    ),
    Operation(
        "GET",
        "/api/v1/hooks",
        "list_hooks",
        "Deliveries",
        "Every hook, with how often each of its secrets was used, and when last.",
        (answered(HooksView, "The hooks."), *_ASKED),
    ),
    Operation(
        "GET",
        "/api/v1/tokens",
        "list_tokens",
        "Deliveries",
        "Every token, with what it may do, how often it was used, and when last.",
        (answered(TokensView, "The tokens."), *_ASKED),
    ),
)
