"""Where the configuration lies, where the listener answers, and the token to show it."""

import argparse
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from listener.cli.failures import UsageError
from listener.cli.options import CONFIG_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE
from listener.config import DEFAULT_PATH
from listener.config.file import read
from listener.config.model import ServerSection
from listener.config.references import Surroundings, resolve
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
    said: str | None = arguments.url or os.environ.get(URL_VARIABLE)
    if said:
        return _checked(said)
    named = _named_config(arguments)
    try:
        return of_server(*_server(named or DEFAULT_PATH))
    except ConfigurationError:
        if named is not None:
            raise
        return DEFAULT_URL


def of_server(host: str, port: int) -> str:
    """Return the address at which a listener with this configuration is reached from its own machine."""
    if port == 0:
        raise UsageError(
            "server.port is 0, so the listener took a free port.", remedy="name its address with --url"
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 (IPv4)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


def _server(path: Path) -> tuple[str, int]:
    resolution = resolve(
        {"server": read(path).get("server", {})}, Surroundings(path.absolute().parent, os.environ)
    )
    try:
        section = ServerSection.model_validate(resolution.tree["server"])
    except ValidationError:
        raise ConfigurationError(
            f"{path}: the section server can't be used.", remedy="sync-staging check-config tells why"
        ) from None
    return section.host, section.port


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
