"""HTTP to one listener, with the standard library alone: an asynchronous client takes longer to import."""

import contextlib
import hashlib
import http.client
import ipaddress
import os
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from listener import __version__
from listener.cli.failures import ListenerUnreachableError

CONNECT_LIMIT = 5.0
"""Seconds to reach the listener."""

_UNREACHABLE_REMEDY = (
    "start it with sync-staging serve, or name another address with --url; sync --local needs none"
)
_CERTIFICATE_REMEDY = (
    "name the certificate, or those that signed it, with --ca, and use the host name that the certificate is "
    "for; a listener shows a renewed certificate within 10 s"
)


class Trust(NamedTuple):
    """How an https listener proves who it is."""

    context: ssl.SSLContext
    fingerprint: bytes | None = None
    """SHA-256 of its certificate. If set, only this certificate is trusted, and its name does not matter."""


class _UntrustedError(Exception):
    """The listener shows another certificate than the pinned one."""


class Transport:
    """Sends requests to one listener. Each has a connection of its own, which can't be stale."""

    def __init__(self, url: str, headers: Mapping[str, str], trust: Trust | None) -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._headers = {"User-Agent": f"sync-staging/{__version__}", "Connection": "close", **headers}
        self._trust = trust
        self._proxy = _proxy_for(self._parts)
        if self._proxy is not None and trust is None:
            self._headers |= _proxy_credentials(self._proxy)

    @property
    def origin(self) -> str:
        """The address without a path."""
        return f"{self._parts.scheme}://{self._parts.netloc}"

    @contextlib.contextmanager
    def request(
        self, method: str, where: str, body: bytes | None, headers: Mapping[str, str], silence: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Lend the response to a request, however long it is; redirects are not followed.

        Raises `ListenerUnreachableError` when the listener can't be reached, sends nothing for `silence`
        seconds, or breaks off.
        """
        try:
            with contextlib.closing(self._connection()) as connection:
                self._connect(connection)
                connection.sock.settimeout(silence)
                connection.request(method, self._target(where), body, {**self._headers, **headers})
                with connection.getresponse() as response:
                    yield response
        except (ssl.SSLCertVerificationError, _UntrustedError) as error:
            raise ListenerUnreachableError(
                f"The certificate of {self.origin} is not trusted.", remedy=_CERTIFICATE_REMEDY
            ) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ListenerUnreachableError(
                f"The listener at {self.url} does not answer: {_cause(error)}.", remedy=_UNREACHABLE_REMEDY
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        at = (host, port) if self._proxy is None else (self._proxy.hostname or "", self._proxy.port)
        if self._trust is None:
            return http.client.HTTPConnection(*at, timeout=CONNECT_LIMIT)
        connection = http.client.HTTPSConnection(*at, timeout=CONNECT_LIMIT, context=self._trust.context)
        if self._proxy is not None:
            connection.set_tunnel(host, port, _proxy_credentials(self._proxy))
        return connection

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Connect, and compare the certificate before anything is sent: a request carries the token."""
        connection.connect()
        if self._trust is None or self._trust.fingerprint is None:
            return
        tls = connection.sock
        shown = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLSocket) else None
        if hashlib.sha256(shown or b"").digest() != self._trust.fingerprint:
            raise _UntrustedError

    def _target(self, where: str) -> str:
        target = quote(self._parts.path, safe="/%:@!$&'()*+,;=~") + where
        through_proxy = self._proxy is not None and self._trust is None
        return f"{self.origin}{target}" if through_proxy else target


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    """Return the proxy of the environment (`http_proxy`, `https_proxy`, `no_proxy`) for an address."""
    host = parts.hostname or ""
    if _loopback(host) or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    environment = import_module("urllib.request")  # takes its time, and hardly anybody needs it
    proxy = environment.getproxies_environment().get(parts.scheme)
    if not proxy or environment.proxy_bypass_environment(parts.netloc.rpartition("@")[2]):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


def _cause(error: Exception) -> str:
    """Return why there is no answer, in a few words; none of the request's own text."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, UnicodeError):
        return "its name is not a host name"
    if isinstance(error, ConnectionError | http.client.IncompleteRead):
        return (isinstance(error, OSError) and error.strerror) or "the connection broke off"
    if isinstance(error, http.client.HTTPException):
        return "the answer is not HTTP"
    return (isinstance(error, OSError) and error.strerror) or "the connection failed"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
