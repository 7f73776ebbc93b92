"""Where the configuration is, where the listener answers, and which token to send."""

import argparse
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from listener.cli.failures import UsageError
from listener.cli.options import CA_VARIABLE, CONFIG_VARIABLE, DEFAULT_PATH, TOKEN_VARIABLE, URL_VARIABLE
from listener.cli.transport import Trust
from listener.config.address import DEFAULT_HOST, DEFAULT_PORT, Address, read_server
from listener.errors import ConfigurationError

DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"

_TOKEN_REMEDY = (
    f"set the variable {TOKEN_VARIABLE}, or write the token into a file and name it with --token-file; "
    "sync-staging token new makes a token"
)


def config_path(arguments: argparse.Namespace) -> Path:
    """Return the path of the configuration file."""
    return _named_config(arguments) or Path(DEFAULT_PATH)


class Listener(NamedTuple):
    """Where the listener answers, and how it proves who it is."""

    url: str
    trust: Trust | None = None
    """None for plain HTTP."""


def listener(arguments: argparse.Namespace) -> Listener:
    """Return the listener to talk to; raise `UsageError`, or `ConfigurationError` for a file that was named.

    Only the section `server` of the configuration is read, once: callers who can't read the listener's
    secrets can talk to it all the same.
    """
    url = arguments.url or os.environ.get(URL_VARIABLE)
    if url:
        return _reached(_checked(url), arguments)
    server = _configured(arguments)
    if server is None:
        return _reached(DEFAULT_URL, arguments)
    scheme = "http" if server.certificate is None else "https"
    return _reached(url_of(server.host, server.port, scheme), arguments, server.certificate)


def _reached(url: str, arguments: argparse.Namespace, configured: str | None = None) -> Listener:
    """Return the listener at an address, and how an https one proves who it is.

    It does so by the named CA, else by the configured certificate alone (which is seldom issued for
    loopback), else by the system's CAs.
    """
    if not url.startswith("https:"):
        return Listener(url)
    named = arguments.ca or os.environ.get(CA_VARIABLE)
    try:
        if named or configured is None:
            return Listener(url, Trust(ssl.create_default_context(cafile=named or None)))
        return Listener(url, _pinned(Path(configured)))
    except (OSError, ValueError):
        raise UsageError(
            f"The certificate {named or configured} can't be read.",
            remedy="name a file in PEM with --ca, or give this user permission to read the configured one",
        ) from None


def _pinned(certificate: Path) -> Trust:
    """Return the trust in one certificate. Its name and its signer do not matter."""
    der = ssl.PEM_cert_to_DER_cert(_first_certificate(certificate.read_text(encoding="ascii")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return Trust(context, hashlib.sha256(der).digest())


def _first_certificate(pem: str) -> str:
    """Return the first certificate of a chain: the listener's own."""
    before, end, _ = pem[pem.index(ssl.PEM_HEADER) :].partition(ssl.PEM_FOOTER)
    return before + end


def own(path: Path) -> Listener:
    """Return the listener that a configuration file describes; raise `ConfigurationError` or `UsageError`."""
    server = read_server(path)
    if server.certificate is None:
        return Listener(url_of(server.host, server.port))
    trust = _pinned(Path(server.certificate))
    return Listener(url_of(server.host, server.port, "https"), trust)


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the address at which a listener with this configuration is reached from its own machine."""
    if port == 0:
        raise UsageError(
            "server.port is 0, so the listener uses a free port.", remedy="name its address with --url"
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 (IPv4)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def token(arguments: argparse.Namespace) -> str:
    """Return the API token; raise `UsageError` if none is given."""
    if arguments.token_file is None:
        text = os.environ.get(TOKEN_VARIABLE, "")
    else:
        text = _token_in(Path(arguments.token_file))
    text = text.strip()
    if not text:
        raise UsageError("No API token is given.", remedy=_TOKEN_REMEDY)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise UsageError("The API token is not one word of ASCII characters.", remedy=_TOKEN_REMEDY)
    return text


def _named_config(arguments: argparse.Namespace) -> Path | None:
    """Return the configuration file that the caller named."""
    if arguments.config is not None:
        return Path(arguments.config)
    variable = os.environ.get(CONFIG_VARIABLE)
    return Path(variable) if variable else None


def _configured(arguments: argparse.Namespace) -> Address | None:
    """Return the address in the configuration; None if no file is named and the default one can't be read."""
    named = _named_config(arguments)
    try:
        return read_server(named or Path(DEFAULT_PATH))
    except ConfigurationError:
        if named is not None:
            raise
        return None


def _checked(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not text.isprintable():
        raise UsageError(
            "The listener's address is not a plain http or https URL.",
            remedy=f"write a URL such as {DEFAULT_URL}, without user and query",
        )
    return text.rstrip("/")


def _token_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"The token file {path} can't be read: {why}.", remedy=_TOKEN_REMEDY) from error
