"""The listener's own TLS: the pair of certificate and key, and what is wrong with one."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from listener.config.problems import Problem, exposed
from listener.config.references import Resolution, Surroundings, find
from listener.errors import ConfigurationError

_REASONS: Mapping[str, tuple[str, str]] = {
    "KEY_VALUES_MISMATCH": ("the key is not that of the certificate", "name the key that it was made with"),
    "NO_START_LINE": ("it has no PEM", "write PEM: the certificate first, then those that signed it"),
}
"""OpenSSL's reason, in words, and what to do."""


class _PasswordError(Exception):
    """The key wants a password, and nobody is there to type it."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context with this pair; raise `ConfigurationError` for one that can't be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    fault = _fault(context, certificate, key)
    if fault:
        raise ConfigurationError(f"server.tls: can't be used: {fault[0]}.", remedy=fault[1])
    return context


def _fault(context: ssl.SSLContext, certificate: Path, key: Path) -> tuple[str, str] | None:
    """Load a pair into a context; return what is wrong with it and what to do, or None."""
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _PasswordError:
        return "the key wants a password", "write it without one: openssl pkey -in OLD -out NEW"
    except ssl.SSLError as error:
        said = error.reason or "no PEM"
        return _REASONS.get(said, (f"OpenSSL says {said}", "write a certificate and its key as PEM"))
    except (OSError, ValueError):
        return (
            "one of the files can't be read",
            "write the paths of both, and let the listener's user read them",
        )
    return None


def _no_password() -> NoReturn:
    raise _PasswordError


def broken_tls(resolution: Resolution, surroundings: Surroundings) -> Iterator[Problem]:
    """Yield what is wrong with the certificate and its key. No path is shown: it may be the key itself."""
    for location, tls in find(resolution.tree, "server.tls"):
        if tls is None:
            continue
        files = [tls.get(name) if isinstance(tls, dict) else None for name in ("certificate", "key")]
        if not all(isinstance(text, str) for text in files):
            continue
        if resolution.unresolved & {(*location, "certificate"), (*location, "key")}:
            continue
        certificate, key = (Path(text) for text in files if text is not None)
        fault = _fault(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
        if fault:
            yield Problem(location, f"can't be used: {fault[0]}; {fault[1]}")
        elif surroundings.exposed(key, key.stat().st_mode):
            yield exposed((*location, "key"), key)
