"""Where the configuration lies, where the listener answers, and the token to show it."""

import argparse
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import Fingerprint
from pydantic import ValidationError

from listener.cli.failures import UsageError
from listener.cli.options import CA_VARIABLE, CONFIG_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE
from listener.config.address import DEFAULT_PATH
from listener.config.file import read
from listener.config.references import Surroundings, resolve
from listener.config.server import ServerSection
from listener.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8787"

_TOKEN_REMEDY = (
    f"put it into the variable {TOKEN_VARIABLE}, or into a file and name that with --token-file; "
    "sync-staging token new makes one"
)


def config_path(arguments: argparse.Namespace) -> Path:
    """Return the path of the configuration file."""
    return _named_config(arguments) or DEFAULT_PATH


def url(arguments: argparse.Namespace) -> str:
    """Return the listener's address; raise `UsageError`, or `ConfigurationError` for a file that was named.

    Only the section `server` of the configuration is read: who asks the listener may not read its secrets.
    """
    said = _named_url(arguments)
    if said:
        return _checked(said)
    server = _configured(arguments)
    if server is None:
        return DEFAULT_URL
    return of_server(server.host, server.port, "http" if server.tls is None else "https")


def trust(arguments: argparse.Namespace) -> ssl.SSLContext | Fingerprint | bool:
    """Return by what an https listener is known: what was named, the configured certificate, the system.

    Where the address is read from the configuration, so is the certificate: its name is not loopback's.
    """
    named: Path | str | None = arguments.ca or os.environ.get(CA_VARIABLE)
    try:
        if named:
            return ssl.create_default_context(cafile=named)
        server = None if _named_url(arguments) else _configured(arguments)
        if server is None or server.tls is None:
            return True
        named = server.tls.certificate
        der = ssl.PEM_cert_to_DER_cert(_first_certificate(Path(named).read_text(encoding="ascii")))
        return Fingerprint(hashlib.sha256(der).digest())
    except (OSError, ValueError):
        raise UsageError(
            f"The certificate {named} can't be read.",
            remedy="name a file in PEM with --ca, or let the caller read the configured one",
        ) from None


def _first_certificate(pem: str) -> str:
    """Return the certificate itself, without those that signed it."""
    before, end, _ = pem[pem.index(ssl.PEM_HEADER) :].partition(ssl.PEM_FOOTER)
    return before + end


def of_server(host: str, port: int, scheme: str = "http") -> str:
    """Return the address at which a listener with this configuration is reached from its own machine."""
    if port == 0:
        raise UsageError(
            "server.port is 0, so the listener took a free port.", remedy="name its address with --url"
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 (IPv4)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def token(arguments: argparse.Namespace) -> str:
    """Return the API token; raise `UsageError` if there is none."""
    if arguments.token_file is None:
        text = os.environ.get(TOKEN_VARIABLE, "")
    else:
        text = _token_in(arguments.token_file)
    text = text.strip()
    if not text:
        raise UsageError("There is no API token.", remedy=_TOKEN_REMEDY)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise UsageError("The API token is no single word of ASCII characters.", remedy=_TOKEN_REMEDY)
    return text


def _named_config(arguments: argparse.Namespace) -> Path | None:
    """Return the configuration file that the caller named."""
    variable = os.environ.get(CONFIG_VARIABLE)
    named: Path | None = arguments.config
    return named or (Path(variable) if variable else None)


def _named_url(arguments: argparse.Namespace) -> str | None:
    said: str | None = arguments.url or os.environ.get(URL_VARIABLE)
    return said


def _configured(arguments: argparse.Namespace) -> ServerSection | None:
    """Return the configuration's section `server`; None if no file was named and none is there."""
    named = _named_config(arguments)
    try:
        return _server(named or DEFAULT_PATH)
    except ConfigurationError:
        if named is not None:
            raise
        return None


def _server(path: Path) -> ServerSection:
    resolution = resolve(
        {"server": read(path).get("server", {})}, Surroundings(path.absolute().parent, os.environ)
    )
    try:
        return ServerSection.model_validate(resolution.tree["server"])
    except ValidationError:
        raise ConfigurationError(
            f"{path}: the section server can't be used.", remedy="sync-staging check-config tells why"
        ) from None


def _checked(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not text.isprintable():
        raise UsageError(
            "The listener's address is no plain http or https URL.",
            remedy=f"write one such as {DEFAULT_URL}, without user and query",
        )
    return text.rstrip("/")


def _token_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"The token file {path} can't be read: {why}.", remedy=_TOKEN_REMEDY) from error
