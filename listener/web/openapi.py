"""The declared routes, put together as an OpenAPI 3.1 document, and the route that answers it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from listener import __version__
from listener.web.answers.view import View
from listener.web.probes import FEWER
from listener.web.protocol import FORM, JSON
from listener.web.routes import NOTHING, SIGNATURE, Answer, Parameter, Route, answered

PIECE = 16 << 10
"""Bytes of the description that are sent at once."""

SCHEMAS = "#/components/schemas/{model}"

_PATH_PARAMETERS: Mapping[str, tuple[str, Any]] = {
    "site": ("the site's id, as in Studio", "mysite"),
    "environment": ("the environment's name", "staging"),
    "run": ("the run's id", "019a0000-0000-7000-8000-000000000000"),
    "delivery": ("the delivery's id", "019a0000-0000-7000-8000-000000000000"),
    "hook": ("the hook's name", "forge"),
    "secret": ("the hook's secret", "the-secret-of-the-hook"),
}
_HEADERS = {
    "X-Run-Id": "the run that serves the call",
    "Location": "the path of the run",
    "Link": "the next page, if there is one (RFC 8288)",
    "Vary": "what else the answer depends on",
    "Preference-Applied": "the preferences that were used (RFC 7240)",
    "WWW-Authenticate": "how to authenticate",
    "Retry-After": "seconds after which to try again",
    "X-Delivery-Id": "the id of the refusal's record",
    "Set-Cookie": "the session",
    "ETag": "the version of the document",
}
_INFO = {
    "title": "sync-staging",
    "version": __version__,
    "description": "Keeps every staging environment of a CrafterCMS site equal to its live one.",
}

_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "a token of the configuration, or made by `sync-staging token new`",
    },
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "the token as the password, with any user name",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "sync-staging",
        "description": "a session of the page; by TLS its name begins with `__Host-`",
    },
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    models = {model for each in routes for model in _models(each)}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(each, "validation") for each in ordered], ref_template=SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"password": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": _SECURITY,
        },
    }


def _models(route: Route) -> Iterator[type[BaseModel]]:
    if route.body is not None:
        yield route.body
    for answer in route.answers:
        yield from filter(None, answer.content.values())


def _operation(route: Route) -> dict[str, Any]:
    named = re.findall(r"\{(\w+)\}", route.path)
    found: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": [*map(_in_path, named), *map(_parameter, route.parameters)],
        "responses": {str(answer.status.value): _answer(answer) for answer in route.answers},
    }
    content: dict[str, Any] = {media_type: {"schema": {}} for media_type in route.bodies}
    if route.body is not None:
        content[JSON] = {"schema": _schema(route.body)}
    if route.body is not None and route.form:
        content[FORM] = content[JSON]
    if content:
        found["requestBody"] = {"required": route.body_required, "content": content}
    if route.needs in {SIGNATURE, NOTHING}:
        found["security"] = []
    return found


def _in_path(name: str) -> dict[str, Any]:
    what, example = _PATH_PARAMETERS[name]
    parameter = Parameter(name, "path", what, {"type": "string", "minLength": 1})
    return {**_parameter(parameter), "required": True, "example": example}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.what,
        "schema": dict(parameter.schema),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.what}
    if answer.content:
        found["content"] = {
            media_type: {"schema": {"type": "string"} if model is None else _schema(model)}
            for media_type, model in answer.content.items()
        }
    if answer.headers:
        found["headers"] = {
            name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in answer.headers
        }
    return found


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS.format(model=model.__name__)}


class Description(View):
    """This document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


class OpenApi:
    """Handles `GET /openapi.json`: the same bytes for everybody, made when they are first asked for."""

    def __init__(self, routes: Callable[[], Sequence[Route]]) -> None:
        self._routes = routes

    @cached_property
    def _body(self) -> bytes:
        return json.dumps(document(self._routes()), ensure_ascii=False).encode()

    @cached_property
    def _tag(self) -> str:
        return hashlib.sha256(self._body).hexdigest()[:32]

    @Route(
        "GET",
        "/openapi.json",
        "describe",
        "Probes",
        (
            answered(Description, "The description.", headers=("ETag",)),
            Answer(HTTPStatus.NOT_MODIFIED, "It is the one that If-None-Match names.", {}, ("ETag",)),
            *FEWER,
        ),
        needs=NOTHING,
    )
    async def describe(self, request: web.Request) -> web.StreamResponse:
        """Describe every route (OpenAPI 3.1)."""
        known = request.if_none_match or ()
        headers = {"ETag": f'"{self._tag}"', "Cache-Control": "no-cache"}
        if any(each.value in {self._tag, "*"} for each in known):
            return web.Response(status=304, headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
        response.content_length = len(self._body)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._sent(request, response)
        await response.write_eof()
        return response

    async def _sent(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send the description in pieces: a client that does not read must not keep a copy in memory."""
        try:
            for start in range(0, len(self._body), PIECE):
                await response.write(self._body[start : start + PIECE])
                await request.writer.drain()
        except ConnectionError as error:
            raise ConnectionResetError from error  # aiohttp has several errors for a client that has gone.
