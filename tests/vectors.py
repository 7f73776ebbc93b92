"""The vectors of `samples/signatures.json`, in this program's words."""

import base64
import json
from pathlib import Path
from typing import Any

from listener.signatures import SCHEMES, Form, Headers, Request

SAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "samples" / "signatures.json").read_text()
)

_SCHEMES = {
    "gitlab-token": "gitlab",
    "gitlab-signing": "gitlab",
    "bitbucket-cloud": "bitbucket",
    "bitbucket-dc": "bitbucket",
    "standard-webhooks-ed25519": "standard-webhooks",
    "hmac-generic": "hmac",
}


def scheme_of(vector: dict[str, Any]) -> str:
    name: str = vector["scheme"]
    return _SCHEMES.get(name, name)


OURS = [vector for vector in SAMPLES if scheme_of(vector) in SCHEMES]


def secrets_of(vector: dict[str, Any]) -> list[str]:
    return list(vector.get("secrets", [vector["secret"]]))


def refused_by(vector: dict[str, Any]) -> str:
    """The stage that must refuse a vector; empty for one that is accepted."""
    return "signature" if vector.get("stage") == "ping" else vector.get("stage", "")


def hmac_of(vector: dict[str, Any]) -> dict[str, Any] | None:
    """The setting `hmac` of a hook for a vector."""
    config = dict(vector.get("config", {}))
    if not config:
        return None
    del config["algorithm"]
    config.pop("header_format", None)
    return {
        "header": config.pop("signature_header"),
        "signed": config.pop("template"),
        **{key: value for key, value in config.items() if value != ""},
    }


def form_of(vector: dict[str, Any]) -> Form | None:
    config = hmac_of(vector)
    return None if config is None else Form(**config)


def headers_of(vector: dict[str, Any]) -> Headers:
    pairs = vector["headers_raw"] if "headers_raw" in vector else vector["headers"].items()
    return [(name.encode(), value.encode("utf-8")) for name, value in pairs]


def body_of(vector: dict[str, Any]) -> bytes:
    if "body_b64" in vector:
        return base64.b64decode(vector["body_b64"])
    body: str = vector["body_utf8"]
    return body.encode()


def request_of(vector: dict[str, Any]) -> Request:
    return Request(headers_of(vector), body_of(vector))
